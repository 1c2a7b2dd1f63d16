"""A space mouse's reports, a leader arm's topic, two devices as one."""

import os
import struct
import time
from dataclasses import replace

import numpy as np
import pytest

from robolearn.contracts import RobotState
from robolearn.errors import HardwareError
from robolearn.hardware.devices import Leader, LeaderConfig, SpaceMouse, Together
from robolearn.hardware.memory import MemoryGraph, MemoryTransport
from robolearn.hardware.messages import joint_state
from robolearn.hardware.teleop import Jog, Scripted, Twist, open_device
from robolearn.robots.panda import PANDA


@pytest.fixture
def puck(tmp_path):
    path = tmp_path / "hidraw0"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe needs one before it can be written
    writer = os.open(path, os.O_WRONLY)
    mouse = SpaceMouse(str(path))
    os.close(reader)
    yield mouse, lambda report: os.write(writer, report)
    mouse.close()
    os.close(writer)


def test_a_pushed_puck_moves_the_tool(puck):
    mouse, report = puck
    assert mouse.read().idle
    report(b"\x01" + struct.pack("<3h", 175, -350, -70))  # to the right, away, up
    assert mouse.read().linear == pytest.approx((1.0, -0.5, 0.2))
    report(b"\x02" + struct.pack("<3h", 300, 300, 350))  # tilts are not used; clockwise
    assert mouse.read().yaw == -1.0
    report(b"\x01" + struct.pack("<6h", 10, 0, 0, 0, 0, -175))  # newer pucks: all axes at once
    twist = mouse.read()
    assert twist.linear == (0.0, 0.0, 0.0)  # within the dead zone
    assert twist.yaw == pytest.approx(0.5)


def test_buttons_move_the_gripper_and_foreign_reports_nothing(puck):
    mouse, report = puck
    report(b"\x03\x01")
    assert mouse.read().gripper == -1.0
    report(b"\x03\x02")
    assert mouse.read().gripper == 1.0
    for foreign in (b"\x01\x00", b"\x07" + bytes(12), b"\x03", b"\x17\x50"):
        report(foreign)
        assert mouse.read() == Twist(gripper=1.0)


def test_a_silent_puck_asks_for_nothing(puck, monkeypatch):
    mouse, report = puck
    report(b"\x01" + struct.pack("<3h", 350, 0, 0))
    assert not mouse.read().idle
    monkeypatch.setattr(mouse, "_heard_s", mouse._heard_s - 1.0)
    assert mouse.read().idle


@pytest.fixture
def leader():
    graph = MemoryGraph(time.monotonic_ns)
    config = LeaderConfig(joints=tuple(f"l{i}" for i in range(7)), offsets_rad=(0.1,) * 7, gripper_joint="grip")
    publisher = MemoryTransport(graph).publisher(config.topic, "sensor_msgs/msg/JointState")
    return Leader(MemoryTransport(graph), PANDA, config), publisher, config


def test_the_follower_goes_where_the_leader_is_at_its_speed(leader, home):
    device, publisher, config = leader
    assert device.read() == Twist()
    goal = home + np.linspace(-0.2, 0.3, 7)
    names, values = [*config.joints[::-1], "grip"], np.append((goal - 0.1)[::-1], 0.5)
    publisher.publish(joint_state(names, values, np.zeros(8)))
    twist = device.read()
    assert twist.joints_rad == pytest.approx(goal)
    assert twist.width_m == pytest.approx(0.04)
    jog = Jog(PANDA, 0.05, speed_rad_s=0.6)
    jog.start(RobotState(0, PANDA.joints, home, np.zeros(7), 0.08))
    last = home
    for _ in range(12):
        targets = jog.step(twist)
        assert np.abs(targets[1, :7] - last).max() <= 0.6 * 0.05 + 1e-9
        last = targets[1, :7]
    assert last == pytest.approx(goal)
    assert targets[1, 7] == pytest.approx(0.04)
    assert jog.step(Twist())[-1, :7] == pytest.approx(goal)  # a leader that falls silent leaves an arm that stands


def test_a_leader_out_of_the_limits_a_stale_one_and_half_a_one(leader, home, monkeypatch):
    device, publisher, config = leader
    publisher.publish(joint_state(config.joints, np.full(7, 9.0), np.zeros(7)))
    twist = device.read()
    jog = Jog(PANDA, 0.05, speed_rad_s=100.0)
    jog.start(RobotState(0, PANDA.joints, home, np.zeros(7), 0.08))
    assert (jog.step(twist)[:, :7] <= np.array(PANDA.high_rad) + 1e-12).all()
    for names, values in ((config.joints[:5], np.zeros(5)), (config.joints, np.full(7, np.nan))):
        publisher.publish(joint_state(names, values, np.zeros(len(names))))
        assert device.read() == twist
    monkeypatch.setattr(device, "_stamp_ns", device._stamp_ns - 10**9)
    assert device.read() == Twist()
    with pytest.raises(HardwareError, match="do not fit"):
        Leader(MemoryTransport(MemoryGraph(lambda: 0)), PANDA, replace(config, joints=("a",)))


def test_two_devices_together():
    moving = Scripted([Twist((1.0, 0.0, 0.0), mark="discard"), Twist((0.5, 0.0, 0.0))])
    marking = Scripted([Twist((0.0, 1.0, 0.0)), Twist(mark="success")])
    both = Together(moving, marking)
    assert both.read() == Twist((1.0, 0.0, 0.0))
    assert both.read() == Twist((0.5, 0.0, 0.0), mark="success")
    both.close()


def test_devices_by_name():
    with pytest.raises(HardwareError, match="Unknown device 'spacemose'"):
        open_device("spacemose+page")
    with pytest.raises(HardwareError, match="leader"):
        open_device("leader")
    page = open_device("page")
    assert page.url
    page.close()
