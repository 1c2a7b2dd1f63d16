"""Diffusion Policy replay buffers: zarr v2 in a folder or zip, episodes concatenated along time.

`data/<key>` are (T, …) arrays, `meta/episode_ends` their cumulative ends. What the arrays mean is not
stored: known layouts are recognised (Push-T), others are described by options.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.config import parse
from robolearn.data.files import positive
from robolearn.data.frames import counters, span
from robolearn.data.zarr_v2 import Array, open_arrays
from robolearn.errors import DataError, suggest
from robolearn.spec import ActionKind, ActionSpec, Feature, Rotation, Spec

__all__ = ["Column", "ZarrOptions", "ZarrReader", "open_dataset"]


@dataclass(frozen=True)
class Column:
    """Where one key comes from: an array, and optionally columns [start, stop) of its flattened frame.

    `join` names arrays whose columns follow those of `array`.
    """

    array: str
    columns: tuple[int, int] | None = None
    join: tuple[str, ...] = ()
    unit: str = ""
    frame: str = ""
    names: tuple[str, ...] = ()
    observed: bool = True  # False: readable, but no observation of the spec


@dataclass(frozen=True)
class ZarrOptions:
    """What the arrays mean. A known layout needs none of it; `rate_hz` is required for any other."""

    layout: Literal["", "pusht", "umi"] = ""
    rate_hz: float | None = None
    keys: Mapping[str, Column] = field(default_factory=dict)
    action_kind: ActionKind = ""
    action_unit: str = ""
    rotation: Rotation = ""
    task: str = ""


_UMI_HZ = 59.94  # a GoPro's rate
_XY = ("x", "y")
_KEYPOINTS = tuple(f"keypoint{i}_{axis}" for i in range(9) for axis in _XY)
_PUSHT = ZarrOptions(
    layout="pusht",
    rate_hz=10.0,
    keys={
        "observation.state": Column("state", (0, 2), (), "px", "pusht", ("agent_x", "agent_y")),
        "observation.environment_state": Column("keypoint", (0, 18), (), "px", "pusht", _KEYPOINTS),
        "observation.images.top": Column("img"),
        "action": Column("action", None, (), "px", "pusht", ("target_x", "target_y")),
        "block_pose": Column("state", (2, 5), (), "", "pusht", ("block_x_px", "block_y_px", "block_angle_rad"), False),
        "n_contacts": Column("n_contacts", observed=False),
    },
    action_kind="ee_pose",
    action_unit="px",
    rotation="none",
    task="Push the T-shaped block onto the T-shaped target.",
)


def open_dataset(path: Path, options: Mapping[str, Any]) -> "ZarrReader":
    """Open a replay buffer folder or zip."""
    return ZarrReader(path, parse(ZarrOptions, options, where="data"))


class ZarrReader:
    """An `EpisodeSource` over a replay buffer."""

    def __init__(self, path: Path, options: ZarrOptions | None = None):
        self.path = Path(path)
        arrays = open_arrays(self.path)
        self._arrays = {name.removeprefix("data/"): array for name, array in arrays.items() if name.startswith("data/")}
        self._ends = _episode_ends(self.path, arrays, self._arrays)
        self.options = _resolve(self.path, options or ZarrOptions(), self._arrays)
        for key, column in self.options.keys.items():
            self._check(key, column)
        self.spec = self._spec()

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self._ends, prepend=0)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that `read` knows."""
        return (*self.options.keys, "task", "timestamp", "frame_index", "episode_index")

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys` of one episode."""
        lengths = self.lengths
        start, stop = span(lengths, episode, start, stop, self.path)
        first = int(self._ends[episode] - lengths[episode])
        made = counters(episode, start, stop, self.spec.rate_hz)
        made["task"] = np.full(stop - start, self.options.task)
        return {key: made[key] if key in made else self._column(key, first + start, first + stop) for key in keys}

    def read_all(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Return whole columns over all episodes, in order."""
        return {key: self._column(key, 0, int(self._ends[-1])) for key in keys}

    def _column(self, key: str, start: int, stop: int) -> np.ndarray:
        if key not in self.options.keys:
            raise DataError(f"No key '{key}' in {self.path}.", expected=suggest(key, self.keys))
        column = self.options.keys[key]
        array = self._arrays[column.array]
        if _is_image(array):
            frames = np.empty((stop - start, *array.shape[1:]), np.uint8)
            for low, high in _chunk_spans(start, stop, array.chunks[0]):
                frames[low - start : high - start] = _to_uint8(array.read(low, high), array.where)
            return frames
        values = array.read(start, stop)
        if column.join:
            parts = [values, *(self._arrays[name].read(start, stop) for name in column.join)]
            values = np.concatenate([part.reshape(len(part), -1) for part in parts], 1)
        if column.columns is not None:
            values = values.reshape(len(values), -1)[:, slice(*column.columns)]
        return values.astype(np.float32) if values.dtype.kind == "f" else values

    def _check(self, key: str, column: Column) -> None:
        for name in (column.array, *column.join):
            if name not in self._arrays:
                raise DataError(f"{self.path}: no array for '{key}'.", expected=suggest(name, self._arrays))
        width = self._width(column)
        if column.columns is not None and not 0 <= column.columns[0] < column.columns[1] <= width:
            raise DataError(
                f"{self.path}: '{key}' names columns that are not there.", found=column.columns, expected=width
            )

    def _spec(self) -> Spec:
        features = {}
        for key, column in self.options.keys.items():
            array = self._arrays[column.array]
            if key == "action" or not column.observed:
                continue
            if _is_image(array):
                features[key] = Feature("image", array.shape[1:], "uint8")
            else:
                features[key] = Feature(
                    "signal", self._shape(column), "float32", column.unit, column.frame, column.names
                )
        if self.options.task:
            features["task"] = Feature("text", dtype="str")
        action = self.options.keys["action"]
        shape = self._shape(action)
        if len(shape) != 1:
            raise DataError(f"{self.path}: the action is no vector.", found=shape, expected="(A,)")
        return Spec(
            features,
            ActionSpec(
                shape[0],
                self.options.action_kind,
                names=action.names,
                unit=self.options.action_unit,
                frame=action.frame,
                rotation=self.options.rotation,
            ),
            rate_hz=positive(self.options.rate_hz, f"{self.path}: rate_hz"),
        )

    def _shape(self, column: Column) -> tuple[int, ...]:
        if column.columns is not None:
            return (column.columns[1] - column.columns[0],)
        return (self._width(column),) if column.join else self._arrays[column.array].shape[1:]

    def _width(self, column: Column) -> int:
        shapes = [self._arrays[name].shape[1:] for name in (column.array, *column.join)]
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes)


def _chunk_spans(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Cut [start, stop) where the chunks of an array meet, so that each is decoded once."""
    edges = sorted({start, stop, *range((start // size + 1) * size, stop, size)})
    return list(pairwise(edges))


def _to_uint8(frames: np.ndarray, where: str) -> np.ndarray:
    if frames.dtype == np.uint8:
        return frames
    if frames.size and (not np.isfinite(frames).all() or frames.min() < 0 or frames.max() > 255):
        raise DataError(f"{where} holds pictures outside 0 … 255.", found=f"{frames.min()} … {frames.max()}")
    return np.rint(frames).astype(np.uint8)


def _is_image(array: Array) -> bool:
    return len(array.shape) == 4 and array.shape[-1] in (1, 3)


def _episode_ends(path: Path, arrays: Mapping[str, Array], data: Mapping[str, Array]) -> np.ndarray:
    if "meta/episode_ends" not in arrays or not data:
        raise DataError(f"{path} is no replay buffer.", expected="meta/episode_ends and data/*", found=list(arrays)[:9])
    stored = arrays["meta/episode_ends"]
    if len(stored.shape) != 1 or stored.dtype.kind not in "iu" or stored.shape[0] > 2**26:
        raise DataError(f"{stored.where} is not a list of integers.", found=f"{stored.dtype} {stored.shape}")
    ends = stored.read().astype(np.int64)
    if not len(ends) or (np.diff(ends, prepend=0) <= 0).any():
        raise DataError(f"{stored.where} does not increase.", found=ends[:5].tolist(), do="repair the dataset")
    for name, array in data.items():
        if array.shape[0] != ends[-1]:
            raise DataError(
                f"{path}: data/{name} has another length than the episodes.",
                found=array.shape[0],
                expected=int(ends[-1]),
            )
    return ends


def _resolve(path: Path, options: ZarrOptions, arrays: Mapping[str, Array]) -> ZarrOptions:
    shapes = {name: array.shape[1:] for name, array in arrays.items()}
    pusht = {"state": (5,), "action": (2,), "keypoint": (9, 2), "img": (96, 96, 3)}
    looks_like_pusht = all(shapes.get(name) == shape for name, shape in pusht.items() if name in shapes)
    if options.layout == "pusht" or (
        not options.layout and not options.keys and looks_like_pusht and "keypoint" in shapes
    ):
        keys = {key: column for key, column in _PUSHT.keys.items() if column.array in arrays}
        return ZarrOptions(
            "pusht",
            options.rate_hz or _PUSHT.rate_hz,
            {**keys, **options.keys},
            _PUSHT.action_kind,
            _PUSHT.action_unit,
            _PUSHT.rotation,
            options.task or _PUSHT.task,
        )
    if options.layout == "umi" or (not options.keys and "robot0_eef_pos" in arrays):
        return _umi(path, options, arrays)
    if options.rate_hz is None:
        raise DataError(f"{path} does not say its rate.", do="give it: data.options.rate_hz=…")
    keys = dict(options.keys) or {_guess(name, array): Column(name) for name, array in arrays.items()}
    if "action" not in keys:
        raise DataError(f"{path} has no action.", expected=suggest("action", arrays), do="map it: keys.action.array=…")
    return ZarrOptions(
        options.layout, options.rate_hz, keys, options.action_kind, options.action_unit, options.rotation, options.task
    )


def _umi(path: Path, options: ZarrOptions, arrays: Mapping[str, Array]) -> ZarrOptions:
    """Return what the arrays of the Universal Manipulation Interface mean (https://umi-gripper.github.io).

    Per hand: position [m], rotation vector [rad] and gripper width [m]. As in UMI's own loader the action of
    a frame is the pose of that frame; a policy that looks ahead reads the later ones from its chunk.
    """
    hands = sorted({name.split("_")[0] for name in arrays if name.endswith("_eef_pos")})
    poses = [f"{hand}_{part}" for hand in hands for part in ("eef_pos", "eef_rot_axis_angle", "gripper_width")]
    missing = [name for name in poses if name not in arrays]
    if missing or not hands:
        raise DataError(f"{path} lacks arrays of UMI.", found=sorted(arrays), expected=missing or "robot0_eef_pos")
    entries = ("x_m", "y_m", "z_m", "rx_rad", "ry_rad", "rz_rad", "gripper_width_m")
    pose = Column(
        poses[0], None, tuple(poses[1:]), names=tuple(f"{hand}_{entry}" for hand in hands for entry in entries)
    )
    cameras = {name.removesuffix("_rgb"): Column(name) for name in arrays if name.endswith("_rgb")}
    keys = {f"observation.images.{camera}": column for camera, column in cameras.items()}
    keys |= {"observation.state": pose, "action": pose}
    keys |= {name: Column(name, observed=False) for name in arrays if name.endswith("_pose")}
    return ZarrOptions(
        "umi", options.rate_hz or _UMI_HZ, {**keys, **options.keys}, "ee_pose", "", "axis_angle", options.task
    )


def _guess(name: str, array: Array) -> str:
    if name == "action" or name.startswith("observation"):
        return name
    if _is_image(array):
        return f"observation.images.{name}"
    return "observation.state" if name == "state" else f"observation.{name}"
