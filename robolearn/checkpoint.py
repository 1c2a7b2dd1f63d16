"""Checkpoints: a folder of safetensors and JSON with a manifest of hashes. Nothing in it can execute.

model.safetensors     weights (the EMA where training kept one); large ones are cut into
                      model-00001-of-0000N.safetensors with model.safetensors.index.json
config.json           the resolved run config; names, never class paths
spec.json             raw observations, action, rate, history and chunk
transforms.json       the fitted pipeline …
stats.safetensors     … and what it learned from the data
manifest.json         SHA-256 and size of every file, schema version, versions, git revision
training_state/       raw weights, EMA, optimizer and step, for resuming
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from robolearn.errors import CheckpointError, RobolearnError
from robolearn.files import inside, plain_json, publish_folder, read_json, sha256
from robolearn.provenance import git_revision, versions
from robolearn.registry import configure
from robolearn.spec import Spec
from robolearn.transforms import Pipeline

__all__ = [
    "SCHEMA_VERSION",
    "Checkpoint",
    "TrainingState",
    "borrowed",
    "complete",
    "find",
    "folders",
    "latest_valid",
    "load",
    "load_training_state",
    "load_weights",
    "prune",
    "save",
    "verify",
]

SCHEMA_VERSION = 1
SHARD_BYTES = 4 << 30
MODEL_FILES = ("config.json", "spec.json", "transforms.json", "stats.safetensors")
STATE_FILES = ("weights", "ema", "optimizer")
_MANIFEST = "manifest.json"
_STATE = "training_state"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_NAME = re.compile(r"step_(\d{9})(\.old)?")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingState:
    """What resuming needs beside the model: raw trainable weights, EMA, optimizer, counters."""

    step: int
    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    ema: Mapping[str, torch.Tensor] = field(default_factory=dict)
    counters: Mapping[str, Any] = field(default_factory=dict)  # JSON data


@dataclass(frozen=True)
class Checkpoint:
    """A policy as it lies on disk, checked."""

    config: Mapping[str, Any]
    spec: Spec
    pipeline: Pipeline
    weights: Mapping[str, torch.Tensor]
    step: int = 0
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> torch.nn.Module:
        """Return the policy with its weights; raises `CheckpointError` naming every difference."""
        config = self.policy_config()
        spec = self.pipeline.transform_spec(self.spec)
        with torch.random.fork_rng(devices=[]):
            # Shapes first, without memory: a config must not allocate what its weights do not have.
            with torch.device("meta"):
                empty = config.build(spec)
            elsewhere = borrowed(empty)
            own = {name: value for name, value in empty.state_dict().items() if name not in elsewhere}
            check_weights(own, self.weights)
            policy = config.build(spec)
        load_weights(policy, complete(policy, self.weights))
        return policy.eval()

    def with_policy(self, options: Mapping[str, Any]) -> "Checkpoint":
        """Return the checkpoint with other policy options, at any depth; `build` refuses those that change weights."""
        return replace(self, config={**self.config, "policy": _over(self.config["policy"], options)})

    def policy_config(self) -> Any:
        """Return the frozen config of the policy, looked up by its registered name."""
        plain = self.config.get("policy")
        if not isinstance(plain, Mapping) or not isinstance(plain.get("name"), str):
            raise CheckpointError("The checkpoint's config names no policy.", expected="policy: {name: …, …}")
        return configure("policy", plain, "policy")


def save(folder: Path, checkpoint: Checkpoint, state: TrainingState | None = None) -> Path:
    """Write `checkpoint` as `folder`, atomically and durably; weights that are not finite are refused."""
    check_finite(checkpoint.weights, "weights")
    if state is not None:
        check_finite(state.weights, "raw weights")
        check_finite(state.optimizer, "optimizer state")
    temporary = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    transforms, stats = checkpoint.pipeline.to_plain()
    _write_weights(temporary, checkpoint.weights)
    _write_tensors(temporary / "stats.safetensors", stats)
    (temporary / "config.json").write_bytes(plain_json(checkpoint.config))
    (temporary / "spec.json").write_bytes(plain_json(checkpoint.spec.to_dict()))
    (temporary / "transforms.json").write_bytes(plain_json(transforms))
    if state is not None:
        _write_state(temporary / _STATE, state)
    _write_manifest(temporary, checkpoint.step)
    publish_folder(temporary, folder)
    return folder


def load(path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint, or the newest valid one of a run folder.

    Raises `CheckpointError` for anything damaged, missing, unknown or not finite.
    """
    folder = find(path)
    manifest = verify(folder, model_only=True)
    config = read_json(folder / "config.json", CheckpointError)
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{folder / 'config.json'} is not a mapping.", found=type(config).__name__)
    try:
        spec = Spec.from_dict(read_json(folder / "spec.json", CheckpointError))
        plain = read_json(folder / "transforms.json", CheckpointError)
        pipeline = Pipeline.from_plain(plain, _read_tensors(folder / "stats.safetensors"))
        if pipeline.bind(spec) != pipeline:
            raise CheckpointError("The transforms are not bound to the spec.", found=plain, do="save a bound pipeline")
    except CheckpointError:
        raise
    except RobolearnError as error:
        raise CheckpointError(
            f"The checkpoint {folder} does not describe a policy of this version.",
            found=str(error),
            do="use the version that wrote it, or restore its files",
        ) from error
    weights: dict[str, torch.Tensor] = {}
    for name in sorted(manifest["files"]):
        if _WEIGHTS.fullmatch(name):
            weights.update(_read_tensors(folder / name))
    check_finite(weights, "weights")
    return Checkpoint(config, spec, pipeline, weights, int(manifest["step"]), manifest)


