"""Franka Research 3 with its hand; for hardware, without a model to simulate.

Limits: Franka Robotics, "Control Interface Specification and Robot Limits", limits for Franka Research 3
(https://frankarobotics.github.io/docs/robot_specifications.html). Links: those of the Panda, whose
Denavit-Hartenberg table the same page gives for both.
"""

from math import pi

from robolearn.robots import Arm
from robolearn.robots.panda import PANDA, PANDA_GRIPPER

__all__ = ["FR3"]

FR3 = Arm(
    name="fr3",
    asset="",
    joints=tuple(f"fr3_joint{i}" for i in range(1, 8)),
    home_rad=(0.0, -pi / 4, 0.0, -3 * pi / 4, 0.0, pi / 2, pi / 4),
    low_rad=(-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159),
    high_rad=(2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159),
    velocity_rad_s=(2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
    acceleration_rad_s2=(10.0,) * 7,
    effort_nm=(87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0),
    gripper=PANDA_GRIPPER,
    jerk_rad_s3=(5000.0,) * 7,
    links=PANDA.links,
    tool_m=(0.0, 0.0, 0.107 + 0.1034),  # flange, hand
    tool_quat_wxyz=PANDA.tool_quat_wxyz,
)
