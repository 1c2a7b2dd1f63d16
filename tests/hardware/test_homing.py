"""Homing without ROS: the planned motion keeps the limits; what cannot be done is refused. See also test_rclpy.py."""

import numpy as np
import pytest

from robolearn.errors import HardwareError
from robolearn.hardware import homing
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.homing import plan
from robolearn.hardware.messages import trajectory
from robolearn.hardware.personality import Trajectory
from robolearn.robots.panda import PANDA


@pytest.mark.parametrize("way", [0.02, 0.4, -1.2])
def test_the_controller_that_follows_keeps_the_limits(limits, home, way):
    start = home + way * np.array([1, 0.3, 1, 0.3, 1, 0.3, 1])
    times_s, position, velocity = plan(limits, start, home)
    control = Trajectory(PANDA.joints, start, 0.001)
    control.receive(trajectory(PANDA.joints, times_s, position, velocity), 0)
    assert not control.rejected
    path = np.array([control.target(now) for now in range(0, round(1e9 * times_s[-1]) + 10**8, 10**6)])
    assert path[0] == pytest.approx(start)
    assert path[-1] == pytest.approx(home)
    speed = np.diff(path, axis=0) / 0.001
    tool = np.linalg.norm(np.diff(limits.kinematics.tool(path), axis=0), axis=1) / 0.001
    assert (np.abs(speed) <= 1.001 * limits.options.ramp * limits.velocity_rad_s).all()
    assert (np.abs(np.diff(speed, axis=0)) / 0.001 <= 1.05 * limits.acceleration_rad_s2).all()
    assert tool.max() <= limits.options.tool_m_s
    slow = (np.abs(speed) / (limits.options.ramp * limits.velocity_rad_s)).max()
    assert max(slow, tool.max() / limits.options.tool_m_s) > 0.8 or way == 0.02


def test_an_arm_that_is_home_stays(limits, home):
    times_s, position, velocity = plan(limits, home, home)
    assert (np.diff(times_s) > 0).all()
    assert (position == home).all()
    assert not velocity.any()


def test_a_way_that_leaves_the_limits_is_refused(limits, home):
    with pytest.raises(HardwareError, match="leaves the limits"):
        plan(limits, home, home + 3.0 * np.eye(7)[1])


def test_a_twin_is_not_homed():
    with pytest.raises(HardwareError, match="ROS 2 graph"):
        homing.home(RobotConfig(twin=TwinOptions()))
