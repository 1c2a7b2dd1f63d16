"""Writing datasets for other people's tools: robomimic HDF5 and diffusion-policy zarr.

Both are written under a temporary name and renamed when they are complete.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robolearn.contracts import EpisodeSource
from robolearn.errors import DataError
from robolearn.spec import Spec

__all__ = ["write_robomimic", "write_zarr"]


def _new(path: Path) -> Path:
    if path.exists():
        raise DataError(f"{path} exists.", do="pick another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.tmp")


def _columns(spec: Spec) -> list[str]:
    return [key for key, feature in spec.observations.items() if feature.kind != "text"]


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
