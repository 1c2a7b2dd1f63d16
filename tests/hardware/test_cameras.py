"""A camera through OpenCV: newest picture, its stamp, and that a dead or frozen one is noticed."""

import threading
import time

import cv2
import numpy as np
import pytest

from robolearn.errors import HardwareError
from robolearn.hardware.cameras import VideoCamera, VideoConfig
from robolearn.hardware.processes import wait_for


class Sensor:
    """Stands in for `cv2.VideoCapture`: gives what it is handed, then waits."""

    def __init__(self, opened=True):
        self.opened, self.picture, self.released = opened, None, False
        self.fresh = threading.Event()

    def isOpened(self):
        return self.opened

    def read(self):
        if not self.fresh.wait(0.01):
            return False, None
        self.fresh.clear()
        return True, self.picture

    def release(self):
        self.released = True

    def give(self, picture):
        self.picture = picture
        self.fresh.set()


@pytest.fixture
def sensor():
    return Sensor()


def opened(sensor, **options):
    return VideoCamera("front", VideoConfig(**options), lambda config: sensor)


def test_the_newest_picture_comes_with_its_stamp_in_rgb(sensor):
    camera = opened(sensor, dead_s=30.0)
    assert camera.latest() is None
    bgr = np.zeros((4, 6, 3), np.uint8)
    bgr[..., 0] = 200
    before = time.monotonic_ns()
    sensor.give(bgr)
    wait_for(lambda: camera.latest() is not None, 5, "a picture")
    pixels, stamp = camera.latest()
    assert pixels[0, 0].tolist() == [0, 0, 200]
    assert before <= stamp <= time.monotonic_ns()
    camera.close()
    assert sensor.released


def test_a_dead_and_a_frozen_camera_are_noticed(sensor):
    camera = opened(sensor, dead_s=0.3, frozen_s=30.0)
    time.sleep(0.4)
    with pytest.raises(HardwareError, match="no pictures"):
        camera.latest()
    camera.close()
    sensor = Sensor()
    camera = opened(sensor, dead_s=30.0, frozen_s=0.1)
    still = np.full((4, 6, 3), 7, np.uint8)
    sensor.give(still)
    wait_for(lambda: camera.latest() is not None, 5, "a picture")
    first = camera.latest()[1]
    time.sleep(0.2)
    sensor.give(still.copy())
    with pytest.raises(HardwareError, match="frozen"):
        wait_for(lambda: camera.latest()[1] > first and False, 5, "the frozen picture")
    sensor.give(still + 1)
    wait_for(lambda: _works(camera), 5, "a new picture")
    camera.close()


def _works(camera):
    try:
        return camera.latest() is not None
    except HardwareError:
        return False


def test_a_camera_that_is_not_there_is_said():
    with pytest.raises(HardwareError, match="cannot be opened"):
        opened(Sensor(opened=False))


def test_opencv_reads_what_it_is_pointed_at(tmp_path):
    file = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 30, (32, 24))
    for value in range(3):
        writer.write(np.full((24, 32, 3), 80 * value, np.uint8))
    writer.release()
    camera = VideoCamera("film", VideoConfig(str(file), dead_s=30.0))
    wait_for(lambda: camera.latest() is not None and camera.latest()[0].mean() > 150, 10, "the last picture")
    assert camera.latest()[0].shape == (24, 32, 3)
    camera.close()
    with pytest.raises(HardwareError, match="cannot be opened"):
        VideoCamera("film", VideoConfig(str(tmp_path / "none.avi")))
