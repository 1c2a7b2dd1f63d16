"""What every reader says of frames: which of them exist, and what counts them."""

from typing import Any

import numpy as np

from robolearn.errors import DataError

__all__ = ["counters", "span"]


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
