"""What readers and writers say of frames: which of them exist, what counts them, what else was recorded."""

from typing import Any

import numpy as np

from robolearn.contracts import EpisodeSource
from robolearn.errors import DataError

__all__ = ["counters", "extras", "metadata_of", "span"]

_COUNTED = ("timestamp", "frame_index", "episode_index", "index", "task_index")  # follows from where a frame is


def span(lengths: np.ndarray, episode: int, start: int, stop: int | None, where: Any) -> tuple[int, int]:
    """Return [start, stop) of an episode of the dataset `where`, to its end for None.

    Raises `DataError` when there is no such episode or frame.
    """
    if not 0 <= episode < len(lengths):
        raise DataError(f"No episode {episode} in {where}.", expected=f"0 … {len(lengths) - 1}")
    length = int(lengths[episode])
    stop = length if stop is None else stop
    if not 0 <= start <= stop <= length:
        raise DataError(f"Frames [{start}, {stop}) are not in episode {episode}.", expected=f"0 … {length}")
    return start, stop


def counters(episode: int, start: int, stop: int, rate_hz: float) -> dict[str, np.ndarray]:
    """Return the times [s] from the episode's start and the numbers of frames [start, stop), by their keys."""
    frames = np.arange(start, stop)
    return {
        "timestamp": (frames / rate_hz).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(len(frames), episode),
    }


def extras(source: EpisodeSource) -> list[str]:
    """Return what a source has beside observations, actions, tasks and counters: rewards, success, …"""
    known = (*source.spec.observations, *_COUNTED, "action", "task")
    return [key for key in getattr(source, "keys", ()) if key not in known]


def metadata_of(source: EpisodeSource, episode: int) -> dict[str, Any]:
    """Return what was recorded about an episode, {} where the source keeps nothing."""
    described = getattr(source, "metadata", None)
    return dict(described(episode)) if described is not None else {}
