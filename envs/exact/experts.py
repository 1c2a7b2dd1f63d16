"""Scripted demonstrators for Lift, PickPlaceCan, NutAssemblySquare and ToolHang, over robosuite's observations.

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
    raw: Mapping[str, np.ndarray]

    @property
    def fingers_rad(self) -> np.ndarray:
        """Direction of the fingers' axis [E]."""
        return np.arctan2(self.tool_mat[:, 1, 0], self.tool_mat[:, 0, 0])

    @property
    def gap_m(self) -> np.ndarray:
        """How far the fingers are apart [E]."""
        return np.abs(self.raw["robot0_gripper_qpos"]).sum(1)

    def pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the position [E,3] and orientation [E,3,3] of any observed object."""
        return self.raw[f"{name}_pos"], Rotation.from_quat(self.raw[f"{name}_quat"]).as_matrix()


@dataclass(frozen=True)
class Leg:
    """One leg: tool goals [E,3] and finger directions [E] (the tool points down) or orientations [E,3,3].

    It lasts until the goal is reached or its time is over.
    """

    goal: Callable[[Sense], tuple[np.ndarray, np.ndarray]]
    close: bool = False
    reach_m: float = 0.01
    reach_rad: float = 0.1
    least: int = 0  # control steps
    most: int = 80
    gain: float = _GAIN
    open_m: float = 0.0  # between the fingers, before it is over


@dataclass(frozen=True)
class Script:
    """The legs of one task and the observation keys of its object."""

    object: str
    legs: tuple[Leg, ...]
    carried: tuple[int, int] = (0, 0)  # legs [first, last) in which the object is held, else: the last leg, then anew
    hold_m: float = 0.1  # how far the object's origin may be from the tool then
    empty_m: float = 0.0  # between fingers that have closed on nothing: anew at once
    max_steps: int = 400  # of an episode that leaves it time enough


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
        goal, turn = sense.tool_m.copy(), np.zeros_like(sense.tool_m)
        gain, close, over = np.ones(len(goal)), np.zeros(len(goal), bool), np.zeros(len(goal), bool)
        for index in np.unique(self._leg):
            leg, rows = self._script.legs[index], self._leg == index
            aim, direction = leg.goal(sense)
            left, off_rad = _turn_left(sense, direction)
            goal[rows], turn[rows], gain[rows], close[rows] = aim[rows], left[rows], leg.gain, leg.close
            near = (np.linalg.norm(aim - sense.tool_m, axis=1) < leg.reach_m) & (off_rad < leg.reach_rad)
            near &= sense.gap_m >= leg.open_m
            over |= rows & ((near & (self._count >= leg.least)) | (self._count >= leg.most))
        action = _action(goal - sense.tool_m, turn, gain, close)
        lost = np.linalg.norm(sense.object_m - sense.tool_m, axis=1) > self._script.hold_m
        lost &= (self._leg >= self._script.carried[0]) & (self._leg < self._script.carried[1])
        self._leg[lost] = len(self._script.legs) - 2
        empty = close & (sense.gap_m < self._script.empty_m)
        self._leg[empty], over = -1, over | lost | empty
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
        raw=raw,
    )


def _turn_left(sense: Sense, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rotation [E,3] that is left to a leg's goal, and the angle [E] that counts for having reached it."""
    want, off_rad = direction, None
    if direction.ndim == 1:
        about_z = np.stack([np.zeros_like(direction), np.zeros_like(direction), direction - _HOME_RAD], 1)
        want = Rotation.from_rotvec(about_z).as_matrix() @ _DOWN
        off_rad = np.abs(fold(direction - sense.fingers_rad, 2 * np.pi))
    turn = Rotation.from_matrix(want @ sense.tool_mat.swapaxes(1, 2)).as_rotvec()
    return turn, np.linalg.norm(turn, axis=1) if off_rad is None else off_rad


def _action(move: np.ndarray, turn: np.ndarray, gain: np.ndarray, close: np.ndarray) -> np.ndarray:
    moved, turned = move * gain[:, None] / _MOVE_M, turn * _GAIN / _TURN_RAD
    grip = np.where(close, 1.0, -1.0)[:, None]
    return np.concatenate([np.clip(moved, -1.0, 1.0), np.clip(turned, -1.0, 1.0), grip], 1)


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
_OPEN_M = 0.06  # between fingers that go over the handle


