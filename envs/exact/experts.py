"""Scripted demonstrators for Lift, PickPlaceCan and NutAssemblySquare, over robosuite's observations.

They look at nothing but named observations and give robosuite's default actions (operational-space
pose deltas), so that one expert drives this library's environments and robosuite itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from robolearn.errors import EnvError, suggest

__all__ = ["EXPERTS", "ExactExpert", "Script"]

_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # tool x (the fingers' axis) along world y
_HOME_RAD = np.pi / 2  # direction of the fingers' axis at home
_MOVE_M, _TURN_RAD = 0.05, 0.5  # of a full action
_GAIN = 1.5


@dataclass
class Sense:
    """What an expert sees of E rows."""

    tool_m: np.ndarray  # [E,3]
    tool_mat: np.ndarray  # [E,3,3]
    object_m: np.ndarray  # [E,3]
    object_yaw_rad: np.ndarray  # [E]

    @property
    def fingers_rad(self) -> np.ndarray:
        """Direction of the fingers' axis [E]."""
        return np.arctan2(self.tool_mat[:, 1, 0], self.tool_mat[:, 0, 0])


@dataclass(frozen=True)
class Leg:
    """One leg: tool goals [E,3] and finger directions [E], until reached or out of time."""

    goal: Callable[[Sense], tuple[np.ndarray, np.ndarray]]
    close: bool = False
    reach_m: float = 0.01
    reach_rad: float = 0.1
    least: int = 0  # control steps
    most: int = 80
    gain: float = _GAIN


@dataclass(frozen=True)
class Script:
    """The legs of one task and the observation keys of its object."""

    object: str
    legs: tuple[Leg, ...]
    carried: tuple[int, int] = (0, 0)  # legs [first, last) in which the object is held, else: the last leg, then anew
    hold_m: float = 0.1  # how far the object's origin may be from the tool then


class ExactExpert:
    """Drives each row through a script; see `contracts.Expert`.

    `observe` returns robosuite's raw observations with a leading [E].
    """

    def __init__(self, script: Script, observe: Callable[[], Mapping[str, np.ndarray]], num_envs: int):
        self._script, self._observe = script, observe
        self._leg, self._count = np.zeros(num_envs, int), np.zeros(num_envs, int)

    def reset(self, rows: np.ndarray, seeds: Sequence[int]) -> None:
        self._leg[rows] = self._count[rows] = 0

    def act(self) -> np.ndarray:
        sense = _sense(self._observe(), self._script.object)
        goal, fingers = sense.tool_m.copy(), sense.fingers_rad
        gain, close, over = np.ones(len(goal)), np.zeros(len(goal), bool), np.zeros(len(goal), bool)
        for index in np.unique(self._leg):
            leg, rows = self._script.legs[index], self._leg == index
            aim, direction = leg.goal(sense)
            goal[rows], fingers[rows], gain[rows], close[rows] = aim[rows], direction[rows], leg.gain, leg.close
            near = np.linalg.norm(aim - sense.tool_m, axis=1) < leg.reach_m
            near &= np.abs(fold(direction - sense.fingers_rad, 2 * np.pi)) < leg.reach_rad
            over |= rows & ((near & (self._count >= leg.least)) | (self._count >= leg.most))
        action = _action(sense, goal, fingers, gain, close)
        lost = np.linalg.norm(sense.object_m - sense.tool_m, axis=1) > self._script.hold_m
        lost &= (self._leg >= self._script.carried[0]) & (self._leg < self._script.carried[1])
        self._leg[lost], over = len(self._script.legs) - 2, over | lost
        self._count += 1
        self._leg[over] = (self._leg[over] + 1) % len(self._script.legs)  # after the last leg, another try
        self._count[over] = 0
        return action


def fold(angle_rad: np.ndarray, period_rad: float) -> np.ndarray:
    """Return the smallest angle that equals `angle_rad` up to multiples of `period_rad`."""
    return (angle_rad + period_rad / 2) % period_rad - period_rad / 2


