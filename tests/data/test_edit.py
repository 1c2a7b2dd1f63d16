"""Editing: what is asked for and nothing else; the dataset is whole at every moment."""

import os

import numpy as np
import pytest

from robolearn.cli import main
from robolearn.data import edit as editing
from robolearn.data.commands import edit, verify
from robolearn.data.lerobot_v2 import LeRobotV2Reader, write_v2
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.data.synthetic import STATE_SPEC, camera_spec, frame, record
from robolearn.data.views import resampled_frames
from robolearn.errors import ConfigError, DataError, SpecError

LENGTHS = [4, 6, 3, 9, 5]
KEYS = ["observation.state", "action", "task"]


@pytest.fixture
def root(tmp_path):
    return record(tmp_path / "set", LENGTHS)


def actions(path):
    """Return the (episode, step) pairs that every frame was recorded with, by episode."""
    reader = LeRobotReader(path)
    return [reader.read(i, ["action"])["action"].astype(int).tolist() for i in range(len(reader.lengths))]


def pairs(episode, start, stop):
    return [[episode, step] for step in range(start, stop)]


def test_pick_and_crop(root, tmp_path):
    out = tmp_path / "new"
    edit({"path": str(root), "out": str(out), "delete": [1], "crop": {"3": [2, 7]}, "min_frames": 4})
    assert actions(out) == [pairs(0, 0, 4), pairs(3, 2, 7), pairs(4, 0, 5)]
    assert actions(root) == [pairs(i, 0, n) for i, n in enumerate(LENGTHS)]
    assert [LeRobotReader(out).metadata(i)["seed"] for i in range(3)] == [0, 3, 4]
    assert verify({"path": str(out)})["problems"] == []


def test_in_place_keeps_the_former_dataset(root):
    result = edit({"path": str(root), "keep": [2, 0]})
    assert actions(root) == [pairs(0, 0, 4), pairs(2, 0, 3)]
    assert len(actions(root.with_name("set.before-edit"))) == 5
    assert result["former"].endswith("set.before-edit")
    with pytest.raises(DataError, match="exists"):
        edit({"path": str(root), "keep": [0]})


def test_dry_run_changes_nothing(root, capsys):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert main(["data", "edit", str(root), "delete=[0,4]", "dry_run=true"]) == 0
    assert "5 → 3" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert [path.name for path in root.parent.iterdir()] == ["set"]


def test_merge_rename_relabel(root, tmp_path):
    other = record(tmp_path / "other", [2, 2])
    given = {
        "merge": [str(other)],
        "rename": {"observation.joints": "observation.state"},
        "relabel": {"task 1": "push"},
    }
    edit({"path": str(root), "out": str(tmp_path / "new"), **given})
    reader = LeRobotReader(tmp_path / "new")
    assert reader.lengths.tolist() == [*LENGTHS, 2, 2]
    got = reader.read(6, ["observation.joints", "task", "index"])
    assert set(got["task"]) == {"push"}
    assert got["index"].tolist() == [29, 30]
    assert np.array_equal(got["observation.joints"][1], frame(STATE_SPEC, 1, 1)["observation.state"])
    assert sorted(reader.tasks.values()) == ["push", "task 0"]
    edit({"path": str(root), "out": str(tmp_path / "all"), "relabel": {"*": "go"}})
    assert list(LeRobotReader(tmp_path / "all").tasks.values()) == ["go"]


def test_datasets_that_differ_are_not_merged(root, tmp_path):
    other = record(tmp_path / "other", [2], camera_spec())
    with pytest.raises(SpecError, match="does not fit the first"):
        edit({"path": str(root), "out": str(tmp_path / "new"), "merge": [str(other)]})


@pytest.mark.parametrize("rate_hz", [5.0, 10.0, 30.0, 7.0])
def test_resample_holds_the_last_frame(root, tmp_path, rate_hz):
    edit({"path": str(root), "out": str(tmp_path / "new"), "resample_hz": rate_hz})
    reader = LeRobotReader(tmp_path / "new")
    assert reader.spec.rate_hz == rate_hz
    for episode, length in enumerate(LENGTHS):
        got = reader.read(episode, ["action", "timestamp"])
        expected = [max(step for step in range(length) if step / 10 <= stamp + 1e-5) for stamp in got["timestamp"]]
        assert got["action"][:, 1].tolist() == expected
        assert got["timestamp"][-1] <= (length - 1) / 10 + 1e-5 < got["timestamp"][-1] + 1 / rate_hz + 1e-5
    assert resampled_frames(1, 10, 30).tolist() == [0]


