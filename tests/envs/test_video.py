"""Videos can be decoded again."""

import av
import numpy as np
import pytest

from robolearn.envs.video import write_video
from robolearn.errors import EnvError


def test_a_video_decodes_to_its_frames(tmp_path):
    ramp = np.arange(64, dtype=np.uint8)[:, None, None] * np.ones((64, 48, 3), np.uint8)
    frames = [np.uint8(ramp * 2 + 10 * index) for index in range(8)]
    path = write_video(tmp_path / "videos" / "episode.mp4", frames, rate_hz=20.0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == 20.0
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(decoded) == 8
    assert np.abs(decoded[3].astype(int) - frames[3]).mean() < 3
    assert [item.name for item in path.parent.iterdir()] == ["episode.mp4"]


def test_bad_frames_are_refused(tmp_path):
    with pytest.raises(EnvError, match="uint8"):
        write_video(tmp_path / "a.mp4", [np.zeros((8, 8, 3))], 10.0)
    with pytest.raises(EnvError, match="needs frames"):
        write_video(tmp_path / "b.mp4", [], 10.0)
    assert not (tmp_path / "a.mp4").exists()
