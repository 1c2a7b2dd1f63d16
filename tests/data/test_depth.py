"""Depth maps: 12 bit without loss in an mp4, as LeRobot stores them, in both directions."""

import json

import numpy as np
import pytest

from robolearn.data.commands import verify
from robolearn.data.lerobot_v2 import write_v2
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import LeRobotWriter
from robolearn.data.video import depth_levels, quantize_depth
from robolearn.data.windows import build_windows
from robolearn.errors import DataError
from robolearn.spec import ActionSpec, Feature, Spec

KEY, SHAPE = "observation.images.depth", (32, 48)
SPEC = Spec({KEY: Feature("depth", SHAPE, "float32", unit="m")}, ActionSpec(1), rate_hz=10.0)


def depth_m(episode, step):
    draw = np.random.default_rng([episode, step])
    return draw.uniform(0.01, 10, SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("depth") / "set"
    with LeRobotWriter(root, SPEC) as writer:
        for episode, length in enumerate([4, 6]):
            for step in range(length):
                writer.add_frame({KEY: depth_m(episode, step), "action": np.zeros(1), "task": "look"})
            writer.save_episode()
    return root


def test_depth_comes_back_within_half_a_level(root):
    reader = LeRobotReader(root)
    assert reader.spec == SPEC
    assert verify({"path": str(root)})["problems"] == []
    for episode, length in enumerate([4, 6]):
        got = reader.read(episode, [KEY], 1, length)[KEY]
        wanted = np.stack([depth_m(episode, step) for step in range(1, length)])
        assert got.dtype == np.float32
        assert np.array_equal(got, depth_levels()[quantize_depth(wanted)])
        assert np.abs(got - wanted).max() < 0.0023
    assert build_windows(reader, 2, 3).gather(np.array([5]))[KEY].shape == (1, 2, *SHAPE)
    stats = json.loads((root / "meta/stats.json").read_text())[KEY]
    assert np.shape(stats["mean"]) == (1, 1, 1)
    assert 4.5 < stats["mean"][0][0][0] < 5.5


def test_levels_are_finer_near_than_far():
    levels = depth_levels()
    assert (np.diff(levels) > 0).all()
    assert np.diff(levels)[0] < 0.0012
    assert np.array_equal(quantize_depth(levels), np.arange(4096))
    assert quantize_depth(np.array([0.0, 99.0])).tolist() == [0, 4095]


def test_lerobot_reads_our_depth_and_we_read_theirs(root, tmp_path):
    dataset = pytest.importorskip("lerobot.datasets.lerobot_dataset").LeRobotDataset
    theirs = dataset("robolearn/test", root=root)
    ours = LeRobotReader(root)
    for index, (episode, step) in ((0, (0, 0)), (3, (0, 3)), (4, (1, 0)), (9, (1, 5))):
        got = theirs[index][KEY].numpy().reshape(SHAPE)
        got = got / 1000 if got.max() > 100 else got
        assert np.abs(got - ours.read(episode, [KEY], step, step + 1)[KEY][0]).max() < 1e-3
    features = {
        KEY: {"dtype": "video", "shape": (*SHAPE, 1), "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": (1,), "names": ["x"]},
    }
    features[KEY]["info"] = {"is_depth_map": True}
    made = dataset.create("robolearn/test", fps=10, root=tmp_path / "theirs", features=features)
    for step in range(5):
        made.add_frame({KEY: depth_m(7, step)[..., None], "action": np.zeros(1, np.float32), "task": "look"})
    made.save_episode()
    made.finalize()
    reader = LeRobotReader(tmp_path / "theirs")
    assert reader.spec.observations[KEY].kind == "depth"
    got = reader.read(0, [KEY])[KEY]
    assert np.abs(got - np.stack([depth_m(7, step) for step in range(5)])).max() < 0.0023


def test_what_is_no_depth_of_ours_is_refused(root, tmp_path):
    with pytest.raises(DataError, match="not in metres"):
        LeRobotWriter(tmp_path / "mm", Spec({KEY: Feature("depth", SHAPE, "uint16", unit="mm")}, ActionSpec(1), 10.0))
    with pytest.raises(DataError, match="no place for depth"):
        write_v2(LeRobotReader(root), tmp_path / "v2")
