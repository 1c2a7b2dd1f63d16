"""LeRobot's `Robot` and ours, in both directions.

LeRobot speaks flat dictionaries: `{joint}.pos` in degrees (grippers in percent of their opening) and
pictures by camera name; its `send_action` returns what was sent.
"""

import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from robolearn.contracts import Robot, RobotState
from robolearn.errors import HardwareError, suggest
from robolearn.hardware.ros_robot import robot_spec
from robolearn.robots import Arm

__all__ = ["AsLeRobot", "FromLeRobot", "LeRobotRobot"]


class LeRobotRobot(Protocol):
    """What is used of `lerobot.robots.Robot`."""

    @property
    def is_connected(self) -> bool: ...

    def connect(self, calibrate: bool = True) -> None: ...

    def get_observation(self) -> dict[str, Any]: ...

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]: ...

    def disconnect(self) -> None: ...


class FromLeRobot:
    """A LeRobot robot as `contracts.Robot`: degrees become radians, its gripper a width."""

    def __init__(self, inner: LeRobotRobot, arm: Arm, rate_hz: float, gripper: str = "gripper"):
        self._inner, self.arm, self._gripper = inner, arm, gripper
        self.spec = robot_spec(arm, rate_hz, gripper=True)

    def connect(self) -> None:
        """Connect without calibrating; raises `HardwareError` when a joint is missing."""
        self._inner.connect(calibrate=False)
        self.read()

    def read(self) -> RobotState:
        stamp = time.monotonic_ns()
        values = self._inner.get_observation()
        keys = [f"{name}.pos" for name in (*self.arm.joints, self._gripper)]
        for key in keys:
            if key not in values:
                raise HardwareError(f"The robot does not give '{key}'.", expected=suggest(key, values))
        *degrees, percent = (float(values[key]) for key in keys)
        width = self.arm.gripper.width_m * percent / 100.0
        return RobotState(stamp, self.arm.joints, np.radians(degrees), np.zeros(len(degrees)), width)

    def send(self, positions_rad: np.ndarray, stamp_ns: int) -> np.ndarray:
        row = np.atleast_2d(positions_rad)[0]
        if row.shape != (self.spec.action.dim,) or not np.isfinite(row).all():
            raise HardwareError("A set-point is refused.", found=row.shape, expected=f"{self.spec.action.dim} finite")
        action = {f"{name}.pos": float(np.degrees(q)) for name, q in zip(self.arm.joints, row[:-1], strict=True)}
        action[f"{self._gripper}.pos"] = 100.0 * float(row[-1]) / self.arm.gripper.width_m
        sent = self._inner.send_action(action)
        joints = [np.radians(float(sent[f"{name}.pos"])) for name in self.arm.joints]
        return np.array([*joints, self.arm.gripper.width_m * float(sent[f"{self._gripper}.pos"]) / 100.0])

    def close(self) -> None:
        if self._inner.is_connected:
            self._inner.disconnect()


class AsLeRobot:
    """One of our robots with the members of LeRobot's `Robot`, for its record and teleoperate scripts."""

    name = "robolearn"

    def __init__(self, inner: Robot, arm: Arm):
        self._inner, self._arm = inner, arm
        self._connected = False

    @property
    def observation_features(self) -> dict[str, type]:
        """Names and types of an observation."""
        return {f"{name}.pos": float for name in (*self._arm.joints, "gripper")}

    @property
    def action_features(self) -> dict[str, type]:
        """Names and types of an action."""
        return self.observation_features

    @property
    def is_connected(self) -> bool:
        """Whether `connect` has been called."""
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        """Always: a robot on a graph is calibrated by its driver."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Connect."""
        self._inner.connect()
        self._connected = True

    def calibrate(self) -> None:
        """Nothing to do."""

    def configure(self) -> None:
        """Nothing to do."""

    def get_observation(self) -> dict[str, Any]:
        """Return positions in degrees and the gripper in percent."""
        state = self._inner.read()
        names = zip(self._arm.joints, state.position_rad, strict=True)
        values = {f"{name}.pos": float(np.degrees(q)) for name, q in names}
        width = state.gripper_m if state.gripper_m is not None else 0.0
        return values | {"gripper.pos": 100.0 * width / self._arm.gripper.width_m}

    def send_action(self, action: Mapping[str, Any]) -> dict[str, Any]:
        """Send positions in degrees and return what was sent."""
        missing = [key for key in self.action_features if key not in action]
        if missing:
            raise HardwareError("An action lacks joints.", found=", ".join(action), expected=", ".join(missing))
        joints = [np.radians(float(action[f"{name}.pos"])) for name in self._arm.joints]
        row = np.array([*joints, self._arm.gripper.width_m * float(action["gripper.pos"]) / 100.0])
        sent = np.atleast_2d(self._inner.send(row, time.monotonic_ns()))[0]
        values = {f"{name}.pos": float(np.degrees(q)) for name, q in zip(self._arm.joints, sent, strict=False)}
        return values | {"gripper.pos": 100.0 * float(sent[-1]) / self._arm.gripper.width_m}

    def disconnect(self) -> None:
        """Disconnect."""
        self._inner.close()
        self._connected = False
