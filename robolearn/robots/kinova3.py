"""Kinova Gen3 with a Panda hand on its flange.

Limits: Kinova's Gen3 user guide. Links: the MJCF named in `asset`.
"""

from math import pi

from robolearn.robots import Arm, Link
from robolearn.robots.panda import PANDA_GRIPPER

__all__ = ["KINOVA3"]

_OVER = (-3.67e-06, 1.0, 0.0, 0.0)
_PLUS_X, _MINUS_X = (0.70710528, 0.70710828, 0.0, 0.0), (0.70710528, -0.70710828, 0.0, 0.0)

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
    jerk_rad_s3=(300.0,) * 7,  # likewise
    links=(
        Link((0.0, 0.0, 0.15643), _OVER),
        Link((0.0, 0.005375, -0.12838), _PLUS_X),
        Link((0.0, -0.21038, -0.006375), _MINUS_X),
        Link((0.0, 0.006375, -0.21038), _PLUS_X),
        Link((0.0, -0.20843, -0.006375), _MINUS_X),
        Link((0.0, 0.000175, -0.10593), _PLUS_X),
        Link((0.0, -0.10593, -0.000175), _MINUS_X),
    ),
    tool_m=(0.0, 0.0, -0.1585),
    tool_quat_wxyz=(0.0, 1.0, -2.12e-06, 0.0),
)
