"""A camera on this machine through OpenCV (V4L): pictures with capture stamps; a dead or frozen one is noticed."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from robolearn.errors import HardwareError

__all__ = ["Capture", "VideoCamera", "VideoConfig"]


@dataclass(frozen=True)
class VideoConfig:
    """One camera: a device file or number, and what it is asked for."""

    source: str = "/dev/video0"
    width: int = 640
    height: int = 480
    fps: float = 30.0
    dead_s: float = 1.0  # without a picture
    frozen_s: float = 2.0  # of equal pictures; the noise of a working sensor never repeats


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...

    def read(self) -> tuple[bool, Any]:
        """Wait for a picture (H, W, 3) BGR."""

    def release(self) -> None: ...


class VideoCamera:
    """Reads one camera in a thread of its own; `latest` never waits."""

    def __init__(self, name: str, config: VideoConfig, open_capture: Callable[[VideoConfig], Capture] | None = None):
        self.name, self.config = name, config
        self._capture = (open_capture or _open)(config)
        if not self._capture.isOpened():
            raise HardwareError(
                f"The camera '{name}' cannot be opened.", found=config.source, do="see v4l2-ctl --list-devices"
            )
        self._begun_ns = time.monotonic_ns()
        self._newest: tuple[np.ndarray, int] | None = None
        self._changed_ns, self._running = self._begun_ns, True
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"camera-{name}")
        self._thread.start()

    def latest(self) -> tuple[np.ndarray, int] | None:
        """Return the newest picture (H, W, 3) RGB uint8 and when it was taken (monotonic); None before the first.

        Raises `HardwareError` when the camera is dead or frozen.
        """
        now, newest = time.monotonic_ns(), self._newest
        if now - (newest[1] if newest else self._begun_ns) > 1e9 * self.config.dead_s:
            raise HardwareError(
                f"The camera '{self.name}' gives no pictures.",
                expected=f"one within {self.config.dead_s} s",
                do="its cable?",
            )
        if newest and newest[1] - self._changed_ns > 1e9 * self.config.frozen_s:
            raise HardwareError(
                f"The camera '{self.name}' is frozen.",
                found=f"the same picture for {1e-9 * (newest[1] - self._changed_ns):.1f} s",
                do="reconnect it",
            )
        return newest

    def close(self) -> None:
        """Stop reading."""
        self._running = False
        self._thread.join(5)
        self._capture.release()

    def _run(self) -> None:
        while self._running:
            good, picture = self._capture.read()
            stamp = time.monotonic_ns()
            if not good:
                time.sleep(0.01)
                continue
            pixels = np.ascontiguousarray(picture[..., ::-1])
            if self._newest is None or not np.array_equal(pixels, self._newest[0]):
                self._changed_ns = stamp
            self._newest = pixels, stamp


def _open(config: VideoConfig) -> Capture:
    import cv2

    capture = cv2.VideoCapture(int(config.source) if config.source.isdigit() else config.source)
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.height)
    capture.set(cv2.CAP_PROP_FPS, config.fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture
