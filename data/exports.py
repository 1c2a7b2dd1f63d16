"""Writing datasets for other people's tools: LeRobot v3, robomimic HDF5, diffusion-policy zarr and MCAP.

All are written under a temporary name and renamed when they are complete.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.contracts import EpisodeSource
from robolearn.data.arrow import png
from robolearn.data.cdr import encode_message, standard_definitions
from robolearn.data.frames import extras, metadata_of
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.data.progress import bar
from robolearn.errors import DataError
from robolearn.files import written_aside
from robolearn.spec import Spec

__all__ = ["write_lerobot", "write_mcap", "write_robomimic", "write_zarr"]


def write_lerobot(source: EpisodeSource, target: Path, options: WriterOptions | None = None) -> None:
    """Write `source` as a LeRobot v3 folder, with what was recorded beside observations and actions."""
    keys = [*_columns(source.spec), "action", "task", *extras(source)]
    with written_aside(target) as temporary, LeRobotWriter(temporary, source.spec, options) as sink:
        for episode, length in _episodes(source):
            columns = source.read(episode, keys)
            for step in range(length):
                sink.add_frame({key: values[step] for key, values in columns.items()})
            sink.save_episode(metadata_of(source, episode))


def write_robomimic(source: EpisodeSource, path: Path, masks: Mapping[str, list[int]] | None = None) -> None:
    """Write `source` as robomimic HDF5; `masks` are filter keys (name → episode numbers), e.g. train and valid.

    An episode's metadata and task ("lang") are its `ep_meta`, as robosuite writes them.
    """
    import h5py

    spec = source.spec
    arguments = {
        "env_name": str(spec.metadata.get("env", "robolearn")),
        "type": 1,
        "env_version": "1.5.1",
        "env_kwargs": {"control_freq": spec.rate_hz, "robots": [spec.robot]},
    }
    with written_aside(path) as temporary, h5py.File(temporary, "w") as file:
        data = file.create_group("data")
        data.attrs["total"], data.attrs["env_args"] = int(np.sum(source.lengths)), json.dumps(arguments)
        for episode, length in _episodes(source):
            demo = data.create_group(f"demo_{episode}")
            demo.attrs["num_samples"] = length
            _write_demo(demo, source, episode)
        for name, episodes in (masks or {}).items():
            file[f"mask/{name}"] = np.array([f"demo_{episode}".encode() for episode in episodes])


def _write_demo(demo: Any, source: EpisodeSource, episode: int) -> None:
    """Fill one HDF5 group."""
    spec, more = source.spec, extras(source)
    beside = [key for key in ("next.reward", "next.done") if key in more]
    columns = source.read(episode, [*_columns(spec), "action", "task", *beside])
    length, task = len(columns["action"]), columns["task"][0]
    demo["actions"] = columns["action"].astype(np.float64)
    demo["rewards"] = np.asarray(columns.get("next.reward", np.zeros(length)), np.float64)
    demo["dones"] = np.asarray(columns.get("next.done", np.arange(length) == length - 1), np.int64)
    demo.attrs["ep_meta"] = json.dumps(metadata_of(source, episode) | ({"lang": str(task)} if task else {}))
    for key in _columns(spec):
        values, pixels = columns[key], spec.observations[key].kind == "image"
        options = {"compression": "gzip", "compression_opts": 4} if pixels else {}
        name = _short(key) + ("_image" if pixels else "")
        demo.create_dataset(f"obs/{name}", data=values, **options)
        demo.create_dataset(f"next_obs/{name}", data=np.concatenate([values[1:], values[-1:]]), **options)


def write_zarr(source: EpisodeSource, path: Path) -> None:
    """Write `source` as a diffusion-policy replay buffer (zarr v2; a zip when `path` ends in .zip)."""
    import numcodecs
    import zarr
    from zarr.storage import LocalStore, ZipStore

    keys = [*_columns(source.spec), "action"]
    blocks: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for episode, _ in _episodes(source):
        for key, values in source.read(episode, keys).items():
            blocks[key].append(values)
    ends = np.cumsum(source.lengths)
    arrays = {f"data/{_short(key)}": np.concatenate(parts) for key, parts in blocks.items()}
    compressor = numcodecs.Blosc("zstd", 5, numcodecs.Blosc.BITSHUFFLE)
    with written_aside(path) as temporary:
        store = ZipStore(temporary, mode="w") if path.suffix == ".zip" else LocalStore(temporary)
        root = zarr.open_group(store, mode="w", zarr_format=2)
        for name, values in {**arrays, "meta/episode_ends": ends.astype(np.int64)}.items():
            rows = int(np.clip(_CHUNK_BYTES // max(values[:1].nbytes, 1), 1, len(values)))
            chunks = (rows, *values.shape[1:])
            array = root.create_array(
                name, shape=values.shape, dtype=values.dtype, chunks=chunks, compressors=compressor
            )
            array[:] = values
        store.close()


def _episodes(source: EpisodeSource) -> Iterator[tuple[int, int]]:
    """Yield the number and length of every episode, under a bar."""
    yield from bar(enumerate(np.asarray(source.lengths).tolist()), "write episodes", len(source.lengths))


def _columns(spec: Spec) -> list[str]:
    return [key for key, feature in spec.observations.items() if feature.kind != "text"]


def _short(key: str) -> str:
    return key.removeprefix("observation.").removeprefix("images.")


_ARRAYS = {
    "float32": "Float32",
    "float64": "Float64",
    "int32": "Int32",
    "int64": "Int64",
    "uint8": "UInt8",
    "bool": "UInt8",
}
_CHUNK_BYTES = 2 * 2**20  # of a zarr array, before compression
_IMAGE, _TEXT = "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"


def write_mcap(source: EpisodeSource, path: Path) -> None:
    """Write `source` as a folder of one MCAP file per episode, with messages that ROS 2 and its viewers know.

    Signals are MultiArrays of their own type, pictures PNG in CompressedImage, the task a String. Stamps are
    the nominal times of the frames; the spec travels in the metadata, so that reading needs no map.
    """
    keys = [*_columns(source.spec), "action", "task", *(key for key in extras(source) if key.startswith("next."))]
    with written_aside(path) as temporary:
        temporary.mkdir()
        for episode, _ in _episodes(source):
            facts = {"metadata": json.dumps(metadata_of(source, episode))}
            name = temporary / f"episode_{episode:06d}.mcap"
            _write_episode(name, source.spec, source.read(episode, keys), facts)


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
