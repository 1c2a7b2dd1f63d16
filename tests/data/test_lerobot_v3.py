"""LeRobot v3 folders: our writer and reader, and lerobot's own in both directions."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import robolearn
from robolearn.data.journal import Journal
from robolearn.data.language import STYLES
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.data.mixture import Member, Mixture, MixtureOptions
from robolearn.data.synthetic import STATE_SPEC, camera_spec, frame, picture, record
from robolearn.data.video import VideoOptions
from robolearn.errors import DataError
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Feature, Spec


def test_what_was_written_comes_back(tmp_path):
    reader = robolearn.open_dataset(record(tmp_path / "set", [5, 9, 2]))
    assert reader.lengths.tolist() == [5, 9, 2]
    assert reader.spec == STATE_SPEC
    for episode, length in enumerate([5, 9, 2]):
        got = reader.read(episode, ["observation.state", "action", "task", "timestamp", "index"])
        for step in range(length):
            expected = frame(STATE_SPEC, episode, step)
            assert np.array_equal(got["observation.state"][step], expected["observation.state"])
            assert np.array_equal(got["action"][step], expected["action"])
            assert got["task"][step] == expected["task"]
        assert np.allclose(got["timestamp"], np.arange(length) / 10)
        assert got["index"][0] == sum([5, 9, 2][:episode])
        assert reader.metadata(episode) == {"seed": episode}
    assert np.array_equal(reader.read(1, ["action"], 3, 6)["action"][:, 1], [3, 4, 5])


def test_annotations_hold_until_the_next_one(tmp_path):
    """The styles of `language_persistent` read like text columns, as lerobot's own `active_at` resolves them."""
    from lerobot.datasets.language_render import active_at

    root = record(tmp_path / "set", [8, 6])
    assert "subtask" not in LeRobotReader(root).keys
    said = [[("subtask", "reach", 0.2), ("plan", "all", 0.0), ("subtask", "lift", 0.5)], []]
    rows = [[{"role": "assistant", "content": c, "style": s, "timestamp": t} for s, c, t in part] for part in said]
    (path,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    episodes = table.column("episode_index").to_pylist()
    pq.write_table(table.append_column("language_persistent", pa.array([rows[i] for i in episodes])), path)
    info = json.loads((root / "meta" / "info.json").read_text())
    info["features"]["language_persistent"] = {"dtype": "language", "shape": [1], "names": None}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    reader = LeRobotReader(root)
    got = reader.read(0, ["subtask", "action", "plan", "timestamp"], 1, 8)
    assert list(got) == ["subtask", "action", "plan", "timestamp"]
    assert got["subtask"].tolist() == ["", "reach", "reach", "reach", "lift", "lift", "lift"]
    stored = reader.read(0, ["timestamp"])["timestamp"]
    for style in ("subtask", "plan"):
        found = [active_at(float(now), persistent=rows[0], style=style) for now in stored]
        expected = [row["content"] if row else "" for row in found]
        assert reader.read(0, [style])[style].tolist() == expected
    assert reader.read(1, ["subtask"])["subtask"].tolist() == [""] * 6
    assert Mixture(root, MixtureOptions({"one": Member(".")})).texts == STYLES
    rows[0][0]["timestamp"] = float("nan")
    pq.write_table(table.append_column("language_persistent", pa.array([rows[i] for i in episodes])), path)
    with pytest.raises(DataError, match="without time"):
        LeRobotReader(root).read(0, ["subtask"])


@pytest.mark.parametrize("images", ["image", "video"])
def test_images_come_back(tmp_path, images):
    options = WriterOptions(images=images, video=VideoOptions(codec="h264", crf=10))
    reader = LeRobotReader(record(tmp_path / "set", [7, 12], camera_spec(), options))
    got = reader.read(1, ["observation.images.top"], 2, 9)["observation.images.top"]
    expected = np.stack([picture((32, 32, 3), 1, step) for step in range(2, 9)])
    assert got.shape == (7, 32, 32, 3)
    assert got.dtype == np.uint8
    error = np.abs(got.astype(int) - expected)
    assert error.max() == 0 if images == "image" else error.mean() < 2.5


def test_a_continued_dataset_keeps_counting(tmp_path):
    root = record(tmp_path / "set", [4, 4], camera_spec(), WriterOptions(video=VideoOptions(codec="h264")))
    record(root, [6, 3], camera_spec(), WriterOptions(video=VideoOptions(codec="h264"), append=True))
    reader = LeRobotReader(root)
    assert reader.lengths.tolist() == [4, 4, 6, 3]
    assert len(list((root / "data").rglob("*.parquet"))) == 2
    assert reader.read(2, ["index"])["index"][0] == 8
    assert reader.read(3, ["observation.images.top"])["observation.images.top"].shape == (3, 32, 32, 3)
    assert reader.tasks == {0: "task 0", 1: "task 1"}
    with pytest.raises(DataError, match="append"):
        LeRobotWriter(root, camera_spec())


def test_extras_and_real_time_stamps_are_kept(tmp_path):
    sink = resolve("sink", "lerobot")(tmp_path / "set", STATE_SPEC, {})
    for step in range(4):
        stamp = {"timestamp": 0.3 * step, "next.success": step == 3, "next.reward": 0.5 * step}
        sink.add_frame(frame(STATE_SPEC, 0, step) | stamp)
    sink.save_episode()
    sink.close()
    reader = LeRobotReader(tmp_path / "set")
    got = reader.read(0, ["next.success", "next.reward", "real_timestamp_s", "timestamp"])
    assert got["next.success"].tolist() == [False, False, False, True]
    assert np.allclose(got["next.reward"], [0, 0.5, 1, 1.5])
    assert np.allclose(got["real_timestamp_s"], [0, 0.3, 0.6, 0.9])
    assert np.allclose(got["timestamp"], [0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": np.array([np.nan, 0])}, "not finite"),
        ({"observation.state": np.array([0, np.inf, 0])}, "not finite"),
        ({"observation.state": np.zeros(4)}, "wrong shape"),
        ({"surprise": 1.0}, "other keys"),
    ],
)
def test_a_bad_frame_is_refused_and_nothing_is_lost(tmp_path, change, message):
    with LeRobotWriter(tmp_path / "set", STATE_SPEC) as writer:
        writer.add_frame(frame(STATE_SPEC, 0, 0))
        with pytest.raises(DataError, match=message):
            writer.add_frame(frame(STATE_SPEC, 0, 1) | change)
        writer.add_frame(frame(STATE_SPEC, 0, 1))
        writer.save_episode()
    assert LeRobotReader(tmp_path / "set").lengths.tolist() == [2]


def test_acknowledged_episodes_are_read_before_they_are_folded_in(tmp_path):
    writer = LeRobotWriter(tmp_path / "set", STATE_SPEC)
    for episode in range(3):
        for step in range(4):
            writer.add_frame(frame(STATE_SPEC, episode, step))
        writer.save_episode({"seed": episode})
    reader = LeRobotReader(tmp_path / "set")  # the writer was never closed
    assert reader.lengths.tolist() == [4, 4, 4]
    assert reader.read(2, ["action", "task"])["task"].tolist() == ["task 0"] * 4
    assert reader.metadata(1) == {"seed": 1}
    record(tmp_path / "set", [5], options=WriterOptions(append=True))
    assert LeRobotReader(tmp_path / "set").lengths.tolist() == [4, 4, 4, 5]


def test_a_task_that_looks_like_a_date_stays_text(tmp_path):
    with LeRobotWriter(tmp_path / "set", STATE_SPEC) as writer:
        writer.add_frame(frame(STATE_SPEC, 0, 0) | {"task": "2024-01-01"})
        writer.save_episode()
    assert LeRobotReader(tmp_path / "set").read(0, ["task"])["task"].tolist() == ["2024-01-01"]
    table = pq.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet")
    assert table.column("tasks").to_pylist() == [["2024-01-01"]]


def test_a_torn_manifest_line_was_never_acknowledged(tmp_path):
    writer = LeRobotWriter(tmp_path / "set", STATE_SPEC)
    for episode in range(2):
        writer.add_frame(frame(STATE_SPEC, episode, 0))
        writer.save_episode()
    manifest = writer.journal.folder / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-7])
    assert len(Journal(tmp_path / "set").entries) == 1
    assert LeRobotReader(tmp_path / "set").lengths.tolist() == [1]


