"""HDF5 demonstrations: robomimic and robosuite, LIBERO, ManiSkill, ALOHA.

Which layout a file has is read from its groups. Rates and action kinds come from the recorded
environment arguments where they are, and are asked for by name where they are not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.config import parse
from robolearn.data.files import positive, read_json
from robolearn.data.frames import counters, span
from robolearn.data.hdf5_files import Tree, natural, open_tree, require
from robolearn.data.tables import decode_image
from robolearn.errors import DataError, suggest
from robolearn.spec import ActionKind, ActionSpec, CameraSpec, Feature, Rotation, Spec

__all__ = ["Hdf5Options", "Hdf5Reader", "open_dataset"]

Layout = Literal["", "robomimic", "libero", "maniskill", "aloha"]
_ROBOMIMIC_STATE = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
_LIBERO_STATE = ("ee_states", "gripper_states")


@dataclass(frozen=True)
class Hdf5Options:
    """What the file does not say. `mask` picks the demonstrations of a robomimic filter key."""

    layout: Layout = ""
    rate_hz: float | None = None
    state: tuple[str, ...] = ()  # observations that are joined into observation.state
    mask: str = ""
    action_kind: ActionKind = ""
    rotation: Rotation = ""
    task: str = ""


@dataclass(frozen=True)
class _Episode:
    file: int
    group: str
    length: int


def open_dataset(path: Path, options: Mapping[str, Any]) -> "Hdf5Reader":
    """Open one HDF5 file, or a folder of one file per episode."""
    return Hdf5Reader(path, parse(Hdf5Options, options, where="data"))


class Hdf5Reader:
    """An `EpisodeSource` over HDF5 demonstrations."""

    def __init__(self, path: Path, options: Hdf5Options | None = None):
        self.path, self.options = Path(path), options or Hdf5Options()
        names = sorted(self.path.glob("*.hdf5"), key=lambda p: natural(p.stem)) if self.path.is_dir() else [self.path]
        if not names:
            raise DataError(f"{path} holds no .hdf5 file.", do="check the dataset's path")
        self._trees = [open_tree(name) for name in names]
        self.layout = self.options.layout or _layout(self._trees[0])
        self._episodes = [episode for number in range(len(names)) for episode in self._find(number)]
        if not self._episodes:
            raise DataError(f"{path} holds no demonstration.", found=self.layout)
        self._columns = self._map(self._episodes[0])
        for episode in self._episodes:
            self._check(episode)
        self._lengths = np.array([episode.length for episode in self._episodes], np.int64)
        self.spec = self._spec()

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that `read` knows."""
        return (*self._columns, "task", "timestamp", "frame_index", "episode_index")

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys` of one episode."""
        start, stop = span(self._lengths, episode, start, stop, self.path)
        item = self._episodes[episode]
        made = counters(episode, start, stop, self.spec.rate_hz)
        if "task" in keys:
            made["task"] = np.full(stop - start, self.task(episode))
        return {key: made[key] if key in made else self._column(item, key, start, stop) for key in keys}

    def task(self, episode: int) -> str:
        """Return the instruction of one episode, "" when there is none."""
        if self.options.task or self.layout != "libero":
            return self.options.task or str(self._episode_facts(episode).get("lang", ""))
        tree = self._trees[self._episodes[episode].file]
        return str(_json(tree.attributes("data").get("problem_info")).get("language_instruction", "")).strip('"')

    def metadata(self, episode: int) -> dict[str, Any]:
        """Return what robosuite recorded about an episode, without its instruction."""
        return {key: value for key, value in self._episode_facts(episode).items() if key != "lang"}

    def _episode_facts(self, episode: int) -> dict[str, Any]:
        item = self._episodes[episode]
        return _json(self._trees[item.file].attributes(item.group).get("ep_meta"))

    def _find(self, file: int) -> list[_Episode]:
        tree = self._trees[file]
        if self.layout == "aloha":
            groups, action = [""], "action"
        elif self.layout == "maniskill":
            groups, action = [name for name in tree.children("") if name.startswith("traj_")], "actions"
        else:
            groups, action = [f"data/{name}" for name in tree.children("data")], "actions"
            if self.options.mask:
                name = f"mask/{self.options.mask}"
                if name not in tree.datasets:
                    raise DataError(
                        f"{tree.path} has no filter key.", expected=suggest(self.options.mask, tree.children("mask"))
                    )
                kept = {bytes(value).decode() for value in tree.read(name)}
                groups = [group for group in groups if group.split("/")[1] in kept]
        result = []
        for group in groups:
            name = f"{group}/{action}".lstrip("/")
            require(tree.datasets, name, tree.path)
            result.append(_Episode(file, group, tree.shape(name)[0]))
        return result

    def _map(self, episode: _Episode) -> dict[str, tuple[str, ...]]:
        """Return which datasets (below the episode's group) make up each key."""
        tree, prefix = self._trees[episode.file], f"{episode.group}/" if episode.group else ""
        names = [name.removeprefix(prefix) for name in tree.datasets if name.startswith(prefix)]
        folder = "observations/" if self.layout == "aloha" else "obs/"
        columns: dict[str, tuple[str, ...]] = {"action": ("action",) if self.layout == "aloha" else ("actions",)}
        default = {"libero": _LIBERO_STATE, "robomimic": _ROBOMIMIC_STATE, "aloha": ("qpos",)}.get(self.layout, ())
        state = self.options.state or default
        if state and all(f"{folder}{name}" in names for name in state):
            columns["observation.state"] = tuple(f"{folder}{name}" for name in state)
        for name in names:
            if not name.startswith(folder):
                continue
            short = name.removeprefix(folder).replace("/", ".").removeprefix("images.").replace("sensor_data.", "")
            pixels = len(tree.shape(prefix + name)) == 4 or name.startswith("observations/images/")
            if pixels:
                camera = short.removesuffix("_image").removesuffix("_rgb").removesuffix(".rgb")
                columns[f"observation.images.{camera}"] = (name,)
            elif short == "object":
                columns["observation.environment_state"] = (name,)
            elif short not in state:
                columns[f"observation.{short}"] = (name,)
        if "obs" in names:
            columns["observation.state"] = ("obs",)
        extras = {"rewards": "next.reward", "dones": "next.done", "success": "next.success", "states": "env_state"}
        columns |= {key: (name,) for name, key in extras.items() if name in names}
        if not any(key.startswith("observation") for key in columns) and "env_state" in columns:
            columns["observation.environment_state"] = columns["env_state"]  # raw robosuite files have nothing else
        return columns

    def _check(self, episode: _Episode) -> None:
        tree, first = self._trees[episode.file], self._episodes[0]
        for key, names in self._columns.items():
            for name in names:
                full = f"{episode.group}/{name}".lstrip("/")
                require(tree.datasets, full, tree.path)
                shape = tree.shape(full)
                wanted = self._trees[first.file].shape(f"{first.group}/{name}".lstrip("/"))[1:]
                if len(shape) < 1 or (shape[1:] != wanted and not self._compressed(key)):
                    raise DataError(f"{tree.path}: {full} has another shape.", found=shape[1:], expected=wanted)
                if shape[0] not in (episode.length, episode.length + 1):
                    raise DataError(f"{tree.path}: {full} has another length.", found=shape[0], expected=episode.length)

    def _compressed(self, key: str) -> bool:
        return self.layout == "aloha" and key.startswith("observation.images.") and len(self._raw_shape(key)) == 2

    def _raw_shape(self, key: str) -> tuple[int, ...]:
        first = self._episodes[0]
        return self._trees[first.file].shape(f"{first.group}/{self._columns[key][0]}".lstrip("/"))

    def _column(self, episode: _Episode, key: str, start: int, stop: int) -> np.ndarray:
        if key not in self._columns:
            raise DataError(f"No key '{key}' in {self.path}.", expected=suggest(key, self.keys))
        tree = self._trees[episode.file]
        parts = [tree.read(f"{episode.group}/{name}".lstrip("/"), start, stop) for name in self._columns[key]]
        if key.startswith("observation.images."):
            if self._compressed(key):
                shape = self.spec.observations[key].shape
                where = f"{tree.path}: {self._columns[key][0]}"
                return np.stack([decode_image(row.tobytes(), shape, where) for row in parts[0]])
            return parts[0].astype(np.uint8, copy=False)
        if len(parts) > 1:
            return np.concatenate([part.reshape(len(part), -1) for part in parts], 1).astype(np.float32)
        return parts[0].astype(np.float32) if parts[0].dtype.kind == "f" else parts[0]

    def _spec(self) -> Spec:
        first = self._episodes[0]
        tree = self._trees[first.file]
        facts = _facts(self.layout, tree)
        features = {}
        for key, names in self._columns.items():
            if not key.startswith("observation"):
                continue
            shapes = [tree.shape(f"{first.group}/{name}".lstrip("/"))[1:] for name in names]
            if key.startswith("observation.images."):
                shape = self._first_picture(key) if self._compressed(key) else shapes[0]
                camera = CameraSpec(up="down" if self.layout == "libero" else "up")
                features[key] = Feature("image", shape, "uint8", camera=camera)
            else:
                shape = shapes[0] if len(shapes) == 1 else (sum(int(np.prod(s)) for s in shapes),)
                features[key] = Feature("signal", shape)
        if self.task(0):
            features["task"] = Feature("text", dtype="str")
        rate = self.options.rate_hz or facts.get("rate_hz")
        if rate is None:
            raise DataError(f"{self.path} does not say its rate.", do="give it: data.options.rate_hz=…")
        return Spec(
            features,
            ActionSpec(
                self._raw_shape("action")[1],
                self.options.action_kind or facts.get("kind", ""),
                rotation=self.options.rotation or facts.get("rotation", ""),
                gripper=facts.get("gripper", ""),
            ),
            rate_hz=positive(rate, f"{self.path}: rate_hz"),
        )

    def _first_picture(self, key: str) -> tuple[int, int, int]:
        import cv2

        row = self._trees[0].read(self._columns[key][0], 0, 1)[0]
        frame = cv2.imdecode(np.frombuffer(row.tobytes(), np.uint8), cv2.IMREAD_COLOR)
        if frame is None:
            raise DataError(f"{self.path}: {self._columns[key][0]} holds no JPEG pictures.")
        return frame.shape[0], frame.shape[1], 3


def _layout(tree: Tree) -> Layout:
    if "problem_info" in tree.attributes("data") or "bddl_file_name" in tree.attributes("data"):
        return "libero"
    if "data" in tree.groups:
        return "robomimic"
    if any(name.startswith("traj_") for name in tree.groups):
        return "maniskill"
    if "action" in tree.datasets and "observations" in tree.groups:
        return "aloha"
    raise DataError(
        f"{tree.path} has no known layout.",
        found=", ".join(tree.children(""))[:120],
        expected="robomimic, LIBERO, ManiSkill or ALOHA",
    )


def _facts(layout: Layout, tree: Tree) -> dict[str, Any]:
    if layout == "aloha":
        return {"rate_hz": 50.0, "kind": "joint_position"}
    if layout == "maniskill":
        sidecar = tree.path.with_suffix(".json")
        if not sidecar.exists():
            return {}
        kwargs = read_json(sidecar).get("env_info", {}).get("env_kwargs", {})
        mode = str(kwargs.get("control_mode", ""))
        kinds = {"pd_joint_pos": "joint_position", "pd_joint_delta_pos": "joint_delta", "pd_ee_delta_pose": "ee_delta"}
        return {"kind": kinds.get(mode, ""), "rate_hz": kwargs.get("control_freq")}
    arguments = _json(tree.attributes("data").get("env_args")) or _json(tree.attributes("data").get("env_info"))
    kwargs = arguments.get("env_kwargs", arguments)
    facts: dict[str, Any] = {"rate_hz": kwargs.get("control_freq", 20.0 if layout == "libero" else None)}
    text = json.dumps(kwargs.get("controller_configs", {}))
    if "OSC_POSE" in text or layout == "libero":
        facts |= {"kind": "ee_delta", "rotation": "axis_angle", "gripper": "positive_closes"}
    return facts


def _json(text: Any) -> dict[str, Any]:
    try:
        data = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
