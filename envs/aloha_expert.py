"""Scripted demonstrations of the ALOHA tasks: tool poses leg by leg, joint targets by inverse kinematics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

__all__ = ["AlohaExpert"]

_SIDES = ("left", "right")
_REACH_M = 0.147  # from a gripper link to between its fingertips, along its x axis
_STEP_M, _STEP_RAD = 0.010, 0.06  # per control step
_DAMPING, _SAG_GAIN, _SAG_M = 1e-3, 0.04, 0.015
_SETTLED = 40  # steps after which the objects have fallen onto the table
_MEET_M = np.array([0.0, 0.5, 0.25])


def _pitched(side: float, angle_rad: float) -> np.ndarray:
    """Return a tool that comes from its `side` (right +1, left -1) pitched down, fingers opening along y."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    forward, opening = np.array([-side * cos, 0.0, -sin]), np.array([0.0, -side, 0.0])
    return np.stack([forward, opening, np.cross(forward, opening)], 1)


_PICK = {"left": _pitched(-1.0, np.pi / 3), "right": _pitched(1.0, np.pi / 3)}
_ROLLED = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # left arm level, fingers opening along z

Place = Callable[["_Sight"], np.ndarray]


@dataclass
class _Sight:
    """What one row looks like: object positions and where the tools are, each [3] m."""

    objects: tuple[np.ndarray, ...]
    start: tuple[np.ndarray, ...]  # the objects before they were touched
    tools: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Leg:
    """Where both tools go for `steps` control steps, with which orientation and opening (1 open)."""

    steps: int
    left: Place
    right: Place
    turns: tuple[np.ndarray, np.ndarray]
    grips: tuple[float, float]


def _fixed(place: Sequence[float] | np.ndarray) -> Place:
    return lambda sight: np.asarray(place, float)


def _at(index: int, height_m: float) -> Place:
    return lambda sight: sight.start[index] + np.array([0.0, 0.0, height_m])


def _bring(index: int, side: str, place: Callable[[_Sight], np.ndarray]) -> Place:
    """The tool goes where its object's middle comes to `place`, however it sits in the hand."""
    return lambda sight: place(sight) + sight.tools[side] - sight.objects[index]


def _transfer() -> tuple[_Leg, ...]:
    wait, take = _fixed(_MEET_M - np.array([0.13, 0, 0])), _fixed(_MEET_M - np.array([0.005, 0, 0]))
    meet = _bring(0, "right", _fixed(_MEET_M))
    turns = (_ROLLED, _PICK["right"])
    return (
        _Leg(45, wait, _at(0, 0.08), turns, (1, 1)),
        _Leg(30, wait, _at(0, 0.0), turns, (1, 1)),
        _Leg(15, wait, _at(0, 0.0), turns, (1, 0)),
        _Leg(60, wait, meet, turns, (1, 0)),
        _Leg(35, take, meet, turns, (1, 0)),
        _Leg(20, take, meet, turns, (0, 0)),
        _Leg(95, take, meet, turns, (0, 1)),
    )


def _insertion() -> tuple[_Leg, ...]:
    turns = (_PICK["left"], _PICK["right"])
    socket = _bring(1, "left", _fixed([-0.06, 0.5, 0.2]))
    before = _bring(0, "right", lambda sight: sight.objects[1] + np.array([0.16, 0, 0]))
    inside = _bring(0, "right", lambda sight: sight.objects[1] + np.array([0.09, 0, 0]))
    return (
        _Leg(45, _at(1, 0.08), _at(0, 0.08), turns, (1, 1)),
        _Leg(35, _at(1, 0.0), _at(0, 0.0), turns, (1, 1)),
        _Leg(15, _at(1, 0.0), _at(0, 0.0), turns, (0, 0)),
        _Leg(60, socket, _bring(0, "right", _fixed([0.14, 0.5, 0.2])), turns, (0, 0)),
        _Leg(45, socket, before, turns, (0, 0)),
        _Leg(100, socket, inside, turns, (0, 0)),
    )


class AlohaExpert:
    """Follows the legs of each row's episode; see `contracts.Expert`."""

    def __init__(self, env: Any):
        self._env, self._model = env, env.model
        self._legs = _transfer() if len(env.kind.objects) == 1 else _insertion()
        self._ends = np.cumsum([leg.steps for leg in self._legs])
        self._data = mujoco.MjData(env.model)
        self._bodies = [env.model.body(name).id for name in env.kind.objects]
        self._links = {side: env.model.body(f"vx300s_{side}/gripper_link").id for side in _SIDES}
        self._joints = {"left": np.arange(6), "right": np.arange(8, 14)}
        self._target = np.zeros((env.num_envs, 16))  # joint positions that are asked for
        self._sag = np.zeros((env.num_envs, 2, 3))  # how far tools hang below what is asked for
        self._count = np.zeros(env.num_envs, int)
        self._start: list[tuple[np.ndarray, ...]] = [() for _ in range(env.num_envs)]
        self._jacobian = np.zeros((6, env.model.nv))

    def reset(self, rows: np.ndarray, seeds: Sequence[int]) -> None:
        for row in rows:
            data = self._env.data[row]
            self._target[row], self._sag[row], self._count[row] = data.qpos[:16], 0.0, 0
            self._start[row] = tuple(data.xpos[body].copy() for body in self._bodies)

    def act(self) -> np.ndarray:
        actions = np.zeros((self._env.num_envs, 14))
        for row in range(self._env.num_envs):
            if self._start[row]:
                actions[row] = self._act(row)
        return actions

    def _act(self, row: int) -> np.ndarray:
        real, leg = (
            self._env.data[row],
            self._legs[min(np.searchsorted(self._ends, self._count[row], "right"), len(self._legs) - 1)],
        )
        self._count[row] += 1
        if self._count[row] < _SETTLED:
            self._start[row] = tuple(real.xpos[body].copy() for body in self._bodies)
        tools = {side: _tool(real, link) for side, link in self._links.items()}
        sight = _Sight(tuple(real.xpos[body].copy() for body in self._bodies), self._start[row], tools)
        self._data.qpos[:] = real.qpos
        self._data.qpos[:16] = self._target[row]
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        for index, (side, place) in enumerate(zip(_SIDES, (leg.left, leg.right), strict=True)):
            asked = _tool(self._data, self._links[side])
            error = np.clip(asked - tools[side] - self._sag[row, index], -0.005, 0.005)
            self._sag[row, index] = np.clip(self._sag[row, index] + _SAG_GAIN * error, -_SAG_M, _SAG_M)
            goal = place(sight) + self._sag[row, index]
            self._move(row, side, goal - asked, leg.turns[index])
        grips = np.array(leg.grips, float)
        return np.concatenate([self._target[row, :6], grips[:1], self._target[row, 8:14], grips[1:]])

    def _move(self, row: int, side: str, away: np.ndarray, mat: np.ndarray) -> None:
        """Take one damped least-squares step of an arm's asked-for joints."""
        link, joints = self._links[side], self._joints[side]
        now = self._data.xmat[link].reshape(3, 3)
        turn = 0.5 * np.cross(now.T, mat.T).sum(0)
        away = away * min(1.0, _STEP_M / max(float(np.linalg.norm(away)), 1e-9))
        turn = turn * min(1.0, _STEP_RAD / max(float(np.linalg.norm(turn)), 1e-9))
        point = _tool(self._data, link)
        mujoco.mj_jac(self._model, self._data, self._jacobian[:3], self._jacobian[3:], point, link)
        jacobian = self._jacobian[:, joints]
        square = jacobian @ jacobian.T + _DAMPING * np.eye(6)
        step = jacobian.T @ np.linalg.solve(square, np.concatenate([away, turn]))
        limits = self._model.jnt_range[joints]
        self._target[row, joints] = np.clip(self._target[row, joints] + step, limits[:, 0], limits[:, 1])


def _tool(data: mujoco.MjData, link: int) -> np.ndarray:
    """Return the point between the fingertips [3]."""
    return data.xpos[link] + _REACH_M * data.xmat[link].reshape(3, 3)[:, 0]
