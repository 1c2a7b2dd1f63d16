"""Where the tool of an arm is, from its constants."""

from collections.abc import Sequence

import numpy as np

from robolearn.errors import HardwareError
from robolearn.robots import Arm

__all__ = ["Kinematics", "rotation"]

_DAMPING = 1e-6


class Kinematics:
    """Forward kinematics of one arm's tool point."""

    def __init__(self, arm: Arm):
        if len(arm.links) != len(arm.joints):
            raise HardwareError(
                f"The arm '{arm.name}' lacks its links.",
                found=len(arm.links),
                expected=len(arm.joints),
                do="state `links` in its constants file",
            )
        self._tool_m, self._tool_mat = np.array(arm.tool_m), rotation(arm.tool_quat_wxyz)
        self._low_rad, self._high_rad = np.array(arm.low_rad), np.array(arm.high_rad)
        self._chain = [
            (index, np.array(link.position_m), rotation(link.quat_wxyz), (link.axis + 1) % 3, (link.axis + 2) % 3)
            for index, link in enumerate(arm.links)
        ][::-1]

    def tool(self, position_rad: np.ndarray) -> np.ndarray:
        """Return the tool point [n,3] in the arm's base frame [m] at joint positions [n,J]."""
        sine, cosine = np.sin(position_rad), np.cos(position_rad)
        point = np.broadcast_to(self._tool_m, (len(position_rad), 3)).copy()
        for joint, offset, turn, i, j in self._chain:
            s, c = sine[:, joint], cosine[:, joint]
            u, w = point[:, i].copy(), point[:, j]
            point[:, i], point[:, j] = c * u - s * w, s * u + c * w
            point = point @ turn.T + offset
        return point

    def pose(self, position_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tool point [n,3] and the orientation of its frame [n,3,3] in the arm's base frame."""
        axes = np.broadcast_to(self._tool_mat, (len(position_rad), 3, 3)).copy()
        sine, cosine = np.sin(position_rad), np.cos(position_rad)
        for joint, _, turn, i, j in self._chain:
            s, c = sine[:, joint, None], cosine[:, joint, None]
            u, w = axes[:, i].copy(), axes[:, j]
            axes[:, i], axes[:, j] = c * u - s * w, s * u + c * w
            axes = turn @ axes
        return self.tool(position_rad), axes

    def solve(
        self, start_rad: np.ndarray, point_m: np.ndarray, axes: np.ndarray, steps: int = 20
    ) -> tuple[np.ndarray, float, float]:
        """Return joints [J] near `start_rad` whose tool is at a pose, and what is left of the error [m], [rad].

        Damped least squares: Wampler 1986. Joints stay within the arm's limits.
        """
        joints = np.clip(start_rad, self._low_rad, self._high_rad)
        error, jacobian = self._away(joints, point_m, axes)
        for _ in range(steps):
            if np.abs(error).max() < 1e-7:
                break
            square = jacobian @ jacobian.T + _DAMPING * np.eye(6)
            joints = np.clip(joints - jacobian.T @ np.linalg.solve(square, error), self._low_rad, self._high_rad)
            error, jacobian = self._away(joints, point_m, axes)
        return joints, float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))

    def _away(self, joints: np.ndarray, point_m: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how far the tool at joints [J] is from a pose [6], in m and rad, and its Jacobian [6,J]."""
        frame, origin = np.eye(3), np.zeros(3)
        origins, turning = np.empty((len(joints), 3)), np.empty((len(joints), 3))
        for joint, offset, turn, i, j in reversed(self._chain):
            origin = origin + frame @ offset
            frame = frame @ turn
            origins[joint], turning[joint] = origin, frame[:, (i + 2) % 3]
            s, c = np.sin(joints[joint]), np.cos(joints[joint])
            u, w = frame[:, i].copy(), frame[:, j].copy()
            frame[:, i], frame[:, j] = c * u + s * w, c * w - s * u
        point = origin + frame @ self._tool_m
        turned = 0.5 * _cross(axes.T, (frame @ self._tool_mat).T).sum(0)
        jacobian = np.concatenate([_cross(turning, point - origins), turning], axis=1).T
        return np.concatenate([point - point_m, turned]), jacobian


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross products of rows [n,3]."""
    return a[:, [1, 2, 0]] * b[:, [2, 0, 1]] - a[:, [2, 0, 1]] * b[:, [1, 2, 0]]


def rotation(quat_wxyz: Sequence[float]) -> np.ndarray:
    """Return the rotation matrix [3,3] of a quaternion."""
    w, x, y, z = np.array(quat_wxyz) / np.linalg.norm(quat_wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
