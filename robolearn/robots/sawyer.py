"""Rethink Sawyer with a Panda hand on its flange. Limits: Rethink's robot description (intera)."""

from robolearn.robots import Arm
from robolearn.robots.panda import PANDA_GRIPPER

__all__ = ["SAWYER"]

SAWYER = Arm(
    name="sawyer",
    asset="robots/sawyer/robot.xml",
    joints=tuple(f"right_j{i}" for i in range(7)),
    home_rad=(0.0, -1.18, 0.0, 2.18, 0.0, 0.57, -1.57),
    low_rad=(-3.0503, -3.8095, -3.0426, -3.0439, -2.9761, -2.9761, -4.7124),
    high_rad=(3.0503, 2.2736, 3.0426, 3.0439, 2.9761, 2.9761, 4.7124),
    velocity_rad_s=(1.74, 1.328, 1.957, 1.957, 3.485, 3.485, 4.545),
    acceleration_rad_s2=(3.0,) * 7,  # the maker states none: a careful value
    effort_nm=(80.0, 80.0, 40.0, 40.0, 9.0, 9.0, 9.0),
    gripper=PANDA_GRIPPER,
)
