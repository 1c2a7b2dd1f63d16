"""More in a human's hands: a space mouse, a leader arm on a topic, and two devices together."""

import contextlib
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robolearn.errors import HardwareError
from robolearn.hardware.observe import Reading
from robolearn.hardware.teleop import Device, Shows, Twist
from robolearn.hardware.transport import SENSOR, Transport
from robolearn.robots import Arm

__all__ = ["Leader", "LeaderConfig", "SpaceMouse", "Together"]

_VENDORS = ("0000256F", "0000046D")  # 3Dconnexion, and Logitech before it
_FRESH_S = 0.25  # a leader that falls silent asks for nothing


class SpaceMouse:
    """A 3Dconnexion puck read from its raw HID reports: pushes move the tool, its turn is the yaw.

    The left button closes the gripper while it is held, the right one opens it.
    """

    _FULL = 350.0  # counts at full deflection
    _SILENT_S = 0.5  # the puck reports while it is deflected, and zeros when it is let go

    def __init__(self, path: str = "", dead_zone: float = 0.08):
        self._descriptor = os.open(path or _find_space_mouse(), os.O_RDONLY | os.O_NONBLOCK)
        self._dead_zone, self._axes, self._buttons = dead_zone, np.zeros(6), 0
        self._heard_s = -np.inf

    def read(self) -> Twist:
        with contextlib.suppress(BlockingIOError):
            while report := os.read(self._descriptor, 64):
                self._take(report)
        if time.monotonic() - self._heard_s > self._SILENT_S:
            self._axes[:] = 0.0
        axes = np.where(np.abs(self._axes) < self._dead_zone, 0.0, np.clip(self._axes, -1, 1))
        right, back, down, _, _, clockwise = axes.tolist()
        gripper = float(bool(self._buttons & 2)) - float(bool(self._buttons & 1))
        return Twist((-back, -right, -down), -clockwise, gripper)

    def close(self) -> None:
        os.close(self._descriptor)

    def _take(self, report: bytes) -> None:
        kind, size = report[0], len(report) - 1
        if kind in (1, 2) and size in (6, 12):  # one half of the axes, or all of them
            first = 0 if kind == 1 else 3
            self._axes[first : first + size // 2] = np.array(struct.unpack(f"<{size // 2}h", report[1:])) / self._FULL
            self._heard_s = time.monotonic()
        elif kind == 3 and size >= 1:
            self._buttons = report[1]


def _find_space_mouse() -> str:
    for device in sorted(Path("/sys/class/hidraw").glob("hidraw*")):
        facts = (device / "device" / "uevent").read_text().upper()
        if any(f":{vendor}:" in facts for vendor in _VENDORS) and ("SPACE" in facts or "3DCONNEXION" in facts):
            return f"/dev/{device.name}"
    raise HardwareError(
        "No space mouse is connected.",
        found="none in /sys/class/hidraw",
        do="connect one, and allow reading /dev/hidraw*",
    )


# ---------------------------------------------------------------- a leader arm


@dataclass(frozen=True)
class LeaderConfig:
    """Where a leader arm publishes its joints; `joints` are its names, in the order of the follower's."""

    topic: str = "/leader/joint_states"
    joints: tuple[str, ...] = ()
    offsets_rad: tuple[float, ...] = ()
    gripper_joint: str = ""
    gripper_open: float = 1.0  # its reading when the follower's gripper should be open; 0 is closed


class Leader:
    """An arm moved by hand; the follower goes where it is, no faster than a jog's turning speed."""

    def __init__(self, transport: Transport, arm: Arm, config: LeaderConfig):
        self._names, self._config, self._arm = config.joints or arm.joints, config, arm
        self._offsets = np.array(config.offsets_rad or np.zeros(len(arm.joints)))
        if len(self._names) != len(arm.joints) or len(self._offsets) != len(arm.joints):
            raise HardwareError("The leader's joints do not fit the arm.", found=self._names, expected=arm.joints)
        self._transport = transport
        self._states = transport.subscriber(config.topic, "sensor_msgs/msg/JointState", SENSOR)
        self._twist, self._stamp_ns = Twist(), -(10**18)

    def read(self) -> Twist:
        for received in self._states.take():
            known = dict(zip(received.message.name, np.asarray(received.message.position, float), strict=False))
            joints = np.array([known.get(name, np.nan) for name in self._names]) + self._offsets
            if np.isfinite(joints).all():
                share = known.get(self._config.gripper_joint, np.nan) / self._config.gripper_open
                width = None if not np.isfinite(share) else float(np.clip(share, 0, 1)) * self._arm.gripper.width_m
                self._twist = Twist(joints_rad=tuple(joints.tolist()), width_m=width)
                self._stamp_ns = received.stamp_ns
        fresh = time.monotonic_ns() - self._stamp_ns < 1e9 * _FRESH_S
        return self._twist if fresh else Twist()

    def close(self) -> None:
        self._transport.close()


# ---------------------------------------------------------------- two at once


class Together:
    """One device for the motion, another for the marks and what is shown."""

    def __init__(self, motion: Device, marks: Device):
        self._motion, self._marks = motion, marks
        self.url = getattr(marks, "url", None) or getattr(motion, "url", None)

    def read(self) -> Twist:
        return replace(self._motion.read(), mark=self._marks.read().mark)

    def show(self, reading: Reading, signals: Mapping[str, float | str]) -> None:
        for device in (self._motion, self._marks):
            if isinstance(device, Shows):
                device.show(reading, signals)

    def close(self) -> None:
        self._motion.close()
        self._marks.close()
