"""LeRobot's own policies as actors: their network and their processors, behind our observations."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.contracts import Observations
from robolearn.errors import CheckpointError, SpecError, suggest
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.stats import lookup

__all__ = ["LeRobotActor", "is_lerobot", "load_lerobot"]


def is_lerobot(folder: str | Path) -> bool:
    """Return whether `folder` holds a policy as LeRobot writes it, rather than one of ours."""
    names = ("config.json", "model.safetensors")
    return all((Path(folder) / name).is_file() for name in names) and not (Path(folder) / "manifest.json").exists()


def load_lerobot(
    folder: str | Path, rate_hz: float, device: str = "cpu", rename: Mapping[str, str] | None = None
) -> "LeRobotActor":
    """Load the LeRobot policy in `folder`; its checkpoint does not state a rate, so `rate_hz` must.

    `rename` gives its observations other names. Raises `CheckpointError` when the folder holds no LeRobot
    policy and `SpecError` for a name that it does not have.
    """
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    folder = Path(folder)
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise CheckpointError(
            "There is no LeRobot policy.", found=str(folder), expected="config.json and model.safetensors in it"
        )
    kind = json.loads((folder / "config.json").read_text()).get("type", "")
    try:
        policy: Any = get_policy_class(kind).from_pretrained(folder, local_files_only=True)
    except (ValueError, ImportError) as error:
        raise CheckpointError(f"LeRobot cannot load its policy '{kind}'.", found=str(error)) from error
    policy = policy.to(device).eval()
    overrides = {"device_processor": {"device": device}}
    processors = make_pre_post_processors(policy.config, pretrained_path=str(folder), preprocessor_overrides=overrides)
    return LeRobotActor(policy, processors, rate_hz, rename or {})


class LeRobotActor:
    """Histories [n,T,…] and noise in, chunks [n,K,A] out; implements `contracts.Actor`.

    Rows run one at a time, so that what a row gets does not depend on the others. A policy that
    takes its noise as an argument gets ours; any other draws from a generator seeded by ours.
    """

    def __init__(self, policy: Any, processors: tuple[Any, Any], rate_hz: float, rename: Mapping[str, str]):
        self.policy, (self._before, self._after) = policy, processors
        for name in rename:
            if name not in policy.config.input_features:
                raise SpecError(f"The policy has no '{name}'.", expected=suggest(name, policy.config.input_features))
        self._theirs = {rename.get(key, key): key for key in policy.config.input_features}
        self.spec = _spec(policy.config, rate_hz, rename)
        self._has_time = getattr(policy.config, "observation_delta_indices", None) is not None
        self._takes_noise = "noise" in inspect.signature(policy.predict_action_chunk).parameters
        self.noise_shape: tuple[int, ...] = (4,)
        if self._takes_noise:
            rows = getattr(policy.config, "horizon", self.spec.chunk)
            width = getattr(policy.config, "max_action_dim", self.spec.action.dim)
            self.noise_shape = (rows, width)

    def act(self, obs: Observations, noise: np.ndarray, prefix: np.ndarray | None = None) -> np.ndarray:
        """Return chunks [n,K,A] in real units; raises `SpecError` for a prefix, which LeRobot does not take."""
        if prefix is not None:
            raise SpecError("LeRobot's policies take no committed actions.", do="evaluate without a prefix")
        values = {key: np.asarray(lookup(obs, key)) for key in self.spec.observations}
        return np.concatenate(
            [self._act({k: v[i : i + 1] for k, v in values.items()}, noise[i]) for i in range(len(noise))]
        )

    def _act(self, obs: Observations, noise: np.ndarray) -> np.ndarray:
        batch: dict[str, Any] = {}
        for key, feature in self.spec.observations.items():
            value = obs[key] if self._has_time or feature.kind == "text" else obs[key][:, -1]
            name = self._theirs[key]
            if feature.kind == "text":
                batch[name] = [str(text) for text in np.reshape(value, (len(value), -1))[:, -1]]
            elif feature.kind == "image":
                batch[name] = torch.as_tensor(value).movedim(-1, -3).float() / 255
            else:
                batch[name] = torch.as_tensor(np.asarray(value, np.float32))
        seed = int(
            np.frombuffer(np.ascontiguousarray(noise, np.float32).tobytes()[:8].ljust(8, b"\0"), np.uint64)[0] >> 1
        )
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy.reset()
            given = {"noise": torch.as_tensor(noise, dtype=torch.float32)[None]} if self._takes_noise else {}
            chunk = self.policy.predict_action_chunk(self._before(batch), **given)
            return self._after(chunk).cpu().numpy()[:, : self.spec.chunk].astype(np.float32)


def _spec(config: Any, rate_hz: float, rename: Mapping[str, str]) -> Spec:
    observations = {}
    for name, feature in config.input_features.items():
        key = rename.get(name, name)
        if feature.type.name == "VISUAL":
            channels, height, width = feature.shape
            observations[key] = Feature("image", (height, width, channels), "uint8")
        else:
            observations[key] = Feature("signal", tuple(feature.shape))
    chunk = getattr(config, "n_action_steps", None) or getattr(config, "chunk_size", 1)
    return Spec(
        observations,
        ActionSpec(config.output_features["action"].shape[0]),
        rate_hz,
        history=getattr(config, "n_obs_steps", 1),
        chunk=chunk,
    )
