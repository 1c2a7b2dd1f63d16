"""`robolearn robot calibrate`: the arm looks at a board from all sides, by itself or in a human's hands."""

from typing import Any

import numpy as np

from robolearn.errors import HardwareError, suggest
from robolearn.hardware import board
from robolearn.hardware.board import CalibrateConfig, View, detect, viewpoints
from robolearn.hardware.braking import least_jerk
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.deploy import RobotConfig, open_calibration
from robolearn.hardware.observe import Reading
from robolearn.hardware.sessions import MOVING, Session, open_session, seeing, show
from robolearn.hardware.teleop import Device, Jog

__all__ = ["calibrate"]

_CALM_RAD_S, _DWELL_S = 0.35, 0.6  # between two views, and at each of them


def calibrate(
    config: RobotConfig, options: CalibrateConfig, device: Device | None = None, simulated: bool = False
) -> tuple[Calibration, dict[str, Any]]:
    """Look at a board from all sides; return the calibration, what was known before included, and how sure it is.

    Without a device the arm moves by itself around where it stands; with one a human moves it, "success"
    takes a picture and "stop" ends.
    """
    period_s = 0.05
    with open_session(config, 16, period_s, simulated) as session:
        cameras = seeing(session).images
        if options.camera not in cameras:
            raise HardwareError(
                f"The robot has no camera '{options.camera}'.", expected=suggest(options.camera, cameras)
            )
        session.request("arm")
        if device is None:
            views, size = _look_around(session, options)
        else:
            views, size = _look_by_hand(session, options, device)
        session.rest()
    arm, known = session.arm_constants, open_calibration(config)
    camera, offsets, deviations = board.calibrate(arm, views, size, options.mount)
    total = offsets + (known.offsets_rad or np.zeros(len(offsets)))
    found = Calibration(arm.name, tuple(total.tolist()), {**known.cameras, options.camera: camera})
    unsure = {name: None if np.isinf(d) else float(d) for name, d in zip(arm.joints, deviations, strict=True)}
    return found, {"views": len(views), "rms_px": camera.rms_px, "offset_deviation_rad": unsure}


def _look_around(session: Session, options: CalibrateConfig) -> tuple[list[View], tuple[int, int]]:
    """Stand before the board at one pose after the other; poses that do not see it are left out."""
    start = session.reading().state
    path, stops = [start.position_rad[None]], []
    for pose in viewpoints(session.arm_constants, start.position_rad, options):
        away = pose - path[-1][-1]
        steps = max(4, int(np.ceil(1.9 * np.abs(away).max() / _CALM_RAD_S / session.period_s)))
        share = np.linspace(0, 1, steps + 1)[1:, None]
        dwell = round(_DWELL_S / session.period_s)
        path.append(path[-1][-1] + least_jerk(share) * away)
        path.append(np.tile(pose, (dwell, 1)))
        stops.append(sum(map(len, path)) - 1)
    width = session.arm_constants.gripper.width_m if start.gripper_m is None else start.gripper_m
    joints = np.concatenate(path)
    targets = np.column_stack([joints, np.full(len(joints), width)])
    eye = _Eye(options)

    def work(step: int) -> bool:
        rows = np.minimum(np.arange(step, step + session.chunks.shape[0]), len(targets) - 1)
        session.chunks.write(session.now_ns(), targets[rows])
        if step in stops:
            eye.look(session.reading())
        return step + 1 < len(targets) and session.mode() in MOVING

    session.every(session.period_s, work)
    if session.mode() not in MOVING:
        raise HardwareError("The arm stopped on its way around the board.", found=session.status()["mode"])
    return eye.views, eye.size


def _look_by_hand(session: Session, options: CalibrateConfig, device: Device) -> tuple[list[View], tuple[int, int]]:
    eye, jog = _Eye(options), Jog(session.arm_constants, session.period_s, chunk=16)
    jog.start(session.reading().state)

    def work(step: int) -> bool:
        twist, reading = device.read(), session.reading()
        session.chunks.write(session.now_ns(), jog.step(twist))
        if twist.mark == "success":
            eye.look(reading)
        show(device, session, reading)
        return twist.mark != "stop" and session.mode() in MOVING

    session.every(session.period_s, work)
    return eye.views, eye.size


class _Eye:
    """Collects the views in which one camera sees the board."""

    def __init__(self, options: CalibrateConfig):
        self._camera, self._board = options.camera, options.board
        self.views: list[View] = []
        self.size = (0, 0)

    def look(self, reading: Reading) -> None:
        picture = reading.images[self._camera]
        self.size = picture.shape[1], picture.shape[0]
        corners = detect(self._board, picture)
        if corners is not None:
            self.views.append(View(*corners, reading.state.position_rad))
