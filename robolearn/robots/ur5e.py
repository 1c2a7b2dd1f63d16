"""Universal Robots UR5e with a Panda hand on its flange. Limits: Universal Robots' UR5e technical specification."""

from math import pi

from robolearn.robots import Arm
from robolearn.robots.panda import PANDA_GRIPPER

__all__ = ["UR5E"]

UR5E = Arm(
    name="ur5e",
    asset="robots/ur5e/robot.xml",
    joints=(
        "shoulder_pan_joint",
        "shoulder_lift_joint",
        "elbow_joint",
        "wrist_1_joint",
        "wrist_2_joint",
        "wrist_3_joint",
    ),
    home_rad=(-0.47, -1.735, 2.48, -2.275, -1.59, -1.991),
    low_rad=(-2 * pi, -2 * pi, -pi, -2 * pi, -2 * pi, -2 * pi),
    high_rad=(2 * pi, 2 * pi, pi, 2 * pi, 2 * pi, 2 * pi),
    velocity_rad_s=(pi,) * 6,
    acceleration_rad_s2=(5.0,) * 6,  # the maker states none: a careful value
    effort_nm=(150.0, 150.0, 150.0, 28.0, 28.0, 28.0),
    gripper=PANDA_GRIPPER,
)