def load_training_state(path: str | Path) -> TrainingState:
    """Read and verify what resuming needs; raises `CheckpointError` when it is absent or damaged."""
    folder = find(path)
    manifest = verify(folder)
    if f"{_STATE}/state.json" not in manifest["files"]:
        raise CheckpointError(f"{folder} has no training state.", do="resume from a checkpoint of a training run")
    plain = read_json(folder / _STATE / "state.json", CheckpointError)
    if not isinstance(plain, Mapping) or set(plain) != {"step", "counters"} or plain["step"] != manifest["step"]:
        raise CheckpointError("The training state does not fit its checkpoint.", found=plain, expected="its step")
    tensors = {name: _read_tensors(folder / _STATE / f"{name}.safetensors") for name in STATE_FILES}
    for name, values in tensors.items():
        check_finite(values, name)
    return TrainingState(step=plain["step"], counters=plain["counters"], **tensors)


def verify(folder: Path, model_only: bool = False) -> dict[str, Any]:
    """Return the manifest of `folder` after comparing every file with it.

    `model_only` leaves the training state aside (it may be absent). Raises `CheckpointError`.
    """
    path = folder / _MANIFEST
    manifest = read_json(path, CheckpointError)
    try:
        version, digest, files = manifest["schema_version"], manifest["digest"], manifest["files"]
        content = {key: value for key, value in manifest.items() if key != "digest"}
        whole = digest == _digest(content) and path.read_bytes() == plain_json(manifest)
        listed = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
        int(manifest["step"])
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a manifest.", found=repr(error)) from error
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder} has an unknown schema.", found=version, expected=f"1 to {SCHEMA_VERSION}", do="update robolearn"
        )
    if not whole:
        raise CheckpointError(f"{path} is damaged.", found="its own digest differs", do="use another checkpoint")
    missing = [name for name in MODEL_FILES if name not in listed]
    if missing or not any(_WEIGHTS.fullmatch(name) for name in listed):
        raise CheckpointError(
            f"{path} lacks files.", found=", ".join(missing) or "no weights", expected=", ".join(MODEL_FILES)
        )
    for name, (size, checksum) in listed.items():
        if not (model_only and name.startswith(f"{_STATE}/")):
            _verify_file(inside(folder, name, "A file name", CheckpointError), size, checksum)
    return manifest


def find(path: str | Path) -> Path:
    """Return the checkpoint folder that `path` means: itself, or the newest valid one of a run folder."""
    folder = Path(path)
    if (folder / _MANIFEST).exists():
        return folder
    if not folder.is_dir():
        raise CheckpointError(f"No checkpoint at {folder}.", expected="a checkpoint folder or a run folder")
    return latest_valid(folder)


def folders(run: Path) -> list[Path]:
    """Return the checkpoint folders of a run, oldest first, whether or not they are valid."""
    found = [(match, item) for item in (run / "checkpoints").glob("step_*") if (match := _NAME.fullmatch(item.name))]
    # A folder that was being replaced comes before the one that replaces it.
    return [item for _, item in sorted(found, key=lambda pair: (int(pair[0][1]), pair[0][2] is None))]


