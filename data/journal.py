"""The write-ahead journal of a recording: an episode is either acknowledged and whole, or not there.

Each episode is one parquet file and one mp4 per camera, written under temporary names, synced, renamed
and then entered in `journal/manifest.jsonl` with sizes and SHA-256. A line carries its own checksum;
a torn last line was never acknowledged.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robolearn.errors import DataError
from robolearn.files import fsync_folder, inside, write_file

__all__ = ["FOLDER", "Entry", "Journal", "entries"]

FOLDER = "journal"
_MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Entry:
    """One acknowledged episode: its files (name → (bytes, SHA-256)) and its metadata."""

    episode: int
    length: int
    first_index: int
    tasks: Mapping[str, int]
    videos: Mapping[str, str]
    files: Mapping[str, tuple[int, str]]
    stats: Mapping[str, Mapping[str, Any]]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> str:
        return f"episode-{self.episode:06d}.parquet"


def entries(root: Path) -> list[Entry]:
    """Return the acknowledged episodes in the journal under `root`, in order; damaged lines end the list."""
    return _read(root)[0]


class Journal:
    """The journal of one recording, opened for appending; leftovers of an interrupted commit are removed."""

    def __init__(self, root: Path):
        self.folder = root / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.entries, good_bytes = _read(root)
        manifest = self.folder / _MANIFEST
        if manifest.exists() and manifest.stat().st_size > good_bytes:
            os.truncate(manifest, good_bytes)
        known = {_MANIFEST} | {name for entry in self.entries for name in entry.files}
        for path in self.folder.iterdir():
            if path.name not in known and path.is_file():
                path.unlink()
        fsync_folder(self.folder)

    def put(self, name: str, content: memoryview | bytes) -> tuple[int, str]:
        """Write one file durably; returns its size and SHA-256."""
        write_file(self.folder / name, content)
        return len(content), hashlib.sha256(content).hexdigest()

    def adopt(self, name: str, path: Path) -> tuple[int, str]:
        """Take over a finished file: sync it and rename it into the journal."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        size = path.stat().st_size
        os.replace(path, self.folder / name)
        fsync_folder(self.folder)
        return size, digest

    def acknowledge(self, entry: Entry) -> None:
        """Enter an episode whose files are durable; it counts from here on."""
        body = json.dumps(asdict(entry), allow_nan=False, separators=(",", ":"))
        line = f"{_checksum(body.encode())} {body}\n".encode()
        path = self.folder / _MANIFEST
        size = path.stat().st_size if path.exists() else None
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.write(handle, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size or 0)
            raise
        finally:
            os.close(handle)
        if size is None:
            fsync_folder(self.folder)
        self.entries.append(entry)

    def clear(self) -> None:
        """Remove the journal after its episodes moved into the dataset; the manifest goes last."""
        for path in self.folder.iterdir():
            if path.name != _MANIFEST and path.is_file():
                path.unlink()
        fsync_folder(self.folder)
        (self.folder / _MANIFEST).unlink(missing_ok=True)
        self.folder.rmdir()
        self.entries = []


def check_files(root: Path, entry: Entry) -> None:
    """Raise `DataError` when a file of `entry` is missing, cut or changed."""
    for name, (size, digest) in entry.files.items():
        path = inside(root / FOLDER, name, "a journal file")
        if not path.exists() or path.stat().st_size != size:
            raise DataError(f"{path} is missing or cut.", expected=f"{size} bytes", do="run `robolearn data repair`")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise DataError(f"{path} has changed since it was recorded.", do="run `robolearn data repair`")


def _read(root: Path) -> tuple[list[Entry], int]:
    path = root / FOLDER / _MANIFEST
    if not path.exists():
        return [], 0
    good_bytes, result = 0, []
    for line in path.read_bytes().splitlines(keepends=True):
        checksum, _, body = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or checksum.decode(errors="replace") != _checksum(body):
            break
        data = json.loads(body)
        data["files"] = {name: tuple(facts) for name, facts in data["files"].items()}
        result.append(Entry(**data))
        good_bytes += len(line)
    return result, good_bytes


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
