"""From an arm's readings to a policy's observation, and from its actions to joint targets.

Which numbers a policy wants is read from the names in its spec: joint names, "gripper", or the tool's
"x", "y", "z", "yaw" and "width" in the world frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robolearn.contracts import RobotState
from robolearn.errors import HardwareError, SpecError, suggest
from robolearn.hardware.kinematics import Kinematics
from robolearn.robots import Arm
from robolearn.spec import Spec

__all__ = ["ActionMap", "Reading", "arm_state", "observation"]

# The tool points down with its fingers along y; a yaw turns it about the vertical.
_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
_REACH_M, _REACH_RAD = 0.03, 0.05  # an arm stretched out goes as near as it can; a wrong frame is off by more


@dataclass(frozen=True)
class Reading:
    """Everything known at one time: the arm, pictures by camera name, other signals by observation key."""

    state: RobotState
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    task: str = ""


def observation(reading: Reading, spec: Spec, arm: Arm, base_m: np.ndarray) -> dict[str, np.ndarray]:
    """Return the observation of `spec`, without a time axis; raises `SpecError` for what is not there."""
    values: dict[str, np.ndarray] = {}
    for key, feature in spec.observations.items():
        if feature.kind == "text":
            values[key] = np.array(reading.task)
        elif feature.kind == "image":
            values[key] = _image(reading, key, feature.shape)
        elif key == "observation.state":
            values[key] = arm_state(reading.state, feature.names or arm.joints, arm, base_m).astype(feature.dtype)
        elif key in reading.signals:
            values[key] = np.asarray(reading.signals[key]).astype(feature.dtype)
        else:
            raise SpecError(f"The robot does not give '{key}'.", expected=suggest(key, reading.signals))
        if feature.kind != "text" and values[key].shape != feature.shape:
            raise SpecError(f"'{key}' has the wrong shape.", found=values[key].shape, expected=feature.shape)
    return values


def _image(reading: Reading, key: str, shape: tuple[int, ...]) -> np.ndarray:
    name = key.removeprefix("observation.images.")
    if name not in reading.images:
        raise SpecError(f"The robot has no camera '{name}'.", expected=suggest(name, reading.images))
    if reading.images[name].shape == shape:
        return reading.images[name]
    import cv2

    return cv2.resize(reading.images[name], (shape[1], shape[0]), interpolation=cv2.INTER_AREA)


def arm_state(state: RobotState, names: tuple[str, ...], arm: Arm, base_m: np.ndarray) -> np.ndarray:
    """Return the numbers called `names` of an arm: its joints, its tool in the world, its gripper."""
    x, y, z, yaw = _tool(Kinematics(arm), state.position_rad[None], base_m)[0]
    known = dict(zip(arm.joints, state.position_rad, strict=True)) | {"x": x, "y": y, "z": z, "yaw": yaw}
    if state.gripper_m is not None:
        known["width"] = known["gripper"] = state.gripper_m
    for name in names:
        if name not in known:
            raise SpecError(f"The robot does not give '{name}'.", expected=suggest(name, known))
    return np.array([known[name] for name in names])


def _tool(kinematics: Kinematics, joints: np.ndarray, base_m: np.ndarray) -> np.ndarray:
    """Return x, y, z and yaw [n,4] of the tool in the world."""
    points, axes = kinematics.pose(joints)
    turn = axes @ _DOWN.T
    yaw = np.arctan2(turn[:, 1, 0] - turn[:, 0, 1], turn[:, 0, 0] + turn[:, 1, 1])
    return np.column_stack([points + base_m, yaw])


class ActionMap:
    """Turns a policy's chunks [K,A] into joint targets and a gripper width [K,J+1].

    Joint positions pass as they are; tool poses with a yaw are solved action by action, each from the
    solution before. Raises `SpecError` for any other kind of action, and `HardwareError` for a pose
    that the arm cannot reach.
    """

    def __init__(self, spec: Spec, arm: Arm, base_m: np.ndarray):
        action = spec.action
        if spec.robot and spec.robot != arm.name:
            raise SpecError("The policy is for another robot.", found=spec.robot, expected=arm.name)
        poses = action.kind == "ee_pose" and action.rotation == "yaw" and action.dim == 5
        joints = action.kind == "joint_position" and action.names[: len(arm.joints)] == arm.joints
        if not poses and not (joints and action.dim == len(arm.joints) + 1):
            raise SpecError(
                "This kind of action cannot be executed.",
                found=f"{action.kind} {action.names}",
                expected=f"joint_position of {', '.join(arm.joints)}, gripper; or ee_pose of x, y, z, yaw, gripper",
                do="convert the policy's actions with a declared transform",
            )
        self._poses, self._sign, self._arm = poses, action.gripper, arm
        self._base_m, self._kinematics = np.asarray(base_m, float), Kinematics(arm)

    def joints(self, chunk: np.ndarray, start_rad: np.ndarray) -> np.ndarray:
        """Return the targets [K,J+1] of a chunk [K,A] for an arm that is at `start_rad`."""
        width = self._width(chunk[:, -1])
        if not self._poses:
            return np.concatenate([chunk[:, :-1], width[:, None]], axis=1)
        solved, joints = [], np.asarray(start_rad, float)
        for x, y, z, yaw in chunk[:, :4]:
            sine, cosine = np.sin(yaw), np.cos(yaw)
            turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
            joints, metres, radians = self._kinematics.solve(joints, np.array([x, y, z]) - self._base_m, turn @ _DOWN)
            if metres > _REACH_M or radians > _REACH_RAD:
                raise HardwareError(
                    "The arm cannot reach a pose of the policy.",
                    found=f"({x:.3f}, {y:.3f}, {z:.3f}) m, {metres:.3f} m and {radians:.2f} rad off",
                    do="check the frame and base of the robot's config",
                )
            solved.append(joints)
        return np.concatenate([np.array(solved), width[:, None]], axis=1)

    def actions(self, targets: np.ndarray) -> np.ndarray:
        """Return the actions [K,A] that ask for targets [K,J+1]; in poses, a gripper less than half open closes."""
        if not self._poses:
            return targets
        closes = targets[:, -1] < 0.5 * self._arm.gripper.width_m
        sign = np.where(closes == (self._sign == "positive_closes"), 1.0, -1.0)
        return np.column_stack([_tool(self._kinematics, targets[:, :-1], self._base_m), sign])

    def _width(self, gripper: np.ndarray) -> np.ndarray:
        most = self._arm.gripper.width_m
        if not self._poses:
            return gripper
        closes = gripper > 0 if self._sign == "positive_closes" else gripper <= 0
        return np.where(closes, 0.0, most)