def _handle(height_m: float, closed_m: float = 0.0) -> Callable:
    """Return the goal above the nut's handle; the tool comes down only where it fits over it.

    Fingers that are not open stay `closed_m` above it, where that is given.
    """

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        yaw = sense.object_yaw_rad
        offset = np.stack([_HANDLE_M * np.cos(yaw), _HANDLE_M * np.sin(yaw), np.full(len(yaw), height_m)], 1)
        aim, fingers = sense.object_m + offset, _across(sense, np.pi / 2, np.pi)
        off = np.linalg.norm((aim - sense.tool_m)[:, :2], axis=1)
        turned = np.abs(fold(fingers - sense.fingers_rad, 2 * np.pi))
        low = np.where((off < 0.008) & (turned < 0.1), 0.02, 0.0)
        aim[:, 2] = np.maximum(aim[:, 2], sense.tool_m[:, 2] - low) if height_m < 0.05 else aim[:, 2]
        if closed_m:
            aim[:, 2] = np.where(sense.gap_m < _OPEN_M, sense.object_m[:, 2] + closed_m, aim[:, 2])
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
        Leg(_handle(0.0, closed_m=0.07), reach_m=0.006, open_m=_OPEN_M),
        Leg(_handle(0.0), close=True, reach_m=0.05, reach_rad=1.0, least=8),
        Leg(_raise_to(1.02), close=True, reach_m=0.03),
        Leg(_over_peg(1.02), close=True, reach_m=0.006, reach_rad=0.04),
        Leg(_over_peg(0.98, 0.01), close=True, reach_m=0.004, reach_rad=0.04, gain=2.0),
        Leg(_over_peg(0.90, 0.015), close=True, reach_m=0.01, most=60, gain=2.0),
        Leg(_stay(0.0), reach_m=0.1, least=6, most=30, open_m=0.04),
        Leg(_raise_to(1.05), reach_m=-1.0, most=20),
    ),
    carried=(5, 7),
    empty_m=0.025,
)

_HANDLE_OF_FRAME_M = np.array([0.0, 0.0, -0.034])  # the middle of its grip, from its corner
_HOOK_M = np.array([-0.0875, 0.0, 0.0])  # the hook's tip, from the frame's corner
_RING_M = np.array([-0.0935, 0.0, 0.0])  # the hole that is hung up, from the tool's middle
_HOLE_M = np.array([0.0, 0.045, 0.0])  # of the stand, from the middle of its base
_STANDING = np.diag([-1.0, -1.0, 1.0])  # the frame's orientation in the stand: the hook points away from the arm
_ASIDE_M = np.array([0.0, -0.195, 0.0])  # from the stand's hole to where the frame is turned upright
_CLEAR_M = np.array([0.0, -0.05, 1.25])  # where the hand turns down again

_OVER_M = 0.004  # how far beside the hook's tip the hole may come down
_TILT_RAD = 0.1  # of the tool in a step: faster, its hole would leave the hook's tip


def _above(name: str, height_m: float, point_m: np.ndarray, axis: np.ndarray) -> Callable:
    """Return the goal above a point of an object, the fingers along one of its axes."""

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        position, mat = sense.pose(name)
        fingers = mat @ axis
        aim = position + mat @ point_m + np.array([0.0, 0.0, height_m])
        return aim, np.arctan2(fingers[:, 1], fingers[:, 0])

    return goal


def _bring(sense: Sense, name: str, point_m: np.ndarray, to_m: np.ndarray, mat: np.ndarray) -> tuple:
    """Return the tool goal that brings a point of a held object to `to_m` [E,3], the object turned as `mat`."""
    position, present = sense.pose(name)
    change = mat @ present.swapaxes(1, 2)
    offset = sense.tool_m - position - present @ point_m
    return to_m + np.einsum("eij,ej->ei", change, offset), change @ sense.tool_mat


def _stand_up(height_m: float, aside_m: np.ndarray | float = 0.0, step_m: float = np.inf) -> Callable:
    """Return the goal that holds the frame upright, its corner `height_m` above the base's middle, over the hole."""

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        aim = sense.pose("base")[0] + _HOLE_M + aside_m
        aim[:, 2] = np.maximum(aim[:, 2] + height_m, sense.pose("frame")[0][:, 2] - step_m)
        return _bring(sense, "frame", np.zeros(3), aim, _STANDING)

    return goal