def _sense(raw: Mapping[str, np.ndarray], name: str) -> Sense:
    for key in (f"{name}_pos", "robot0_eef_quat_site"):
        if key not in raw:
            raise EnvError(f"The expert misses the observation '{key}'.", expected=suggest(key, raw))
    turn = Rotation.from_quat(raw[f"{name}_quat"]).as_matrix()
    return Sense(
        tool_m=raw["robot0_eef_pos"],
        tool_mat=Rotation.from_quat(raw["robot0_eef_quat_site"]).as_matrix(),
        object_m=raw[f"{name}_pos"],
        object_yaw_rad=np.arctan2(turn[:, 1, 0], turn[:, 0, 0]),
    )


def _action(sense: Sense, goal: np.ndarray, fingers: np.ndarray, gain: np.ndarray, close: np.ndarray) -> np.ndarray:
    about_z = np.stack([np.zeros_like(fingers), np.zeros_like(fingers), fingers - _HOME_RAD], 1)
    turn = Rotation.from_rotvec(about_z).as_matrix() @ _DOWN @ sense.tool_mat.swapaxes(1, 2)
    move = (goal - sense.tool_m) * gain[:, None] / _MOVE_M
    turned = Rotation.from_matrix(turn).as_rotvec() * _GAIN / _TURN_RAD
    grip = np.where(close, 1.0, -1.0)[:, None]
    return np.concatenate([np.clip(move, -1.0, 1.0), np.clip(turned, -1.0, 1.0), grip], 1)


def _across(sense: Sense, turn_rad: float, period_rad: float) -> np.ndarray:
    """Return the finger direction nearest to home that is `turn_rad` from the object's x axis."""
    return _HOME_RAD + fold(sense.object_yaw_rad + turn_rad - _HOME_RAD, period_rad)


def _at(height_m: float, turn_rad: float = 0.0, period_rad: float = np.pi / 2) -> Callable:
    """Return the goal above an object, the fingers along one of its axes."""
    return lambda sense: (
        sense.object_m + np.array([0.0, 0.0, height_m]),
        _across(sense, turn_rad, period_rad),
    )


def _stay(lift_m: float) -> Callable:
    return lambda sense: (sense.tool_m + np.array([0.0, 0.0, lift_m]), sense.fingers_rad)


_LIFT = Script(
    "cube",
    (
        Leg(_at(0.08), reach_m=0.015),
        Leg(_at(0.0), reach_m=0.008),
        Leg(_at(0.0), close=True, reach_m=0.05, reach_rad=1.0, least=6),
        Leg(_stay(0.06), close=True, reach_m=-1.0, most=20),
    ),
)

_BIN_M = np.array([0.15, 0.35])  # in the can's compartment, this side of its centre: that is out of the arm's reach


def _carry(target_m: np.ndarray, height_m: float) -> Callable:
    """Return the goal that brings the object over `target_m` [2] with the tool at `height_m`."""

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        away = target_m - sense.object_m[:, :2]
        aim = np.concatenate([sense.tool_m[:, :2] + away, np.full((len(away), 1), height_m)], 1)
        return aim, np.full(len(away), _HOME_RAD)

    return goal


def _raise_to(height_m: float) -> Callable:
    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        aim = sense.tool_m.copy()
        aim[:, 2] = height_m
        return aim, sense.fingers_rad

    return goal


def _round_grasp(height_m: float) -> Callable:
    """Return the goal above a round object, the fingers as at home."""
    return lambda sense: (sense.object_m + np.array([0.0, 0.0, height_m]), np.full(len(sense.tool_m), _HOME_RAD))


