"""Files that survive a crash, and plain data that cannot execute."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robolearn.errors import DataError, RobolearnError

__all__ = [
    "fsync_folder",
    "inside",
    "plain_json",
    "publish_folder",
    "read_json",
    "sha256",
    "write_file",
    "written_aside",
]

_LIMIT_BYTES = 64 << 20
_LIMIT_DEPTH = 64


def plain_json(data: Any) -> bytes:
    """Return the one canonical JSON text of `data`."""
    return (json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def read_json(path: Path, error: type[RobolearnError]) -> Any:
    """Read strict JSON: no duplicate keys, no NaN, at most 64 MiB and 64 levels; raises `error`."""
    try:
        size = path.stat().st_size
        if size > _LIMIT_BYTES:
            raise error(f"{path} is too large for a description.", found=f"{size} bytes", expected="at most 64 MiB")
        data = json.loads(path.read_bytes(), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
        _check_depth(data, 0)
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist.", do="restore the file or pick another folder") from cause
    except (ValueError, RecursionError, OSError) as cause:
        reason = "nested too deeply" if isinstance(cause, RecursionError) else str(cause)
        raise error(f"{path} is not readable JSON.", found=reason, do="restore the file from a copy") from cause
    return data


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(root: Path, relative: str, what: str, error: type[RobolearnError] = DataError) -> Path:
    """Return `root / relative` when it stays inside `root`, links resolved; else raise `error` about `what`."""
    path = root / relative
    if "\0" in relative or not path.resolve().is_relative_to(root.resolve()):
        raise error(f"{what} leaves its folder.", found=relative, expected=f"a path inside {root}")
    return path


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Replace `path` by `content`, durably and whole: temporary name, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # not the 0600 of a temporary file
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def publish_folder(temporary: Path, final: Path) -> None:
    """Give a complete folder its name, durably; a folder that had the name is removed afterwards.

    Between the two renames the former folder is called `NAME.old`.
    """
    for folder, _, names in os.walk(temporary):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        fsync_folder(Path(folder))
    former = final.with_name(final.name + ".old")
    if final.exists():
        shutil.rmtree(former, ignore_errors=True)
        final.rename(former)
    temporary.rename(final)
    fsync_folder(final.parent)
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def written_aside(path: Path) -> Generator[Path]:
    """Yield a temporary place beside `path`; what the block leaves there, file or folder, then becomes `path`.

    A block that fails leaves nothing. Raises `DataError` when `path` holds something.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{path} exists.", do="pick an empty or new path")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    _remove(temporary)  # of a run that was killed
    try:
        yield temporary
    except BaseException:
        _remove(temporary)
        raise
    os.replace(temporary, path)
    fsync_folder(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make renames and removals inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key {next(name for name in names if names.count(name) > 1)!r}")
    return result


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _check_depth(data: Any, depth: int) -> None:
    if depth > _LIMIT_DEPTH:
        raise ValueError(f"nested deeper than {_LIMIT_DEPTH} levels")
    for item in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        _check_depth(item, depth + 1)
