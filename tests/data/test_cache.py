"""The training cache and streaming give the windows that memory gives."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from robolearn.data.cache import build_cached_windows, cached_images, fingerprint
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import WriterOptions
from robolearn.data.stream import StreamWindows
from robolearn.data.synthetic import camera_spec, record
from robolearn.data.video import VideoOptions
from robolearn.data.windows import build_windows
from robolearn.loading import open_training_data
from robolearn.run import parse_run

KEY = "observation.images.top"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    options = WriterOptions(video=VideoOptions("h264", crf=10))
    return LeRobotReader(record(tmp_path_factory.mktemp("data") / "set", [7, 30, 4, 12], camera_spec(), options))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBOLEARN_CACHE", str(tmp_path))
    return tmp_path / "frames"


@pytest.mark.parametrize(("episodes", "past"), [(None, 0), ([3, 1], 0), (None, 1)])
def test_all_loaders_agree(source, episodes, past):
    expected = build_windows(source, 2, 4, episodes=episodes, past=past)
    index = np.random.default_rng(0).permutation(len(expected))
    wanted = expected.gather(index)
    cached = build_cached_windows(source, 2, 4, episodes=episodes, past=past)
    stream = StreamWindows(source, 2, 4, episodes=episodes, past=past, block_frames=8, budget_bytes=100_000)
    for loader in (cached, pickle.loads(pickle.dumps(cached)), stream, pickle.loads(pickle.dumps(stream))):
        assert loader.spec == expected.spec
        got = loader.gather(index)
        assert set(got) == set(wanted)
        for key, value in wanted.items():
            assert np.array_equal(got[key], value), key
        assert np.array_equal(loader.episode_of(index), expected.episode_of(index))
    assert stream._held_bytes <= 100_000


def test_training_reads_the_same_through_every_loader(source):
    opened = {}
    for loader in ("windows", "cached", "stream"):
        data = {"path": str(source.root), "loader": loader, "validation_fraction": 0.25}
        opened[loader] = open_training_data(parse_run({"policy": {"name": "act", "chunk": 4}, "data": data}))
    expected = opened["windows"]
    assert len(expected.windows) + len(expected.validation) == 53
    for part in ("windows", "validation"):
        index = np.arange(0, len(getattr(expected, part)), 3)
        wanted = expected.pipeline.forward(getattr(expected, part).gather(index))
        for loader in ("cached", "stream"):
            got = opened[loader].pipeline.forward(getattr(opened[loader], part).gather(index))
            assert set(got) == set(wanted)
            for key, value in wanted.items():
                assert np.array_equal(got[key], value), (loader, key)


def test_pictures_are_decoded_once(source, folder, monkeypatch):
    cached_images(source, [KEY])
    monkeypatch.setattr(source, "read", None)
    again = cached_images(source, [KEY])
    assert isinstance(again[KEY], np.memmap)
    assert again[KEY].shape == (53, 32, 32, 3)
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1


def test_resized_pictures_have_a_cache_of_their_own(source):
    assert cached_images(source, [KEY], size=(16, 24))[KEY].shape == (53, 16, 24, 3)
    assert cached_images(source, [KEY])[KEY].shape == (53, 32, 32, 3)


def test_a_changed_dataset_has_another_fingerprint(tmp_path):
    path = tmp_path / "set"
    record(path, [3])
    before = fingerprint(path)
    assert fingerprint(path) == before
    with (path / "meta" / "stats.json").open("a") as file:
        file.write(" ")
    assert fingerprint(path) != before


def test_a_change_in_the_middle_of_a_file_counts(tmp_path):
    """Same size, same beginning, same end: the time of the change tells."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 400_000)
    before = fingerprint(path)
    with path.open("r+b") as file:
        file.seek(200_000)
        file.write(b"b")
    assert fingerprint(path) != before


BUILDER = """
import sys, time
from pathlib import Path
from robolearn.data.cache import cached_images
from robolearn.data.lerobot_v3 import LeRobotReader

class Slow(LeRobotReader):
    def read(self, *arguments):
        print("started", flush=True)
        time.sleep(float(sys.argv[3]))
        return super().read(*arguments)

cached_images(Slow(Path(sys.argv[1])), ["observation.images.top"], Path(sys.argv[2]))
"""


def builder(source, folder, delay_s):
    command = [sys.executable, "-c", BUILDER, str(source.root), str(folder), str(delay_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_two_builders_and_a_killed_one_are_no_trouble(source, tmp_path):
    expected = build_windows(source, keys=[KEY]).arrays[KEY]
    with builder(source, tmp_path, 60) as victim:
        assert victim.stdout.readline() == b"started\n"
        victim.kill()
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.suffix != ".tmp"]
    builders = [builder(source, tmp_path, 0.01) for _ in range(2)]
    outputs = [process.communicate()[0] for process in builders]
    assert [process.returncode for process in builders] == [0, 0]
    assert sorted(output.count(b"started") for output in outputs) == [0, 4]  # one built, the other waited
    assert np.array_equal(cached_images(source, [KEY], tmp_path)[KEY], expected)
