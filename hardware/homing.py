"""Homing: the arm's own trajectory controller brings it to a pose, by a FollowJointTrajectory action over rclpy."""

from importlib import import_module
from typing import Any

import numpy as np

from robolearn.errors import HardwareError, MissingLibraryError
from robolearn.hardware.deploy import RobotConfig, make_ros_robot
from robolearn.hardware.limits import Limits, limits_of
from robolearn.hardware.messages import trajectory
from robolearn.hardware.rcl import RclTransport
from robolearn.registry import resolve

__all__ = ["ACTION", "follow", "home", "plan"]

ACTION = "/joint_trajectory_controller/follow_joint_trajectory"
_POINTS = 50
_PEAKS = (1.875, 10 / np.sqrt(3), 60.0)  # of the speed, acceleration and jerk of 10 u³ - 15 u⁴ + 6 u⁵
_GRACE_S = 5.0
_SUCCEEDED = 4  # action_msgs/GoalStatus


def plan(limits: Limits, start_rad: np.ndarray, goal_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times [N], positions [N,J] and velocities [N,J] from rest to rest, as slow as ramping in.

    Minimum jerk along a straight line in joint space (Flash & Hogan 1985). Raises `HardwareError` when the line
    leaves the joint limits or the workspace.
    """
    way = np.asarray(goal_rad, float) - start_rad
    bounds = limits.options.ramp * limits.velocity_rad_s, limits.acceleration_rad_s2, limits.jerk_rad_s3
    needed = [
        np.max(peak * np.abs(way) / bound) ** (1 / order)
        for order, (peak, bound) in enumerate(zip(_PEAKS, bounds, strict=True), 1)
    ]
    seconds = max(*needed, limits.period_s)
    u = np.linspace(0.0, 1.0, _POINTS + 1)
    position = start_rad + (u**3 * (10 + u * (6 * u - 15)))[:, None] * way
    tool = limits.kinematics.tool(position)
    _require_free(limits, position, tool)
    speed = np.linalg.norm(np.diff(tool, axis=0), axis=1).max() * _POINTS / seconds
    seconds *= max(1.0, speed / (0.9 * limits.options.tool_m_s))
    velocity = (30 * u**2 * (1 - u) ** 2)[:, None] * way / seconds
    return seconds * u[1:], position[1:], velocity[1:]


def _require_free(limits: Limits, position: np.ndarray, tool: np.ndarray) -> None:
    joints = (position >= limits.low_rad) & (position <= limits.high_rad)
    low, high = limits.options.workspace_low_m, limits.options.workspace_high_m
    inside = joints.all(1) & ((tool >= low) & (tool <= high)).all(1)
    if not inside.all():
        first = int(np.argmin(inside))
        raise HardwareError(
            "The straight way there leaves the limits.",
            found=f"{first / _POINTS:.0%} of the way, the tool at {tool[first].round(3).tolist()} m",
            do="move the arm nearer by hand, or check the robot's workspace",
        )


def home(config: RobotConfig, goal_rad: np.ndarray | None = None, action: str = ACTION) -> dict[str, Any]:
    """Bring the arm to `goal_rad`, its home without one; returns when its controller says that it is there.

    The controller follows by itself: nothing else may command the arm meanwhile.
    """
    if config.driver != "ros" or config.twin is not None:
        raise HardwareError("Only an arm on a ROS 2 graph is brought home.", found=config.name, do="use robot=ros2/…")
    arm = resolve("robot", config.arm)
    transport = RclTransport(config.domain, "homing")
    try:
        robot = make_ros_robot(config, transport)
        robot.connect()
        start_rad = robot.read().position_rad
        goal_rad = np.array(arm.home_rad) if goal_rad is None else goal_rad
        times_s, position, velocity = plan(limits_of(arm, config.ros.rate_hz, config.safety), start_rad, goal_rad)
        readings = position - robot.offsets_rad
        follow(transport, action, trajectory(robot.names, times_s, readings, velocity), times_s[-1] + _GRACE_S)
        off_rad = float(np.abs(robot.read().position_rad - goal_rad).max())
        return {
            "seconds": float(times_s[-1]),
            "moved_rad": float(np.abs(goal_rad - start_rad).max()),
            "off_rad": off_rad,
        }
    finally:
        transport.close()


def follow(transport: RclTransport, action: str, message: Any, wait_s: float) -> None:
    """Have a controller follow a JointTrajectory and wait until it is done.

    Raises `HardwareError` when nobody offers the action, or when the goal is refused, aborted or not reached in time;
    the last is cancelled.
    """
    try:
        kind = import_module("control_msgs.action").FollowJointTrajectory
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            "Homing needs the action's type.", found=f"no module '{error.name}'", do="install ros-<distro>-control-msgs"
        ) from error
    client = transport.action(kind, action)
    try:
        if not transport.wait(client.server_is_ready, _GRACE_S):
            raise HardwareError(f"Nobody offers {action}.", do="start the arm's joint_trajectory_controller")
        goal = kind.Goal(trajectory=transport.as_ros(message))
        sent = client.send_goal_async(goal)
        transport.wait(sent.done, _GRACE_S)
        handle = sent.result() if sent.done() else None
        if handle is None or not handle.accepted:
            raise HardwareError("The controller refuses the goal.", found=action, do="look at the controller's log")
        ended = handle.get_result_async()
        if not transport.wait(ended.done, wait_s):
            transport.wait(handle.cancel_goal_async().done, _GRACE_S)
            raise HardwareError("The arm has not arrived.", found=f"after {wait_s:.1f} s", do="see what holds it back")
        result = ended.result()
        if result.status != _SUCCEEDED or result.result.error_code:
            raise HardwareError(
                "The controller gave up.",
                found=f"status {result.status}, error {result.result.error_code}: {result.result.error_string}",
                do="look at the controller's log",
            )
    finally:
        client.destroy()
