"""An arm on a ROS 2 graph: joint states in, set-points out in the form its controller takes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from robolearn.contracts import RobotState
from robolearn.errors import HardwareError, suggest
from robolearn.hardware.messages import float_array, trajectory
from robolearn.hardware.transport import COMMAND, DEFAULT, Publisher, Received, Subscriber, Transport
from robolearn.robots import Arm
from robolearn.spec import ActionSpec, Feature, Spec

__all__ = ["PROTECTION", "RosRobot", "RosRobotConfig", "command_topic", "robot_spec"]

_STATE, _FLOATS, _TRAJECTORY = (
    "sensor_msgs/msg/JointState",
    "std_msgs/msg/Float64MultiArray",
    "trajectory_msgs/msg/JointTrajectory",
)
_TOPICS = {
    "jtc": "/joint_trajectory_controller/joint_trajectory",
    "forward": "/forward_position_controller/commands",
    "forward_velocity": "/forward_velocity_controller/commands",
}
# What stops the arm when this process dies, per controller.
PROTECTION = {
    "jtc": "every message ends at rest: the arm brakes along the last checked path",
    "forward": "the arm stays at the last position; the controller itself has no time-out",
    "forward_velocity": "nothing but the external watchdog that was declared",
}
_MAX_POINTS = 16


@dataclass(frozen=True)
class RosRobotConfig:
    """Names and form of one arm's topics; `joints` are its names on the graph, in the order of the arm."""

    controller: Literal["jtc", "forward", "forward_velocity"] = "jtc"
    rate_hz: float = 250.0
    state_topic: str = "/joint_states"
    command_topic: str = ""  # the controller's usual one without
    gripper_topic: str = ""  # Float64MultiArray of one width [m]
    gripper_joint: str = ""  # whose position in the joint states is half the width
    joints: tuple[str, ...] = ()
    connect_s: float = 10.0
    external_watchdog: str = ""  # what stops a velocity-controlled arm when we die
    share_command_topic: bool = False

    def __post_init__(self):
        if self.controller == "forward_velocity" and not self.external_watchdog:
            raise HardwareError(
                "Velocity forwarding has no time-out: the arm keeps moving when this process dies.",
                do="name what stops it in `external_watchdog`, or use the jtc or forward controller",
            )


def command_topic(config: RosRobotConfig) -> tuple[str, str]:
    """Return the topic that the arm is commanded on and its type."""
    kind = _TRAJECTORY if config.controller == "jtc" else _FLOATS
    return config.command_topic or _TOPICS[config.controller], kind


def robot_spec(arm: Arm, rate_hz: float, gripper: bool) -> Spec:
    """Return what an arm gives and takes: joint positions [rad], then the gripper's width [m]."""
    names = arm.joints + (("gripper",) if gripper else ())
    low = arm.low_rad + ((0.0,) if gripper else ())
    high = arm.high_rad + ((arm.gripper.width_m,) if gripper else ())
    action = ActionSpec(
        len(names), "joint_position", names, gripper="positive_opens" if gripper else "none", low=low, high=high
    )
    return Spec({"observation.state": Feature("signal", (len(names),), names=names)}, action, rate_hz, robot=arm.name)


