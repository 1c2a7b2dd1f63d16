"""Other formats: written and read back, and read from files as their projects write them."""

import json

import h5py
import numpy as np
import pytest

import robolearn
from robolearn.data.exports import write_robomimic, write_zarr
from robolearn.data.hdf5 import Hdf5Options, Hdf5Reader
from robolearn.data.lerobot_v2 import LeRobotV2Reader, write_v2
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import WriterOptions
from robolearn.data.synthetic import STATE_SPEC, camera_spec, record
from robolearn.data.windows import build_windows
from robolearn.errors import DataError

PNG = WriterOptions(images="image")


def same(left, right, keys):
    """Assert that two sources hold equal values under `keys`."""
    assert left.lengths.tolist() == right.lengths.tolist()
    for episode in range(len(left.lengths)):
        a, b = left.read(episode, keys), right.read(episode, keys)
        for key in keys:
            assert np.array_equal(a[key], b[key]), (episode, key)


def test_v21_round_trip_with_modality(tmp_path):
    source = LeRobotReader(record(tmp_path / "v3", [4, 6]))
    write_v2(source, tmp_path / "v2", modality=True)
    back = robolearn.open_dataset(tmp_path / "v2")
    assert isinstance(back, LeRobotV2Reader)
    same(source, back, ["observation.state", "action", "task", "timestamp"])
    assert back.spec == STATE_SPEC
    modality = json.loads((tmp_path / "v2/meta/modality.json").read_text())
    assert modality["state"]["state"] == {"start": 0, "end": 3}
    info = json.loads((tmp_path / "v2/meta/info.json").read_text())
    assert info["codebase_version"] == "v2.1"


def test_v21_videos(tmp_path):
    source = LeRobotReader(record(tmp_path / "v3", [4, 6], camera_spec(), PNG))
    write_v2(source, tmp_path / "v2")
    back = LeRobotV2Reader(tmp_path / "v2")
    key = "observation.images.top"
    pixels = back.read(1, [key], 2, 5)[key].astype(int)
    assert np.abs(pixels - source.read(1, [key], 2, 5)[key]).mean() < 6


def test_robomimic_round_trip_with_masks(tmp_path):
    source = LeRobotReader(record(tmp_path / "v3", [3] * 12, camera_spec(), PNG))
    path = tmp_path / "demo.hdf5"
    write_robomimic(source, path, {"train": list(range(10)), "valid": [10, 11]})
    back = robolearn.open_dataset(path, options={"state": ["state"]})
    same(source, back, ["observation.state", "observation.images.top", "action"])
    assert back.spec.rate_hz == 10
    assert back.read(10, ["action"])["action"][0, 0] == 10  # demo_10 comes after demo_9
    valid = Hdf5Reader(path, Hdf5Options(mask="valid"))
    assert [valid.read(i, ["action"])["action"][0, 0] for i in range(2)] == [10, 11]
    assert len(build_windows(back, 2, 4)) == 36


def test_zarr_round_trip(tmp_path):
    source = LeRobotReader(record(tmp_path / "v3", [4, 6], camera_spec(), PNG))
    for name in ("replay.zarr", "replay.zarr.zip"):
        write_zarr(source, tmp_path / name)
        back = robolearn.open_dataset(tmp_path / name, options={"rate_hz": 10.0})
        same(source, back, ["observation.state", "observation.images.top", "action"])


def test_libero(tmp_path):
    path = tmp_path / "libero.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": '"pick up the bowl"'})
        for episode, length in enumerate([3, 5]):
            demo = data.create_group(f"demo_{episode}")
            demo["actions"] = np.full((length, 7), episode, np.float64)
            demo["obs/agentview_rgb"] = np.full((length, 8, 8, 3), episode, np.uint8)
            demo["obs/ee_states"] = np.ones((length, 6))
            demo["obs/gripper_states"] = np.zeros((length, 2))
            demo["obs/joint_states"] = np.zeros((length, 7))
    source = robolearn.open_dataset(path)
    assert source.spec.rate_hz == 20
    assert source.spec.action.kind == "ee_delta"
    assert source.spec.observations["observation.images.agentview"].camera.up == "down"
    got = source.read(1, ["observation.state", "task", "action"])
    assert got["observation.state"].shape == (5, 8)
    assert set(got["task"]) == {"pick up the bowl"}


def test_aloha_folder_with_jpeg_rows(tmp_path):
    import cv2

    for episode in range(11):
        with h5py.File(tmp_path / f"episode_{episode}.hdf5", "w") as file:
            file["action"] = np.full((4, 14), episode, np.float32)
            file["observations/qpos"] = np.full((4, 14), episode, np.float32)
            picture = cv2.imencode(".jpg", np.full((16, 24, 3), 20 * episode, np.uint8))[1]
            rows = np.zeros((4, len(picture) + 5), np.uint8)
            rows[:, : len(picture)] = picture
            file["observations/images/cam_high"] = rows
    source = robolearn.open_dataset(tmp_path)
    assert len(source.lengths) == 11
    assert source.spec.rate_hz == 50
    got = source.read(10, ["observation.state", "observation.images.cam_high"])
    assert (got["observation.state"] == 10).all()
    assert got["observation.images.cam_high"].shape == (4, 16, 24, 3)
    assert abs(int(got["observation.images.cam_high"][0, 0, 0, 0]) - 200) < 4


def test_maniskill_drops_the_last_observation(tmp_path):
    path = tmp_path / "trajectory.h5"
    with h5py.File(path, "w") as file:
        for episode in range(2):
            group = file.create_group(f"traj_{episode}")
            group["actions"] = np.zeros((5, 8), np.float32)
            group["obs"] = np.arange(6 * 3, dtype=np.float32).reshape(6, 3)
            group["success"] = np.array([False] * 4 + [True])
    path.with_suffix(".json").write_text(
        json.dumps({"env_info": {"env_kwargs": {"control_mode": "pd_joint_delta_pos", "control_freq": 20}}})
    )
    source = robolearn.open_dataset(path)
    assert source.lengths.tolist() == [5, 5]
    assert source.spec.action.kind == "joint_delta"
    got = source.read(0, ["observation.state", "next.success"])
    assert got["observation.state"].shape == (5, 3)
    assert got["next.success"][-1]


def test_raw_robosuite_files_ask_for_their_rate(tmp_path):
    path = tmp_path / "demo.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data/demo_1")["actions"] = np.zeros((4, 7))
        file["data/demo_1/states"] = np.zeros((4, 30))
    with pytest.raises(DataError, match="does not say its rate"):
        robolearn.open_dataset(path)
    source = robolearn.open_dataset(path, options={"rate_hz": 20.0})
    assert source.spec.observations["observation.environment_state"].shape == (30,)
