"""Recorded messages in files, read without trust: MCAP and the sqlite storage of rosbag2.

MCAP: https://mcap.dev/spec. A file that was never finished is read as far as it goes, as MCAP intends;
a record that is damaged is refused. Sizes are checked before memory is taken.
"""

import sqlite3
import struct
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from robolearn.data.cdr import Definitions, full_name, parse_definitions, standard_definitions
from robolearn.errors import DataError, MissingLibraryError

__all__ = ["BagFile", "Channel", "Record", "open_bag_file"]

_MAGIC = b"\x89MCAP0\r\n"
_CHUNK_LIMIT = 2**30
_MESSAGE_LIMIT = 256 * 2**20
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _METADATA, _DATA_END = 3, 4, 5, 6, 12, 15
_PLAIN = {1, 2, _SCHEMA, _CHANNEL, _MESSAGE, 7, 8, 9, 10, 11, _METADATA, 13, 14, _DATA_END}


@dataclass(frozen=True)
class Channel:
    """One topic: the type of its messages and what that type is made of."""

    topic: str
    type: str
    definitions: Definitions


@dataclass(frozen=True)
class Record:
    """One message: its topic, when it was logged, its bytes, and where `payload` finds them again."""

    topic: str
    log_ns: int
    data: bytes
    place: tuple[int, int]


