"""What is written here, read by the libraries and the rules of those it is written for."""

import json
import zipfile

import h5py
import numpy as np
import pytest
import zarr

from robolearn.data.commands import convert
from robolearn.data.lerobot_v2 import LeRobotV2Reader, write_v2
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.data.synthetic import STATE_SPEC, camera_spec, frame, picture, record
from robolearn.data.verify import verify_source
from robolearn.data.video import VideoOptions

TOP, STATE = "observation.images.top", "observation.state"
H264 = VideoOptions("h264", crf=10)


def rewarded(root):
    """Two episodes with rewards, a number beside them and metadata."""
    with LeRobotWriter(root, STATE_SPEC) as writer:
        for episode, length in enumerate([4, 6]):
            for step in range(length):
                more = {"next.reward": 0.5 * step, "next.done": step == length - 1, "confidence": np.full(2, step)}
                writer.add_frame(frame(STATE_SPEC, episode, step) | more)
            writer.save_episode({"seed": 7 + episode, "success": bool(episode)})
    return LeRobotReader(root)


def set_info(root, changes):
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | changes))


def by_lerobot(root):
    return pytest.importorskip("lerobot.datasets.lerobot_dataset").LeRobotDataset("robolearn/test", root=root)


def test_lerobot_reads_many_small_files_over_several_chunks(tmp_path):
    """Every episode is a file, every second file a folder, in three sessions."""
    root, options = tmp_path / "set", WriterOptions(video=H264, append=True)
    LeRobotWriter(root, camera_spec(), WriterOptions(video=H264)).close()
    limits = ("data_files_size_in_mb", "video_files_size_in_mb")
    set_info(root, {"chunks_size": 2, **dict.fromkeys(limits, 0)})
    lengths = [3, 5, 2, 6, 4]
    for session in ([3, 5, 2], [6], [4]):
        record(root, session, camera_spec(), options)
    set_info(root, dict.fromkeys(limits, 1))  # LeRobot refuses 0
    places = [f"chunk-{n // 2:03d}/file-{n % 2:03d}" for n in range(5)]
    assert sorted(str(p.relative_to(root / "data"))[:-8] for p in root.glob("data/*/*.parquet")) == places
    assert sorted(str(p.relative_to(root / "videos" / TOP))[:-4] for p in root.glob("videos/*/*/*.mp4")) == places
    ours = LeRobotReader(root)
    assert ours.lengths.tolist() == lengths
    assert verify_source(ours) == []
    theirs = by_lerobot(root)
    assert len(theirs) == sum(lengths)
    for index in range(len(theirs)):
        item = theirs[index]
        episode, step = int(item["episode_index"]), int(item["frame_index"])
        assert index == sum(lengths[:episode]) + step
        assert np.array_equal(item[STATE].numpy(), frame(camera_spec(), episode, step)[STATE])
        pixels = 255 * item[TOP].permute(1, 2, 0).numpy()
        assert np.abs(pixels - picture((32, 32, 3), episode, step)).mean() < 3


def test_lerobots_converter_reads_version_2(tmp_path, monkeypatch):
    by_lerobot_script = pytest.importorskip("lerobot.scripts.convert_dataset_v21_to_v30")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = LeRobotReader(record(tmp_path / "v3", [4, 6, 3], camera_spec(), WriterOptions(images="image")))
    write_v2(source, tmp_path / "v2", video=H264)
    by_lerobot_script.convert_dataset("robolearn/test", root=tmp_path / "v2", push_to_hub=False)
    theirs = by_lerobot(tmp_path / "v2")
    assert len(theirs) == 13
    for index, (episode, step) in ((0, (0, 0)), (3, (0, 3)), (4, (1, 0)), (12, (2, 2))):
        item = theirs[index]
        assert (int(item["episode_index"]), int(item["frame_index"])) == (episode, step)
        expected = frame(camera_spec(), episode, step)
        assert np.array_equal(item[STATE].numpy(), expected[STATE])
        assert item["task"] == expected["task"]
        assert np.abs(255 * item[TOP].permute(1, 2, 0).numpy() - expected[TOP]).mean() < 3


