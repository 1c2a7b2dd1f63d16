"""What is known of one robot beyond its model: how far its encoders are off, where its cameras sit, how they see."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from robolearn.config import parse, to_dict
from robolearn.errors import ConfigError
from robolearn.files import plain_json, read_json, write_file
from robolearn.hardware.kinematics import rotation
from robolearn.robots import Arm

__all__ = ["Calibration", "CameraCalibration", "Mount", "read_calibration", "transform", "write_calibration"]

Mount = Literal["tool", "base"]


@dataclass(frozen=True)
class CameraCalibration:
    """One camera; its pose is that of its optical frame (x right, y down, z out) in the frame of its mount."""

    width: int
    height: int
    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy [px]
    distortion: tuple[float, float, float, float, float]  # k1, k2, p1, p2, k3
    mount: Mount
    position_m: tuple[float, float, float]
    quat_wxyz: tuple[float, float, float, float]
    rms_px: float  # of the corners, after everything was fitted

    @property
    def matrix(self) -> np.ndarray:
        """The pose of the camera in its mount, T_mount_camera [4,4]."""
        return transform(self.position_m, self.quat_wxyz)


@dataclass(frozen=True)
class Calibration:
    """What is known of one robot: joint position = reading + offset, and its cameras."""

    arm: str
    offsets_rad: tuple[float, ...] = ()
    cameras: dict[str, CameraCalibration] = field(default_factory=dict)


def read_calibration(path: str | Path, arm: Arm) -> Calibration:
    """Read the file that `write_calibration` wrote; raises `ConfigError` when it is another arm's."""
    found = parse(Calibration, read_json(Path(path), ConfigError), where=str(path))
    if found.arm != arm.name or len(found.offsets_rad) not in (0, len(arm.joints)):
        raise ConfigError("This calibration is another arm's.", found=found.arm, expected=arm.name)
    return found


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as JSON."""
    write_file(path, plain_json(to_dict(calibration)))


def transform(position_m: Sequence[float], quat_wxyz: Sequence[float]) -> np.ndarray:
    """Return the pose [4,4] of a position and an orientation."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation(quat_wxyz), position_m
    return pose