def test_several_files_and_shuffled_metadata_are_no_trap(tmp_path):
    root = record(tmp_path / "set", [3, 4, 5])
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([2, 0, 1]), path)
    data = root / "data/chunk-000/file-000.parquet"
    rows = pq.read_table(data)
    pq.write_table(pa.concat_tables([rows.slice(7, 5), rows.slice(0, 7)]), data)
    reader = LeRobotReader(root)
    assert reader.lengths.tolist() == [3, 4, 5]
    for episode in range(3):
        assert (reader.read(episode, ["action"])["action"][:, 0] == episode).all()
    assert (reader.read_all(["action"])["action"][:, 0] == np.repeat([0, 1, 2], [3, 4, 5])).all()


@pytest.mark.parametrize("kept", [[0, 2], [0, 1, 1, 2]])
def test_gaps_and_duplicates_in_the_metadata_are_refused(tmp_path, kept):
    root = record(tmp_path / "set", [3, 4, 5])
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).take(kept), path)
    with pytest.raises(DataError, match="episode_index has"):
        LeRobotReader(root)


def test_a_spec_is_inferred_for_foreign_folders(tmp_path):
    root = record(tmp_path / "set", [3])
    info = json.loads((root / "meta/info.json").read_text())
    del info["robolearn"]
    (root / "meta/info.json").write_text(json.dumps(info))
    spec = LeRobotReader(root).spec
    assert spec.rate_hz == 10
    assert spec.observations["observation.state"].names == ("a", "b", "c")
    assert spec.action == ActionSpec(2, names=("x", "y"))
    assert spec.robot == "panda"


