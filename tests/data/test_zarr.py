"""Replay buffers: the Push-T layout, folders and zips, and the published demonstrations when present."""

import importlib.util
import json
import os
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

import robolearn
from robolearn.data.windows import build_windows
from robolearn.errors import DataError, MissingLibraryError


def write_buffer(path: Path, ends, arrays, compressor=None) -> Path:
    """Write a replay buffer with the zarr library."""
    root = zarr.open_group(zarr.storage.LocalStore(path), mode="w", zarr_format=2)
    compressor = compressor or numcodecs.Blosc("zstd", 5, numcodecs.Blosc.BITSHUFFLE)
    for name, values in {**{f"data/{k}": v for k, v in arrays.items()}, "meta/episode_ends": np.array(ends)}.items():
        chunks = (min(7, len(values)), *values.shape[1:])
        array = root.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks, compressors=compressor)
        array[:] = values
    return path


def pusht_arrays(frames: int) -> dict:
    generator = np.random.default_rng(0)
    return {
        "img": generator.integers(0, 256, (frames, 96, 96, 3)).astype(np.float32),
        "state": generator.random((frames, 5), np.float32),
        "action": generator.random((frames, 2), np.float32),
        "keypoint": generator.random((frames, 9, 2), np.float32),
        "n_contacts": np.ones((frames, 1), np.float32),
    }


@pytest.mark.parametrize("zipped", [False, True])
def test_pusht_layout(tmp_path, zipped):
    arrays = pusht_arrays(23)
    path = write_buffer(tmp_path / "replay.zarr", [4, 15, 23], arrays)
    if zipped:
        with zipfile.ZipFile(tmp_path / "replay.zarr.zip", "w") as archive:
            for file in path.rglob("*"):
                archive.write(file, f"replay.zarr/{file.relative_to(path)}")
        path = tmp_path / "replay.zarr.zip"
    source = robolearn.open_dataset(path)
    assert source.lengths.tolist() == [4, 11, 8]
    assert source.spec.rate_hz == 10
    assert source.spec.action.kind == "ee_pose"
    assert source.spec.observations["observation.environment_state"].shape == (18,)
    got = source.read(1, ["observation.state", "observation.environment_state", "action", "block_pose"], 2, 9)
    assert np.array_equal(got["observation.state"], arrays["state"][6:13, :2])
    assert np.array_equal(got["block_pose"], arrays["state"][6:13, 2:])
    assert np.array_equal(got["observation.environment_state"], arrays["keypoint"][6:13].reshape(7, 18))
    assert np.array_equal(got["action"], arrays["action"][6:13])
    image = source.read(2, ["observation.images.top"])["observation.images.top"]
    assert image.dtype == np.uint8
    assert np.array_equal(image, arrays["img"][15:])
    windows = build_windows(source, 2, 16)
    assert np.array_equal(windows.arrays["observation.images.top"], arrays["img"])


@pytest.mark.parametrize("codec", ["blosc", "zlib", "zstd", "lz4", "bz2", "lzma", "gzip"])
def test_codecs(tmp_path, codec):
    values = {"action": np.arange(40, dtype=np.float32).reshape(20, 2), "state": np.ones((20, 3), np.float64)}
    path = write_buffer(tmp_path / "b.zarr", [20], values, numcodecs.get_codec({"id": codec}))
    source = robolearn.open_dataset(path, options={"rate_hz": 5.0})
    assert np.array_equal(source.read(0, ["action"])["action"], values["action"])
    assert source.spec.observations["observation.state"].shape == (3,)


def test_a_rate_must_be_given_when_the_layout_is_unknown(tmp_path):
    path = write_buffer(tmp_path / "b.zarr", [5], {"action": np.zeros((5, 2), np.float32)})
    with pytest.raises(DataError, match="does not say its rate"):
        robolearn.open_dataset(path)


def test_arrays_of_unequal_length_are_refused(tmp_path):
    values = {"action": np.zeros((5, 2), np.float32), "state": np.zeros((4, 2), np.float32)}
    with pytest.raises(DataError, match="data/state has another length"):
        robolearn.open_dataset(write_buffer(tmp_path / "b.zarr", [5], values), options={"rate_hz": 5.0})


def test_published_demonstrations():
    folder = os.environ.get("ROBOLEARN_DATA", "")
    path = Path(folder, "pusht_cchi_v7_replay.zarr.zip")
    if not folder or not path.exists():
        pytest.skip("ROBOLEARN_DATA does not name a folder with the Push-T demonstrations")
    source = robolearn.open_dataset(path)
    assert len(source.lengths) == 206
    assert source.lengths.sum() == 25650
    windows = build_windows(source, 2, 16, ["observation.state", "observation.environment_state"])
    batch = windows.gather(np.array([0, 25649]))
    assert batch["action"].shape == (2, 16, 2)
    assert float(batch["action"].min()) > 0
    assert float(batch["action"].max()) < 512


def umi_arrays(frames, hands=1):
    generator = np.random.default_rng(0)
    arrays = {"camera0_rgb": generator.integers(0, 256, (frames, 8, 8, 3)).astype(np.uint8)}
    for hand in range(hands):
        arrays |= {
            f"robot{hand}_eef_pos": generator.random((frames, 3), np.float32),
            f"robot{hand}_eef_rot_axis_angle": generator.random((frames, 3), np.float32),
            f"robot{hand}_gripper_width": generator.random((frames, 1), np.float32),
            f"robot{hand}_demo_start_pose": generator.random((frames, 6)),
        }
    return arrays


@pytest.mark.parametrize("hands", [1, 2])
def test_umi_layout(tmp_path, hands):
    arrays = umi_arrays(12, hands)
    folder = write_buffer(tmp_path / "dataset.zarr", [5, 12], arrays)
    with zipfile.ZipFile(tmp_path / "dataset.zarr.zip", "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, str(file.relative_to(folder)))
    source = robolearn.open_dataset(tmp_path / "dataset.zarr.zip")
    assert source.lengths.tolist() == [5, 7]
    assert source.spec.rate_hz == pytest.approx(59.94)
    assert (source.spec.action.kind, source.spec.action.rotation) == ("ee_pose", "axis_angle")
    assert source.spec.action.names[6::7] == tuple(f"robot{hand}_gripper_width_m" for hand in range(hands))
    got = source.read(1, ["observation.state", "action", "observation.images.camera0", "robot0_demo_start_pose"], 1, 4)
    names = [
        f"robot{hand}_{part}" for hand in range(hands) for part in ("eef_pos", "eef_rot_axis_angle", "gripper_width")
    ]
    assert np.array_equal(got["action"], np.concatenate([arrays[name][6:9] for name in names], 1))
    assert np.array_equal(got["action"], got["observation.state"])
    assert np.array_equal(got["observation.images.camera0"], arrays["camera0_rgb"][6:9])
    assert len(build_windows(source, 2, 16)) == 12


def test_jpeg_xl_needs_its_library(tmp_path):
    if importlib.util.find_spec("imagecodecs"):
        pytest.skip("imagecodecs is installed")
    path = write_buffer(tmp_path / "dataset.zarr", [4], umi_arrays(4))
    meta = path / "data" / "camera0_rgb" / ".zarray"
    described = json.loads(meta.read_text())
    meta.write_text(json.dumps({**described, "compressor": {"id": "imagecodecs_jpegxl"}}))
    source = robolearn.open_dataset(path)
    assert source.read(0, ["action"])["action"].shape == (4, 7)
    with pytest.raises(MissingLibraryError, match="imagecodecs"):
        source.read(0, ["observation.images.camera0"])