class RosRobot:
    """One arm behind a transport; implements `contracts.Robot`.

    `send` takes a set-point [A] or a path [K,A] whose first row is due one period from now and whose
    last row is at rest; the joint trajectory controller is given the path, the others its first row.
    Joints are where the encoders say plus `offsets_rad`, in both directions.
    """

    def __init__(self, arm: Arm, transport: Transport, config: RosRobotConfig, offsets_rad: Sequence[float] = ()):
        self.arm, self.config = arm, config
        self.offsets_rad = np.array(offsets_rad or np.zeros(len(arm.joints)), float)
        self.spec = robot_spec(arm, config.rate_hz, bool(config.gripper_topic))
        self.names = config.joints or arm.joints
        if len(self.names) != len(arm.joints):
            raise HardwareError("The joint names do not fit the arm.", found=self.names, expected=arm.joints)
        self._transport = transport
        self._topic, _ = command_topic(config)
        self._states: Subscriber | None = None
        self._commands: Publisher | None = None
        self._gripper: Publisher | None = None
        self._newest: RobotState | None = None
        self._header_ns, self._lacking = -1, ""
        self._sent: np.ndarray | None = None

    def connect(self) -> None:
        """Join the graph and wait for the first state.

        Raises `HardwareError` when no state comes, when a joint is missing, or when somebody else
        commands the same topic.
        """
        self.join()
        give_up = time.monotonic() + self.config.connect_s
        while not self.connected():
            if time.monotonic() > give_up:
                raise self._nobody()
            time.sleep(0.002)
        self.require_alone()

    def join(self) -> None:
        """Create the topics, without waiting for anybody."""
        self._states = self._transport.subscriber(self.config.state_topic, _STATE, COMMAND)
        kind = _TRAJECTORY if self.config.controller == "jtc" else _FLOATS
        self._commands = self._transport.publisher(self._topic, kind, DEFAULT)
        if self.config.gripper_topic:
            self._gripper = self._transport.publisher(self.config.gripper_topic, _FLOATS, DEFAULT)

    def connected(self) -> bool:
        """Say whether a state has come and a controller listens."""
        self._drain()
        return self._newest is not None and self._commands is not None and self._commands.matched() > 0

    def _nobody(self) -> HardwareError:
        if self._lacking:
            return HardwareError(
                "The joint states lack joints of the arm.",
                found=self._lacking,
                do="set `joints` to the names on the graph, in the order of the arm",
            )
        topic = self.config.state_topic if self._newest is None else self._topic
        return HardwareError(
            f"Nobody {'publishes' if self._newest is None else 'listens to'} {topic}.",
            expected=f"within {self.config.connect_s} s",
            do="start the robot's driver and controllers, and check ROS_DOMAIN_ID and the topic names",
        )

    def require_alone(self) -> None:
        """Raise `HardwareError` when another publisher commands the arm."""
        others = self._transport.others(self._topic)
        if others and not self.config.share_command_topic:
            raise HardwareError(
                "Somebody else commands this arm.",
                found=f"{others} other publishers of {self._topic}",
                do="stop them, or set `share_command_topic` if they are known to be silent",
            )

    def read(self) -> RobotState:
        """Return the newest state; its stamp is when it arrived."""
        self._drain()
        if self._newest is None:
            raise HardwareError("The robot is not connected.", do="call connect first")
        return self._newest

    def send(self, positions_rad: np.ndarray, stamp_ns: int) -> np.ndarray:
        if self._commands is None:
            raise HardwareError("The robot is not connected.", do="call connect first")
        path = np.atleast_2d(np.asarray(positions_rad, float))
        joints = len(self.names)
        if not np.isfinite(path).all() or path.shape[1] != self.spec.action.dim:
            raise HardwareError(
                "A set-point is refused.", found=path.shape, expected=f"{self.spec.action.dim} finite numbers"
            )
        readings = path[:, :joints] - self.offsets_rad
        if self.config.controller == "jtc":
            self._commands.publish(self._as_trajectory(readings))
        elif self.config.controller == "forward":
            self._commands.publish(float_array(readings[0]))
        else:
            before = path[0, :joints] if self._sent is None else self._sent
            self._commands.publish(float_array((path[0, :joints] - before) * self.config.rate_hz))
        if self._gripper is not None:
            self._gripper.publish(float_array(path[0, joints:]))
        self._sent = path[0, :joints].copy()
        return path[0] if np.ndim(positions_rad) == 1 else path

    def close(self) -> None:
        self._transport.close()

    def _as_trajectory(self, path: np.ndarray) -> Any:
        """Return a message of at most `_MAX_POINTS` points that ends at rest."""
        period = 1.0 / self.config.rate_hz
        velocity = np.zeros_like(path)
        velocity[:-1] = np.gradient(path, period, axis=0)[:-1] if len(path) > 1 else 0.0
        keep = np.unique(np.linspace(0, len(path) - 1, min(_MAX_POINTS, len(path))).round().astype(int))
        return trajectory(self.names, period * (keep + 1), path[keep], velocity[keep])

    # ------------------------------------------------------------ states

    def _drain(self) -> None:
        if self._states is None:
            return
        for received in self._states.take():
            state = self._state(received)
            if state is not None:
                self._newest = state

    def _state(self, received: Received) -> RobotState | None:
        """Return the state of our joints; None for a repeated, older or foreign one."""
        message = received.message
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        rewound = self._header_ns - stamp > 10**9  # a new clock, not a late message
        if stamp <= self._header_ns and not rewound:
            return None
        known = {name: i for i, name in enumerate(message.name)}
        missing = [name for name in self.names if name not in known]
        if missing:  # another part of the robot, or other names: told when `connect` gives up
            self._lacking = f"{', '.join(missing)} ({suggest(missing[0], known)})"
            return None
        if len(message.position) != len(message.name):
            return None
        self._header_ns = stamp
        index = [known[name] for name in self.names]
        velocity = np.zeros(len(index))
        if len(message.velocity) == len(message.name):
            velocity = np.nan_to_num(np.asarray(message.velocity)[index], posinf=0.0, neginf=0.0)
        finger = known.get(self.config.gripper_joint)
        gripper_m = 2.0 * float(message.position[finger]) if finger is not None else None
        position = np.asarray(message.position)[index] + self.offsets_rad
        return RobotState(received.stamp_ns, self.arm.joints, position, velocity, gripper_m)