def _hang(offset_m: tuple[float, float, float], tilt_rad: float = 0.0, step_m: float = np.inf) -> Callable:
    """Return the goal that brings the tool's hole to `offset_m` from the hook's tip, seen from the frame.

    The tool lies in line with the hook, its other end beyond the tip and tilted downwards.
    """

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        corner, mat = sense.pose("frame")
        position, present = sense.pose("tool")
        aim = corner + mat @ (_HOOK_M + np.array(offset_m))
        ring = position + present @ _RING_M
        over = np.linalg.norm((aim - ring)[:, :2], axis=1) < _OVER_M
        aim[:, 2] = np.maximum(aim[:, 2], ring[:, 2] - np.where(over | np.isinf(step_m), step_m, 0.0))
        tilted = np.arcsin(np.clip(-present[:, 2, 0], -1.0, 1.0))
        angles = np.stack([np.full(len(aim), np.pi), np.clip(tilt_rad, tilted - _TILT_RAD, tilted + _TILT_RAD)], 1)
        return _bring(sense, "tool", _RING_M, aim, mat @ Rotation.from_euler("ZY", angles).as_matrix())

    return goal


def _drift(back_m: float, height_m: float | None = None) -> Callable:
    """Return the goal `back_m` behind the tool, or above it at `height_m`; it keeps its orientation."""

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        aim = sense.tool_m - back_m * sense.tool_mat[:, :, 2]
        aim[:, 2] = aim[:, 2] if height_m is None else height_m
        return aim, sense.tool_mat

    return goal


def _turn_down(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
    return np.tile(_CLEAR_M, (len(sense.tool_m), 1)), np.full(len(sense.tool_m), np.pi)


def _frame(height_m: float) -> Callable:
    return _above("frame", height_m, _HANDLE_OF_FRAME_M, np.array([1.0, 0.0, 0.0]))


def _tool(height_m: float) -> Callable:
    return _above("tool", height_m, np.zeros(3), np.array([0.0, -1.0, 0.0]))


_TOOL_HANG = Script(
    "tool",
    (
        Leg(_frame(0.1), reach_m=0.02),
        Leg(_frame(0.003), reach_m=0.006, reach_rad=0.05),
        Leg(_frame(0.003), close=True, reach_m=0.05, reach_rad=1.0, least=8),
        Leg(_raise_to(1.15), close=True, reach_m=0.03),
        Leg(_stand_up(0.4, _ASIDE_M), close=True, reach_m=0.03, reach_rad=0.15, most=100),
        Leg(_stand_up(0.4), close=True, reach_m=0.004, reach_rad=0.04, most=100),
        Leg(_stand_up(0.36), close=True, reach_m=0.004, reach_rad=0.03, gain=2.0),
        Leg(_stand_up(0.228, step_m=0.02), close=True, reach_m=0.006, reach_rad=3.0, gain=2.0),
        Leg(_drift(0.0), reach_rad=3.0, least=6),
        Leg(_drift(0.05), reach_m=-1.0, most=16),
        Leg(_drift(0.0, 1.22), reach_m=0.03, most=40),
        Leg(_turn_down, reach_m=0.1, reach_rad=0.3),
        Leg(_tool(0.15), reach_m=0.03, most=100),
        Leg(_tool(0.003), reach_m=0.006, reach_rad=0.05),
        Leg(_tool(0.003), close=True, reach_m=0.05, reach_rad=1.0, least=8),
        Leg(_raise_to(1.1), close=True, reach_m=0.03),
        Leg(_hang((-0.08, 0.10, 0.06)), close=True, reach_m=0.03, reach_rad=0.15, most=100),
        Leg(_hang((0.0, 0.0, 0.04)), close=True, reach_m=0.003, reach_rad=0.05, most=100),
        Leg(_hang((-0.001, 0.0, 0.007), step_m=0.01), close=True, reach_m=0.004, reach_rad=0.2, most=40, gain=2.0),
        Leg(_hang((-0.002, 0.0, 0.002), 0.6), close=True, reach_m=0.004, most=40, gain=2.0),
        Leg(_hang((0.008, 0.0, -0.002), 1.1), close=True, reach_m=0.004, most=40, gain=2.0),
        Leg(_drift(0.0), reach_m=-1.0, most=40),
        Leg(_drift(0.05), reach_m=-1.0, most=20),
    ),
    max_steps=600,
)

EXPERTS: dict[str, Script] = {
    "Lift": _LIFT,
    "PickPlaceCan": _CAN,
    "NutAssemblySquare": _SQUARE,
    "ToolHang": _TOOL_HANG,
}
