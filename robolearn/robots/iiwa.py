"""KUKA LBR iiwa 7 with a Panda hand on its flange. Limits: KUKA's LBR iiwa 7 R800 specification."""

from robolearn.robots import Arm
from robolearn.robots.panda import PANDA_GRIPPER

__all__ = ["IIWA"]

IIWA = Arm(
    name="iiwa",
    asset="robots/iiwa/robot.xml",
    joints=tuple(f"joint_{i}" for i in range(1, 8)),
    home_rad=(0.0, 0.65, 0.0, -1.89, 0.0, 0.6, 0.0),
    low_rad=(-2.9671, -2.0944, -2.9671, -2.0944, -2.9671, -2.0944, -3.0543),
    high_rad=(2.9671, 2.0944, 2.9671, 2.0944, 2.9671, 2.0944, 3.0543),
    velocity_rad_s=(1.71, 1.71, 1.74, 2.27, 2.44, 3.14, 3.14),
    acceleration_rad_s2=(3.0,) * 7,  # the maker states none: a careful value
    effort_nm=(176.0, 176.0, 110.0, 110.0, 110.0, 40.0, 40.0),
    gripper=PANDA_GRIPPER,
)
