"""Batched inverse kinematics: one damped least-squares step per control step."""

import mujoco
import numpy as np

from robolearn.envs.task import Mount, wrap_angle
from robolearn.errors import EnvError

__all__ = ["TOOL_DOWN", "home_joints", "joint_targets", "tool_yaw"]

# The tool points down with its fingers moving along y; a yaw turns it about the world's z.
TOOL_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
_STEP_M, _STEP_RAD, _DAMPING, _POSTURE = 0.06, 0.4, 1e-4, 0.1


def tool_yaw(mat: np.ndarray, middle_rad: float | np.ndarray = 0.0) -> np.ndarray:
    """Return the yaw [rad] of tool orientations [...,3,3] (0: TOOL_DOWN), within half a turn of `middle_rad`."""
    turn = mat @ TOOL_DOWN.T
    yaw = np.arctan2(turn[..., 1, 0] - turn[..., 0, 1], turn[..., 0, 0] + turn[..., 1, 1])
    return middle_rad + wrap_angle(yaw - middle_rad)


def joint_targets(
    joints_rad: np.ndarray,
    home_rad: np.ndarray,
    jacobian: np.ndarray,
    position_m: np.ndarray,
    mat: np.ndarray,
    target: np.ndarray,
    middle_rad: float,
) -> np.ndarray:
    """Return joint targets [E,n] one step (at most 6 cm, 0.4 rad) towards tool `target` [E,4] (x, y, z, yaw).

    `jacobian` [E,6,n] maps joint to tool velocities, `position_m` [E,3] and `mat` [E,3,3] are the tool
    now; yaws are counted around `middle_rad`. The null space pulls towards `home_rad`. Damped least
    squares: Wampler 1986.
    """
    away = target[:, :3] - position_m
    length = np.linalg.norm(away, axis=1, keepdims=True)
    away = away * np.minimum(1.0, _STEP_M / np.maximum(length, 1e-9))
    yaw = tool_yaw(mat, middle_rad)
    goal = _turn(yaw + np.clip(target[:, 3] - yaw, -_STEP_RAD, _STEP_RAD)) @ TOOL_DOWN
    turn = 0.5 * np.cross(mat.swapaxes(1, 2), goal.swapaxes(1, 2)).sum(1)
    posture = _POSTURE * (home_rad - joints_rad)
    error = np.concatenate([away, turn], 1) - (jacobian @ posture[..., None])[..., 0]
    transposed = jacobian.swapaxes(1, 2)
    square = jacobian @ transposed + _DAMPING * np.eye(6)
    return joints_rad + posture + (transposed @ np.linalg.solve(square, error[..., None]))[..., 0]


def home_joints(model: mujoco.MjModel, mount: Mount) -> np.ndarray:
    """Return the joints [n] that hold the tool at the mount's home, pointing down.

    Raises `EnvError` when the arm cannot reach it within its limits.
    """
    data = mujoco.MjData(model)
    joints = [model.joint(mount.prefix + name) for name in mount.arm.joints]
    qpos, dof = [joint.qposadr[0] for joint in joints], [joint.dofadr[0] for joint in joints]
    site = model.site(mount.prefix + "grip_site").id
    home = np.array(mount.arm.home_rad)
    target = np.array([[*mount.home_m, mount.home_yaw_rad]])
    data.qpos[qpos] = home
    jacobian = np.zeros((6, model.nv))
    for _ in range(200):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site)
        now, mat = data.site_xpos[site][None], data.site_xmat[site].reshape(1, 3, 3)
        joints = data.qpos[qpos][None]
        step = joint_targets(joints, home[None], jacobian[None, :, dof], now, mat, target, mount.middle_rad)[0]
        data.qpos[qpos] = np.clip(step, mount.arm.low_rad, mount.arm.high_rad)
    off_m = float(np.linalg.norm(data.site_xpos[site] - mount.home_m))
    if off_m > 1e-3:
        raise EnvError(f"{mount.arm.name} does not reach its home.", found=f"{off_m:.3f} m off", expected=mount.home_m)
    return data.qpos[qpos].copy()


def _turn(yaw_rad: np.ndarray) -> np.ndarray:
    cos, sin, zero = np.cos(yaw_rad), np.sin(yaw_rad), np.zeros_like(yaw_rad)
    return np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1.0], -1).reshape(*yaw_rad.shape, 3, 3)
