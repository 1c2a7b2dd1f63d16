"""UFACTORY xArm 7 with its gripper; for hardware, without a model to simulate.

Limits and links: the maker's ROS 2 description (https://github.com/xArm-Developer/xarm_ros2,
xarm_description/urdf/xarm7/xarm7.urdf.xacro); the speed is that of its config/xarm7/joint_limits.yaml, the lower one.
"""

from math import pi, sqrt

from robolearn.robots import Arm, Gripper, Link

__all__ = ["XARM7"]

_ALONG = (1.0, 0.0, 0.0, 0.0)
_PLUS_X, _MINUS_X = (sqrt(0.5), sqrt(0.5), 0.0, 0.0), (sqrt(0.5), -sqrt(0.5), 0.0, 0.0)

XARM7 = Arm(
    name="xarm7",
    asset="",
    joints=tuple(f"joint{i}" for i in range(1, 8)),
    home_rad=(0.0, -0.6, 0.0, 0.8, 0.0, 1.4, 0.0),
    low_rad=(-2 * pi, -2.059, -2 * pi, -0.19198, -2 * pi, -1.69297, -2 * pi),
    high_rad=(2 * pi, 2.0944, 2 * pi, 3.927, 2 * pi, pi, 2 * pi),
    velocity_rad_s=(2.14,) * 7,
    acceleration_rad_s2=(5.0,) * 7,  # the description states none: a careful value
    effort_nm=(50.0, 50.0, 30.0, 30.0, 30.0, 20.0, 20.0),
    gripper=Gripper("xarm_gripper", "", ("drive_joint",), (0.0,), (0.85,), 0.085),
    jerk_rad_s3=(500.0,) * 7,  # likewise
    links=(
        Link((0.0, 0.0, 0.267), _ALONG),
        Link((0.0, 0.0, 0.0), _MINUS_X),
        Link((0.0, -0.293, 0.0), _PLUS_X),
        Link((0.0525, 0.0, 0.0), _PLUS_X),
        Link((0.0775, -0.3425, 0.0), _PLUS_X),
        Link((0.0, 0.0, 0.0), _PLUS_X),
        Link((0.076, 0.097, 0.0), _MINUS_X),
    ),
    tool_m=(0.0, 0.0, 0.172),
)
