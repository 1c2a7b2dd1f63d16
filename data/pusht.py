"""The Push-T demonstrations, optionally with their mirror images.

Block, goal and walls are symmetric about the line x + y = 512 px: what works on one side works
mirrored on the other. `mirror` doubles the demonstrations by that symmetry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.config import parse
from robolearn.contracts import EpisodeSource
from robolearn.data.zarr_replay import ZarrOptions, ZarrReader
from robolearn.errors import DataError

__all__ = ["MirroredPushT", "PushTOptions", "open_pusht"]

_SIZE_PX = 512.0
_POINTS = "observation.environment_state"


@dataclass(frozen=True)
class PushTOptions:
    """`mirror` adds the mirror image of every episode after the recorded ones."""

    mirror: bool = False


def open_pusht(path: Path, options: Mapping[str, Any]) -> EpisodeSource:
    """Open the replay buffer of the Push-T demonstrations, folder or zip."""
    chosen = parse(PushTOptions, options, where="data.options")
    reader = ZarrReader(path, ZarrOptions(layout="pusht"))
    return MirroredPushT(reader) if chosen.mirror else reader


class MirroredPushT:
    """An `EpisodeSource` with every episode of `source`, then the mirror image of each."""

    def __init__(self, source: ZarrReader):
        self.source, self.spec = source, source.spec
        columns = source.read_all(("block_pose", _POINTS))
        self._points_px = _block_points(columns["block_pose"], columns[_POINTS])

    @property
    def lengths(self) -> np.ndarray:
        return np.tile(self.source.lengths, 2)

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys`, mirrored for the second half of the episodes."""
        recorded = len(self.source.lengths)
        if not 0 <= episode < 2 * recorded:
            raise DataError(f"No episode {episode} in {self.source.path}.", expected=f"0 … {2 * recorded - 1}")
        if episode < recorded:
            return self.source.read(episode, keys, start, stop)
        wanted = {*keys, *(("block_pose",) if _POINTS in keys else ())}
        frames = self.source.read(episode - recorded, tuple(wanted), start, stop)
        return {key: self._mirror(key, frames) for key in keys}

    def _mirror(self, key: str, frames: Mapping[str, np.ndarray]) -> np.ndarray:
        value = frames[key]
        if key in ("observation.state", "action"):
            return _reflect(value)
        if key == "block_pose":
            return _reflect_pose(value).astype(value.dtype)
        if key == _POINTS:
            return _points(_reflect_pose(frames["block_pose"]), self._points_px).astype(value.dtype)
        if key.startswith("observation.images."):
            return np.ascontiguousarray(value[:, ::-1, ::-1].swapaxes(1, 2))
        if key == "episode_index":
            return value + len(self.source.lengths)
        return value


def _reflect(xy: np.ndarray) -> np.ndarray:
    """Mirror positions [n,2] px about x + y = 512."""
    return _SIZE_PX - xy[:, ::-1]


def _reflect_pose(pose: np.ndarray) -> np.ndarray:
    """Mirror block poses [n,3] (x, y [px], angle [rad])."""
    return np.concatenate([_reflect(pose[:, :2]), np.pi / 2 - pose[:, 2:]], 1)


def _block_points(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the keypoints [9,2] in the block's own frame, from the recorded ones."""
    away = points.reshape(len(points), -1, 2).astype(np.float64) - pose[:, None, :2]
    return np.einsum("nji,nkj->nki", _rotation(pose[:, 2]), away).mean(0)


def _points(pose: np.ndarray, local: np.ndarray) -> np.ndarray:
    """Return keypoints [n,18] px of block poses."""
    return (np.einsum("nij,kj->nki", _rotation(pose[:, 2]), local) + pose[:, None, :2]).reshape(len(pose), -1)


def _rotation(angle_rad: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angle_rad, dtype=np.float64), np.sin(angle_rad, dtype=np.float64)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