def test_split_is_a_partition(root, tmp_path):
    shares = {"train": 0.6, "valid": 0.4}
    edit({"path": str(root), "out": str(tmp_path / "parts"), "split": shares, "seed": 3})
    parts = {name: actions(tmp_path / "parts" / name) for name in shares}
    assert [len(parts[name]) for name in shares] == [3, 2]
    together = sorted(episode[0][0] for part in parts.values() for episode in part)
    assert together == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("in_metadata", [True, False])
def test_filter_by_success(tmp_path, in_metadata):
    with LeRobotWriter(tmp_path / "set", STATE_SPEC) as writer:
        for episode in range(4):
            for step in range(3):
                extra = {} if in_metadata else {"next.success": bool(episode % 2 and step == 2)}
                writer.add_frame({**frame(STATE_SPEC, episode, step), **extra})
            writer.save_episode({"success": bool(episode % 2)} if in_metadata else None)
    edit({"path": str(tmp_path / "set"), "out": str(tmp_path / "new"), "success": True})
    assert [episode[0][0] for episode in actions(tmp_path / "new")] == [1, 3]
    if not in_metadata:
        assert LeRobotReader(tmp_path / "new").read(0, ["next.success"])["next.success"].tolist() == [
            False,
            False,
            True,
        ]


def test_success_must_be_known(root, tmp_path):
    with pytest.raises(DataError, match="does not say whether it succeeded"):
        edit({"path": str(root), "out": str(tmp_path / "new"), "success": True})


def test_v2_stays_v2(root, tmp_path):
    write_v2(LeRobotReader(root), tmp_path / "v2")
    edit({"path": str(tmp_path / "v2"), "delete": [0]})
    assert LeRobotV2Reader(tmp_path / "v2").lengths.tolist() == LENGTHS[1:]


def test_pictures_survive(tmp_path):
    root = record(tmp_path / "set", [3, 4], camera_spec(), WriterOptions(images="image"))
    edit({"path": str(root), "out": str(tmp_path / "new"), "delete": [0], "images": "image"})
    key = "observation.images.top"
    assert np.array_equal(LeRobotReader(tmp_path / "new").read(0, [key])[key], LeRobotReader(root).read(1, [key])[key])


def test_a_failed_edit_leaves_the_dataset(root, monkeypatch):
    before = actions(root)

    def broken(source):
        return ["episode 0: broken"]

    monkeypatch.setattr(editing, "verify_source", broken)
    with pytest.raises(DataError, match="nothing was replaced"):
        edit({"path": str(root), "delete": [0]})
    assert actions(root) == before

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(editing, "write_lerobot", full)
    with pytest.raises(OSError, match="No space"):
        edit({"path": str(root), "delete": [0]})
    assert actions(root) == before


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"delete": [5]}, DataError, "no episode 5"),
        ({"keep": []}, DataError, "no episode"),
        ({"crop": {"0": [2, 9]}}, DataError, "crop does not fit"),
        ({"crop": {"x": [0, 1]}}, ConfigError, "mapping from episode"),
        ({"rename": {"a": "observation.stat"}}, SpecError, r"did you mean 'observation\.state'"),
        ({"drop": ["b"]}, SpecError, "no observation 'b'"),
        ({"split": {"train": 0.7, "valid": 0.7}}, ConfigError, "at most 1"),
        ({"split": {"../x": 0.5}}, ConfigError, "split is a mapping"),
        ({"resample_hz": -1.0}, DataError, "not a usable rate"),
        ({"delet": [0]}, ConfigError, "did you mean 'delete'"),
    ],
)
def test_impossible_edits(root, tmp_path, given, error, says):
    with pytest.raises(error, match=says):
        edit({"path": str(root), "out": str(tmp_path / "new"), **given})
    assert not (tmp_path / "new").exists()
