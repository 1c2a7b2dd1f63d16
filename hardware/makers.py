"""Arms through their makers' own libraries: Universal Robots by ur_rtde, Franka by pylibfranka.

Thin, and tested against stand-ins of the libraries only, not on hardware. Neither library is a dependency.
Both stream absolute joint positions, checked by the same filter as over ROS 2.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from robolearn.contracts import RobotState
from robolearn.errors import HardwareError, MissingLibraryError, suggest
from robolearn.hardware.ros_robot import robot_spec
from robolearn.robots import Arm

__all__ = ["MAKERS", "FrankaArm", "UniversalArm", "open_maker"]


class UniversalArm:
    """A UR arm by RTDE: `servoJ` per set-point; the controller stops the arm when set-points stay away.

    https://sdurobotics.gitlab.io/ur_rtde: `RTDEControlInterface`, `RTDEReceiveInterface`.
    """

    _LOOKAHEAD_S, _GAIN = 0.1, 300.0  # of servoJ: [0.03, 0.2] and [100, 2000]

    def __init__(self, arm: Arm, address: str, rate_hz: float, offsets_rad: Sequence[float] = ()):
        self.arm, self._address, self._rate_hz = arm, address, rate_hz
        self.spec = robot_spec(arm, rate_hz, gripper=False)
        self._offsets = np.array(offsets_rad or np.zeros(len(arm.joints)), float)
        self._control: Any = None
        self._receive: Any = None

    def connect(self) -> None:
        """Connect; nothing moves."""
        with _needed("ur_rtde"):
            receive, control = import_module("rtde_receive"), import_module("rtde_control")
        try:
            self._receive = receive.RTDEReceiveInterface(self._address)
            self._control = control.RTDEControlInterface(self._address, self._rate_hz)
        except RuntimeError as error:
            raise _unreachable(self._address, error) from error

    def read(self) -> RobotState:
        _require(self._receive)
        if not self._receive.isConnected():
            raise HardwareError(
                "The robot has gone.", found=self._address, do="look at the pendant, then connect again"
            )
        stamp = time.monotonic_ns()
        position, velocity = np.array(self._receive.getActualQ()), np.array(self._receive.getActualQd())
        return RobotState(stamp, self.arm.joints, position + self._offsets, velocity)

    def send(self, positions_rad: np.ndarray, stamp_ns: int) -> np.ndarray:
        _require(self._control)
        row = _row(positions_rad, len(self.arm.joints))
        period_s = 1.0 / self._rate_hz
        joints = (row - self._offsets).tolist()
        if not self._control.servoJ(joints, 0.0, 0.0, period_s, self._LOOKAHEAD_S, self._GAIN):
            raise HardwareError("The robot refuses a set-point.", do="look at the pendant: a protective stop?")
        return row

    def close(self) -> None:
        if self._control is not None:
            self._control.servoStop()
            self._control.stopScript()
        self._control = self._receive = None


class FrankaArm:
    """A Franka arm by pylibfranka's asynchronous joint positions (libfranka 0.19): no real-time kernel needed.

    The robot's own generator follows the targets within `velocity` of the arm's limits; it stops when
    targets stay away.
    """

    _VELOCITY, _TOLERANCE_RAD = 0.5, 10.0  # targets come all the time: none counts as reached

    def __init__(self, arm: Arm, address: str, rate_hz: float, offsets_rad: Sequence[float] = ()):
        self.arm, self._address = arm, address
        self.spec = robot_spec(arm, rate_hz, gripper=False)
        self._offsets = np.array(offsets_rad or np.zeros(len(arm.joints)), float)
        self._library: Any = None
        self._robot: Any = None
        self._handler: Any = None

    def connect(self) -> None:
        """Connect and take control at the present position; nothing moves."""
        with _needed("pylibfranka"):
            library = self._library = import_module("pylibfranka")
        kind = library.AsyncPositionControlHandler
        try:
            self._robot = library.Robot(self._address, library.RealtimeConfig.kIgnore)
            limits = (self._VELOCITY * np.array(self.arm.velocity_rad_s)).tolist()
            result = kind.configure(self._robot, kind.Configuration(limits, self._TOLERANCE_RAD))
        except (library.FrankaException, RuntimeError) as error:
            raise _unreachable(self._address, error) from error
        if result.error_message:
            raise _unreachable(self._address, result.error_message)
        self._handler = result.handler

    def read(self) -> RobotState:
        _require(self._handler)
        stamp, state = time.monotonic_ns(), self._robot.read_once()
        return RobotState(stamp, self.arm.joints, np.array(state.q) + self._offsets, np.array(state.dq))

    def send(self, positions_rad: np.ndarray, stamp_ns: int) -> np.ndarray:
        _require(self._handler)
        row = _row(positions_rad, len(self.arm.joints))
        kind = self._library.AsyncPositionControlHandler
        target = kind.JointPositionTarget((row - self._offsets).tolist())
        result = self._handler.set_joint_position_target(target)
        if not result.was_successful:
            raise HardwareError("The robot refuses a set-point.", found=result.error_message)
        return row

    def close(self) -> None:
        if self._handler is not None:
            self._handler.stop_control()
        self._handler = self._robot = None


# name → its driver
MAKERS = {"ur_rtde": UniversalArm, "pylibfranka": FrankaArm}


def open_maker(
    name: str, arm: Arm, address: str, rate_hz: float, offsets_rad: Sequence[float] = ()
) -> UniversalArm | FrankaArm:
    """Return the driver `name` for the arm at `address`."""
    if name not in MAKERS:
        raise HardwareError(f"Unknown driver '{name}'.", expected=suggest(name, MAKERS))
    if not address:
        raise HardwareError("The arm's network address is missing.", do="set robot.address")
    return MAKERS[name](arm, address, rate_hz, offsets_rad)


@contextmanager
def _needed(package: str) -> Generator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            f"This driver needs {package}.", found=f"no module '{error.name}'", do=f"pip install {package}"
        ) from error


def _unreachable(address: str, why: object) -> HardwareError:
    return HardwareError(
        f"The robot at {address} cannot be controlled.",
        found=str(why)[:200],
        do="check the address, its remote-control mode and its brakes",
    )


def _require(part: Any) -> None:
    if part is None:
        raise HardwareError("The robot is not connected.", do="call connect first")


def _row(positions_rad: np.ndarray, joints: int) -> np.ndarray:
    """Return the set-point that is due: the first row of a path."""
    row = np.atleast_2d(np.asarray(positions_rad, float))[0]
    if row.shape != (joints,) or not np.isfinite(row).all():
        raise HardwareError("A set-point is refused.", found=row.shape, expected=f"{joints} finite numbers")
    return row
