"""Writing datasets for other people's tools: LeRobot v3, robomimic HDF5, diffusion-policy zarr and MCAP.

All are written under a temporary name and renamed when they are complete.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.contracts import EpisodeSource
from robolearn.data.arrow import png
from robolearn.data.cdr import encode_message, standard_definitions
from robolearn.data.lerobot_info import AUTO_FEATURES
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.errors import DataError
from robolearn.spec import Spec

__all__ = ["write_lerobot", "write_mcap", "write_robomimic", "write_zarr"]


def _new(path: Path) -> Path:
    if path.exists():
        raise DataError(f"{path} exists.", do="pick another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.tmp")


def _columns(spec: Spec) -> list[str]:
    return [key for key, feature in spec.observations.items() if feature.kind != "text"]


def write_lerobot(source: EpisodeSource, target: Path, options: WriterOptions | None = None) -> None:
    """Write `source` as a LeRobot v3 folder."""
    keys = [key for key, feature in source.spec.observations.items() if feature.kind != "text"]
    extras = [key for key in getattr(source, "keys", ()) if key not in (*keys, *AUTO_FEATURES, "action", "task")]
    keys += ["action", "task", *extras]
    with LeRobotWriter(target, source.spec, options) as sink:
        for episode, length in enumerate(np.asarray(source.lengths).tolist()):
            columns = source.read(episode, keys)
            for step in range(length):
                sink.add_frame({key: values[step] for key, values in columns.items()})
            metadata = getattr(source, "metadata", None)
            sink.save_episode(metadata(episode) if metadata is not None else None)


def write_robomimic(source: EpisodeSource, path: Path, masks: Mapping[str, list[int]] | None = None) -> None:
    """Write `source` as robomimic HDF5; `masks` are filter keys (name → episode numbers), e.g. train and valid."""
    import h5py

    temporary, spec = _new(path), source.spec
    arguments = {
        "env_name": str(spec.metadata.get("env", "robolearn")),
        "type": 1,
        "env_version": "1.5.1",
        "env_kwargs": {"control_freq": spec.rate_hz, "robots": [spec.robot]},
    }
    lengths = np.asarray(source.lengths).tolist()
    with h5py.File(temporary, "w") as file:
        data = file.create_group("data")
        data.attrs["total"], data.attrs["env_args"] = sum(lengths), json.dumps(arguments)
        for episode, length in enumerate(lengths):
            columns = source.read(episode, [*_columns(spec), "action"])
            demo = data.create_group(f"demo_{episode}")
            demo.attrs["num_samples"] = length
            demo["actions"] = columns.pop("action").astype(np.float64)
            demo["rewards"], demo["dones"] = np.zeros(length), np.arange(length) == length - 1
            for key, values in columns.items():
                pixels = spec.observations[key].kind == "image"
                name = key.removeprefix("observation.").removeprefix("images.") + ("_image" if pixels else "")
                options = {"compression": "gzip", "compression_opts": 4} if pixels else {}
                demo.create_dataset(f"obs/{name}", data=values, **options)
                following = np.concatenate([values[1:], values[-1:]])
                demo.create_dataset(f"next_obs/{name}", data=following, **options)
        for name, episodes in (masks or {}).items():
            file[f"mask/{name}"] = np.array([f"demo_{episode}".encode() for episode in episodes])
    os.replace(temporary, path)


def write_zarr(source: EpisodeSource, path: Path) -> None:
    """Write `source` as a diffusion-policy replay buffer (zarr v2; a zip when `path` ends in .zip)."""
    import numcodecs
    import zarr
    from zarr.storage import LocalStore, ZipStore

    temporary, spec = _new(path), source.spec
    shutil.rmtree(temporary, ignore_errors=True)
    zipped = path.suffix == ".zip"
    store = ZipStore(temporary, mode="w") if zipped else LocalStore(temporary)
    root = zarr.open_group(store, mode="w", zarr_format=2)
    ends = np.cumsum(source.lengths)
    compressor = numcodecs.Blosc("zstd", 5, numcodecs.Blosc.BITSHUFFLE)
    keys = [*_columns(spec), "action"]
    blocks: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for episode in range(len(ends)):
        for key, values in source.read(episode, keys).items():
            blocks[key].append(values)
    for key, parts in blocks.items():
        values = np.concatenate(parts)
        name = key.removeprefix("observation.").removeprefix("images.")
        frame_bytes = max(int(values[0].nbytes), 1)
        chunks = (int(np.clip(2 * 2**20 // frame_bytes, 1, len(values))), *values.shape[1:])
        array = root.create_array(
            f"data/{name}", shape=values.shape, dtype=values.dtype, chunks=chunks, compressors=compressor
        )
        array[:] = values
    meta = root.create_array(
        "meta/episode_ends", shape=ends.shape, dtype="int64", chunks=ends.shape, compressors=compressor
    )
    meta[:] = ends
    store.close()
    os.replace(temporary, path)


_ARRAYS = {
    "float32": "Float32",
    "float64": "Float64",
    "int32": "Int32",
    "int64": "Int64",
    "uint8": "UInt8",
    "bool": "UInt8",
}
_IMAGE, _TEXT = "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"


def write_mcap(source: EpisodeSource, path: Path) -> None:
    """Write `source` as a folder of one MCAP file per episode, with messages that ROS 2 and its viewers know.

    Signals are MultiArrays of their own type, pictures PNG in CompressedImage, the task a String. Stamps are
    the nominal times of the frames; the spec travels in the metadata, so that reading needs no map.
    """
    temporary, spec = _new(path), source.spec
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    known = getattr(source, "keys", ())
    keys = [*_columns(spec), "action", "task", *(key for key in known if key.startswith("next."))]
    for episode in range(len(source.lengths)):
        described = getattr(source, "metadata", None)
        facts = described(episode) if described is not None else {}
        name = temporary / f"episode_{episode:06d}.mcap"
        _write_episode(name, spec, source.read(episode, keys), {"metadata": json.dumps(facts)})
    os.replace(temporary, path)


def _write_episode(path: Path, spec: Spec, columns: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> None:
    from mcap.well_known import MessageEncoding, Profile, SchemaEncoding
    from mcap.writer import Writer
    from rosbags.typesys import Stores, get_typestore

    definitions, store = standard_definitions(), get_typestore(Stores.ROS2_JAZZY)
    signals = {key: {"dtype": str(v.dtype), "shape": v.shape[1:]} for key, v in columns.items() if v.dtype.kind != "U"}
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start(profile=Profile.ROS2)
        described = {"spec": json.dumps(spec.to_dict()), "columns": json.dumps(signals)}
        writer.add_metadata("robolearn", {**described, **facts})
        channels, kinds = {}, {}
        for key, values in columns.items():
            kinds[key] = kind = _message_type(spec, key, values)
            text = store.generate_msgdef(kind, ros_version=2)[0]
            schema = writer.register_schema(kind, SchemaEncoding.ROS2, text.encode())
            channels[key] = writer.register_channel(f"/{key.replace('.', '/')}", MessageEncoding.CDR, schema)
        for step in range(len(columns["action"])):
            stamp = round(step * (1e9 / spec.rate_hz))
            for key, values in columns.items():
                data = encode_message(kinds[key], _message(kinds[key], values[step], stamp, key), definitions)
                writer.add_message(channels[key], log_time=stamp, publish_time=stamp, data=data, sequence=step)
        writer.finish()
        file.flush()
        os.fsync(file.fileno())


def _message_type(spec: Spec, key: str, values: np.ndarray) -> str:
    feature = spec.observations.get(key)
    if feature is not None and feature.kind == "image":
        return _IMAGE
    if values.dtype.kind == "U":
        return _TEXT
    if str(values.dtype) not in _ARRAYS:
        raise DataError(f"'{key}' has a type that has no message.", found=values.dtype, expected=", ".join(_ARRAYS))
    return f"std_msgs/msg/{_ARRAYS[str(values.dtype)]}MultiArray"


def _message(kind: str, value: np.ndarray, stamp_ns: int, key: str) -> dict[str, Any]:
    if kind == _IMAGE:
        stamp = {"sec": stamp_ns // 10**9, "nanosec": stamp_ns % 10**9}
        return {"header": {"stamp": stamp, "frame_id": key}, "format": "png", "data": png(value)}
    if kind == _TEXT:
        return {"data": str(value)}
    sizes = [{"label": "", "size": size, "stride": size} for size in value.shape]
    return {"layout": {"dim": sizes}, "data": np.asarray(value).ravel()}
