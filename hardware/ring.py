"""Stamped arrays handed from one process to others through shared memory, without locks.

One writer, any number of readers. A record is published by advancing the head after it is complete,
so that a writer that dies in the middle of one leaves nothing half-written to be read.
"""

import mmap
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolearn.errors import HardwareError

__all__ = ["Record", "Ring"]

_MAGIC = b"rlring01"
_HEADER = struct.Struct("<8sIII")  # magic, slots, rows, columns
_HEAD = 64  # byte offset of the count of published records
_BODY = 128


@dataclass(frozen=True)
class Record:
    """One published array [rows, columns], the time it belongs to (monotonic) and its number."""

    number: int
    stamp_ns: int
    values: np.ndarray


class Ring:
    """The last records of one writer, in a file that processes map into memory."""

    def __init__(self, path: Path, memory: mmap.mmap):
        self.path, self._memory = path, memory
        magic, slots, rows, columns = _HEADER.unpack_from(memory)
        size = _BODY + slots * (8 + 8 * rows * columns)
        if magic != _MAGIC or slots < 2 or len(memory) != size:
            raise HardwareError("This is not a ring of records.", found=path, expected=f"{size} bytes")
        self.shape = rows, columns
        self._head = np.frombuffer(memory, np.int64, 1, _HEAD)
        self._stamps = np.frombuffer(memory, np.int64, slots, _BODY)
        self._values = np.frombuffer(memory, np.float64, slots * rows * columns, _BODY + 8 * slots)
        self._values = self._values.reshape(slots, rows, columns)

    @classmethod
    def create(cls, shape: tuple[int, int], slots: int = 16) -> "Ring":
        """Make a ring for records of `shape` in shared memory."""
        folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
        with tempfile.NamedTemporaryFile(prefix="robolearn-", dir=folder, delete=False) as file:
            file.truncate(_BODY + slots * (8 + 8 * shape[0] * shape[1]))
            file.write(_HEADER.pack(_MAGIC, slots, *shape))
        return cls.open(file.name)

    @classmethod
    def open(cls, path: str | Path) -> "Ring":
        """Map a ring that another process made."""
        with Path(path).open("r+b") as file:
            return cls(Path(path), mmap.mmap(file.fileno(), 0))

    def write(self, stamp_ns: int, values: np.ndarray) -> int:
        """Publish one record and return its number, from 1."""
        if np.shape(values) != self.shape:
            raise HardwareError("A record has the wrong shape.", found=np.shape(values), expected=self.shape)
        number = int(self._head[0]) + 1
        slot = number % len(self._stamps)
        self._stamps[slot] = stamp_ns
        self._values[slot] = values
        self._head[0] = number
        return number

    def latest(self) -> Record | None:
        """Return the newest record; None before the first."""
        while True:
            number = int(self._head[0])
            if number == 0:
                return None
            record = self._read(number)
            if record is not None:
                return record

    def since(self, number: int) -> list[Record]:
        """Return the records after `number` that are still there, oldest first."""
        newest = int(self._head[0])
        oldest = max(number, newest - len(self._stamps) + 2)
        records = [self._read(each) for each in range(oldest + 1, newest + 1)]
        return [record for record in records if record is not None]

    def _read(self, number: int) -> Record | None:
        slot = number % len(self._stamps)
        stamp, values = int(self._stamps[slot]), self._values[slot].copy()
        overtaken = int(self._head[0]) - number >= len(self._stamps) - 1  # the writer may be in this slot
        return None if overtaken else Record(number, stamp, values)

    def close(self) -> None:
        """Unmap the ring."""
        del self._head, self._stamps, self._values
        self._memory.close()

    def remove(self) -> None:
        """Unmap the ring and delete it; other processes keep their mapping."""
        self.close()
        self.path.unlink(missing_ok=True)
