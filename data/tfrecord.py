"""TFRecord files and the tf.train.Example inside, without TensorFlow: framing, checksums, wire format.

A record is its length (uint64), the masked CRC-32C of the length, the bytes, and their masked CRC-32C:
https://www.tensorflow.org/tutorials/load_data/tfrecord. An Example is a protobuf map of name to a list of
bytes, floats or integers. Pictures are skipped, not copied, until they are asked for.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolearn.errors import DataError

__all__ = ["Example", "RecordFile", "masked_crc"]

_BYTES, _FLOATS, _INTEGERS = 1, 2, 3
_MAX_FEATURES = 10_000


def masked_crc(data: bytes | memoryview | np.ndarray) -> int:
    """Return the CRC-32C of `data`, rotated and offset as TFRecord stores it."""
    import google_crc32c

    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class RecordFile:
    """One TFRecord file: where its records are; each is checked when it is read."""

    def __init__(self, path: Path):
        self.path = path
        self._data = _mapped(path)
        self._spans = list(self._index())

    def __len__(self) -> int:
        return len(self._spans)

    def __reduce__(self) -> tuple:
        return RecordFile, (self.path,)

    def skim(self, number: int) -> "Example":
        """Return one record unchecked: of its bytes only the names and sizes are touched."""
        start, stop = self._spans[number]
        return Example(self._data[start:stop], f"{self.path}: record {number}")

    def read(self, number: int) -> "Example":
        """Return one record; raises `DataError` when its checksum does not hold."""
        start, stop = self._spans[number]
        (stored,) = struct.unpack("<I", self._data[stop : stop + 4].tobytes())
        if masked_crc(self._data[start:stop]) != stored:
            raise DataError(f"{self.path}: record {number} is damaged.", found="another checksum", do="restore it")
        return self.skim(number)

    def _index(self) -> Iterator[tuple[int, int]]:
        at, size = 0, len(self._data)
        while at < size:
            head = self._data[at : at + 12].tobytes()
            if len(head) < 12 or masked_crc(head[:8]) != struct.unpack("<I", head[8:])[0]:
                raise DataError(f"{self.path} is no TFRecord file, or is damaged at byte {at}.", do="restore it")
            (length,) = struct.unpack("<Q", head[:8])
            if length > size - at - 16:
                raise DataError(f"{self.path} is cut.", found=f"{size - at - 16} bytes", expected=length)
            yield at + 12, at + 12 + length
            at += length + 16


@dataclass(frozen=True)
class _Values:
    kind: int
    start: int
    stop: int


class Example:
    """The features of one record by name, decoded when they are asked for."""

    def __init__(self, data: np.ndarray, where: str):
        self._data, self._where = data, where
        self._features: dict[str, _Values] = {}
        for number, start, stop in self._fields(0, len(data)):
            if number == 1:
                self._read_map(start, stop)

    @property
    def names(self) -> Mapping[str, object]:
        """Every feature's name."""
        return self._features

    def count(self, name: str) -> int:
        """Return how many values a feature has."""
        values = self._values(name)
        if values.kind == _BYTES:
            return sum(1 for _ in self._fields(values.start, values.stop))
        return len(self.numbers(name))

    def numbers(self, name: str) -> np.ndarray:
        """Return a list of floats as float32 [n], of integers as int64 [n]."""
        values = self._values(name)
        if values.kind == _BYTES:
            raise DataError(f"{self._where}: {name} holds no numbers.")
        dtype = "<f4" if values.kind == _FLOATS else "<i8"
        parts = [np.zeros(0, dtype)]
        at = values.start
        while at < values.stop:
            tag, at = self._varint(at, values.stop)
            if tag == 10:  # packed
                length, at = self._varint(at, values.stop)
                if length > values.stop - at:
                    raise self._bad(f"{name} is cut")
                block = self._data[at : at + length]
                if values.kind == _FLOATS and length % 4:
                    raise self._bad(f"{name} is cut")
                parts.append(
                    block.copy().view(dtype) if values.kind == _FLOATS else _varints(block, f"{self._where}: {name}")
                )
                at += length
            elif tag == 13 and values.kind == _FLOATS and at + 4 <= values.stop:
                parts.append(self._data[at : at + 4].copy().view(dtype))
                at += 4
            elif tag == 8 and values.kind == _INTEGERS:
                value, at = self._varint(at, values.stop)
                parts.append(np.array([value], np.uint64).view(dtype))
            else:
                raise self._bad(f"{name} has the tag {tag}")
        return np.concatenate(parts)

    def texts(self, name: str) -> list[bytes]:
        """Return a list of bytes."""
        return [self._data[start:stop].tobytes() for start, stop in self.spans(name)]

    def spans(self, name: str) -> list[tuple[int, int]]:
        """Return where each of a list of bytes is, for `content`."""
        values = self._values(name)
        if values.kind != _BYTES:
            raise DataError(f"{self._where}: {name} holds numbers, not bytes.")
        return [(start, stop) for number, start, stop in self._fields(values.start, values.stop) if number == 1]

    def content(self, span: tuple[int, int]) -> bytes:
        """Return the bytes of a span."""
        return self._data[span[0] : span[1]].tobytes()

    def _values(self, name: str) -> _Values:
        if name not in self._features:
            raise DataError(f"{self._where} lacks {name}.", found=", ".join(list(self._features)[:8]))
        return self._features[name]

    def _read_map(self, start: int, stop: int) -> None:
        for number, first, last in self._fields(start, stop):
            if number != 1:
                continue
            parts = {part: (a, b) for part, a, b in self._fields(first, last)}
            name = self._data[slice(*parts.get(1, (0, 0)))].tobytes().decode(errors="replace")
            for kind, a, b in self._fields(*parts.get(2, (0, 0))):
                self._features[name] = _Values(kind, a, b)
            if len(self._features) > _MAX_FEATURES:
                raise self._bad("too many features")

    def _fields(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (field number, first byte, end) of every length-delimited field."""
        at = start
        while at < stop:
            tag, at = self._varint(at, stop)
            if tag & 7 != 2:
                raise self._bad(f"the tag {tag} at byte {at}")
            length, at = self._varint(at, stop)
            if length > stop - at:
                raise self._bad(f"{length} bytes at byte {at}")
            yield tag >> 3, at, at + length
            at += length

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        value = shift = 0
        while at < stop and shift < 64:
            byte = int(self._data[at])
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (2**64 - 1), at
            shift += 7
        raise self._bad(f"a number at byte {at}")

    def _bad(self, what: str) -> DataError:
        return DataError(f"{self._where} is no tf.train.Example.", found=what, do="restore the file")


def _varints(block: np.ndarray, where: str) -> np.ndarray:
    """Return packed varints as int64."""
    ends = np.flatnonzero(block < 128)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    widths = ends - starts + 1
    if (len(block) and (not len(ends) or ends[-1] != len(block) - 1)) or (widths > 10).any():
        raise DataError(f"{where} holds damaged integers.", do="restore the file")
    values = np.zeros(len(ends), np.uint64)
    for byte in range(int(widths.max(initial=0))):
        here = widths > byte
        values[here] |= (block[starts[here] + byte] & 127).astype(np.uint64) << np.uint64(7 * byte)
    return values.view(np.int64)


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    except OSError as error:
        raise DataError(f"{path} cannot be read.", found=error.strerror, do="restore the file") from error
