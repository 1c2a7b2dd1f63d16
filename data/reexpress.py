"""Recorded actions in another action space: joint targets, tool poses, steps of the tool, and back.

Everything goes through absolute poses of the tool in the base frame. Steps are relative to the previous
target; the first is relative to the tool that was measured. Rotations are rotation vectors, or a yaw
where the recording has nothing else; a gripper entry behind them stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from robolearn.contracts import EpisodeSource
from robolearn.data.frames import metadata_of
from robolearn.errors import DataError, SpecError
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Spec

__all__ = ["Reexpressed", "Space", "Tool", "arm_tool"]

Space = Literal["joint_position", "ee_pose", "ee_delta"]
_STATE = "observation.state"
_LEFT_M, _LEFT_RAD = 1e-3, 1e-2  # what inverse kinematics may leave of an error


class Tool(Protocol):
    """Where the tool of an arm is, and which joints bring it somewhere."""

    def pose(self, position_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return tool points [n,3] m and orientations [n,3,3] of joints [n,J]."""

    def solve(
        self, start_rad: np.ndarray, point_m: np.ndarray, axes: np.ndarray, steps: int = 20
    ) -> tuple[np.ndarray, float, float]:
        """Return joints [J] near `start_rad` at a pose, and what is left of the error [m], [rad]."""


def arm_tool(arm: str) -> tuple[Tool, int]:
    """Return the kinematics of a registered arm and its number of joints."""
    constants = resolve("robot", arm)
    return resolve("kinematics", "serial")(constants), len(constants.joints)


@dataclass
class Reexpressed:
    """An `EpisodeSource` whose actions are those of `source` in `space`; `arm` is needed where joints are."""

    source: EpisodeSource
    space: Space
    arm: str = ""
    spec: Spec = field(init=False)

    def __post_init__(self):
        action = self.source.spec.action
        if action.kind not in ("joint_position", "ee_pose", "ee_delta"):
            raise SpecError(
                "These actions cannot be re-expressed.",
                found=f"action kind '{action.kind or 'not stated'}'",
                expected="joint_position, ee_pose or ee_delta",
            )
        self._yaw = action.rotation == "yaw"
        self._tool, self._joints = (None, 0)
        if "joint_position" in (action.kind, self.space):
            if not self.arm or self._yaw:
                raise SpecError("Joints need their arm and full rotations.", do="name it: arm=panda")
            self._tool, self._joints = arm_tool(self.arm)
        if action.kind != "joint_position" and not self._yaw and action.rotation != "axis_angle":
            raise SpecError("Only rotation vectors and yaws are re-expressed.", found=action.rotation or "not stated")
        self._pose = 4 if self._yaw else 6
        self._before = self._joints if action.kind == "joint_position" else self._pose
        after = self._joints if self.space == "joint_position" else self._pose
        rest = action.dim - self._before
        if rest not in (0, 1):
            raise SpecError("The action is no single arm with at most a gripper.", found=f"{action.dim} entries")
        self.spec = replace(self.source.spec, action=_action(action, self.space, after, rest, self._yaw))

    @property
    def lengths(self) -> np.ndarray:
        return self.source.lengths

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that `read` knows."""
        return tuple(getattr(self.source, "keys", ()))

    def metadata(self, episode: int) -> dict[str, Any]:
        """Return what was recorded about the episode."""
        return metadata_of(self.source, episode)

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys` of one episode."""
        columns = self.source.read(episode, keys, start, stop)
        if "action" in columns:  # steps depend on all targets before them
            columns["action"] = self._actions(episode)[start:stop].astype(np.float32)
        return columns

    def _actions(self, episode: int) -> np.ndarray:
        given = self.source.read(episode, ["action", _STATE])
        action, first = given["action"].astype(np.float64), given[_STATE][0].astype(np.float64)
        kind, start = self.source.spec.action.kind, self._start(first)
        if kind == "joint_position" and self._tool is not None:
            points, turns = self._tool.pose(action[:, : self._joints])
            turns = Rotation.from_matrix(turns)
        else:
            points, turns = action[:, :3], self._turns(action[:, 3 : self._pose])
            if kind == "ee_delta":
                points, turns = start[0] + np.cumsum(points, 0), _accumulated(turns, start[1])
        return np.concatenate([self._expressed(points, turns, start, first), action[:, self._before :]], 1)

    def _expressed(self, points: np.ndarray, turns: Rotation, start: Any, first: np.ndarray) -> np.ndarray:
        if self.space == "ee_pose":
            return np.concatenate([points, self._numbers(turns)], 1)
        if self.space == "ee_delta":
            before = Rotation.concatenate([start[1], turns[:-1]])
            moved = np.diff(points, axis=0, prepend=start[0][None])
            return np.concatenate([moved, self._numbers(_composed(turns, before.inv()))], 1)
        joints, result = first[: self._joints], []
        for step, (point, axes) in enumerate(zip(points, turns.as_matrix(), strict=True)):
            joints, left_m, left_rad = self._solve(joints, point, axes)
            if left_m > _LEFT_M or left_rad > _LEFT_RAD:
                raise DataError(
                    f"{self.arm} does not reach the target of frame {step}.",
                    found=f"{left_m:.4f} m, {left_rad:.3f} rad",
                )
            result.append(joints)
        return np.stack(result)

    def _solve(self, joints: np.ndarray, point: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, float, float]:
        if self._tool is None:
            raise SpecError("Joints need their arm.", do="name it: arm=panda")
        return self._tool.solve(joints, point, axes)

    def _start(self, state: np.ndarray) -> tuple[np.ndarray, Rotation]:
        """Return the tool's pose before the first action: from the joints, or from the state's first entries."""
        if self._tool is not None:
            points, turns = self._tool.pose(state[None, : self._joints])
            return points[0], Rotation.from_matrix(turns[0])
        names, wanted = self.source.spec.observations[_STATE].names, self.source.spec.action.names
        if names[: self._pose] != wanted[: self._pose] or len(state) < self._pose:
            raise SpecError(
                "The state does not begin with the tool's pose.", found=names, expected=wanted[: self._pose]
            )
        return state[:3], self._turns(state[None, 3 : self._pose])[0]

    def _turns(self, numbers: np.ndarray) -> Rotation:
        return Rotation.from_rotvec(np.pad(numbers, [(0, 0), (2, 0)]) if self._yaw else numbers)

    def _numbers(self, turns: Rotation) -> np.ndarray:
        return turns.as_rotvec()[:, 2:] if self._yaw else turns.as_rotvec()


def _accumulated(steps: Rotation, start: Rotation) -> Rotation:
    result = []
    for step in steps:
        start = _composed(step, start)
        result.append(start)
    return Rotation.concatenate(result)


def _composed(later: Rotation, earlier: Rotation) -> Rotation:
    return Rotation.from_matrix(later.as_matrix() @ earlier.as_matrix())


def _action(action: ActionSpec, space: Space, size: int, rest: int, yaw: bool) -> ActionSpec:
    pose = ("x", "y", "z", "yaw") if yaw else ("x", "y", "z", "rx", "ry", "rz")
    names = pose if space != "joint_position" else tuple(f"joint{i + 1}" for i in range(size))
    return replace(
        action,
        dim=size + rest,
        kind=space,
        names=(*names, *(("gripper",) if rest else ())),
        unit="rad" if space == "joint_position" else "m, rad",
        rotation="" if space == "joint_position" else "yaw" if yaw else "axis_angle",
        reference="previous_target" if space == "ee_delta" else "",
        low=None,
        high=None,
    )
