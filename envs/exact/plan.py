"""What the control loop needs to know about arms, as plain arrays; and the per-row controller state."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

__all__ = ["GRIPPER", "JOINTS", "STATE", "Kind", "Plan", "Record", "State"]

JOINTS, GRIPPER = 7, 4  # array widths: most joints of an arm, most actuators of a gripper


class Kind(IntEnum):
    """Control laws of an arm."""

    OSC = 0
    JOINT_POSITION = 1
    JOINT_VELOCITY = 2
    IK = 3


class State(IntEnum):
    """First index of each controller variable of one arm (see `STATE` for the total)."""

    HOME = 0  # joint angles at reset: the null-space target [7]
    GOAL_POSITION = 7  # [3]
    GOAL_ROTATION = 10  # row-major matrix [9]
    GOAL_JOINT = 19  # joint goal, position or velocity [7]
    GRIP = 26  # commanded gripper action [4]
    ERROR = 30  # last velocity error [7]
    SUM = 37  # summed velocity error [7]
    SATURATED = 44
    SLOT = 45  # next slot of the error-difference ring
    COUNT = 46  # filled slots
    RING = 47  # last five error differences [5, 7]
    STALE = 82  # 1: the next control uses what follows (robosuite looks before it sets the gripper's joints)
    MASS = 83  # the arm's mass matrix at reset [7, 7]
    SITE = 132  # position and rotation matrix of the controlled site at reset [12]
    JACOBIAN = 144  # of that site by the arm's joints [6, 7]


STATE = State.JACOBIAN + 6 * JOINTS


class Plan(NamedTuple):
    """Constants of the A arms of a model, in the order of the action vector.

    Widths are padded: J = `JOINTS`, G = `GRIPPER`. Indices are -1 where a gripper has no actuator.
    """

    kind: np.ndarray  # int64 [A], `Kind`
    absolute: np.ndarray  # int64 [A], 1: actions are absolute goals
    rotate: np.ndarray  # int64 [A], 1: the action holds a rotation
    world: np.ndarray  # int64 [A], 1: goals are in the world frame, else in the arm's base frame
    uncoupled: np.ndarray  # int64 [A], 1: force and torque are decoupled
    joints: np.ndarray  # int64 [A], number of joints
    site: np.ndarray  # int64 [A], the controlled site
    action: np.ndarray  # int64 [A,3], arm's first action entry, their number, gripper's entry (-1: none)
    qpos: np.ndarray  # int64 [A,J]
    qvel: np.ndarray  # int64 [A,J]
    ctrl: np.ndarray  # int64 [A,J]
    base_site: np.ndarray  # int64 [A], site of a base frame that moves, else -1
    base_m: np.ndarray  # [A,3] position of the base frame in the world
    base_rot: np.ndarray  # [A,3,3]
    mass: np.ndarray  # int64 [A,J,J], lower triangle: where the mass matrix lies in the sparse one, -1: zero
    kp: np.ndarray  # [A,J] stiffness (six task axes, or per joint)
    kd: np.ndarray  # [A,J] damping
    low: np.ndarray  # [A,J] bounds of the action
    high: np.ndarray  # [A,J]
    scale: np.ndarray  # [A,J] output = (action - in_mid) * scale + out_mid
    in_mid: np.ndarray  # [A,J]
    out_mid: np.ndarray  # [A,J]
    torque_low: np.ndarray  # [A,J]
    torque_high: np.ndarray  # [A,J]
    grip_ctrl: np.ndarray  # int64 [A,G]
    grip_step: np.ndarray  # [A,G] change of the commanded action per step
    grip_sign: np.ndarray  # int64 [A], 1: only the sign of the action counts
    grip_mid: np.ndarray  # [A,G] control = mid + half * commanded, clipped to [low, high]
    grip_half: np.ndarray  # [A,G]


class Record(NamedTuple):
    """What the loop copies out of every row after its last sub-step: which bodies, sites, contacts."""

    bodies: np.ndarray  # int64 [nb]
    sites: np.ndarray  # int64 [ns]
    groups: np.ndarray  # int64 [ngeom], bit mask of the groups of a geometry
    pairs: np.ndarray  # int64 [np,2], masks of two groups whose contact is reported