_CAN = Script(
    "Can",
    (
        Leg(_round_grasp(0.14), reach_m=0.02),
        Leg(_round_grasp(0.015), reach_m=0.01),
        Leg(_round_grasp(0.015), close=True, reach_m=0.05, reach_rad=1.0, least=8),
        Leg(_raise_to(1.02), close=True, reach_m=0.03),
        Leg(_carry(_BIN_M, 1.02), close=True, reach_m=0.02),
        Leg(_carry(_BIN_M, 0.92), close=True, reach_m=0.02, most=40),
        Leg(_carry(_BIN_M, 0.92), reach_m=0.1, least=6, most=10),
        Leg(_raise_to(1.02), reach_m=-1.0, most=20),
    ),
    carried=(4, 6),
)

_PEG_M = np.array([0.23, 0.10])
_PEG_YAW_RAD = np.array([np.pi / 2, np.pi, -np.pi / 2])  # of the nut on the peg
_WRIST_RAD = 1.75  # how far the fingers may turn from home
_HANDLE_M = 0.054  # from the nut's centre along its x axis


def _handle(height_m: float) -> Callable:
    """Return the goal above the nut's handle; the tool comes down only where it fits over it."""

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        yaw = sense.object_yaw_rad
        offset = np.stack([_HANDLE_M * np.cos(yaw), _HANDLE_M * np.sin(yaw), np.full(len(yaw), height_m)], 1)
        aim, fingers = sense.object_m + offset, _across(sense, np.pi / 2, np.pi)
        off = np.linalg.norm((aim - sense.tool_m)[:, :2], axis=1)
        turned = np.abs(fold(fingers - sense.fingers_rad, 2 * np.pi))
        low = np.where((off < 0.008) & (turned < 0.1), 0.02, 0.0)
        aim[:, 2] = np.maximum(aim[:, 2], sense.tool_m[:, 2] - low) if height_m < 0.05 else aim[:, 2]
        return aim, fingers

    return goal


def _over_peg(height_m: float, step_m: float = np.inf) -> Callable:
    """Return the tool goal that brings the held nut over the peg, square to it.

    The handle never points away from the arm: there the peg is out of reach. At most `step_m` down at once.
    """

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        held = sense.fingers_rad - sense.object_yaw_rad
        turned = fold(sense.fingers_rad - _HOME_RAD, 2 * np.pi)
        options = fold(held[:, None] + _PEG_YAW_RAD - _HOME_RAD, 2 * np.pi)  # [E,3] from home
        cost = np.abs(options - turned[:, None]) + 10.0 * (np.abs(options) > _WRIST_RAD)
        turn = np.take_along_axis(options, cost.argmin(1)[:, None], 1)[:, 0] - turned
        offset = sense.tool_m - sense.object_m
        cos, sin = np.cos(turn), np.sin(turn)
        aim = np.empty_like(offset)
        aim[:, 0] = _PEG_M[0] + cos * offset[:, 0] - sin * offset[:, 1]
        aim[:, 1] = _PEG_M[1] + sin * offset[:, 0] + cos * offset[:, 1]
        aim[:, 2] = np.maximum(height_m, sense.tool_m[:, 2] - step_m)
        return aim, sense.fingers_rad + turn

    return goal


_SQUARE = Script(
    "SquareNut",
    (
        Leg(_handle(0.2), reach_m=0.04),
        Leg(_handle(0.07), reach_m=0.01),
        Leg(_handle(0.0), reach_m=0.006),
        Leg(_handle(0.0), close=True, reach_m=0.05, reach_rad=1.0, least=8),
        Leg(_raise_to(1.02), close=True, reach_m=0.03),
        Leg(_over_peg(1.02), close=True, reach_m=0.006, reach_rad=0.04),
        Leg(_over_peg(0.98, 0.01), close=True, reach_m=0.004, reach_rad=0.04, gain=2.0),
        Leg(_over_peg(0.90, 0.015), close=True, reach_m=0.01, most=60, gain=2.0),
        Leg(_stay(0.0), reach_m=0.1, least=6, most=10),
        Leg(_raise_to(1.05), reach_m=-1.0, most=20),
    ),
    carried=(5, 7),
)

EXPERTS: dict[str, Script] = {"Lift": _LIFT, "PickPlaceCan": _CAN, "NutAssemblySquare": _SQUARE}
