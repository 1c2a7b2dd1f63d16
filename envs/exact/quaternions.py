"""robosuite's pose arithmetic for many rows at once, in its mixed single and double precision."""

import numpy as np

__all__ = ["mat_to_quat", "pose_matrix", "quat_to_mat", "relative_pose", "rotate", "upper", "wxyz_to_xyzw"]


def wxyz_to_xyzw(quat: np.ndarray) -> np.ndarray:
    """Return quaternions [...,4] in robosuite's order."""
    return quat[..., [1, 2, 3, 0]]


def upper(quat_xyzw: np.ndarray) -> np.ndarray:
    """Return the same rotations [...,4], the scalar part not negative."""
    return np.where(quat_xyzw[..., 3:] < 0.0, -quat_xyzw, quat_xyzw)


def rotate(quat_xyzw: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return `vector` [3] turned by unit quaternions [E,4], [E,3]."""
    axis, once = quat_xyzw[:, :3], np.cross(quat_xyzw[:, :3], vector)
    return vector + 2.0 * (quat_xyzw[:, 3:] * once + np.cross(axis, once))


def quat_to_mat(quat_xyzw: np.ndarray) -> np.ndarray:
    """Return rotation matrices [E,3,3] float64, computed in single precision."""
    quat = quat_xyzw.astype(np.float32)[:, [3, 0, 1, 2]]
    norm = np.einsum("ei,ei->e", quat, quat)
    empty = norm < np.finfo(float).eps * 4.0
    quat = (quat * np.sqrt(2.0 / np.where(empty, 1.0, norm).astype(np.float64))[:, None]).astype(np.float32)
    p = quat[:, :, None] * quat[:, None, :]
    double = p.astype(np.float64)
    out = np.empty((len(quat), 3, 3))
    out[:, 0, 0] = 1.0 - double[:, 2, 2] - double[:, 3, 3]
    out[:, 1, 1] = 1.0 - double[:, 1, 1] - double[:, 3, 3]
    out[:, 2, 2] = 1.0 - double[:, 1, 1] - double[:, 2, 2]
    out[:, 0, 1], out[:, 1, 0] = p[:, 1, 2] - p[:, 3, 0], p[:, 1, 2] + p[:, 3, 0]
    out[:, 0, 2], out[:, 2, 0] = p[:, 1, 3] + p[:, 2, 0], p[:, 1, 3] - p[:, 2, 0]
    out[:, 1, 2], out[:, 2, 1] = p[:, 2, 3] - p[:, 1, 0], p[:, 2, 3] + p[:, 1, 0]
    out[empty] = np.eye(3)
    return out


def mat_to_quat(mat: np.ndarray) -> np.ndarray:
    """Return unit quaternions [E,4] xyzw float32, the scalar part not negative (Bar-Itzhack 2000)."""
    m = mat.astype(np.float32)
    k = np.zeros((len(m), 4, 4), np.float32)
    k[:, 0, 0] = m[:, 0, 0] - m[:, 1, 1] - m[:, 2, 2]
    k[:, 1, 1] = m[:, 1, 1] - m[:, 0, 0] - m[:, 2, 2]
    k[:, 2, 2] = m[:, 2, 2] - m[:, 0, 0] - m[:, 1, 1]
    k[:, 3, 3] = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    k[:, 1, 0], k[:, 2, 0], k[:, 2, 1] = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    k[:, 3, 0] = m[:, 2, 1] - m[:, 1, 2]
    k[:, 3, 1] = m[:, 0, 2] - m[:, 2, 0]
    k[:, 3, 2] = m[:, 1, 0] - m[:, 0, 1]
    broken = ~np.isfinite(k).all((1, 2))  # of diverged rows
    k[broken] = 0.0
    _, vectors = np.linalg.eigh(k / np.float32(3.0))
    quat = vectors[:, :, 3]  # of the largest eigenvalue, xyzw
    quat[broken] = np.nan
    return upper(quat)


def pose_matrix(position_m: np.ndarray, quat_xyzw: np.ndarray) -> np.ndarray:
    """Return homogeneous matrices [E,4,4] float32."""
    out = np.zeros((len(position_m), 4, 4), np.float32)
    out[:, :3, :3], out[:, :3, 3], out[:, 3, 3] = quat_to_mat(quat_xyzw), position_m, 1.0
    return out


def relative_pose(frame: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return position [E,3] and quaternion [E,4] xyzw of `pose` [E,4,4] seen from `frame` [E,4,4]."""
    inverse = np.zeros((len(frame), 4, 4))
    inverse[:, :3, :3] = frame[:, :3, :3].swapaxes(1, 2)
    inverse[:, :3, 3] = -(inverse[:, :3, :3] @ frame[:, :3, 3:].astype(np.float64))[..., 0]
    inverse[:, 3, 3] = 1.0
    seen = inverse @ pose.astype(np.float64)
    return seen[:, :3, 3], mat_to_quat(seen[:, :3, :3])
