"""Action chunks indexed by time. Simulation and hardware use this one plan."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from robolearn.errors import ConfigError, NumericsError

__all__ = ["BlendedPlan", "ChunkPlan", "Continuity", "Execution"]

Continuity = Literal["none", "committed", "rest", "blend"]


@dataclass(frozen=True)
class Execution:
    """How a policy's chunks are executed.

    A new one is asked for every `execute` steps and arrives `delay_steps` after its observation. `continuity` says
    what it knows of the one before: nothing, the actions `committed` by the delay, or its `rest` (real-time chunking,
    arXiv 2506.07339); `blend` averages all chunks that predict an action. `temperature` scales the policy's noise:
    below 1, samples keep to the likely actions, and 0 takes the most typical chunk.
    """

    execute: int = 8
    delay_steps: int = 0
    temperature: float = 1.0
    continuity: Continuity = "none"

    def __post_init__(self):
        if self.execute < 1 or self.delay_steps < 0 or not 0 <= self.temperature <= 10:
            raise ConfigError(
                "Chunks cannot be executed like that.",
                found=f"execute {self.execute}, delay_steps {self.delay_steps}, temperature {self.temperature}",
                expected="execute >= 1, delay_steps >= 0, temperature 0 to 10",
            )

    def told(self, chunk: int) -> int:
        """Return how many actions of a running chunk the next one is told; raises `ConfigError` for short chunks."""
        if not self.delay_steps <= self.execute <= chunk - self.delay_steps:
            raise ConfigError(
                "A chunk is too short for this execution horizon and delay.",
                found=f"execute {self.execute}, delay {self.delay_steps} of {chunk} steps",
                expected="delay <= execute <= chunk - delay",
            )
        return {"committed": self.delay_steps, "rest": chunk - self.execute}.get(self.continuity, 0)


class ChunkPlan:
    """The actions that several rows will execute, each bound to a time.

    Action i of a chunk belongs to `start_s + i * period_s`. A newer chunk replaces the older one
    from its own time on, so what inference latency has consumed is skipped, never replayed.
    """

    def __init__(self, rows: int, chunk: int, dim: int, period_s: float):
        self.period_s = period_s
        self._start_s = np.full(rows, np.nan)
        self._path = np.zeros((rows, chunk + 2, dim))  # the actions, and one more at either end

    @property
    def _actions(self) -> np.ndarray:
        return self._path[:, 1:-1]

    def restart(self, rows: np.ndarray) -> None:
        """Forget the chunks of `rows`."""
        self._start_s[rows] = np.nan

    def splice(self, rows: np.ndarray, start_s: np.ndarray, actions: np.ndarray) -> None:
        """Set the chunks [n,K,A] of `rows` that start at `start_s` [n]; a non-finite chunk is refused."""
        if not np.isfinite(actions).all():
            raise NumericsError(
                "A policy returned a non-finite action.", expected="finite chunks", do="check the checkpoint"
            )
        self._start_s[rows] = start_s
        self._actions[rows] = actions
        self._path[rows, 0], self._path[rows, -1] = _beyond(actions), _beyond(actions[:, ::-1])

    def index(self, now_s: np.ndarray) -> np.ndarray:
        """Return which action of the chunk is due per row [E]; negative without a chunk."""
        due = np.floor((now_s - self._start_s) / self.period_s + 1e-6)
        return np.where(np.isnan(due), -1, due).astype(np.int64)

    def action(self, now_s: np.ndarray) -> np.ndarray:
        """Return the action due per row [E,A]; past its end a chunk holds its last action."""
        index = np.clip(self.index(now_s), 0, self._actions.shape[1] - 1)
        return self._actions[np.arange(len(index)), index]

    def sample(self, now_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the smooth path through the chunks at `now_s` [E]: its motion [E,3,A] and the time left [E].

        The motion is position, rate and acceleration. Between its actions a chunk is a cubic whose slopes are central
        differences; it has no time left past its last action and before its first one, where it stands still.
        """
        rows, size = np.arange(len(now_s)), self._path.shape[1] - 2
        place = (now_s - self._start_s) / self.period_s
        place[np.isnan(place)] = -1.0
        index = np.minimum(np.maximum(place, 0.0), max(size - 2, 0)).astype(np.int64)
        u = np.minimum(np.maximum(place - index, 0.0), 1.0)[:, None]
        around = [self._path[rows, np.minimum(index + i, size + 1)] for i in range(4)]
        start, end = (around[2] - around[0]) / 2, (around[3] - around[1]) / 2
        step = around[2] - around[1]
        square, cube = 3 * step - 2 * start - end, start + end - 2 * step
        inside = (place >= 0) & (place <= size - 1)
        moving = inside[:, None] / self.period_s
        position = around[1] + u * (start + u * (square + u * cube))
        rate = moving * (start + u * (2 * square + 3 * u * cube))
        acceleration = moving / self.period_s * (2 * square + 6 * u * cube)
        left = np.where(inside, (size - 1 - place) * self.period_s, 0.0)
        return np.stack([position, rate, acceleration], 1), left

    def remaining(self, rows: np.ndarray, now_s: np.ndarray) -> np.ndarray:
        """Return the not yet executed rest of each chunk [n,K,A], its last action repeated."""
        size = self._actions.shape[1]
        first = np.clip(self.index(now_s)[rows], 0, size - 1)
        steps = np.minimum(first[:, None] + np.arange(size), size - 1)
        return self._actions[rows[:, None], steps]


class BlendedPlan(ChunkPlan):
    """Averages all chunks that predict an action (temporal ensembling, arXiv 2304.13705, algorithm 2).

    Prediction i of an action, the oldest being 0, weighs exp(-decay·i).
    """

    def __init__(self, rows: int, chunk: int, dim: int, period_s: float, decay: float = 0.01):
        super().__init__(rows, chunk, dim, period_s)
        self._totals = np.cumsum(np.exp(-decay * np.arange(chunk + 1)))
        self._counts = np.zeros((rows, chunk), np.int64)

    def restart(self, rows: np.ndarray) -> None:
        super().restart(rows)
        self._counts[rows] = 0

    def splice(self, rows: np.ndarray, start_s: np.ndarray, actions: np.ndarray) -> None:
        size = self._actions.shape[1]
        shift = np.floor((start_s - self._start_s[rows]) / self.period_s + 1e-6)
        shift = np.where(np.isnan(shift), size, shift).astype(np.int64)
        index = shift[:, None] + np.arange(size)
        kept = np.minimum(index, size - 1)
        counts = np.where(index < size, self._counts[rows[:, None], kept], 0)
        before = np.where(counts > 0, self._totals[counts - 1], 0.0) / self._totals[counts]
        known = np.where((counts > 0)[..., None], self._actions[rows[:, None], kept], 0.0)
        blended = before[..., None] * known + (1 - before)[..., None] * actions
        super().splice(rows, start_s, blended)
        self._counts[rows] = np.minimum(counts + 1, size)


def _beyond(actions: np.ndarray) -> np.ndarray:
    """Return the action [n,A] before the first of chunks [n,K,A], as a parabola goes on; the first of one or two."""
    if actions.shape[1] < 3:
        return actions[:, 0]
    return 3 * (actions[:, 0] - actions[:, 1]) + actions[:, 2]