def latest_valid(run: Path) -> Path:
    """Return the newest checkpoint of a run whose every file is whole; damaged ones are passed over."""
    problems = []
    for folder in reversed(folders(run)):
        try:
            verify(folder)
        except CheckpointError as error:
            _log.warning("passing over %s: %s", folder, error)
            problems.append(f"{folder.name}: {error.what}")
        else:
            return folder
    raise CheckpointError(
        f"No valid checkpoint in {run}.", found="; ".join(problems) or "none", expected=f"{run}/checkpoints/step_…"
    )


def prune(run: Path, keep: int, milestones: Iterable[int] = ()) -> None:
    """Remove all but the newest `keep` checkpoints and those of the steps `milestones`."""
    wanted = {f"step_{step:09d}" for step in milestones}
    for folder in [item for item in folders(run) if item.name not in wanted][:-keep]:
        shutil.rmtree(folder)
    for stale in (run / "checkpoints").glob(".tmp-*"):
        shutil.rmtree(stale, ignore_errors=True)


def load_weights(module: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy `weights` into `module`, strictly; raises `CheckpointError` naming every difference."""
    check_weights(module.state_dict(), weights)
    module.load_state_dict(dict(weights))


def borrowed(policy: Any) -> frozenset[str]:
    """Return the names of weights that checkpoints of `policy` leave where they are, and name by their hash."""
    names = getattr(policy, "borrowed", None)
    return frozenset(names()) if names else frozenset()


def complete(policy: Any, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return `weights` with those that `policy` borrows; raises `CheckpointError` unless they are the same ones."""
    borrow = getattr(policy, "borrow", None)
    return {**(borrow() if borrow else {}), **weights}


def check_weights(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> None:
    """Raise `CheckpointError` unless `given` has exactly the names, shapes and types of `wanted`."""
    problems = [f"missing {name}" for name in wanted if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in wanted]
    for name in wanted:
        if name in given and given[name].shape != wanted[name].shape:
            problems.append(f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}")
        elif name in given and given[name].dtype != wanted[name].dtype:
            problems.append(f"{name} {given[name].dtype} instead of {wanted[name].dtype}")
    if problems:
        raise CheckpointError("The weights do not fit the policy.", found=_some(problems), do="check policy and spec")


def check_finite(tensors: Mapping[str, torch.Tensor], what: str) -> None:
    """Raise `CheckpointError` naming every tensor that is not finite."""
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"The {what} are not finite.", found=_some(bad), expected="finite numbers")


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    plain = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    try:
        save_file(plain, path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} cannot be written.", found=str(error), do="free the disk, or pick another"
        ) from error
    path.chmod(0o644)  # safetensors writes for the owner only


def _write_weights(folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, value in weights.items():
        size += value.nbytes
        if size > SHARD_BYTES and shards[-1]:
            shards.append({})
            size = value.nbytes
        shards[-1][name] = value
    if len(shards) == 1:
        _write_tensors(folder / "model.safetensors", shards[0])
        return
    files = {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, 1)}
    for file, shard in files.items():
        _write_tensors(folder / file, shard)
    index = {name: file for file, shard in files.items() for name in shard}
    content = {"metadata": {"total_size": sum(value.nbytes for value in weights.values())}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_bytes(plain_json(content))


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is not a safetensors file.", found=str(error)) from error


def _write_state(folder: Path, state: TrainingState) -> None:
    folder.mkdir()
    for name in STATE_FILES:
        _write_tensors(folder / f"{name}.safetensors", getattr(state, name))
    (folder / "state.json").write_bytes(plain_json({"step": state.step, "counters": dict(state.counters)}))


def _write_manifest(folder: Path, step: int) -> None:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    content = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names},
        **_origin(),
    }
    (folder / _MANIFEST).write_bytes(plain_json({**content, "digest": _digest(content)}))


@cache
def _origin() -> dict[str, Any]:
    """Return the versions and revision of this process; asked once, saves are many."""
    return {"versions": versions(), "git_revision": git_revision()}


def _verify_file(path: Path, size: int, checksum: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.", do="use another checkpoint or restore the file")
    found = path.stat().st_size
    if found != size:
        raise CheckpointError(f"{path} is cut or changed.", found=f"{found} bytes", expected=f"{size} bytes")
    if sha256(path) != checksum:
        raise CheckpointError(f"{path} is damaged.", found="another SHA-256", do="use another checkpoint")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(plain_json(content)).hexdigest()


def _over(former: Any, options: Any) -> Any:
    if not isinstance(former, Mapping) or not isinstance(options, Mapping):
        return options
    return {**former, **{key: _over(former.get(key), value) for key, value in options.items()}}


def _some(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" … ({len(names)} in all)" if len(names) > limit else "")
