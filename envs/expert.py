"""Scripted demonstrators: a task's legs, run for all rows at once."""

from collections.abc import Sequence

import numpy as np

from robolearn.envs.task import Phase, Task, View, wrap_angle
from robolearn.errors import EnvError

__all__ = ["ScriptedExpert"]

_TURN_RAD = 0.3  # per control step


class ScriptedExpert:
    """Drives each row of a live `view` through its task's `Phase`s; see `contracts.Expert` and `Narrator`."""

    def __init__(self, task: Task, view: View):
        self._view, self._task, self._script = view, task, task.script
        rows, arms = view.yaw_rad.shape
        self._grip = np.array([np.broadcast_to(phase.grip, arms) for phase in self._script], float)
        self._middle_rad = np.array([mount.middle_rad for mount in task.mounts])
        self._gain = np.array([phase.gain for phase in self._script])
        self._speed_m = np.array([phase.speed_m for phase in self._script])
        self._phase, self._count = np.zeros(rows, int), np.zeros(rows, int)
        self._last = np.zeros((rows, arms, 4))

    @property
    def phase(self) -> np.ndarray:
        """Which leg each row is in [E]."""
        return self._phase.copy()

    def reset(self, rows: np.ndarray, seeds: Sequence[int]) -> None:
        self._phase[rows] = self._count[rows] = 0
        self._last[rows] = _tool(self._view)[rows]

    def act(self) -> np.ndarray:
        view, tool = self._view, _tool(self._view)
        goal, over = self._evaluate(view, tool)
        gain, speed = self._gain[self._phase][:, None, None], self._speed_m[self._phase][:, None, None]
        away = gain * (goal[..., :3] - tool[..., :3])
        length = np.linalg.norm(away, axis=-1, keepdims=True)
        move = away * np.minimum(1.0, speed / np.maximum(length, 1e-9))
        turn = np.clip(gain * (goal[..., 3:] - tool[..., 3:]), -_TURN_RAD, _TURN_RAD)
        action = np.concatenate([tool[..., :3] + move, tool[..., 3:] + turn, self._grip[self._phase][..., None]], -1)
        self._count += 1
        self._last[over] = goal[over]
        self._phase[over] = np.minimum(self._phase[over] + 1, len(self._script) - 1)
        self._count[over] = 0
        return action.reshape(len(action), -1)

    def say(self) -> np.ndarray:
        """Return what the task says of its rows, str [E]; raises `EnvError` where it says nothing."""
        if self._task.say is None:
            raise EnvError(f"The task '{self._task.name}' has nothing to say.", do="leave collect.say empty")
        return self._task.say(self._view, np.array([phase.name for phase in self._script])[self._phase])

    def _evaluate(self, view: View, tool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the goals [E,M,4] of the present legs and which are over [E]."""
        goal = tool.copy()
        over = np.zeros(len(tool), bool)
        for index in np.unique(self._phase):
            phase, rows = self._script[index], self._phase == index
            aim = phase.goal(view, self._last).reshape(tool.shape).copy()
            aim[..., 3] = self._middle_rad + wrap_angle(aim[..., 3] - self._middle_rad)
            goal[rows] = aim[rows]
            over |= rows & _reached(phase, aim, tool) & (self._count >= phase.steps)
            if phase.ready is not None:
                over &= ~rows | phase.ready(view)
        return goal, over


def _tool(view: View) -> np.ndarray:
    return np.concatenate([view.tool_m, view.yaw_rad[..., None]], -1)


def _reached(phase: Phase, goal: np.ndarray, tool: np.ndarray) -> np.ndarray:
    away = goal - tool
    return (
        (np.linalg.norm(away[..., :3], axis=-1) <= phase.reach_m)
        & (np.linalg.norm(away[..., :2], axis=-1) <= phase.reach_xy_m)
        & (np.abs(away[..., 3]) <= phase.reach_rad)
    ).all(-1)
