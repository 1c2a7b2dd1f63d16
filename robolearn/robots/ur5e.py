"""Universal Robots UR5e with a Panda hand on its flange.

Limits: Universal Robots' UR5e technical specification. Links: the MJCF named in `asset`.
"""

from math import pi, sqrt

from robolearn.robots import Arm, Link
from robolearn.robots.panda import PANDA_GRIPPER

__all__ = ["UR5E"]

_ALONG, _PLUS_Y = (1.0, 0.0, 0.0, 0.0), (sqrt(0.5), 0.0, sqrt(0.5), 0.0)

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
    jerk_rad_s3=(500.0,) * 6,  # likewise
    links=(
        Link((0.0, 0.0, 0.163), _ALONG),
        Link((0.0, 0.138, 0.0), _PLUS_Y, axis=1),
        Link((0.0, -0.131, 0.425), _ALONG, axis=1),
        Link((0.0, 0.0, 0.392), _PLUS_Y, axis=1),
        Link((0.0, 0.127, 0.0), _ALONG),
        Link((0.0, 0.0, 0.1), _ALONG, axis=1),
    ),
    tool_m=(0.0, 0.195, 0.0),
    tool_quat_wxyz=(-0.5, 0.5, 0.5, 0.5),
)
