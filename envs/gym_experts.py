"""Scripted demonstrators for gymnasium environments that come without one."""

from collections.abc import Callable, Sequence

import numpy as np

from robolearn.contracts import Observations

__all__ = ["EXPERTS", "PickCube"]

_STEP_M, _ABOVE_M = 0.04, 0.08  # largest motion of one control step; height to approach from
_CLOSE_STEPS = 4


class PickCube:
    """Lifts gym-hil's cube: over it, down, close, up. `look` gives the latest observations of all rows."""

    def __init__(self, look: Callable[[], Observations], rows: int):
        self._look = look
        self._phase, self._waited = np.zeros(rows, np.int64), np.zeros(rows, np.int64)

    def reset(self, rows: np.ndarray, seeds: Sequence[int]) -> None:
        """Start new episodes on `rows`."""
        self._phase[rows] = self._waited[rows] = 0

    def act(self) -> np.ndarray:
        """Return actions [E,7]: motion [m], three turns that the environment ignores, gripper."""
        obs = self._look()
        tool, cube = obs["observation.state"][:, -3:], obs["observation.environment_state"]
        goal = cube.astype(float).copy()
        goal[:, 2] += np.choose(self._phase, [_ABOVE_M, 0.0, 0.0, 0.3])
        away = goal - tool
        near = np.linalg.norm(away, axis=1)
        closing = self._phase == 2
        self._waited += closing
        on = (self._phase == 0) & (near < 0.02) | (self._phase == 1) & (near < 0.012)
        on |= closing & (self._waited > _CLOSE_STEPS)
        action = np.zeros((len(tool), 7))
        action[:, :3] = np.clip(0.6 * away, -_STEP_M, _STEP_M)
        action[closing, :3] = 0.0
        action[:, 6] = np.where(self._phase >= 2, 1.0, -1.0)
        self._phase += on
        return action


# gymnasium id → its demonstrator
EXPERTS: dict[str, Callable[[Callable[[], Observations], int], PickCube]] = {
    "gym_hil/PandaPickCubeBase-v0": PickCube,
}
