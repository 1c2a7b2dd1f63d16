"""MoveIt Servo twists and LeRobot's robots, in both directions."""

import inspect

import numpy as np
import pytest

from robolearn.contracts import Robot, RobotState
from robolearn.errors import HardwareError
from robolearn.hardware.lerobot_robot import AsLeRobot, FromLeRobot
from robolearn.hardware.memory import MemoryGraph, MemoryTransport
from robolearn.hardware.ros_robot import robot_spec
from robolearn.hardware.servo import ServoTwist
from robolearn.robots.panda import PANDA


class Ours:
    """One of our robots that clips what it is sent."""

    spec = robot_spec(PANDA, 50.0, gripper=True)

    def __init__(self, home):
        self.row, self.open = np.append(home, 0.04), False

    def connect(self):
        self.open = True

    def read(self):
        return RobotState(1, PANDA.joints, self.row[:7], np.zeros(7), float(self.row[7]))

    def send(self, positions_rad, stamp_ns):
        self.row = np.clip(positions_rad, (*PANDA.low_rad, 0.0), (*PANDA.high_rad, 0.08))
        return self.row

    def close(self):
        self.open = False


def test_there_and_back_again(home):
    inner = Ours(home)
    robot = FromLeRobot(AsLeRobot(inner, PANDA), PANDA, 50.0)
    assert isinstance(robot, Robot)
    robot.connect()
    assert inner.open
    assert robot.read().position_rad == pytest.approx(home)
    assert robot.read().gripper_m == pytest.approx(0.04)
    wanted = np.append(home + 0.1, 0.02)
    assert robot.send(wanted, 0) == pytest.approx(wanted)
    assert robot.send(np.append(home + 9, 0.02), 0)[:7] == pytest.approx(PANDA.high_rad)  # what was really sent
    robot.close()
    assert not inner.open


def test_degrees_and_percent(home):
    robot = AsLeRobot(Ours(home), PANDA)
    robot.connect()
    observation = robot.get_observation()
    assert observation["joint4.pos"] == pytest.approx(np.degrees(home[3]))
    assert observation["gripper.pos"] == pytest.approx(50.0)
    assert set(observation) == set(robot.observation_features) == set(robot.action_features)
    with pytest.raises(HardwareError, match="lacks joints"):
        robot.send_action({"joint1.pos": 0.0})


def test_a_missing_joint_or_bad_set_point_is_refused(home):
    inner = AsLeRobot(Ours(home), PANDA)
    robot = FromLeRobot(inner, PANDA, 50.0, gripper="hand")
    with pytest.raises(HardwareError, match="did you mean"):
        robot.connect()
    robot = FromLeRobot(inner, PANDA, 50.0)
    for bad in (np.full(8, np.nan), np.zeros(7)):
        with pytest.raises(HardwareError, match="refused"):
            robot.send(bad, 0)


@pytest.mark.long
def test_the_members_are_lerobots():
    robots = pytest.importorskip("lerobot.robots")
    wanted = set(robots.Robot.__abstractmethods__)
    assert wanted <= {name for name, _ in inspect.getmembers(AsLeRobot)}


def test_servo_limits_speed_and_its_change():
    graph = MemoryGraph(lambda: 0)
    listener = MemoryTransport(graph).subscriber("/servo_node/delta_twist_cmds", "geometry_msgs/msg/TwistStamped")
    servo = ServoTwist(MemoryTransport(graph), "panda_link0")
    speeds = [np.linalg.norm(servo.send(np.array([3.0, 4.0, 0.0]), np.zeros(3))[0]) for _ in range(30)]
    assert max(np.diff([0.0, *speeds])) <= 0.02 + 1e-9
    assert speeds[-1] == pytest.approx(0.25)
    sent = servo.send(np.array([3.0, 4.0, 0.0]), np.zeros(3))[0]
    assert sent == pytest.approx([0.15, 0.2, 0.0])
    stopping = [np.linalg.norm(servo.send(np.zeros(3), np.zeros(3))[0]) for _ in range(20)]
    assert stopping[-1] == 0.0
    newest = listener.take()[-1].message
    assert newest.header.frame_id == "panda_link0"
    with pytest.raises(HardwareError, match="refused"):
        servo.send(np.array([np.nan, 0, 0]), np.zeros(3))
