"""Franka Emika Panda with its hand.

Limits: Franka Control Interface documentation, "Robot limits for Panda". Links: the MJCF named in `asset`.
"""

from math import pi, sqrt

from robolearn.robots import Arm, Gripper, Link

__all__ = ["PANDA", "PANDA_GRIPPER"]

PANDA_GRIPPER = Gripper(
    name="panda_gripper",
    asset="grippers/panda_gripper.xml",
    joints=("finger_joint1", "finger_joint2"),
    open_=(0.04, -0.04),
    closed=(0.0, 0.0),
    width_m=0.08,
)

_ALONG = (1.0, 0.0, 0.0, 0.0)
_PLUS_X, _MINUS_X = (sqrt(0.5), sqrt(0.5), 0.0, 0.0), (sqrt(0.5), -sqrt(0.5), 0.0, 0.0)

PANDA = Arm(
    name="panda",
    asset="robots/panda/robot.xml",
    joints=tuple(f"joint{i}" for i in range(1, 8)),
    home_rad=(0.0, pi / 16, 0.0, -5 * pi / 6, 0.0, pi - 0.2, pi / 4),
    low_rad=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    high_rad=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    velocity_rad_s=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
    acceleration_rad_s2=(15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
    effort_nm=(87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0),
    gripper=PANDA_GRIPPER,
    jerk_rad_s3=(7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0),
    links=(
        Link((0.0, 0.0, 0.333), _ALONG),
        Link((0.0, 0.0, 0.0), _MINUS_X),
        Link((0.0, -0.316, 0.0), _PLUS_X),
        Link((0.0825, 0.0, 0.0), _PLUS_X),
        Link((-0.0825, 0.384, 0.0), _MINUS_X),
        Link((0.0, 0.0, 0.0), _PLUS_X),
        Link((0.088, 0.0, 0.0), _PLUS_X),
    ),
    tool_m=(0.0, 0.0, 0.2035),
    tool_quat_wxyz=(0.38245583, 0.0, 0.0, -0.92397358),
)
