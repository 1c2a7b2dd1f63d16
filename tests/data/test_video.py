"""Encoding pictures."""

import os

import numpy as np
import pytest

from robolearn.data.video import VideoOptions, encode, probe


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_encoding_leaves_the_priority_of_the_caller_alone(tmp_path, codec):
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    frames = [np.full((64, 64, 3), 20 * i, np.uint8) for i in range(5)]
    assert encode(tmp_path / "a.mp4", frames, 10.0, (64, 64), VideoOptions(codec=codec)) == 5
    assert (os.sched_getscheduler(0), os.sched_getparam(0)) == before
    assert probe(tmp_path / "a.mp4")
