"""Kinova Jaco (7 joints) with a Panda hand on its flange. Limits: Kinova's robot description (j2s7s300)."""

from math import pi

from robolearn.robots import Arm
from robolearn.robots.panda import PANDA_GRIPPER

__all__ = ["JACO"]

JACO = Arm(
    name="jaco",
    asset="robots/jaco/robot.xml",
    joints=tuple(f"j2s7s300_joint_{i}" for i in range(1, 8)),
    home_rad=(3.192, 3.68, 0.0, 1.17, 0.05, 3.76, 3.142),
    low_rad=(-2 * pi, 0.8203, -2 * pi, 0.5236, -2 * pi, 1.1345, -2 * pi),
    high_rad=(2 * pi, 5.4629, 2 * pi, 5.7596, 2 * pi, 5.1487, 2 * pi),
    velocity_rad_s=(0.628, 0.628, 0.628, 0.628, 0.838, 0.838, 0.838),
    acceleration_rad_s2=(1.5,) * 7,  # the maker states none: a careful value
    effort_nm=(30.5, 30.5, 30.5, 30.5, 6.8, 6.8, 6.8),
    gripper=PANDA_GRIPPER,
)
