"""Calibration from pictures of a board: camera intrinsics, where the camera sits, and the joints' offsets.

The camera sits on the tool and looks at a board that stands still, or stands still and looks at a board
in the gripper. `T_a_b` maps points of frame b to frame a.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from scipy.optimize import least_squares

from robolearn.errors import ConfigError, HardwareError, suggest
from robolearn.hardware.calibration import CameraCalibration, Mount
from robolearn.hardware.kinematics import Kinematics
from robolearn.robots import Arm

__all__ = ["Board", "CalibrateConfig", "View", "calibrate", "detect", "viewpoints"]

_CORNERS = 8  # fewer in a picture say too little
_LENS = 9  # fx, fy, cx, cy, k1, k2, p1, p2, k3


@dataclass(frozen=True)
class Board:
    """A printed board of `columns` x `rows` squares."""

    kind: Literal["charuco", "chessboard"] = "charuco"
    columns: int = 8
    rows: int = 6
    square_m: float = 0.03
    marker_m: float = 0.022
    dictionary: str = "DICT_4X4_50"

    def __post_init__(self):
        if min(self.columns, self.rows) < 4 or not 0 < self.marker_m < self.square_m:
            raise ConfigError("This is not a board.", found=self, expected="4 x 4 squares or more, markers inside them")
        if self.kind == "chessboard" and (self.columns + self.rows) % 2 == 0:
            raise ConfigError(
                "A chessboard must look different upside down.",
                found=f"{self.columns} x {self.rows} squares",
                expected="an even and an odd number",
            )
        if not hasattr(cv2.aruco, self.dictionary):
            names = [name for name in dir(cv2.aruco) if name.startswith("DICT_")]
            raise ConfigError("Unknown dictionary of markers.", expected=suggest(self.dictionary, names))

    @cached_property
    def charuco(self) -> Any:
        """OpenCV's board."""
        markers = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square_m, self.marker_m, markers)

    def picture(self, square_px: int) -> np.ndarray:
        """Return the board to print, grey [rows * square_px, columns * square_px] uint8."""
        if self.kind == "charuco":
            return self.charuco.generateImage((self.columns * square_px, self.rows * square_px))
        dark = np.indices((self.rows, self.columns)).sum(0) % 2 == 0
        return np.kron(np.where(dark, 0, 255), np.ones((square_px, square_px))).astype(np.uint8)


@dataclass(frozen=True)
class CalibrateConfig:
    """What `robolearn robot calibrate` does: which camera, which board, how many views.

    Without a device the arm moves by itself around where it stands, `distance_m` from the board.
    """

    camera: str = "wrist"
    mount: Mount = "tool"
    views: int = 24
    distance_m: float = 0.3
    board: Board = field(default_factory=Board)


class View(NamedTuple):
    """One picture's corners, on the board [N,3] m and in the picture [N,2] px, and the joints' readings [J]."""

    board_m: np.ndarray
    pixels: np.ndarray
    joints_rad: np.ndarray


# ---------------------------------------------------------------- pictures


