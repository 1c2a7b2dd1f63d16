"""Observation history, sampled by time stamp. Simulation and hardware use this one buffer."""

import numpy as np

from robolearn.contracts import Observations

__all__ = ["ObservationBuffer"]


class ObservationBuffer:
    """The last observations of several rows, read back as histories [n,T,…].

    The T frames of a history are `period_s` apart and end at the newest one: each is the newest
    observation not later than its time. Before the first observation, the first one repeats.
    """

    def __init__(self, rows: int, history: int, period_s: float, capacity: int | None = None):
        self.history, self.period_s = history, period_s
        self._capacity = capacity or history
        self._stamps_s = np.full((rows, self._capacity), -np.inf)
        self._frames: Observations = {}

    def restart(self, rows: np.ndarray) -> None:
        """Forget everything about `rows` (integer index)."""
        self._stamps_s[rows] = -np.inf

    def append(self, rows: np.ndarray, stamps_s: np.ndarray, obs: Observations) -> None:
        """Add one observation per row, taken at `stamps_s` [n]; `obs` values are [n,…]."""
        if not self._frames:
            self._frames = {key: _ring(value, self._stamps_s.shape) for key, value in obs.items()}
        fresh = np.isneginf(self._stamps_s[rows, -1])
        for key, value in obs.items():
            ring = self._frames[key]
            if value.dtype.itemsize > ring.dtype.itemsize:  # longer text than any before
                ring = self._frames[key] = ring.astype(value.dtype)
            ring[rows, :-1] = ring[rows, 1:]
            ring[rows, -1] = value
            ring[rows[fresh]] = value[fresh][:, None]
        self._stamps_s[rows, :-1] = self._stamps_s[rows, 1:]
        self._stamps_s[rows, -1] = stamps_s

    def window(self, rows: np.ndarray) -> Observations:
        """Return the histories [n,T,…] that end at the newest observation of each row."""
        stamps = self._stamps_s[rows]
        ages_s = np.arange(self.history - 1, -1, -1) * self.period_s
        wanted = stamps[:, -1:] - ages_s  # [n,T]
        tolerance = 1e-6 + 0.01 * self.period_s
        newest = (stamps[:, None, :] <= wanted[:, :, None] + tolerance).sum(-1) - 1
        slot = np.maximum(newest, 0)  # slots before the first observation hold copies of it
        return {key: ring[rows[:, None], slot] for key, ring in self._frames.items()}


def _ring(value: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.zeros((*shape, *value.shape[1:]), value.dtype)
