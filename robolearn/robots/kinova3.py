"""Kinova Gen3 with a Panda hand on its flange. Limits: Kinova's Gen3 user guide."""

from math import pi

from robolearn.robots import Arm
from robolearn.robots.panda import PANDA_GRIPPER

__all__ = ["KINOVA3"]

KINOVA3 = Arm(
    name="kinova3",
    asset="robots/kinova3/robot.xml",
    joints=tuple(f"Actuator{i}" for i in range(1, 8)),
    home_rad=(0.0, 0.65, 0.0, 1.89, 0.0, 0.6, -pi / 2),
    low_rad=(-2 * pi, -2.41, -2 * pi, -2.66, -2 * pi, -2.23, -2 * pi),
    high_rad=(2 * pi, 2.41, 2 * pi, 2.66, 2 * pi, 2.23, 2 * pi),
    velocity_rad_s=(1.39, 1.39, 1.39, 1.39, 1.22, 1.22, 1.22),
    acceleration_rad_s2=(3.0,) * 7,  # the maker states none: a careful value
    effort_nm=(32.0, 32.0, 32.0, 32.0, 13.0, 13.0, 13.0),
    gripper=PANDA_GRIPPER,
)
