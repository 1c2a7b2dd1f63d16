"""Scripts of legs over robosuite's observations, and the demonstrator that runs them.

It looks at nothing but named observations and gives robosuite's default actions (operational-space
pose deltas), so that one expert drives this library's environments and robosuite itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from robolearn.errors import EnvError, suggest

__all__ = ["HOME_RAD", "ExactExpert", "Goal", "Leg", "Script", "Sense", "across", "fold", "opened", "raise_to", "stay"]

_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # tool x (the fingers' axis) along world y
HOME_RAD = np.pi / 2  # direction of the fingers' axis at home
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


type Goal = Callable[[Sense], tuple[np.ndarray, np.ndarray]]  # tool positions [E,3], directions or orientations


@dataclass(frozen=True)
class Leg:
    """One leg: tool goals [E,3] and finger directions [E] (the tool points down) or orientations [E,3,3].

    It lasts until the goal is reached or its time is over.
    """

    goal: Goal
    close: bool = False
    reach_m: float = 0.01
    reach_rad: float = 0.1
    least: int = 0  # control steps
    most: int = 80
    gain: float = _GAIN
    until: Callable[[Sense], np.ndarray] = lambda sense: np.ones(len(sense.tool_m), bool)  # what else must hold


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
            near &= leg.until(sense)
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
        about_z = np.stack([np.zeros_like(direction), np.zeros_like(direction), direction - HOME_RAD], 1)
        want = Rotation.from_rotvec(about_z).as_matrix() @ _DOWN
        off_rad = np.abs(fold(direction - sense.fingers_rad, 2 * np.pi))
    turn = Rotation.from_matrix(want @ sense.tool_mat.swapaxes(1, 2)).as_rotvec()
    return turn, np.linalg.norm(turn, axis=1) if off_rad is None else off_rad


def _action(move: np.ndarray, turn: np.ndarray, gain: np.ndarray, close: np.ndarray) -> np.ndarray:
    moved, turned = move * gain[:, None] / _MOVE_M, turn * _GAIN / _TURN_RAD
    grip = np.where(close, 1.0, -1.0)[:, None]
    return np.concatenate([np.clip(moved, -1.0, 1.0), np.clip(turned, -1.0, 1.0), grip], 1)


def across(sense: Sense, turn_rad: float, period_rad: float) -> np.ndarray:
    """Return the finger direction nearest to home that is `turn_rad` from the object's x axis."""
    return HOME_RAD + fold(sense.object_yaw_rad + turn_rad - HOME_RAD, period_rad)


def opened(gap_m: float) -> Callable[[Sense], np.ndarray]:
    """Return the condition [E] that the fingers are at least `gap_m` apart."""
    return lambda sense: sense.gap_m >= gap_m


def stay(lift_m: float) -> Goal:
    """Return the goal `lift_m` above the tool."""
    return lambda sense: (sense.tool_m + np.array([0.0, 0.0, lift_m]), sense.fingers_rad)


def raise_to(height_m: float) -> Goal:
    """Return the goal straight above or below the tool, at `height_m` in the world."""

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        aim = sense.tool_m.copy()
        aim[:, 2] = height_m
        return aim, sense.fingers_rad

    return goal