class BagFile(Protocol):
    """One file of messages."""

    path: Path

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Return the topics by name."""

    @property
    def metadata(self) -> Mapping[str, Mapping[str, str]]:
        """Return the named texts that were stored beside the messages."""

    def records(self) -> Iterator[Record]:
        """Yield every message in the order of the file."""

    def payload(self, place: tuple[int, int]) -> bytes:
        """Return the bytes of one message again."""


def open_bag_file(path: Path) -> BagFile:
    """Open `path` by its ending: .mcap or .db3."""
    if path.suffix == ".mcap":
        return McapFile(path)
    if path.suffix == ".db3":
        return SqliteFile(path)
    raise DataError(f"{path} is no recording.", expected=".mcap or .db3", do="decompress it first: zstd -d FILE")


# ---------------------------------------------------------------- MCAP


@dataclass
class McapFile:
    """An MCAP file; `channels` and `metadata` are known after `records` went through it once."""

    path: Path
    channels: dict[str, Channel] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self):
        self._schemas: dict[int, tuple[str, str, bytes]] = {}
        self._topics: dict[int, str] = {}
        self._held: tuple[int, bytes] = (-1, b"")

    def records(self) -> Iterator[Record]:
        """Yield every message; channels appear before their first message."""
        with self._opened() as (file, size):
            while file.tell() + 9 <= size:
                start = file.tell()
                code, length = struct.unpack("<BQ", file.read(9))
                if code == 0 or (code < 0x80 and code not in _PLAIN and code != _CHUNK):
                    raise self._bad(f"an unknown record {code} at byte {start}")
                if length > size - file.tell():
                    return  # never finished: the last record is not there
                if length > (_CHUNK_LIMIT if code == _CHUNK else _MESSAGE_LIMIT):
                    raise self._bad(f"a record of {length} bytes at byte {start}")
                if code == _DATA_END:
                    return
                if code not in (_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _METADATA):
                    file.seek(length, 1)
                elif code == _CHUNK:
                    yield from self._chunk(file.read(length), start)
                else:
                    yield from self._record(code, file.read(length), (-1, start + 9))

    def payload(self, place: tuple[int, int]) -> bytes:
        """Return the bytes of one message again; the last chunk is kept."""
        chunk, at = place
        with self._opened() as (file, _):
            if chunk < 0:
                file.seek(at - 8)
                return file.read(struct.unpack("<Q", file.read(8))[0])[22:]
            if self._held[0] != chunk:
                file.seek(chunk + 1)
                content = file.read(struct.unpack("<Q", file.read(8))[0])
                self._held = (chunk, self._unpacked(content, chunk))
        length = struct.unpack_from("<Q", self._held[1], at - 8)[0]
        return self._held[1][at + 22 : at + length]

    @contextmanager
    def _opened(self) -> Generator[tuple[Any, int]]:
        try:
            with self.path.open("rb") as file:
                if file.read(8) != _MAGIC:
                    raise self._bad("no MCAP magic at its start")
                yield file, self.path.stat().st_size
        except FileNotFoundError as error:
            raise DataError(f"{self.path} does not exist.", do="check the dataset's path") from error
        except (OSError, struct.error, UnicodeDecodeError) as error:
            raise self._bad(str(error)[:120]) from error

    def _bad(self, what: str) -> DataError:
        return DataError(f"{self.path} is no readable MCAP file.", found=what, do="restore it, or run `mcap recover`")

    def _chunk(self, content: bytes, start: int) -> Iterator[Record]:
        body = self._unpacked(content, start)
        at = 0
        while at < len(body):
            code, length = struct.unpack_from("<BQ", body, at)
            if code not in (_SCHEMA, _CHANNEL, _MESSAGE) or length > len(body) - at - 9:
                raise self._bad(f"a damaged record in the chunk at byte {start}")
            yield from self._record(code, body[at + 9 : at + 9 + length], (start, at + 9))
            at += 9 + length

    def _unpacked(self, content: bytes, start: int) -> bytes:
        size, crc, count = struct.unpack_from("<QII", content, 16)
        name = content[32 : 32 + count].decode()
        length = struct.unpack_from("<Q", content, 32 + count)[0]
        packed = content[40 + count :]
        where = f"the chunk at byte {start}"
        if len(packed) != length or size > _CHUNK_LIMIT:
            raise self._bad(f"{where} declares {length} bytes that become {size}")
        body = packed if name == "" else self._decompressed(name, packed, size, where)
        if len(body) != size or (crc and zlib.crc32(body) != crc):
            raise self._bad(f"{where} fails its checksum")
        return body

    def _decompressed(self, name: str, packed: bytes, size: int, where: str) -> bytes:
        """Return at most one byte more than was declared, whatever the compressed data says."""
        unpack = {"zstd": _unzstd, "lz4": _unlz4}.get(name)
        if unpack is None:
            raise self._bad(f"{where} is compressed by '{name[:20]}'")
        try:
            return unpack(packed, size + 1)
        except ModuleNotFoundError as error:
            raise MissingLibraryError(
                f"{self.path} needs the library '{error.name}'.", do="pip install 'robolearn[ros]'"
            ) from error
        except (RuntimeError, ValueError) as error:
            raise self._bad(f"{where}: {error}") from error

    def _record(self, code: int, content: bytes, place: tuple[int, int]) -> Iterator[Record]:
        if code == _MESSAGE:
            number, _, log_ns, _ = struct.unpack_from("<HIQQ", content)
            if number not in self._topics:
                raise self._bad(f"a message of the unknown channel {number}")
            if log_ns >= 2**63:
                raise self._bad(f"a message at {log_ns} ns")
            yield Record(self._topics[number], log_ns, content[22:], place)
        elif code == _SCHEMA:
            (number,), rest = struct.unpack_from("<H", content), content[2:]
            name, rest = _text(rest)
            encoding, rest = _text(rest)
            self._schemas[number] = (name, encoding, rest[4:])
        elif code == _CHANNEL:
            (number, schema), rest = struct.unpack_from("<HH", content), content[4:]
            topic, rest = _text(rest)
            encoding, _ = _text(rest)
            self._topics[number] = topic
            self._add(topic, schema, encoding)
        else:
            name, rest = _text(content)
            self.metadata[name] = _pairs(rest)

    def _add(self, topic: str, schema: int, encoding: str) -> None:
        name, kind, text = self._schemas.get(schema, ("", "", b""))
        readable = encoding == "cdr" and kind == "ros2msg"
        definitions = parse_definitions(name, text.decode(), f"{self.path}: {topic}") if readable else {}
        known = self.channels.get(topic)
        if known is not None and known.type != full_name(name):
            raise self._bad(f"the topic {topic} with two types, {known.type} and {name}")
        self.channels[topic] = Channel(topic, full_name(name), definitions)


def _unzstd(packed: bytes, limit: int) -> bytes:
    import zstandard

    try:
        return zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(packed).read(limit)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _unlz4(packed: bytes, limit: int) -> bytes:
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=limit)


def _text(content: bytes) -> tuple[str, bytes]:
    (count,) = struct.unpack_from("<I", content)
    if count > len(content) - 4:
        raise struct.error("a text is longer than its record")
    return content[4 : 4 + count].decode(), content[4 + count :]


def _pairs(content: bytes) -> dict[str, str]:
    (count,) = struct.unpack_from("<I", content)
    rest, result = content[4 : 4 + count], {}
    while rest:
        key, rest = _text(rest)
        result[key], rest = _text(rest)
    return result


# ---------------------------------------------------------------- sqlite


class SqliteFile:
    """One .db3 file of rosbag2."""

    def __init__(self, path: Path):
        self.path = path
        self.metadata: dict[str, dict[str, str]] = {}
        if not path.exists():
            raise DataError(f"{path} does not exist.", do="check the dataset's path")
        journal = path.with_name(path.name + "-wal")
        if journal.exists() and journal.stat().st_size:
            raise DataError(
                f"{path} was not closed.", found=journal.name, do=f"fold it in: sqlite3 {path} 'PRAGMA wal_checkpoint'"
            )
        with self._reading() as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"topics", "messages"} <= tables:
                raise DataError(f"{path} is no rosbag2 storage.", found=sorted(tables), expected="topics, messages")
            texts: dict[str, str] = {}
            if "message_definitions" in tables:
                columns = "topic_type, encoded_message_definition, encoding"
                rows = connection.execute(f"SELECT {columns} FROM message_definitions")
                texts = {str(name): str(text) for name, text, encoding in rows if encoding == "ros2msg"}
            rows = connection.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
        if not all(isinstance(number, int) for number, *_ in rows):
            raise DataError(f"{path}: a topic is damaged.", do="restore the file")
        self._topics = {int(number): str(topic) for number, topic, _, _ in rows}
        self.channels = {
            str(topic): Channel(str(topic), full_name(str(kind)), self._definitions(str(kind), texts, form == "cdr"))
            for _, topic, kind, form in rows
        }

    def records(self) -> Iterator[Record]:
        """Yield every message in the order of time."""
        with self._reading() as connection:
            for row, number, log_ns, data in connection.execute(
                "SELECT id, topic_id, timestamp, data FROM messages ORDER BY timestamp, id"
            ):
                if number not in self._topics or not isinstance(log_ns, int) or not isinstance(data, bytes):
                    raise DataError(f"{self.path}: the message {row} is damaged.", do="restore the file")
                yield Record(self._topics[number], log_ns, data, (0, row))

    def payload(self, place: tuple[int, int]) -> bytes:
        """Return the bytes of one message again."""
        with self._reading() as connection:
            found = connection.execute("SELECT data FROM messages WHERE id = ?", (place[1],)).fetchone()
        return bytes(found[0])

    def _definitions(self, kind: str, texts: Mapping[str, str], readable: bool) -> Definitions:
        if not readable:
            return {}
        if kind in texts:
            return parse_definitions(kind, texts[kind], f"{self.path}: {kind}")
        standard = standard_definitions()
        return standard if full_name(kind) in standard else {}

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        """Open the database read-only; it is not changed, and nothing in it runs."""
        try:
            where = f"file:{quote(str(self.path.resolve()))}?mode=ro&immutable=1"
            with closing(sqlite3.connect(where, uri=True)) as connection:
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MESSAGE_LIMIT)
                connection.execute("PRAGMA trusted_schema = OFF")
                yield connection
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            raise DataError(
                f"{self.path} is no readable rosbag2 storage.", found=str(error)[:160], do="restore the file"
            ) from error
