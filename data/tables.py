"""Parquet columns as numpy arrays, checked against what the dataset declares."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolearn.data.lerobot_info import StoredFeature
from robolearn.errors import DataError
from robolearn.files import inside

__all__ = [
    "decode_image",
    "decode_images",
    "image_size",
    "one_array",
    "open_parquet",
    "plain_numbers",
    "read_parquet",
    "to_array",
]

_ARROW_NAMES = {"float": "float32", "double": "float64", "halffloat": "float16", "large_string": "string"}


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file; a damaged footer is a `DataError`."""
    try:
        return pq.ParquetFile(path, memory_map=False, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.", do="restore the file, or run `robolearn data repair`") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def read_parquet(
    file: pq.ParquetFile, path: Path, columns: Sequence[str], groups: Sequence[int] | None = None
) -> pa.Table:
    """Read `columns` (of row `groups`); a missing column or damaged page is a `DataError`."""
    present = set(file.schema_arrow.names)
    for column in columns:
        if column not in present:
            raise DataError(f"{path} lacks the column '{column}'.", found=", ".join(sorted(present))[:200])
    try:
        if groups is None:
            return file.read(columns=list(columns), use_threads=False)
        return file.read_row_groups(list(groups), columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is not a readable parquet file.",
        found=str(error)[:200],
        do="restore it, or run `robolearn data repair` to keep every whole episode",
    )


def to_array(column: pa.ChunkedArray, feature: StoredFeature, where: str) -> np.ndarray:
    """Return `column` as an array [rows, *shape] ((rows,) for shape [1]); the stored type must be the declared one."""
    values = one_array(column)
    rows = len(values)
    depth = 0
    while True:
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        if values.null_count:
            raise DataError(f"{where} has missing values.", found=f"{values.null_count} nulls")
        if not isinstance(values.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
            break
        values = values.flatten()
        depth += 1
    stored = _ARROW_NAMES.get(str(values.type), str(values.type))
    if stored != feature.dtype:
        raise DataError(f"{where} is not stored as declared.", found=stored, expected=feature.dtype)
    flat = plain_numbers(values)
    shape = () if feature.shape in ((), (1,)) and depth == 0 else feature.shape
    if flat.size != rows * int(np.prod(shape, dtype=np.int64)):
        raise DataError(
            f"{where} is not stored in the declared shape.", found=f"{flat.size} values", expected=f"{rows} × {shape}"
        )
    flat = flat.reshape(rows, *shape)
    return flat[:, 0] if shape == (1,) and feature.shape == (1,) else flat


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def plain_numbers(values: pa.Array) -> np.ndarray:
    """Return an array without nulls as numpy; numbers by their buffer, because pyarrow's own way imports pandas."""
    if pa.types.is_boolean(values.type):
        return plain_numbers(values.cast(pa.uint8())).astype(bool)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        return np.array(values.to_pylist())
    dtype = np.dtype(_ARROW_NAMES.get(str(values.type), str(values.type)))
    if not len(values):
        return np.zeros(0, dtype)
    return np.frombuffer(values.buffers()[1], dtype, len(values), values.offset * dtype.itemsize)


def decode_images(column: pa.ChunkedArray, feature: StoredFeature, root: Path, where: str) -> np.ndarray:
    """Return encoded pictures (bytes, or files inside `root`) as uint8 [rows,H,W,C]."""
    frames = np.empty((len(column), *feature.shape), np.uint8)
    for row, item in enumerate(column.to_pylist()):
        frames[row] = decode_image(_bytes_of(item, root, where), feature.shape, f"{where}, row {row}")
    return frames


def _bytes_of(item: Any, root: Path, where: str) -> bytes:
    if isinstance(item, dict) and item.get("bytes"):
        return item["bytes"]
    if isinstance(item, dict) and item.get("path"):
        path = inside(root, item["path"], where)
        if path.is_file():
            return path.read_bytes()
    raise DataError(f"{where} holds no picture.", found=str(item)[:80], expected="{bytes, path}")


def image_size(picture: bytes | Path, where: str) -> tuple[int, int]:
    """Return (height, width) of a PNG or JPEG from its header; of a file nothing else is read."""
    from PIL import Image, UnidentifiedImageError

    try:
        content = picture if isinstance(picture, Path) else io.BytesIO(picture)
        with Image.open(content, formats=("PNG", "JPEG")) as opened:
            return opened.height, opened.width
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{where} is not a PNG or JPEG picture.", found=str(error)[:120], do="restore it, or save it as one of them"
        ) from error


def decode_image(content: bytes, shape: Sequence[int], where: str) -> np.ndarray:
    """Decode one PNG or JPEG; its size is checked before anything is decompressed."""
    import cv2

    size = image_size(content, where)
    if size != tuple(shape[:2]):
        raise DataError(f"{where} has another size than declared.", found=size, expected=tuple(shape[:2]))
    flags = cv2.IMREAD_COLOR if shape[2] == 3 else cv2.IMREAD_GRAYSCALE
    frame = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if frame is None:
        raise DataError(f"{where} is a damaged picture.", do="restore the file")
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if shape[2] == 3 else frame[..., None]
