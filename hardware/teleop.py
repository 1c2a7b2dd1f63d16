"""Teleoperation: devices give tool velocities, a jog turns them into chunks that end at rest."""

import contextlib
import os
import select
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from robolearn.contracts import RobotState
from robolearn.errors import HardwareError, suggest
from robolearn.hardware.kinematics import Kinematics
from robolearn.hardware.observe import Reading
from robolearn.robots import Arm

__all__ = ["DEVICES", "MARKS", "Device", "Gamepad", "Jog", "Keyboard", "Scripted", "Shows", "Twist"]
__all__ += ["open_device"]

MARKS = ("success", "discard", "stop", "takeover", "rewind", "handback")


@dataclass(frozen=True)
class Twist:
    """What the human asks for: shares of full speed in [-1, 1], in the arm's base frame."""

    linear: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    gripper: float = 0.0  # positive opens
    mark: str = ""  # one of MARKS
    joints_rad: tuple[float, ...] | None = None  # where a leader arm is, instead of the shares
    width_m: float | None = None  # of its gripper

    @property
    def idle(self) -> bool:
        """Nothing is asked for."""
        return not (any(self.linear) or self.yaw or self.gripper or self.mark or self.joints_rad)


class Device(Protocol):
    """Something in a human's hands."""

    def read(self) -> Twist:
        """Return what is asked for now; never waits."""

    def close(self) -> None: ...


@runtime_checkable
class Shows(Protocol):
    """A device that is told what the robot sees: a page, or a stand-in for a human."""

    def show(self, reading: Reading, signals: Mapping[str, float | str]) -> None:
        """Take a reading and live signals; never waits."""


class Scripted:
    """Plays twists in order, then asks to stop; stands in for a human in tests and shows."""

    def __init__(self, twists: Sequence[Twist]):
        self._twists = list(twists)[::-1]

    def read(self) -> Twist:
        return self._twists.pop() if self._twists else Twist(mark="stop")

    def close(self) -> None:
        self._twists.clear()


class Keyboard:
    """Keys of a terminal: w/s x, a/d y, r/f z, q/e yaw, o/c gripper; Enter success, Backspace discard, Esc stop.

    A terminal tells of key presses only: a key counts for 0.15 s, which auto-repeat bridges.
    """

    _AXES = {  # noqa: RUF012 constants
        "w": (0, 1.0), "s": (0, -1.0), "a": (1, 1.0), "d": (1, -1.0), "r": (2, 1.0), "f": (2, -1.0),
        "q": (3, 1.0), "e": (3, -1.0), "o": (4, 1.0), "c": (4, -1.0),
    }  # fmt: skip
    _MARKS: dict[str, str] = {  # noqa: RUF012
        "\n": "success", "\r": "success", "\x7f": "discard", "\x1b": "stop", "t": "takeover", "b": "rewind",
        "h": "handback",
    }  # fmt: skip

    def __init__(self, descriptor: int | None = None):
        import termios
        import tty

        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        if not os.isatty(self._descriptor):
            raise HardwareError("The keyboard needs a terminal.", do="run in one, or use device=page or gamepad")
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        self._until_s: dict[str, float] = {}

    def read(self) -> Twist:
        now, mark = time.monotonic(), ""
        while select.select([self._descriptor], [], [], 0)[0]:
            for key in os.read(self._descriptor, 64).decode("utf-8", "ignore"):
                mark = self._MARKS.get(key, mark)
                self._until_s[key] = now + 0.15
        values = np.zeros(5)
        for key, until in self._until_s.items():
            if key in self._AXES and until > now:
                axis, sign = self._AXES[key]
                values[axis] += sign
        x, y, z, yaw, gripper = np.clip(values, -1, 1).tolist()
        return Twist((x, y, z), yaw, gripper, mark)

    def close(self) -> None:
        import termios

        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)


class Gamepad:
    """A Linux joystick: left stick x and y, right stick z and yaw, shoulders gripper.

    Buttons: A success, B discard, X take over, Y hand back, start stop.
    """

    _EVENT = struct.Struct("IhBB")  # milliseconds, value, kind, number (linux/joystick.h)
    _MARKS: dict[int, str] = {0: "success", 1: "discard", 2: "takeover", 3: "handback", 7: "stop"}  # noqa: RUF012

    def __init__(self, path: str = "/dev/input/js0", dead_zone: float = 0.12):
        if not Path(path).exists():
            raise HardwareError("No gamepad is connected.", found=f"no {path}", do="connect one, or name its device")
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._dead_zone = dead_zone
        self._axes, self._buttons = np.zeros(8), np.zeros(16, bool)

    def read(self) -> Twist:
        mark = ""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, self._EVENT.size):
                _, value, kind, number = self._EVENT.unpack(data)
                if kind & 2 and number < len(self._axes):
                    self._axes[number] = value / 32767
                elif kind & 1 and number < len(self._buttons):
                    self._buttons[number] = bool(value)
                    mark = self._MARKS.get(number, mark) if value and not kind & 128 else mark
        axes = np.where(np.abs(self._axes) < self._dead_zone, 0.0, np.clip(self._axes, -1, 1))
        gripper = float(self._buttons[5]) - float(self._buttons[4])
        return Twist((-float(axes[1]), -float(axes[0]), -float(axes[4])), -float(axes[3]), gripper, mark)

    def close(self) -> None:
        os.close(self._descriptor)


