"""The real processes: a MuJoCo twin and an executor over DDS, driven from here."""

import os
import signal
import time

import numpy as np
import pytest

pytest.importorskip("mujoco")

from robolearn.errors import HardwareError
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.processes import wait_for
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.hardware.session import RobotSession

PERIOD_S, K = 0.05, 16


def config(domain, controller="jtc"):
    personality = "jtc" if controller == "jtc" else "forward"
    return RobotConfig(
        domain=domain,
        ros=RosRobotConfig(
            controller,
            rate_hz=100.0,
            gripper_topic="/gripper_controller/commands",
            gripper_joint="finger_joint1",
            connect_s=120.0,
        ),
        base_m=(-0.56, 0.0, 0.912),
        signals={"observation.environment_state": "/environment_state"},
        twin=TwinOptions("reach", personality),
    )


@pytest.fixture(scope="module")
def session():
    with RobotSession(config(70 + os.getpid() % 25), K, PERIOD_S) as running:
        yield running


def sway(session, start, seconds):
    """Stream a slow motion of joint 7 around `start`; returns what was asked last."""
    begin = time.monotonic()
    chunk = np.zeros((K, 8))

    def work(step):
        record = session.states.latest()
        t = time.monotonic() - begin
        times = t + PERIOD_S * np.arange(K)
        chunk[:, :7] = start
        chunk[:, 6] += 0.1 * (1 - np.cos(times))
        chunk[:, 7] = 0.04
        session.chunks.write(max(record.stamp_ns, time.monotonic_ns() - 50_000_000), chunk)
        return t < seconds

    session.every(0.1, work)


def test_the_arm_moves_and_comes_to_rest(session):
    reading = session.reading()
    assert reading.state.position_rad.shape == (7,)
    assert session.request("arm") == "ramp_in"
    sway(session, reading.state.position_rad, 2.5)
    status = session.status()
    assert status["chunks"] > 5
    assert status["mode"] in ("run", "hold")  # a starved machine may hold
    moved = session.reading().state.position_rad[6] - reading.state.position_rad[6]
    assert moved > 0.01 or status["mode"] == "hold"
    session.rest()
    assert session.mode() == "disarmed"
    still = session.reading().state.position_rad
    time.sleep(0.3)
    assert session.reading().state.position_rad == pytest.approx(still, abs=1e-2)


def test_requests_that_are_refused_come_back_as_errors(session):
    with pytest.raises(HardwareError, match="Unknown request"):
        session.request("dance")


def test_signals_and_the_twins_reset(session):
    session.reset_twin(11)
    wait_for(lambda: "observation.environment_state" in session.reading().signals, 20.0, "perception")
    first = session.reading().signals["observation.environment_state"].copy()
    session.reset_twin(12)
    wait_for(lambda: not np.allclose(session.reading().signals["observation.environment_state"], first), 20, "a reset")
    assert session.succeeded() in (True, False)


def test_a_killed_executor_is_noticed_and_the_twin_stands(session):
    session.request("arm")
    sway(session, session.reading().state.position_rad, 0.6)
    os.kill(session.executor.pid, signal.SIGKILL)
    wait_for(lambda: session.executor._process.poll() is not None, 10.0, "the end of the executor")
    with pytest.raises(HardwareError, match="has ended"):
        session.request("hold")
    assert session.twin.request("status")["stopped"] == ""
