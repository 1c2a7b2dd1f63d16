"""A scene with known truth to try a calibration on: an arm with a camera on its tool before a board.

Nothing is simulated but geometry: the arm is where it is told to be, its encoders are off, and the
picture is the board's, projected through a lens. `contracts.Scene` without a physics engine.
"""

import cv2
import numpy as np

from robolearn.contracts import RobotState
from robolearn.hardware.board import Board
from robolearn.hardware.calibration import Calibration, CameraCalibration
from robolearn.hardware.kinematics import Kinematics
from robolearn.robots import Arm

__all__ = ["BoardScene", "open_scene"]

_SQUARE_PX, _MARGIN = 120, 1  # of the board's own picture; squares of white paper around it
_SAMPLES = 2  # per pixel and direction


def open_scene(name: str, arm: Arm, image_px: int = 640) -> "BoardScene":
    """Return the scene; pictures are `image_px` wide, 4 : 3."""
    return BoardScene(arm, Board(), image_px)


class BoardScene:
    """One arm, one camera "wrist", one board; `truth` is what a calibration should find."""

    dt_s = 0.005

    def __init__(self, arm: Arm, board: Board, width: int = 640):
        self.joint_names, self.board, self._arm = arm.joints, board, arm
        self._kinematics = Kinematics(arm)
        height, focal = width * 3 // 4, 0.95 * width
        offsets = 0.012 * np.array([0, *np.resize((1.0, -0.7, 0.5, -1.2, 0.8), len(arm.joints) - 2), 0])
        tilt = np.deg2rad(4.0)
        wrist = CameraCalibration(
            width,
            height,
            (focal, 1.01 * focal, 0.51 * width, 0.49 * height),
            (-0.12, 0.05, 5e-4, -4e-4, 0.0),
            "tool",
            (0.055, -0.012, -0.06),
            (float(np.cos(tilt / 2)), 0.0, float(-np.sin(tilt / 2)), 0.0),
            0.0,
        )
        self.truth = Calibration(arm.name, tuple(offsets.tolist()), {"wrist": wrist})
        self._paper = np.pad(board.picture(_SQUARE_PX), _MARGIN * _SQUARE_PX, constant_values=255)
        self._rays = _rays(wrist)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Stand at home, the board in front of the tool, a little turned; every seed the same."""
        self._joints = np.array(self._arm.home_rad)
        self._speed, self._width_m, self._time_s = np.zeros(len(self._joints)), self._arm.gripper.width_m, 0.0
        half = 0.5 * self.board.square_m * np.array([self.board.columns, self.board.rows, 0.0])
        (point,), (axes,) = self._kinematics.pose(self._joints[None])
        self._board = np.eye(4)
        self._board[:3, :3] = axes @ cv2.Rodrigues(np.array([0.05, -0.04, 0.3]))[0]
        self._board[:3, 3] = point + 0.3 * axes[:, 2] - self._board[:3, :3] @ half

    def step(self, target_rad: np.ndarray, gripper_m: float) -> None:
        joints = np.asarray(target_rad, float) + self.truth.offsets_rad
        self._speed = (joints - self._joints) / self.dt_s
        self._joints, self._width_m, self._time_s = joints, gripper_m, self._time_s + self.dt_s

    def state(self) -> RobotState:
        readings = self._joints - self.truth.offsets_rad
        return RobotState(round(1e9 * self._time_s), self.joint_names, readings, self._speed, self._width_m)

    def image(self, camera: str) -> np.ndarray:
        """Return the picture of "wrist"."""
        (point,), (axes,) = self._kinematics.pose(self._joints[None])
        tool = np.eye(4)
        tool[:3, :3], tool[:3, 3] = axes, point
        wrist = self.truth.cameras[camera]
        seen = np.linalg.inv(self._board) @ tool @ wrist.matrix  # T_board_camera
        rays = self._rays @ seen[:3, :3].T
        depth = -seen[2, 3] / np.where(np.abs(rays[..., 2]) > 1e-9, rays[..., 2], 1e-9)
        place = (seen[:2, 3] + depth[..., None] * rays[..., :2]) / self.board.square_m + _MARGIN
        place = np.where((depth > 0)[..., None], place * _SQUARE_PX - 0.5, -1e4).astype(np.float32)
        fine = cv2.remap(self._paper, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderValue=110)
        grey = cv2.resize(fine, (wrist.width, wrist.height), interpolation=cv2.INTER_AREA)
        return np.repeat(grey[..., None], 3, axis=2)


def _rays(camera: CameraCalibration) -> np.ndarray:
    """Return the direction [H,W,3] that each sample of a picture looks in, in the camera's frame."""
    columns = (np.arange(_SAMPLES * camera.width) + 0.5) / _SAMPLES - 0.5
    rows = (np.arange(_SAMPLES * camera.height) + 0.5) / _SAMPLES - 0.5
    grid = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 1, 2)
    fx, fy, cx, cy = camera.intrinsics
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 40, 1e-9)
    flat = cv2.undistortPointsIter(grid, matrix, np.array(camera.distortion), np.eye(3), np.eye(3), criteria)
    return np.concatenate([flat, np.ones_like(flat[..., :1])], -1).reshape(len(rows), len(columns), 3)
