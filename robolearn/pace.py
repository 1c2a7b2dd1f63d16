"""Demonstrations as slow as the arm that is to repeat them: tool targets that keep to a speed."""

import numpy as np

from robolearn.contracts import Controller, Observations, VectorEnv
from robolearn.errors import ConfigError
from robolearn.spec import ActionSpec

__all__ = ["Paced"]


class Paced:
    """A controller whose tool targets move no faster than `pace_m_s` and turn no faster than `pace_rad_s`.

    The tool of a real arm keeps to a speed limit, and what a policy has never seen it do faster, it does not ask for.
    Raises `ConfigError` unless actions are tool poses with entries x, y, z (and yaw), which the state begins at.
    """

    def __init__(self, controller: Controller, env: VectorEnv, pace_m_s: float, pace_rad_s: float):
        action, state = env.spec.action, env.spec.observations.get("observation.state")
        self._tools = _tools(action)
        names = [action.names[entry] for place, turn in self._tools for entry in (*place, *turn)]
        if not names or state is None or not set(names) <= set(state.names):
            raise ConfigError(
                "collect.pace_m_s slows tool poses down.",
                found=f"{action.kind} {list(action.names)}",
                expected="actions that are poses, x, y, z, and a state with the same names",
                do="leave it out",
            )
        self._controller = controller
        self._step_m, self._step_rad = pace_m_s / env.spec.rate_hz, pace_rad_s / env.spec.rate_hz
        self._entries = [action.names.index(name) for name in names]
        self._from = [state.names.index(name) for name in names]
        self._target = np.zeros((env.num_envs, action.dim))

    def begin(self, rows: np.ndarray, episodes: np.ndarray, obs: Observations) -> None:
        self._controller.begin(rows, episodes, obs)
        self._target[rows[:, None], self._entries] = obs["observation.state"][rows[:, None], self._from]

    def act(self, obs: Observations, active: np.ndarray) -> np.ndarray:
        action = np.array(self._controller.act(obs, active))
        away = action - self._target
        for place, turn in self._tools:
            far_m = np.linalg.norm(away[:, place], axis=1, keepdims=True)
            self._target[:, place] += away[:, place] * np.minimum(1.0, self._step_m / np.maximum(far_m, 1e-9))
            self._target[:, turn] += np.clip(away[:, turn], -self._step_rad, self._step_rad)
        action[:, self._entries] = self._target[:, self._entries]
        return action


def _tools(action: ActionSpec) -> list[tuple[list[int], list[int]]]:
    """Return the entries of x, y, z and those of yaw for each tool whose pose is asked for."""
    if action.kind != "ee_pose":
        return []
    entries = {name: entry for entry, name in enumerate(action.names)}
    tools = [name.removesuffix("x") for name in entries if name == "x" or name.endswith("_x")]
    return [
        ([entries[tool + axis] for axis in "xyz"], [entries[tool + "yaw"]] if tool + "yaw" in entries else [])
        for tool in tools
        if {tool + "y", tool + "z"} <= set(entries)
    ]
