"""SO-101, five joints and a gripper of hobby servos; for hardware, without a model to simulate.

Joint names as LeRobot has them. Ranges and links: the designers' model (https://github.com/TheRobotStudio/SO-ARM100,
Simulation/SO101/so101_new_calib.xml). Nobody states limits of speed, acceleration and jerk: these are careful values.
"""

from math import sqrt

from robolearn.robots import Arm, Gripper, Link

__all__ = ["SO101"]

_HALF = sqrt(0.5)

SO101 = Arm(
    name="so101",
    asset="",
    joints=("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"),
    home_rad=(0.0, -0.6, 0.9, 1.2, 0.0),
    low_rad=(-1.91986, -1.74533, -1.69, -1.65806, -2.74385),
    high_rad=(1.91986, 1.74533, 1.69, 1.65806, 2.84121),
    velocity_rad_s=(2.0,) * 5,
    acceleration_rad_s2=(8.0,) * 5,
    effort_nm=(2.94,) * 5,  # the model's servo
    gripper=Gripper("so101_gripper", "", ("gripper",), (1.74533,), (-0.17453,), 0.1),  # width: about, at the tips
    jerk_rad_s3=(300.0,) * 5,
    links=(
        Link((0.0388353, 0.0, 0.0624), (0.0, 0.0, 1.0, 0.0)),
        Link((-0.0303992, -0.0182778, -0.0542), (0.5, -0.5, -0.5, -0.5)),
        Link((-0.11257, -0.028, 0.0), (_HALF, 0.0, 0.0, _HALF)),
        Link((-0.1349, 0.0052, 0.0), (_HALF, 0.0, 0.0, -_HALF)),
        Link((0.0, -0.0611, 0.0181), (0.0172091, -0.0172091, 0.706897, 0.706897)),
    ),
    tool_m=(-0.0079, -0.000218121, -0.0981274),
    tool_quat_wxyz=(0.0, _HALF, _HALF, 0.0),
)
