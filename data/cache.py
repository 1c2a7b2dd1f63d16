"""The training cache: pictures decoded once into flat memory-mapped arrays, addressed by content.

`<folder>/<hash>/<key>.npy` is uint8 [frames,H,W,C]. The hash covers the dataset's files, the key and the
size. A builder holds a lock, writes aside and renames; a second builder waits, a killed one leaves
nothing that counts.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.contracts import EpisodeSource
from robolearn.data.progress import bar
from robolearn.data.windows import Windows, build_windows
from robolearn.errors import DataError
from robolearn.files import fsync_folder

__all__ = ["build_cached_windows", "cache_folder", "cached_images", "fingerprint"]

_VERSION = 2
_EDGE_BYTES = 65536


def cache_folder() -> Path:
    """Return where caches live: `$ROBOLEARN_CACHE`, else `~/.cache/robolearn`."""
    return Path(os.environ.get("ROBOLEARN_CACHE") or Path.home() / ".cache" / "robolearn") / "frames"


def fingerprint(path: Path) -> str:
    """Return a hash of the files below `path`: their names, sizes, times of change, first and last 64 kB."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        facts = file.stat()
        size, name = facts.st_size, file.relative_to(path) if file != path else file.name
        digest.update(f"{name} {size} {facts.st_mtime_ns}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_EDGE_BYTES))
            stream.seek(max(size - _EDGE_BYTES, 0))
            digest.update(stream.read(_EDGE_BYTES))
    return digest.hexdigest()


def cached_images(
    source: EpisodeSource,
    keys: Sequence[str],
    folder: Path | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Return memory-mapped uint8 arrays [frames,H,W,C] of `keys` over all episodes, built when absent.

    `size` (height, width) resizes by area. Episodes are decoded in parallel, under a bar.
    """
    root = getattr(source, "root", None) or getattr(source, "path", None)
    if root is None:
        raise DataError("Only datasets on disk can be cached.", do="load it into memory: loader=windows")
    what = json.dumps([_VERSION, fingerprint(Path(root)), sorted(keys), size])
    target = (folder or cache_folder()) / hashlib.sha256(what.encode()).hexdigest()[:24]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_suffix(".lock")):
            if not target.exists():
                _build(source, keys, target, size)
    return {key: np.load(target / f"{key}.npy", mmap_mode="r") for key in keys}


def build_cached_windows(
    source: EpisodeSource,
    history: int = 1,
    chunk: int = 1,
    keys: Sequence[str] | None = None,
    episodes: Sequence[int] | None = None,
    past: int = 0,
) -> Windows:
    """Return windows whose pictures are memory-mapped from the training cache and whose signals are in RAM."""
    wanted = tuple(source.spec.observations) if keys is None else tuple(keys)
    images = [
        key for key in wanted if key in source.spec.observations and source.spec.observations[key].kind == "image"
    ]
    pictures = cached_images(source, images) if images else {}
    return build_windows(source, history, chunk, wanted, episodes, past, pictures)


def _build(source: EpisodeSource, keys: Sequence[str], target: Path, size: tuple[int, int] | None) -> None:
    temporary = target.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    lengths = np.asarray(source.lengths)
    ends = np.cumsum(lengths)
    arrays: dict[str, Any] = {}
    for key in keys:
        height, width, channels = source.spec.observations[key].shape
        shape = (int(ends[-1]), *(size or (height, width)), channels)
        arrays[key] = np.lib.format.open_memmap(temporary / f"{key}.npy", "w+", np.uint8, shape)

    def decode(episode: int) -> None:
        for key, frames in source.read(episode, list(keys)).items():
            arrays[key][ends[episode] - lengths[episode] : ends[episode]] = _resized(frames, size)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in bar(pool.map(decode, range(len(lengths))), "decode episodes", len(lengths)):
            pass
    for key in keys:
        arrays[key].flush()
        with (temporary / f"{key}.npy").open("rb") as file:
            os.fsync(file.fileno())
    os.replace(temporary, target)
    fsync_folder(target.parent)


def _resized(frames: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None or frames.shape[1:3] == tuple(size):
        return frames
    import cv2

    return np.stack([cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_AREA) for frame in frames])


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold an advisory lock; the system releases it when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
