"""MoveIt Servo twists, LeRobot's robots in both directions, the makers' own libraries."""

import inspect
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from robolearn.contracts import Robot, RobotState
from robolearn.errors import HardwareError, MissingLibraryError
from robolearn.hardware.deploy import RobotConfig, make_robot
from robolearn.hardware.lerobot_robot import AsLeRobot, FromLeRobot
from robolearn.hardware.makers import UniversalArm, open_maker
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


# ---------------------------------------------------------------- makers' libraries, as stand-ins


class Refused(RuntimeError):
    """The stand-ins' exception."""


@pytest.fixture
def makers(monkeypatch, home):
    """Stand-ins with the members of ur_rtde 1.6 and pylibfranka 0.21 that are used; they note every call."""
    calls, facts = [], {"position": home.copy(), "connected": True, "accepts": True, "error": None}

    def note(name, result=None):
        return lambda *values: calls.append((name, *values)) or result

    receiver = SimpleNamespace(
        isConnected=lambda: facts["connected"],
        getActualQ=lambda: facts["position"].tolist(),
        getActualQd=lambda: [0.1] * len(facts["position"]),
    )

    def servo(*values):
        calls.append(("servoJ", *values))
        return facts["accepts"]

    control = SimpleNamespace(servoJ=servo, servoStop=note("servoStop", True), stopScript=note("stopScript"))

    def receive_from(address):
        if address == "nowhere":
            raise Refused("timeout")
        return receiver

    class Handler:
        Configuration = staticmethod(lambda velocities, tolerance: ("configuration", velocities, tolerance))
        JointPositionTarget = staticmethod(lambda joints: joints)
        stop_control = staticmethod(note("stop_control"))

        @staticmethod
        def configure(robot, configuration):
            calls.append(("configure", configuration))
            return SimpleNamespace(handler=Handler, error_message=facts["error"])

        @staticmethod
        def set_joint_position_target(target):
            calls.append(("target", target))
            return SimpleNamespace(was_successful=facts["accepts"], error_message="too far")

    franka = SimpleNamespace(
        AsyncPositionControlHandler=Handler,
        FrankaException=Refused,
        RealtimeConfig=SimpleNamespace(kIgnore="ignore"),
        Robot=lambda address, realtime: SimpleNamespace(
            read_once=lambda: SimpleNamespace(q=facts["position"].tolist(), dq=[0.0] * 7)
        ),
    )
    modules = {
        "rtde_receive": SimpleNamespace(RTDEReceiveInterface=receive_from),
        "rtde_control": SimpleNamespace(RTDEControlInterface=lambda address, rate_hz: control),
        "pylibfranka": franka,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return calls, facts


@pytest.mark.parametrize(
    ("driver", "sent", "ended"), [("ur_rtde", "servoJ", "stopScript"), ("pylibfranka", "target", "stop_control")]
)
def test_a_makers_driver_reads_sends_and_lets_go(makers, home, driver, sent, ended):
    calls, facts = makers
    offsets = np.linspace(-0.01, 0.01, 7)
    robot = open_maker(driver, PANDA, "10.0.0.2", 125.0, tuple(offsets))
    with pytest.raises(HardwareError, match="not connected"):
        robot.read()
    robot.connect()
    assert isinstance(robot, Robot)
    assert [call for call in calls if call[0] == sent] == []  # nothing moves by connecting
    assert robot.read().position_rad == pytest.approx(home + offsets)
    path = home + 0.01 * np.arange(3)[:, None]
    assert robot.send(path, 0) == pytest.approx(home)
    assert calls[-1][0] == sent
    assert calls[-1][1] == pytest.approx(home - offsets)
    if driver == "ur_rtde":
        assert calls[-1][2:] == (0.0, 0.0, 0.008, 0.1, 300.0)
    for bad in (np.full(7, np.nan), np.zeros(6)):
        with pytest.raises(HardwareError, match="refused"):
            robot.send(bad, 0)
    facts["accepts"] = False
    with pytest.raises(HardwareError, match="refuses"):
        robot.send(home, 0)
    robot.close()
    assert calls[-1][0] == ended


def test_a_robot_that_is_not_there_or_gone_is_said(makers):
    _, facts = makers
    with pytest.raises(HardwareError, match="nowhere"):
        open_maker("ur_rtde", PANDA, "nowhere", 125.0).connect()
    robot = open_maker("ur_rtde", PANDA, "10.0.0.2", 125.0)
    robot.connect()
    facts["connected"] = False
    with pytest.raises(HardwareError, match="gone"):
        robot.read()
    facts["error"] = "brakes are closed"
    with pytest.raises(HardwareError, match="brakes are closed"):
        open_maker("pylibfranka", PANDA, "10.0.0.2", 125.0).connect()
    with pytest.raises(HardwareError, match="address"):
        open_maker("ur_rtde", PANDA, "", 125.0)
    with pytest.raises(HardwareError, match="Unknown driver"):
        open_maker("ur_rdte", PANDA, "10.0.0.2", 125.0)


def test_missing_libraries_are_named(monkeypatch):
    for driver, module in (("ur_rtde", "rtde_receive"), ("pylibfranka", "pylibfranka")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingLibraryError, match=driver):
            open_maker(driver, PANDA, "10.0.0.2", 125.0).connect()


def test_a_config_picks_the_driver(makers):
    assert isinstance(make_robot(RobotConfig(driver="ur_rtde", address="10.0.0.2")), UniversalArm)