def detect(board: Board, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the corners of the board in an RGB picture: [N,3] m on it, [N,2] px; None without enough of them."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if board.kind == "charuco":
        pixels, numbers, _, _ = cv2.aruco.CharucoDetector(board.charuco).detectBoard(grey)
        if numbers is None or len(numbers) < _CORNERS:
            return None
        # This detector counts from the corner of a pixel; the rest of OpenCV counts from its centre.
        pixels = pixels.reshape(-1, 2).astype(float) - 0.5
        return board.charuco.getChessboardCorners()[numbers.ravel()].astype(float), pixels
    size = board.columns - 1, board.rows - 1
    found, pixels = cv2.findChessboardCornersSB(grey, size)
    if not found:
        return None
    pixels = pixels.reshape(size[1], size[0], 2)
    first, second = (pixels[:2, i : i + 2].mean((0, 1)) for i in (0, 1))
    if cv2.getRectSubPix(grey, (1, 1), first.tolist()) > cv2.getRectSubPix(grey, (1, 1), second.tolist()):
        pixels = pixels[::-1, ::-1]  # the board's second square along its diagonal is dark, too
    places = np.stack(np.meshgrid(*(np.arange(1, n + 1) for n in size)), -1).reshape(-1, 2) * board.square_m
    return np.column_stack([places, np.zeros(len(places))]), pixels.reshape(-1, 2).astype(float)


# ---------------------------------------------------------------- motion


def viewpoints(arm: Arm, start_rad: np.ndarray, config: CalibrateConfig, seed: int = 0) -> list[np.ndarray]:
    """Return joint positions [J] that look at the board from all sides: turned, shifted, nearer and farther.

    Poses are drawn around the tool's present one; it turns about the board in front of it, or about
    itself when it holds the board.
    """
    kinematics, draw = Kinematics(arm), np.random.default_rng(seed)
    (point,), (axes,) = kinematics.pose(np.asarray(start_rad, float)[None])
    reach = config.distance_m if config.mount == "tool" else 0.0
    middle = point + reach * axes[:, 2]
    low, high = np.array(arm.low_rad) + 0.1, np.array(arm.high_rad) - 0.1
    poses: list[np.ndarray] = []
    for _ in range(20 * config.views):
        turn = axes @ cv2.Rodrigues(draw.uniform(-1, 1, 3) * (0.45, 0.45, 0.6))[0]
        away = draw.uniform(0.85, 1.15) * reach
        shift = draw.uniform(-0.03, 0.03, 3)
        solved, metres, radians = kinematics.solve(start_rad, middle + shift - away * turn[:, 2], turn)
        if metres < 1e-3 and radians < 1e-2 and (solved > low).all() and (solved < high).all():
            poses.append(solved)
        if len(poses) == config.views:
            return poses
    raise HardwareError(
        "The arm cannot look around from here.",
        found=f"{len(poses)} of {config.views} poses in reach",
        do="begin nearer to the middle of its reach, or move it by hand: device=…",
    )


# ---------------------------------------------------------------- the fit


def calibrate(
    arm: Arm, views: Sequence[View], size: tuple[int, int], mount: Mount
) -> tuple[CameraCalibration, np.ndarray, np.ndarray]:
    """Return the camera, the joints' offsets [J] and their standard deviations [J], rad.

    The lens alone first (Zhang 2000), then the camera's pose in closed form (Park and Martin 1994), then
    lens, camera, board and offsets together by least squares over the corners. Pictures cannot tell the
    first and the last joint's offset from a turn of the board or the camera: these two stay 0, with a
    standard deviation that is infinite.
    """
    if len(views) < 8:
        raise HardwareError("Too few views of the board.", found=len(views), expected="8 or more, from all sides")
    corners = [view.board_m.astype(np.float32) for view in views]
    pixels = [view.pixels.astype(np.float32) for view in views]
    _, matrix, distortion, turns, shifts = cv2.calibrateCamera(corners, pixels, size, np.eye(3), np.zeros(5))
    tools = _tools(arm, np.array([view.joints_rad for view in views]))
    poses = _hand_eye(tools, [_pose(r, t) for r, t in zip(turns, shifts, strict=True)], mount)
    lens = np.concatenate([matrix[[0, 1, 0, 1], [0, 1, 2, 2]], distortion.ravel()[:5]])
    start = [lens, *(part for pose in poses for part in (cv2.Rodrigues(pose[:3, :3])[0].ravel(), pose[:3, 3]))]
    start = np.concatenate([*start, np.zeros(len(arm.joints) - 2)])
    solved = least_squares(lambda guess: _errors(arm, views, mount, guess), start, x_scale="jac")
    variance = solved.cost * 2 / max(len(solved.fun) - len(solved.x), 1)
    covariance = variance * np.linalg.pinv(solved.jac.T @ solved.jac)
    offsets, deviations = np.zeros(len(arm.joints)), np.full(len(arm.joints), np.inf)
    offsets[1:-1], deviations[1:-1] = solved.x[_LENS + 12 :], np.sqrt(np.diag(covariance)[_LENS + 12 :])
    lens, pose = solved.x[:_LENS].tolist(), _pose(*solved.x[_LENS : _LENS + 6].reshape(2, 3))
    camera = CameraCalibration(
        width=size[0],
        height=size[1],
        intrinsics=(lens[0], lens[1], lens[2], lens[3]),
        distortion=(lens[4], lens[5], lens[6], lens[7], lens[8]),
        mount=mount,
        position_m=tuple(pose[:3, 3].tolist()),
        quat_wxyz=_quat(pose[:3, :3]),
        rms_px=float(np.sqrt(np.mean(solved.fun**2) * 2)),
    )
    return camera, offsets, deviations


def _errors(arm: Arm, views: Sequence[View], mount: Mount, guess: np.ndarray) -> np.ndarray:
    """Return how far the corners are from where they should be [px], given lens, camera, board and offsets."""
    fx, fy, cx, cy = guess[:4]
    matrix, distortion = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), guess[4:_LENS]
    camera, board = (_pose(*each) for each in guess[_LENS : _LENS + 12].reshape(2, 2, 3))
    offsets = np.concatenate([[0.0], guess[_LENS + 12 :], [0.0]])
    errors = []
    for view, tool in zip(views, _tools(arm, np.array([view.joints_rad + offsets for view in views])), strict=True):
        link = tool if mount == "tool" else np.linalg.inv(tool)
        seen = np.linalg.inv(link @ camera) @ board
        turn, _ = cv2.Rodrigues(seen[:3, :3])
        projected, _ = cv2.projectPoints(view.board_m, turn, seen[:3, 3], matrix, distortion)
        errors.append((projected.reshape(-1, 2) - view.pixels).ravel())
    return np.concatenate(errors)


def _hand_eye(tools: np.ndarray, boards: Sequence[np.ndarray], mount: Mount) -> tuple[np.ndarray, np.ndarray]:
    """Return T_mount_camera and the board's pose in the other frame (base or tool), from T_camera_board per view."""
    links = tools if mount == "tool" else np.linalg.inv(tools)
    turn, shift = cv2.calibrateHandEye(
        [each[:3, :3] for each in links],
        [each[:3, 3] for each in links],
        [each[:3, :3] for each in boards],
        [each[:3, 3] for each in boards],
        method=cv2.CALIB_HAND_EYE_PARK,
    )
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = turn, shift.ravel()
    return camera, links[0] @ camera @ boards[0]


def _tools(arm: Arm, joints: np.ndarray) -> np.ndarray:
    """Return T_base_tool [V,4,4]."""
    points, axes = Kinematics(arm).pose(joints)
    poses = np.tile(np.eye(4), (len(joints), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = axes, points
    return poses


def _pose(turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(np.asarray(turn, float))[0], np.ravel(shift)
    return pose


def _quat(matrix: np.ndarray) -> tuple[float, float, float, float]:
    turn = cv2.Rodrigues(matrix)[0].ravel()
    angle = float(np.linalg.norm(turn))
    x, y, z = (np.sin(angle / 2) * turn / max(angle, 1e-12)).tolist()
    return float(np.cos(angle / 2)), x, y, z
