"""Devices and the jog: what a human asks for becomes chunks that end at rest."""

import json
import os
import pty
import struct
import urllib.error
import urllib.request

import numpy as np
import pytest
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from robolearn.contracts import RobotState
from robolearn.errors import HardwareError
from robolearn.hardware.kinematics import Kinematics
from robolearn.hardware.observe import Reading
from robolearn.hardware.processes import wait_for
from robolearn.hardware.teleop import Gamepad, Jog, Keyboard, Scripted, Twist, open_device
from robolearn.robots.panda import PANDA


@pytest.fixture
def jog(home):
    made = Jog(PANDA, 0.05)
    made.start(RobotState(0, PANDA.joints, home, np.zeros(7), 0.04))
    return made


def test_a_jog_moves_the_tool_straight_and_ends_at_rest(jog, home):
    kinematics = Kinematics(PANDA)
    start = kinematics.tool(home[None])[0]
    for _ in range(10):
        chunk = jog.step(Twist((1.0, 0.0, 0.0)))
    assert chunk.shape == (10, 8)
    tool = kinematics.tool(chunk[:, :7]) - start
    assert tool[1] == pytest.approx([0.075, 0, 0], abs=1e-4)
    assert np.abs(chunk[5:, :7] - chunk[5, :7]).max() == 0
    assert jog.step(Twist())[0].tolist() == pytest.approx(chunk[1].tolist())


def test_a_jog_turns_and_grips(jog):
    for _ in range(4):
        chunk = jog.step(Twist(yaw=1.0, gripper=-1.0))
    assert chunk[1, 7] == pytest.approx(0.04 - 4 * 0.005)
    (_,), (before,) = Kinematics(PANDA).pose(np.array(PANDA.home_rad)[None])
    (_,), (after,) = Kinematics(PANDA).pose(chunk[1:2, :7])
    turn = after @ before.T
    assert np.arctan2(turn[1, 0], turn[0, 0]) == pytest.approx(4 * 0.6 * 0.05, abs=1e-3)
    for _ in range(20):
        chunk = jog.step(Twist(gripper=1.0))
    assert chunk[-1, 7] == 0.08


def test_a_jog_stops_at_the_end_of_reach(jog):
    for _ in range(200):
        chunk = jog.step(Twist((1.0, 0.0, 0.0)))
        assert np.isfinite(chunk).all()
        assert np.abs(np.diff(chunk[:, :7], axis=0)).max() < 0.2
    assert np.linalg.norm(jog.pose[0]) < 1.2


def test_a_jog_must_be_started():
    with pytest.raises(HardwareError, match="not started"):
        Jog(PANDA, 0.05).step(Twist())


def test_idle_and_scripts():
    assert Twist().idle
    assert not Twist(mark="stop").idle
    device = Scripted([Twist(yaw=1.0)])
    assert (device.read().yaw, device.read().mark) == (1.0, "stop")


def test_keyboard():
    parent, child = pty.openpty()
    device = Keyboard(child)
    os.write(parent, b"waQ")
    wait_for(lambda: device.read().linear == (1.0, 1.0, 0.0), 5, "keys")
    os.write(parent, b"\x7f")
    wait_for(lambda: device.read().mark == "discard", 5, "a mark")
    wait_for(lambda: device.read().idle, 5, "silence")
    device.close()
    with pytest.raises(HardwareError, match="terminal"), open(os.devnull) as nothing:
        Keyboard(nothing.fileno())


def test_gamepad(tmp_path):
    path = tmp_path / "js0"
    os.mkfifo(path)
    device = Gamepad(str(path))
    writer = os.open(path, os.O_WRONLY)
    event = struct.Struct("IhBB").pack
    os.write(writer, event(0, -32767, 2, 1) + event(0, 1000, 2, 0) + event(0, 1, 1, 5) + event(0, 1, 1, 0))
    twist = device.read()
    assert twist.linear == (1.0, 0.0, 0.0)  # the small deflection lies in the dead zone
    assert (twist.gripper, twist.mark) == (1.0, "success")
    assert device.read().mark == ""
    device.close()
    os.close(writer)
    with pytest.raises(HardwareError, match="No gamepad"):
        Gamepad(str(tmp_path / "none"))


def test_unknown_devices_are_refused():
    with pytest.raises(HardwareError, match="did you mean 'keyboard'"):
        open_device("keybord")


# ---------------------------------------------------------------- page


@pytest.fixture
def page():
    from robolearn.hardware.page import Page

    made = Page()
    yield made
    made.close()


def connect(page, **options):
    return websockets.sync.client.connect(page.url.replace("http:", "ws:").replace("/?", "/ws?"), **options)


def test_the_page_is_served_only_with_its_key(page):
    with urllib.request.urlopen(page.url, timeout=10) as reply:
        assert b"robolearn teleoperation" in reply.read()
    for wrong in (page.url[:-1], page.url.split("?")[0], page.url.replace("/?", "/x?")):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(wrong, timeout=10)
    with pytest.raises(InvalidStatus):
        connect(page, origin="http://evil.example")
    with pytest.raises(InvalidStatus):
        connect(page, additional_headers={"Host": "evil.example"})


def test_axes_and_marks_arrive_and_silence_is_idle(page):
    with connect(page) as wire:
        wire.send(json.dumps({"axes": [1, -2, 0, 0.5, 0]}))
        wait_for(lambda: page.read().linear == (1.0, -1.0, 0.0), 5, "axes")
        wire.send(json.dumps({"mark": "success"}))
        wait_for(lambda: page.read().mark == "success", 5, "a mark")
        wait_for(lambda: page.read().idle, 5, "silence")
        for bad in (
            "[",
            "[" * 4000,
            "[]",
            '{"axes": [1]}',
            '{"axes": [NaN,0,0,0,0]}',
            '{"axes": "x"}',
            '{"mark": "rm"}',
        ):
            wire.send(bad)
        wire.send(json.dumps({"axes": [0, 0, 1, 0, 0]}))
        wait_for(lambda: page.read().linear == (0.0, 0.0, 1.0), 5, "axes after bad frames")
    wait_for(lambda: page.read().idle, 5, "idle after leaving")


def test_pictures_and_signals_reach_the_page(page):
    with connect(page) as wire:
        wire.send("{}")
        frames = []
        state = RobotState(0, PANDA.joints, np.array(PANDA.home_rad), np.zeros(7))
        while len(frames) < 2:
            page.show(Reading(state, {"front": np.full((8, 8, 3), 200, np.uint8)}), {"mode": "run", "speed": 0.1})
            frames = [wire.recv(timeout=5) for _ in range(2)]
    assert json.loads(frames[0])["signals"] == {"mode": "run", "speed": 0.1}
    assert frames[1][:64].strip() == b"front"
    assert frames[1][64:67] == b"\xff\xd8\xff"
