"""Small safe file operations: bounded strict JSON, atomic durable writes, paths that stay inside a root."""

import json
import math
from pathlib import Path
from typing import Any

from robolearn.errors import DataError
from robolearn.files import write_file

__all__ = [
    "is_leftover",
    "positive",
    "read_json",
    "read_json_lines",
    "write_json",
]

_JSON_LIMIT_BYTES = 256 * 2**20


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object stored in `path`; anything else is a `DataError` that names the file."""
    try:
        size = path.stat().st_size
        if size > _JSON_LIMIT_BYTES:
            raise DataError(f"{path} is too large for metadata.", found=f"{size} bytes", expected="≤ 256 MB")
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist.", do="check the dataset's path, or name its kind (kind=lerobot, zarr, …)"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not valid JSON.", found=str(error)[:200], do="restore the file, or run `robolearn data repair`"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read.", found=error.strerror) from error
    if not isinstance(data, dict):
        raise DataError(f"{path} holds no JSON object.", found=type(data).__name__, expected="an object")
    return data


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of `path`, one a line; anything else is a `DataError` that names the file."""
    try:
        text = path.read_text(encoding="utf-8")
        # Not splitlines(): JSON strings may hold Unicode's other line separators.
        data = [json.loads(line) for line in text.split("\n") if line.strip()]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.", do="restore the file") from error
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path} is not readable.", found=str(error)[:160], do="restore the file") from error
    if not all(isinstance(item, dict) for item in data):
        raise DataError(f"{path} holds no JSON objects.")
    return data


def write_json(path: Path, data: Any) -> None:
    """Write `data` as JSON, atomically and durably."""
    write_file(path, json.dumps(data, indent=2, allow_nan=False).encode() + b"\n")


def is_leftover(path: Path) -> bool:
    """Return whether `path` is a temporary file of an interrupted write."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def positive(value: Any, what: str) -> float:
    """Return `value` as a finite number above zero; else raise `DataError`."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (0 < number < 1e5):
        raise DataError(f"{what} is not a usable rate.", found=value, expected="0 < rate < 100000 Hz")
    return number