class Jog:
    """Turns twists into chunks [K,J+1] of joint targets that begin where the arm was last told to be."""

    def __init__(self, arm: Arm, period_s: float, chunk: int = 10, speed_m_s: float = 0.15, speed_rad_s: float = 0.6):
        self._arm, self._kinematics = arm, Kinematics(arm)
        self.period_s, self._chunk = period_s, chunk
        self._speed_m_s, self._speed_rad_s = speed_m_s, speed_rad_s
        self._joints: np.ndarray | None = None
        self._width_m = 0.0
        self.pose: tuple[np.ndarray, np.ndarray] | None = None

    def start(self, state: RobotState) -> None:
        """Begin at the arm's present pose."""
        self._joints = np.array(state.position_rad, float)
        self._width_m = state.gripper_m if state.gripper_m is not None else self._arm.gripper.width_m
        (point,), (axes,) = self._kinematics.pose(self._joints[None])
        self.pose = point, axes

    def step(self, twist: Twist) -> np.ndarray:
        """Return the targets from now on; the second one is due at the next call.

        The motion goes on for half of the chunk and then stands, so that a human who falls silent
        leaves an arm that comes to rest. A pose out of reach is not followed. Where a leader arm asks for
        joints, all of them go there together.
        """
        if self._joints is None or self.pose is None:
            raise HardwareError("The jog has not started.", do="call start with the arm's state")
        rows, joints, (point, axes) = [np.append(self._joints, self._width_m)], self._joints, self.pose
        for i in range(1, self._chunk):
            if i <= self._chunk // 2 and not replace(twist, mark="").idle:
                point, axes, joints = self._move(twist, point, axes, joints)
            rows.append(np.append(joints, self._next_width(twist, min(i, self._chunk // 2))))
            if i == 1:
                ahead = joints, (point, axes)
        self._joints, self.pose = ahead
        self._width_m = float(rows[1][-1])
        return np.array(rows)

    def _move(
        self, twist: Twist, point: np.ndarray, axes: np.ndarray, joints: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if twist.joints_rad is not None:
            away = np.clip(twist.joints_rad, self._arm.low_rad, self._arm.high_rad) - joints
            solved = joints + away * min(1.0, self._speed_rad_s * self.period_s / max(float(np.abs(away).max()), 1e-9))
            (point,), (axes,) = self._kinematics.pose(solved[None])
            return point, axes, solved
        angle = np.clip(twist.yaw, -1, 1) * self._speed_rad_s * self.period_s
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        wanted = point + np.clip(twist.linear, -1, 1) * self._speed_m_s * self.period_s, turn @ axes
        solved, metres, radians = self._kinematics.solve(joints, *wanted)
        if metres > 2e-3 or radians > 0.02 or np.abs(solved - joints).max() > 0.2:
            return point, axes, joints
        return *wanted, solved

    def _next_width(self, twist: Twist, steps: int) -> float:
        most = 0.1 * self.period_s * steps
        asked = np.clip(twist.gripper, -1, 1) * most
        if twist.width_m is not None:
            asked = np.clip(twist.width_m - self._width_m, -most, most)
        moved = self._width_m + asked
        return float(np.clip(moved, 0.0, self._arm.gripper.width_m))


# name → "module:class"
DEVICES = {
    "gamepad": "robolearn.hardware.teleop:Gamepad",
    "keyboard": "robolearn.hardware.teleop:Keyboard",
    "leader": "robolearn.hardware.devices:Leader",
    "page": "robolearn.hardware.page:Page",
    "spacemouse": "robolearn.hardware.devices:SpaceMouse",
}


def open_device(name: str, leader: Callable[[], tuple[Any, ...]] | None = None) -> Device:
    """Open a device by name; the address of a page is its `url`.

    "spacemouse+keyboard" takes the motion from one and the marks from the other. `leader` gives what a
    leader arm is opened with: its transport, arm and config.
    """
    motion, _, marks = name.partition("+")
    if motion not in DEVICES:
        raise HardwareError(f"Unknown device '{motion}'.", expected=suggest(motion, DEVICES))
    kind = _load(DEVICES[motion])
    if motion == "leader" and leader is None:
        raise HardwareError("A leader arm needs a robot with a `leader`.", do="state robot.leader.topic")
    opened = kind(*leader()) if motion == "leader" and leader is not None else kind()
    if not marks:
        return opened
    return _load("robolearn.hardware.devices:Together")(opened, open_device(marks, leader))


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
