"""What runs inside the ROS node, without ROS: requests, refusals, reports; and that its launch file fits."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("mujoco")

from robolearn.errors import ConfigError, HardwareError, MissingLibraryError
from robolearn.hardware import node
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.node import NodeConfig, PolicyNode, Runner, read_robot
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.hardware.simulated import SimulatedSession
from robolearn.robots.panda import PANDA
from robolearn.spec import ActionSpec, Feature, Spec

ROOT = Path(__file__).resolve().parents[2]


class Wave:
    """The last joint sways from where the arm is; `broken` actors fail."""

    noise_shape = (0,)

    def __init__(self, broken=False):
        names = (*PANDA.joints, "gripper")
        state = Feature(shape=(8,), names=names)
        self.spec = Spec({"observation.state": state}, ActionSpec(8, "joint_position", names), rate_hz=20.0, chunk=16)
        self.broken = broken

    def act(self, obs, noise, prefix=None):
        chunk = np.tile(obs["observation.state"][:, -1:], (1, 16, 1)).astype(float)
        chunk[0, :, 6] += 0.01 * np.arange(16)
        return chunk * np.nan if self.broken else chunk


@pytest.fixture
def session():
    ros = RosRobotConfig(
        "forward", rate_hz=100.0, gripper_topic="/gripper_controller/commands", gripper_joint="finger_joint1"
    )
    with SimulatedSession(RobotConfig(ros=ros, twin=TwinOptions("reach", "forward")), 16, 0.05) as made:
        yield made


def act(session, runner, steps):
    session.every(runner.period_s, lambda step: runner.step() or step < steps)


def test_nothing_moves_before_start_and_after_a_hold(session):
    runner = Runner(session, Wave(), NodeConfig(execute=4))
    start = session.reading().state.position_rad[6]
    act(session, runner, 10)
    assert session.executor.counts["chunks"] == 0
    assert runner.report()[:2] == (b"\0", "disarmed")
    assert runner.request("start") == (True, "acting")
    act(session, runner, 20)
    assert runner.decisions == 6
    assert runner.report()[:2] == (b"\0", "acting")
    assert session.reading().state.position_rad[6] > start + 0.02
    assert runner.request("hold") == (True, "hold")
    act(session, runner, 20)
    assert (runner.decisions, runner.report()[:2]) == (6, (b"\1", "holding"))
    assert runner.request("start") == (True, "acting")
    act(session, runner, 8)
    assert (runner.decisions, runner.episodes) == (9, 2)
    assert runner.request("stop") == (True, "stop")
    assert runner.report()[0] == b"\2"
    done, why = runner.request("start")
    assert not done
    assert "disarm" in why


def test_a_policy_that_fails_leaves_an_arm_that_holds(session):
    actor = Wave()
    runner = Runner(session, actor, NodeConfig(execute=4))
    runner.request("start")
    act(session, runner, 10)
    actor.broken = True
    act(session, runner, 10)
    assert session.mode() == "hold"
    level, summary, values = runner.report()
    assert (level, values["acting"]) == (b"\1", "False")
    assert "non-finite" in summary


def test_an_arm_that_holds_by_itself_ends_the_acting(session):
    runner = Runner(session, Wave(), NodeConfig(execute=4))
    runner.request("start")
    act(session, runner, 10)
    session.request("hold")
    act(session, runner, 5)
    assert not runner.acting
    assert "hold" in runner.report()[1]


def test_the_launch_file_names_every_parameter():
    launch = yaml.safe_load((ROOT / "hardware" / "policy.launch.yaml").read_text())["launch"]
    arguments = {entry["arg"]["name"]: entry["arg"].get("default") for entry in launch if "arg" in entry}
    assert set(arguments) == {field.name for field in fields(NodeConfig)}
    for field in fields(NodeConfig):
        if arguments[field.name] is not None:
            assert arguments[field.name] == str(field.default)
    command = next(entry["executable"]["cmd"] for entry in launch if "executable" in entry)
    assert set(re.findall(r"-p (\w+):=", command)) == set(arguments)
    assert command.startswith(f"python3 -m {node.__name__} ")


def test_what_is_missing_is_said(tmp_path):
    assert read_robot(str(ROOT / "configs/robot/ros2/panda.yaml")).name == "ros2/panda"
    with pytest.raises(ConfigError, match="no such robot"):
        read_robot(str(tmp_path / "none.yaml"))
    with pytest.raises((MissingLibraryError, HardwareError), match="ROS 2"):
        PolicyNode(lambda path: Wave())
