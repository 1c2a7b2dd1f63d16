"""The verbs of the command line on the real processes: check, record, replay, rollout; and the raw recorder."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("mujoco")

from robolearn.config import parse
from robolearn.errors import HardwareError, SpecError
from robolearn.hardware import commands, messages
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.memory import MemoryGraph, MemoryTransport
from robolearn.hardware.observe import Reading
from robolearn.hardware.record import EpisodeWriter, RawRecorder, recorded_spec
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.hardware.teleop import Scripted, Twist
from robolearn.robots.panda import PANDA

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "robot"


@pytest.fixture
def config():
    ros = RosRobotConfig(
        rate_hz=100.0,
        gripper_topic="/gripper_controller/commands",
        gripper_joint="finger_joint1",
        connect_s=120.0,
    )
    signals = {"observation.environment_state": "/environment_state"}
    domain = 40 + os.getpid() % 25
    return RobotConfig(domain=domain, ros=ros, base_m=(-0.56, 0.0, 0.912), signals=signals, twin=TwinOptions("reach"))


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_configs_are_valid(path):
    data = yaml.safe_load(path.read_text())
    assert parse(RobotConfig, data, where="robot").name == f"{path.parent.name}/{path.stem}"


def test_arms_are_listed():
    assert {"name": "panda", "joints": 7, "gripper": "panda_gripper", "deployable": True} in commands.list_robots()


def test_check_looks_without_moving(config):
    report = commands.check(replace(config, cameras=("front",)), seconds=1.0)
    assert report["state_hz"] > 0
    assert report["dead_cameras"] == []
    assert list(report["joints"]) == list(PANDA.joints)
    assert report["outside_limits"] == []
    assert "brakes" in report["when_we_die"]


def test_teleoperation_in_real_time_ends_disarmed_and_leaves_a_log(config, tmp_path):
    """What is recorded is tested on the simulated clock; here the processes must start, answer and end."""
    from mcap.reader import make_reader

    config = replace(config, log=str(tmp_path / "session.mcap"))
    device = Scripted([Twist()] * 5 + [Twist((0.0, 0.0, 0.5))] * 10 + [Twist(mark="stop")])
    result = commands.teleop(config, device, seconds=30.0)
    assert result["status"]["ticks"] > 0
    assert result["status"]["mode"] == "disarmed"
    with (tmp_path / "session.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    counts = {summary.channels[key].topic: count for key, count in summary.statistics.channel_message_counts.items()}
    assert counts["/joint_states"] > 0
    assert counts["/joint_trajectory_controller/joint_trajectory"] > 0


def test_only_joint_targets_are_replayed(config, list_sink):
    spec = recorded_spec(PANDA, 20.0, Reading(_state(0)))
    sink = list_sink(spec.from_dict({**spec.to_dict(), "action": {"dim": 2}}))
    with pytest.raises(SpecError, match="joint targets"):
        commands.replay(config, sink, 0)


# ---------------------------------------------------------------- recorders


def _state(stamp_ns):
    from robolearn.contracts import RobotState

    return RobotState(stamp_ns, PANDA.joints, np.array(PANDA.home_rad), np.zeros(7), 0.05)


def test_episodes_keep_real_times_and_name_their_gaps(list_sink):
    reading = Reading(_state(10**9), {"front": np.zeros((4, 4, 3), np.uint8)}, {"observation.force": np.ones(3)})
    sink = list_sink(recorded_spec(PANDA, 20.0, reading))
    writer = EpisodeWriter(sink, "go", PANDA)
    for stamp in (10**9, 10**9 + 50_000_000, 10**9 + 180_000_000):
        writer.add(Reading(_state(stamp), reading.images, reading.signals), np.zeros(8), stamp == 10**9)
    with pytest.raises(HardwareError, match="do not advance"):
        writer.add(Reading(_state(10**9 + 180_000_000), reading.images, reading.signals), np.zeros(8), False)
    assert writer.save(True) == 0
    ((frames, metadata),) = sink.episodes
    assert [round(frame["timestamp"], 6) for frame in frames] == [0.0, 0.05, 0.18]
    assert metadata["longest_gap_s"] == pytest.approx(0.13)
    assert [frame["intervention"][0] for frame in frames] == [1.0, 0.0, 0.0]
    assert set(frames[0]) - {"timestamp", "action"} == set(sink.spec.observations)
    assert writer.save(True) is None


def test_a_raw_recording_is_read_by_ros_tools(tmp_path):
    from mcap_ros2.reader import read_ros2_messages

    now = [0]
    graph = MemoryGraph(lambda: now[0])
    transport, robot = MemoryTransport(graph), MemoryTransport(graph)
    topics = {"/joint_states": "sensor_msgs/msg/JointState", "/commands": "std_msgs/msg/Float64MultiArray"}
    recorder = RawRecorder(tmp_path / "a.mcap", transport, topics)
    states, floats = (robot.publisher(topic, kind) for topic, kind in topics.items())
    for i in range(20):
        now[0] = 1000 * i
        states.publish(messages.joint_state(PANDA.joints, np.full(7, float(i)), np.zeros(7), 500 + i))
        floats.publish(messages.float_array(np.array([float(i)])))
        recorder.drain()
    recorder.close()
    assert recorder.counts == {"/joint_states": 20, "/commands": 20}
    read = list(read_ros2_messages(str(tmp_path / "a.mcap")))
    seen = [each for each in read if each.channel.topic == "/joint_states"]
    assert [next(iter(each.ros_msg.position)) for each in seen] == [float(i) for i in range(20)]
    assert seen[3].publish_time_ns == 503
    assert seen[3].log_time_ns == 3000
    assert [each.ros_msg.data[0] for each in read if each.channel.topic == "/commands"] == [float(i) for i in range(20)]


def test_a_killed_recorder_loses_no_more_than_its_last_chunk(tmp_path):
    from mcap.exceptions import EndOfFile
    from mcap.records import Message
    from mcap.stream_reader import StreamReader

    graph = MemoryGraph(lambda: 0)
    floats = "std_msgs/msg/Float64MultiArray"
    recorder = RawRecorder(tmp_path / "a.mcap", MemoryTransport(graph), {"/commands": floats})
    publisher = MemoryTransport(graph).publisher("/commands", floats)
    for i in range(3000):  # 100 bytes and more each
        publisher.publish(messages.float_array(np.arange(7.0) + i))
        recorder.drain()
    read = []
    with (tmp_path / "a.mcap").open("rb") as file, pytest.raises(EndOfFile):  # it has no end yet
        read.extend(record for record in StreamReader(file).records)
    assert 2200 < sum(isinstance(record, Message) for record in read) < 3000
    recorder.close()