def test_quantiles_are_those_of_the_data(tmp_path):
    spec = Spec({"observation.state": Feature("signal", (1,))}, ActionSpec(1), rate_hz=10.0)
    with LeRobotWriter(tmp_path / "set", spec) as writer:
        for value in range(36):
            writer.add_frame({"observation.state": [value], "action": [1.0]})
            if value % 9 == 8:
                writer.save_episode()
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
    for name, level in {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}.items():
        assert stats["observation.state"][name] == pytest.approx([np.quantile(np.arange(36), level)])
    assert stats["action"]["std"] == [0.0]


@pytest.fixture(scope="module")
def lerobot_dataset():
    return pytest.importorskip("lerobot.datasets.lerobot_dataset").LeRobotDataset


def test_lerobot_reads_what_we_write(tmp_path, lerobot_dataset):
    spec = Spec(
        {
            "observation.state": Feature("signal", (3,)),
            "observation.matrix": Feature("signal", (2, 4)),
            "observation.images.top": Feature("image", (48, 64, 3), "uint8"),
        },
        ActionSpec(2),
        rate_hz=10.0,
    )
    root = record(tmp_path / "set", [6, 8], spec)
    record(root, [5], spec, WriterOptions(append=True))
    for images in ("video", "image"):
        if images == "image":
            root = record(tmp_path / "png", [6, 8, 5], spec, WriterOptions(images="image"))
        theirs = lerobot_dataset("robolearn/test", root=root, return_uint8=True)
        ours = LeRobotReader(root)
        assert theirs.num_episodes == 3
        assert len(theirs) == 19
        for index in (0, 5, 6, 13, 14, 18):
            item = theirs[index]
            episode, step = int(item["episode_index"]), int(item["frame_index"])
            got = ours.read(episode, ["observation.state", "observation.matrix", "action", "task"], step, step + 1)
            expected = frame(spec, episode, step)
            for key in ("observation.state", "observation.matrix", "action"):
                assert np.array_equal(item[key].numpy(), expected[key])
                assert np.array_equal(got[key][0], expected[key])
            assert item["task"] == expected["task"] == got["task"][0]
            mine = ours.read(episode, ["observation.images.top"], step, step + 1)["observation.images.top"][0]
            pixels = item["observation.images.top"].permute(1, 2, 0).numpy()
            pixels = np.rint(pixels * 255) if pixels.dtype != np.uint8 else pixels
            assert np.abs(pixels.astype(int) - mine).max() <= 3
            limit = 6 if images == "video" else 0
            assert np.abs(pixels.astype(int) - expected["observation.images.top"]).mean() <= limit


def test_we_read_what_lerobot_writes(tmp_path, lerobot_dataset):
    features = {
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
        "observation.matrix": {"dtype": "float32", "shape": (2, 4), "names": None},
        "observation.images.top": {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
        "observation.images.png": {"dtype": "image", "shape": (16, 24, 3), "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    }
    theirs = lerobot_dataset.create("robolearn/test", fps=10, root=tmp_path / "set", features=features)
    sent = []
    for episode, length in enumerate([6, 8]):
        for step in range(length):
            values = {
                "observation.state": np.random.default_rng(step).random(3, dtype=np.float32),
                "observation.matrix": np.full((2, 4), step, np.float32),
                "observation.images.top": picture((48, 64, 3), episode, step),
                "observation.images.png": picture((16, 24, 3), episode, step),
                "action": np.array([episode, step], np.float32),
                "task": f"task {episode}",
            }
            sent.append(values)
            theirs.add_frame(dict(values))
        theirs.save_episode()
    theirs.finalize()
    reader = LeRobotReader(tmp_path / "set")
    assert reader.lengths.tolist() == [6, 8]
    for episode, offset in ((0, 0), (1, 6)):
        got = reader.read(episode, list(sent[0]))
        for step in range(int(reader.lengths[episode])):
            expected = sent[offset + step]
            for key in ("observation.state", "observation.matrix", "observation.images.png", "action"):
                assert np.array_equal(got[key][step], expected[key])
            error = np.abs(got["observation.images.top"][step].astype(int) - expected["observation.images.top"])
            assert error.mean() < 6
            assert got["task"][step] == expected["task"]