def test_version_2_loses_nothing(tmp_path):
    source = rewarded(tmp_path / "v3")
    write_v2(source, tmp_path / "v2")
    back = LeRobotV2Reader(tmp_path / "v2")
    keys = [STATE, "action", "task", "next.reward", "next.done", "confidence"]
    for episode in range(2):
        one, two = source.read(episode, keys), back.read(episode, keys)
        assert all(np.array_equal(one[key], two[key]) for key in keys)
        assert back.metadata(episode) == source.metadata(episode) == {"seed": 7 + episode, "success": bool(episode)}


def test_robomimic_reads_its_file(tmp_path):
    """As `robomimic.utils.dataset.SequenceDataset` does: filter keys, numeric order, sizes, environment."""
    source = rewarded(tmp_path / "v3")
    convert({"path": str(source.root), "out": str(tmp_path / "demo.hdf5"), "to": "robomimic"})
    with h5py.File(tmp_path / "demo.hdf5") as file:
        demos = sorted(file["data"], key=lambda name: int(name[5:]))
        assert demos == ["demo_0", "demo_1"]
        assert file["data"].attrs["total"] == sum(file[f"data/{demo}"].attrs["num_samples"] for demo in demos)
        arguments = json.loads(file["data"].attrs["env_args"])
        assert {"env_name", "type", "env_kwargs"} <= arguments.keys()
        for episode, demo in enumerate(demos):
            group = file[f"data/{demo}"]
            assert np.array_equal(group["actions"][:], source.read(episode, ["action"])["action"])
            assert np.array_equal(group["rewards"][:], 0.5 * np.arange(len(group["actions"])))
            assert group["dones"][-1] == 1
            assert np.array_equal(group["next_obs/state"][:-1], group["obs/state"][1:])
            assert json.loads(group.attrs["ep_meta"])["lang"] == f"task {episode}"
    from robolearn.api import open_dataset

    back = open_dataset(tmp_path / "demo.hdf5", options={"state": ["state"]})
    assert back.metadata(1) == {"seed": 8, "success": True}
    assert back.read(1, ["task"])["task"].tolist() == ["task 1"] * 6


@pytest.mark.parametrize("name", ["replay.zarr", "replay.zarr.zip"])
def test_zarr_reads_version_2(tmp_path, name):
    """As diffusion policy's `ReplayBuffer` does: flat arrays over time, cumulative ends, Blosc, version 2."""
    source = LeRobotReader(record(tmp_path / "v3", [4, 6], camera_spec(), WriterOptions(images="image")))
    convert({"path": str(source.root), "out": str(tmp_path / name), "to": "zarr"})
    store = zarr.storage.ZipStore(tmp_path / name) if name.endswith("zip") else zarr.storage.LocalStore(tmp_path / name)
    root = zarr.open_group(store, mode="r", zarr_format=2)
    assert root["meta/episode_ends"][:].tolist() == [4, 10]
    assert root["meta/episode_ends"].dtype == np.int64
    for key, stored in ((STATE, "state"), (TOP, "top"), ("action", "action")):
        wanted = np.concatenate([source.read(episode, [key])[key] for episode in range(2)])
        assert root[f"data/{stored}"].dtype == wanted.dtype
        assert np.array_equal(root[f"data/{stored}"][:], wanted)
    if name.endswith("zip"):
        content = zipfile.ZipFile(tmp_path / name).read("data/action/.zarray")
    else:
        content = (tmp_path / name / "data/action/.zarray").read_bytes()
    described = json.loads(content)
    assert described["zarr_format"] == 2
    assert described["order"] == "C"
    assert described["compressor"]["id"] == "blosc"


def test_mcap_ros2_reads_messages(tmp_path):
    messages_of = pytest.importorskip("mcap_ros2.reader").read_ros2_messages
    source = LeRobotReader(record(tmp_path / "v3", [4, 6], camera_spec(), WriterOptions(images="image")))
    convert({"path": str(source.root), "out": str(tmp_path / "bags"), "to": "mcap"})
    actions, stamps, texts, pictures = [], [], [], []
    for message in messages_of(str(tmp_path / "bags" / "episode_000001.mcap")):
        topic, content = message.channel.topic, message.ros_msg
        if topic == "/action":
            actions.append(list(content.data))
            stamps.append(message.log_time_ns)
        elif topic == "/task":
            texts.append(content.data)
        elif "images" in topic:
            pictures.append((content.format, len(content.data)))
    assert actions == source.read(1, ["action"])["action"].tolist()
    assert stamps == [round(step * 1e8) for step in range(6)]
    assert texts == ["task 1"] * 6
    assert [form for form, size in pictures if size] == ["png"] * 6
