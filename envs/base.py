"""What every vector environment here shares: seeds, masks, bounds, counters, ends of episodes, spaces."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from robolearn.contracts import Observations
from robolearn.errors import EnvError
from robolearn.seeding import generator
from robolearn.spec import Spec

__all__ = ["COUNTERS", "RowsEnv", "ran_away"]

_RUNAWAY = 1e4  # joint speeds [rad/s] that no working scene reaches
COUNTERS = ("_steps", "_done", "_success", "_diverged", "_terminated", "_truncated", "_ended")


class RowsEnv(gymnasium.vector.VectorEnv):
    """`contracts.VectorEnv` with autoreset disabled; subclasses say what a row does.

    Actions are clipped to the bounds of the spec; a non-finite one ends its episode as diverged
    without touching the physics.
    """

    metadata = {  # noqa: RUF012 - gymnasium's attribute
        "autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED,
        "render_modes": ["rgb_array"],
    }
    render_mode = "rgb_array"
    spec: Any  # robolearn's Spec, where gymnasium keeps a registry entry

    def __init__(self, num_envs: int, max_steps: int, stop_on_success: bool = True):
        if num_envs < 1:
            raise EnvError("An environment needs rows.", found=num_envs, expected="num_envs >= 1")
        self.num_envs, self.max_episode_steps = num_envs, max_steps
        self._stop_on_success, self._started = stop_on_success, False
        self._steps, self._done = np.zeros(num_envs, np.int64), np.ones(num_envs, bool)
        self._success, self._diverged = np.zeros(num_envs, bool), np.zeros(num_envs, bool)
        self._terminated, self._truncated = np.zeros(num_envs, bool), np.zeros(num_envs, bool)
        self._ended = np.zeros(num_envs, bool)  # by a rule of its own that is neither success nor divergence
        self._random = [generator("row", row) for row in range(num_envs)]
        self._seed: list[int | None] = [None] * num_envs  # of each row's present episode
        self._episode = np.full(num_envs, -1)  # its number, where the caller told

    @abstractmethod
    def begin(self, rows: np.ndarray) -> None:
        """Start new episodes on `rows`, drawing from their generators."""

    @abstractmethod
    def advance(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take one control step; return reward, success and whether the physics ran away, each [E]."""

    @abstractmethod
    def observe(self) -> Observations:
        """Return fresh copies of the latest observations."""

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start new episodes on the rows of `options["reset_mask"]` (all without one).

        A row without a seed goes on with the generator of its last episode.
        """
        rows, seeds = self._rows_to_reset(options), self._seeds(seed)
        for row in rows:
            self._seed[row] = seeds[row]
            if seeds[row] is not None:
                self._random[row] = generator(seeds[row], "episode")
            for name in COUNTERS:
                getattr(self, name)[row] = 0
        self._episode[rows] = np.asarray((options or {}).get("episode", self._episode))[rows]
        self.begin(rows)
        self._started = True
        return self.observe(), self.info()

    def step(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance every unfinished row by one control step."""
        if not self._started:
            raise EnvError("The environment was never reset.", do="call reset(seed=...) first")
        actions = np.asarray(actions, np.float64)
        if actions.shape != (self.num_envs, len(self._low)):
            raise EnvError("Wrong action shape.", found=actions.shape, expected=(self.num_envs, len(self._low)))
        refused = ~np.isfinite(actions).all(1) & ~self._done
        rows = np.flatnonzero(~self._done & ~refused)
        reward, holds, runaway = self.advance(rows, np.clip(actions[rows], self._low, self._high))
        moved = np.zeros(self.num_envs, bool)
        moved[rows] = True
        self._steps[rows] += 1
        self._diverged |= refused | (runaway & moved)
        good = moved & ~self._diverged
        self._success |= holds & good
        self._terminated |= self._diverged | (self._success & self._stop_on_success) | (self._ended & moved)
        self._truncated |= moved & (self._steps >= self.max_episode_steps) & ~self._terminated
        self._done = self._terminated | self._truncated
        reward = np.where(good, reward, 0.0)
        return self.observe(), reward, self._terminated.copy(), self._truncated.copy(), self.info()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec.metadata.get('env', '')!r}, num_envs={self.num_envs})"

    def info(self) -> dict[str, Any]:
        """Return what goes beside the observations: success, diverged, steps, each [E]."""
        return {
            "success": self._success & ~self._diverged,
            "diverged": self._diverged.copy(),
            "steps": self._steps.copy(),
        }

    def declare(self, spec: Spec) -> None:
        """Set the spec and gymnasium's spaces; text is left out of them, as its batches are no arrays."""
        if spec.action.low is None or spec.action.high is None:
            raise EnvError("The action spec has no bounds.", expected="low and high")
        self.spec = spec
        self._low, self._high = np.array(spec.action.low), np.array(spec.action.high)
        box, batch = gymnasium.spaces.Box, gymnasium.vector.utils.batch_space
        spaces: dict[str, gymnasium.Space] = {}
        for key, feature in spec.observations.items():
            if feature.kind == "image":
                spaces[key] = box(0, 255, feature.shape, np.uint8)
            elif feature.kind == "signal":
                spaces[key] = box(-np.inf, np.inf, feature.shape, np.dtype(feature.dtype).type)
        self.single_observation_space = gymnasium.spaces.Dict(spaces)
        self.single_action_space = box(self._low.astype(np.float32), self._high.astype(np.float32))
        self.observation_space = batch(self.single_observation_space, self.num_envs)
        self.action_space = batch(self.single_action_space, self.num_envs)

    def _rows_to_reset(self, options: Mapping[str, Any] | None) -> np.ndarray:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.arange(self.num_envs)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool:
            raise EnvError("A reset mask is bool [E].", found=f"{mask.dtype} {mask.shape}", expected=self.num_envs)
        return np.flatnonzero(mask)

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        """Return one seed per row; a single number counts up over the rows, as gymnasium has it."""
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int):
            return [seed + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise EnvError("One seed per row is needed.", found=len(seed), expected=self.num_envs)
        return list(seed)


def ran_away(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    """Return which rows [E] left what physics can mean."""
    with np.errstate(invalid="ignore"):
        return ~(np.abs(qvel).max(1) < _RUNAWAY) | ~np.isfinite(qpos).all(1)
