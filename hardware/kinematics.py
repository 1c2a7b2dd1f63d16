"""Where the tool of an arm is, from its constants."""

from collections.abc import Sequence

import numpy as np

from robolearn.errors import HardwareError
from robolearn.robots import Arm

__all__ = ["Kinematics"]


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
        self._tool_m = np.array(arm.tool_m)
        self._chain = [
            (index, np.array(link.position_m), _matrix(link.quat_wxyz), (link.axis + 1) % 3, (link.axis + 2) % 3)
            for index, link in enumerate(arm.links)
        ][::-1]

    def tool(self, position_rad: np.ndarray) -> np.ndarray:
        """Return the tool point [n,3] in the arm's base frame [m] at joint positions [n,J]."""
        sine, cosine = np.sin(position_rad), np.cos(position_rad)
        point = np.broadcast_to(self._tool_m, (len(position_rad), 3)).copy()
        for joint, offset, rotation, i, j in self._chain:
            s, c = sine[:, joint], cosine[:, joint]
            u, w = point[:, i].copy(), point[:, j]
            point[:, i], point[:, j] = c * u - s * w, s * u + c * w
            point = point @ rotation.T + offset
        return point


def _matrix(quat_wxyz: Sequence[float]) -> np.ndarray:
    w, x, y, z = np.array(quat_wxyz) / np.linalg.norm(quat_wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
