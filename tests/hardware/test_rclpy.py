"""Against real rclpy peers, Kilted and Jazzy, when their environments are there (tests/hardware/install_ros.sh)."""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from robolearn.config import parse
from robolearn.hardware import messages
from robolearn.hardware.dds import DdsTransport
from robolearn.hardware.deploy import RobotConfig
from robolearn.hardware.processes import start_twin
from robolearn.hardware.ros_robot import RosRobot, RosRobotConfig
from robolearn.hardware.transport import LATCHED
from robolearn.robots.panda import PANDA

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = {
    "kilted": Path(os.environ.get("ROBOLEARN_ROS_PYTHON", ROOT / ".ros" / "bin" / "python")),
    "jazzy": Path(os.environ.get("ROBOLEARN_JAZZY_PYTHON", ROOT / ".ros-jazzy" / "bin" / "python")),
}
STATE = "sensor_msgs/msg/JointState"


@pytest.fixture(params=PYTHONS)
def python(request):
    found = PYTHONS[request.param]
    if not found.exists():
        pytest.skip(f"NO RCLPY PEER: run tests/hardware/install_ros.sh {request.param} to test against real ROS 2")
    return found


@pytest.fixture
def peer(python):
    running = []

    def start(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        command = [str(python), str(ROOT / "tests/hardware/rcl_peer.py"), *map(str, arguments)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def transport():
    made = DdsTransport(77)
    yield made
    made.close()


def result(process, seconds=60):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out.strip().splitlines()[-1])


def wait(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_joint_states_cross_both_ways_unchanged(peer, transport):
    publisher, subscriber = transport.publisher("/ping", STATE), transport.subscriber("/pong", STATE)
    process = peer("echo", 40)
    wait(lambda: publisher.matched() > 0 and transport.others("/pong") > 0)
    time.sleep(0.5)
    draw, sent, got = np.random.default_rng(0), [], []
    for i in range(200):
        position = draw.normal(size=7)
        publisher.publish(messages.joint_state(PANDA.joints, position, -position, 1000 + i))
        sent.append(position)
        wait(lambda: got.extend(subscriber.take()) or len(got) == len(sent))
    for position, received in zip(sent, got, strict=True):
        assert received.message.position.tolist() == position.tolist()
        assert received.message.name == list(PANDA.joints)
    report = result(process)
    assert report["echoed"] == 200
    assert report["malformed"] == 0
    assert report["others"] == 1
    assert report["reliability"] == ["RELIABLE"]
    assert report["durability"] == ["VOLATILE"]
    assert report["type_hash"] == [messages.type_hash(STATE)]
    assert subscriber.malformed == 0


PACKAGES = ("builtin_interfaces", "std_msgs", "geometry_msgs", "sensor_msgs", "trajectory_msgs", "diagnostic_msgs")
NUMBERS = {"bool": "?", "byte": "i1", "octet": "i1", "char": "u1", "float32": "f4", "float64": "f8"}
NUMBERS |= {
    f"{sign}int{bits}": f"{code}{bits // 8}" for sign, code in (("", "i"), ("u", "u")) for bits in (8, 16, 32, 64)
}


def anything(kind, draw):
    """Return a message of `kind` with random contents."""
    if kind == "std_msgs/msg/Empty":  # one byte that nobody reads
        return messages.message(kind, 0)
    fields = messages.types().fielddefs[kind][1]
    return messages.message(kind, *(field(description, draw) for _, description in fields))


def field(description, draw):
    node, inner = description
    name = node.name
    if name == "BASE":
        return value(inner[0], draw)
    if name == "NAME":
        return anything(inner, draw)
    size = inner[1] if name == "ARRAY" else int(draw.integers(0, min(inner[1] or 4, 4) + 1))
    items = [field(inner[0], draw) for _ in range(size)]
    plain = inner[0][0].name == "BASE" and inner[0][1][0] in NUMBERS
    return np.array(items, NUMBERS[inner[0][1][0]]) if plain else items


def value(base, draw):
    if base == "string":
        return "".join(draw.choice(list("abc xyz/0é"), int(draw.integers(0, 9))))
    if base == "bool":
        return bool(draw.integers(0, 2))
    if base.startswith("float"):
        return float(np.float32(draw.normal()))
    low, high = np.iinfo(NUMBERS[base]).min, np.iinfo(NUMBERS[base]).max
    return int(draw.integers(low, high, dtype=NUMBERS[base], endpoint=True))


def test_every_standard_message_is_read_and_written_as_ros_does(peer, tmp_path):
    draw = np.random.default_rng(0)
    kinds = sorted(kind for kind in messages.types().fielddefs if kind.split("/")[0] in PACKAGES and "/msg/" in kind)
    sent = {kind: [messages.encode(anything(kind, draw)).hex() for _ in range(5)] for kind in kinds}
    (tmp_path / "messages.json").write_text(json.dumps(sent))
    report = result(peer("codec", tmp_path / "messages.json"), 120)
    assert len(report["again"]) > 80
    assert not [kind for kind in report["missing"] if "Event" not in kind]
    for kind, samples in report["again"].items():
        for ours, theirs in zip(sent[kind], samples, strict=True):
            ours, theirs = bytes.fromhex(ours), bytes.fromhex(theirs)
            assert messages.encode(messages.decode(theirs, kind)) == ours, kind  # they pad in more places


def test_a_closed_loop_at_250_hz_by_counts(peer, transport):
    process = peer("arm", 12)
    robot = RosRobot(PANDA, transport, RosRobotConfig("forward", connect_s=30))
    robot.connect()
    start, due, ticks, target = time.monotonic(), time.monotonic(), 0, np.array(PANDA.home_rad)
    while time.monotonic() - start < 3.0:
        robot.read()
        target = np.array(PANDA.home_rad) + 0.1 * np.sin(time.monotonic() - start)
        robot.send(target, time.monotonic_ns())
        ticks += 1
        due = max(due + 0.004, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0))
    wait(lambda: np.abs(robot.read().position_rad - target).max() < 1e-12)
    report = result(process)
    assert report["commands"] > 0.5 * ticks
    assert np.allclose(report["last"], target)


def test_the_node_runs_a_policy_and_obeys_its_services(peer, tmp_path):
    pytest.importorskip("mujoco")
    ros = {"controller": "forward", "rate_hz": 100.0, "connect_s": 60.0}
    ros |= {"gripper_topic": "/gripper_controller/commands", "gripper_joint": "finger_joint1"}
    robot = {"name": "ros2/test", "domain": 77, "ros": ros}
    (tmp_path / "robot.yaml").write_text(json.dumps(robot))  # JSON is YAML
    twin = {"scene": "reach", "personality": "forward"}
    stage = start_twin(parse(RobotConfig, {**robot, "twin": twin}))
    try:
        report = result(peer("node", tmp_path / "robot.yaml"), seconds=240)
    finally:
        stage.close()
    answers = report["answers"]
    assert answers["start"] == [True, "acting"]
    assert answers["again"] == [True, "acting"]
    assert answers["hold"] == [True, "hold"]
    assert answers["stop"] == [True, "stop"]
    assert answers["refused"][0] is False
    assert "disarm" in answers["refused"][1]
    assert report["before"][0] == "disarmed"
    for name in ("acting", "again"):
        message, values = report[name]
        assert (message, values["acting"]) == ("acting", "True")
    assert int(report["acting"][1]["decisions"]) >= 3
    assert int(report["again"][1]["decisions"]) > int(report["acting"][1]["decisions"])
    assert report["held"][0] == "holding"


def test_a_latched_message_reaches_a_late_node(python, transport):
    publisher = transport.publisher("/robot_description", "std_msgs/msg/String", LATCHED)
    publisher.publish(messages.message("std_msgs/msg/String", "<robot/>"))
    code = (
        "import time\nfrom robolearn.hardware.rcl import RclTransport\n"
        "from robolearn.hardware.transport import LATCHED\n"
        "t = RclTransport(77, 'late'); s = t.subscriber('/robot_description', 'std_msgs/msg/String', LATCHED)\n"
        "end = time.monotonic() + 30; got = []\n"
        "while not got and time.monotonic() < end: got += s.take(); time.sleep(0.01)\n"
        "print(got[0].message.data if got else 'nothing'); t.close()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    run = subprocess.run(
        [str(python), "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert "<robot/>" in run.stdout


def test_an_arm_is_brought_home_by_an_action(peer):
    found = result(peer("home", 78), 120)
    assert found["at"] == pytest.approx(PANDA.home_rad)
    assert found["arrived"]["off_rad"] < 0.01
    assert found["arrived"]["moved_rad"] == pytest.approx(0.4)
    assert 0.05 < max(found["speeds"]) < 0.3 * max(PANDA.velocity_rad_s)
    assert "refuses the goal" in found["refused"]
    assert "error -5: too far off" in found["aborted"]
    assert "Nobody offers" in found["nobody"]
