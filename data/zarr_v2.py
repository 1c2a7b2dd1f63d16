"""A small reader of zarr v2 arrays in a folder or zip; only named codecs run, sizes are checked before use.

https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html
"""

import bz2
import itertools
import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import DataError, MissingLibraryError, suggest
from robolearn.files import inside

__all__ = ["Array", "Store", "open_arrays"]

_CODECS = ("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd")
_IMAGE_CODECS = ("imagecodecs_jpegxl", "imagecodecs_jpeg2k", "imagecodecs_png", "imagecodecs_jpeg")
_FILTERS = ("shuffle", "delta")
_MAX_CHUNK_BYTES = 2**31
_MAX_BYTES = 2**43


class Store:
    """Bytes by key, from a folder or a zip; keys never leave it."""

    def __init__(self, path: Path):
        self.path = path
        self._zip = None
        if path.is_file():
            try:
                self._zip = zipfile.ZipFile(path)
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
                raise DataError(f"{path} is not a readable zip.", found=str(error), do="restore the file") from error
            self.names = set(self._zip.namelist())
        elif path.is_dir():
            self.names = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
        else:
            raise DataError(f"{path} does not exist.", do="check the dataset's path")

    def get(self, name: str, limit: int = _MAX_CHUNK_BYTES) -> bytes | None:
        """Return the content of `name`, or None when there is none."""
        if name not in self.names:
            return None
        try:
            if self._zip is None:
                path = inside(self.path, name, f"{self.path}: {name}")
                size = path.stat().st_size
            else:
                size = self._zip.getinfo(name).file_size
            if size > limit:
                raise DataError(f"{self.path}: {name} is too large.", found=f"{size} bytes", expected=f"≤ {limit}")
            return path.read_bytes() if self._zip is None else self._zip.read(name)
        except (zipfile.BadZipFile, OSError, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise DataError(f"{self.path}: {name} cannot be read.", found=str(error)[:200], do="restore it") from error

    def __reduce__(self) -> tuple:
        return Store, (self.path,)


@dataclass(frozen=True)
class Array:
    """One array; `read(start, stop)` gives a span of its first axis."""

    store: Store
    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    fill: Any
    order: str
    codecs: tuple[Mapping[str, Any], ...]
    separator: str

    @property
    def where(self) -> str:
        return f"{self.store.path}: {self.name}"

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return [start:stop] along the first axis."""
        stop = self.shape[0] if stop is None else min(stop, self.shape[0])
        result = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
        if not result.size:
            return result
        grid = [range(start // self.chunks[0], (stop - 1) // self.chunks[0] + 1)]
        grid += [range(math.ceil(n / c)) for n, c in zip(self.shape[1:], self.chunks[1:], strict=True)]
        for place in itertools.product(*grid):
            chunk = self._chunk(place)
            low = place[0] * self.chunks[0]
            first, last = max(start, low), min(stop, low + self.chunks[0])
            source, target = [slice(first - low, last - low)], [slice(first - start, last - start)]
            for axis in range(1, len(self.shape)):
                begin = place[axis] * self.chunks[axis]
                size = min(self.chunks[axis], self.shape[axis] - begin)
                source.append(slice(0, size))
                target.append(slice(begin, begin + size))
            result[tuple(target)] = chunk[tuple(source)]
        return result

    def _chunk(self, place: tuple[int, ...]) -> np.ndarray:
        content = self.store.get(f"{self.name}/{self.separator.join(map(str, place))}")
        if content is None:
            return np.full(self.chunks, self.fill, self.dtype)
        size = math.prod(self.chunks) * self.dtype.itemsize
        data: Any = content
        for codec in self.codecs:
            data = _decode(codec, data, size, f"{self.where}, chunk {place}")
        flat = (
            np.frombuffer(data, np.uint8)
            if isinstance(data, bytes)
            else np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        )
        if flat.size != size:
            raise DataError(f"{self.where}, chunk {place} has the wrong size.", found=flat.size, expected=size)
        return flat.view(self.dtype).reshape(self.chunks, order="F" if self.order == "F" else "C")


def open_arrays(path: Path) -> dict[str, Array]:
    """Return every array below `path` by its name ("data/action"); metadata is validated, no chunk is read."""
    store = Store(path)
    metadata = sorted(name for name in store.names if name.endswith(".zarray"))
    groups = sorted(name for name in store.names if name.endswith(".zgroup"))
    if not metadata or not groups:
        raise DataError(f"{path} holds no zarr v2 group.", do="check the path; zarr v3 stores are not replay buffers")
    root = min(groups, key=len).removesuffix(".zgroup")
    result = {}
    for name in metadata:
        if name.startswith(root):
            array = _parse(store, name.removesuffix("/.zarray"))
            result[array.name.removeprefix(root)] = array
    return result


def _parse(store: Store, name: str) -> Array:
    where = f"{store.path}: {name}/.zarray"
    try:
        raw = json.loads(store.get(f"{name}/.zarray", limit=2**20) or b"")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not valid JSON.", found=str(error)[:100]) from error
    if not isinstance(raw, dict) or raw.get("zarr_format") != 2:
        raise DataError(f"{where} is not zarr v2.", found=str(raw)[:80], expected="zarr_format 2")
    shape, chunks = _sizes(raw.get("shape"), where), _sizes(raw.get("chunks"), where)
    dtype = _dtype(raw.get("dtype"), where)
    if len(chunks) != len(shape) or not shape or 0 in chunks or raw.get("order") not in ("C", "F"):
        raise DataError(f"{where}: shape, chunks and order do not fit.", found=f"{shape}, {chunks}, {raw.get('order')}")
    if math.prod(chunks) * dtype.itemsize > _MAX_CHUNK_BYTES or math.prod(shape) * dtype.itemsize > _MAX_BYTES:
        raise DataError(f"{where} declares more data than can be.", found=f"{shape} in chunks {chunks}")
    codecs = [raw.get("compressor")] if raw.get("compressor") is not None else []
    filters = raw.get("filters") or []
    if not isinstance(filters, list):
        raise DataError(f"{where}: filters is no list.", found=str(filters)[:80])
    for codec in (*codecs, *filters):
        known = _CODECS + _IMAGE_CODECS + _FILTERS
        if not isinstance(codec, dict) or codec.get("id") not in known:
            raise DataError(
                f"{where} uses a codec that is not allowed.",
                found=str(codec)[:80],
                expected=suggest(str(codec.get("id") if isinstance(codec, dict) else codec), known),
            )
    fill = raw.get("fill_value") or 0
    if not isinstance(fill, int | float):
        raise DataError(f"{where}: fill_value is no number.", found=str(fill)[:80])
    separator = raw.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise DataError(f"{where}: dimension_separator is unknown.", found=separator)
    return Array(store, name, shape, chunks, dtype, fill, raw["order"], (*codecs, *reversed(filters)), separator)


def _sizes(raw: Any, where: str) -> tuple[int, ...]:
    if not isinstance(raw, list) or len(raw) > 6 or not all(type(n) is int and 0 <= n < 2**48 for n in raw):
        raise DataError(f"{where}: a shape is not usable.", found=str(raw)[:80], expected="a list of sizes")
    return tuple(raw)


def _dtype(raw: Any, where: str) -> np.dtype:
    if not isinstance(raw, str) or len(raw) > 8 or raw[1:2] not in ("f", "i", "u", "b"):
        raise DataError(f"{where}: dtype is not allowed.", found=str(raw)[:80], expected="f, i, u or b")
    try:
        return np.dtype(raw)
    except TypeError as error:
        raise DataError(f"{where}: dtype is unknown.", found=raw) from error


def _decode(codec: Mapping[str, Any], data: Any, size: int, where: str) -> Any:
    kind = codec["id"]
    try:
        if kind in ("zlib", "gzip"):
            return zlib.decompressobj(wbits=47).decompress(data, size + 1)
        if kind == "bz2":
            return bz2.BZ2Decompressor().decompress(data, size + 1)
        if kind == "lzma":
            return lzma.LZMADecompressor().decompress(data, size + 1)
        if kind == "blosc":
            _check_blosc(bytes(data[:16]), len(data), size)
        if kind == "lz4" and int.from_bytes(data[:4], "little") != size:
            raise ValueError("the lz4 header declares another size")
        if kind in _IMAGE_CODECS:
            return _decode_picture(kind, data)
        import numcodecs

        options = {name: value for name, value in codec.items() if isinstance(value, int | str)}
        out = np.empty(size, np.uint8) if kind in ("blosc", "zstd", "lz4") else None
        return numcodecs.get_codec(options).decode(data, out)
    except (ValueError, RuntimeError, TypeError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{where} cannot be decompressed.", found=str(error)[:120], do="restore the file") from error


def _check_blosc(header: bytes, stored: int, size: int) -> None:
    """Raise `ValueError` unless the header agrees with the buffers: the decoder believes it.

    https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst
    """
    numbers = [int.from_bytes(header[at : at + 4], "little") for at in (4, 8, 12)]
    plain = len(header) == 16 and bool(header[2] & 2)
    if len(header) < 16 or numbers[0] != size or numbers[2] != stored or not header[3]:
        raise ValueError("the blosc header declares another size")
    blocks = -(-size // max(numbers[1], 1))
    too_short = stored != size + 16 if plain else stored < 16 + 4 * blocks
    if too_short or not 0 < numbers[1] <= max(size, 1):
        raise ValueError("the blosc header declares impossible blocks")


def _decode_picture(kind: str, data: bytes) -> np.ndarray:
    try:
        import imagecodecs  # ty: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            f"Pictures compressed by {kind} need the library 'imagecodecs'.",
            found="it is not installed",
            do="pip install imagecodecs",
        ) from error

    decoders = {
        "imagecodecs_jpegxl": imagecodecs.jpegxl_decode,
        "imagecodecs_jpeg2k": imagecodecs.jpeg2k_decode,
        "imagecodecs_png": imagecodecs.png_decode,
        "imagecodecs_jpeg": imagecodecs.jpeg8_decode,
    }
    return decoders[kind](data)
