"""The recorder: nothing acknowledged is lost, whatever happens; the control thread never waits."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from robolearn.contracts import EpisodeSink
from robolearn.data.cameras import Camera
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import WriterOptions
from robolearn.data.recorder import Recorder
from robolearn.data.synthetic import STATE_SPEC, camera_spec, frame, picture
from robolearn.data.video import VideoOptions
from robolearn.errors import DataError

H264 = WriterOptions(video=VideoOptions(codec="h264"))


def crash(*arguments) -> dict:
    """Run `crash.py` and return its result."""
    script = Path(__file__).with_name("crash.py")
    command = [sys.executable, "-W", "ignore", str(script), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"errors": done.stderr}


@pytest.mark.parametrize(("number", "count"), [(signal.SIGKILL, 30), (signal.SIGTERM, 5)])
def test_kills_lose_nothing(tmp_path, number, count):
    result = crash("kill", count, int(number), 1, tmp_path)
    assert result["failures"] == 0, result["errors"]
    assert result["kills"] == count
    assert result["acknowledged"] > 0


PARTS = [(signal.SIGKILL, part) for part in range(10)] + [(signal.SIGTERM, part) for part in range(2)]


@pytest.mark.long
@pytest.mark.parametrize(("number", "part"), PARTS)
def test_many_kills_lose_nothing(tmp_path, record_property, number, part):
    result = crash("kill", 100, int(number), 2 + part, tmp_path)
    for name in ("kills", "failures", "acknowledged"):
        record_property(name, result[name])
    assert result["failures"] == 0, result["errors"]
    assert result["acknowledged"] > 20


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_at_every_step_loses_nothing(tmp_path, record_property, stride):
    result = crash("steps", stride, tmp_path)
    record_property("steps", result["steps"])
    record_property("failures", result["failures"])
    assert result["failures"] == 0, result["errors"]
    assert result["steps"] > 40


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_keeps_what_was_acknowledged_and_recording_goes_on(tmp_path, number):
    result = crash("fail", number, tmp_path)
    assert result["failures"] == 0, result["errors"]
    assert result["refused"] > 4


def test_commits_run_beside_the_control_thread(tmp_path):
    with Recorder(tmp_path / "set", STATE_SPEC) as recorder:
        assert isinstance(recorder, EpisodeSink)
        gate = threading.Event()
        recorder._thread.submit(gate.wait)  # the committing thread is busy
        futures = []
        for episode in range(3):
            for step in range(4):
                recorder.add_frame(frame(STATE_SPEC, episode, step))
            futures.append(recorder.commit())
        assert not any(future.done() for future in futures)
        gate.set()
        assert [future.result() for future in futures] == [0, 1, 2]
    reader = LeRobotReader(tmp_path / "set")
    assert (reader.read(2, ["action"])["action"][:, 0] == 2).all()


def test_a_slow_loop_is_reported(tmp_path):
    with Recorder(tmp_path / "set", STATE_SPEC) as recorder:
        for step in range(6):
            recorder.add_frame(frame(STATE_SPEC, 0, step) | {"timestamp": step / 7.0})
        recorder.save_episode()
    assert LeRobotReader(tmp_path / "set").metadata(0)["measured_rate_hz"] == pytest.approx(7.0)


def test_frames_the_encoder_cannot_take_are_repeated_and_counted(tmp_path):
    camera = Camera(tmp_path, "top", (32, 32, 3), 10.0, VideoOptions("h264", crf=5), "drop", capacity=4)
    gate = threading.Event()
    camera._feed, feed = lambda: (gate.wait(), feed()), camera._feed
    for step in range(10):
        camera.add(picture((32, 32, 3), 0, step))
    gate.set()  # the encoder starts only now
    video = camera.end()()
    camera.close()
    assert video.frames == 10
    assert video.dropped == 7


def test_a_discarded_episode_leaves_no_trace(tmp_path):
    spec = camera_spec()
    with Recorder(tmp_path / "set", spec, H264) as recorder:
        for episode in range(2):
            for step in range(5):
                recorder.add_frame(frame(spec, episode, step))
            if episode == 0:
                recorder.discard_episode()
        recorder.save_episode()
    reader = LeRobotReader(tmp_path / "set")
    assert reader.lengths.tolist() == [5]
    pixels = reader.read(0, ["observation.images.top"])["observation.images.top"]
    assert np.abs(pixels[3].astype(int) - picture((32, 32, 3), 1, 3)).mean() < 6
    assert not list((tmp_path / "set").rglob(".*.tmp"))


def test_a_dead_encoder_is_an_error_and_recording_can_end(tmp_path):
    spec = camera_spec()
    recorder = Recorder(tmp_path / "set", spec, H264)
    recorder.add_frame(frame(spec, 0, 0))
    recorder.save_episode()
    encoder = recorder.writer._cameras["observation.images.top"]
    encoder.options = VideoOptions("no such codec")  # type: ignore[arg-type]
    recorder.add_frame(frame(spec, 1, 0))
    with pytest.raises(DataError, match="could not be encoded"):
        recorder.save_episode()
    recorder.close()
    assert LeRobotReader(tmp_path / "set").lengths.tolist() == [1]
