"""ROS 2 messages without ROS: definitions are read as text and messages interpreted, no code is made of either.

Definitions: https://docs.ros.org/en/jazzy/Concepts/Basic/About-Interfaces.html; wire format: OMG CDR (XCDR1),
alignment counted from behind the four-byte encapsulation header.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from robolearn.errors import DataError

__all__ = [
    "Definitions",
    "MessageField",
    "decode_message",
    "encode_message",
    "full_name",
    "parse_definitions",
    "standard_definitions",
]

_NUMBERS = {
    "bool": "u1",
    "byte": "u1",
    "char": "u1",
    "octet": "u1",
    **{f"{kind}{bits}": f"{kind[0]}{bits // 8}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)},
}
_FIELD = re.compile(
    r"^(?P<type>[A-Za-z][\w/]*)(?:<=\d+)?(?P<array>\[(?:<=)?\d*\])?\s+(?P<name>[A-Za-z]\w*)(?P<rest>\s*(=)?.*)$"
)
_SEPARATOR = re.compile(r"^={3,}\s*$", re.MULTILINE)
_MAX_DEPTH = 16
_MAX_TEXT = 2**20
_SIZE_LIMIT = 2**31


@dataclass(frozen=True)
class MessageField:
    """One member: its name, its type, and its count (None: one value, -1: a sequence, else an array)."""

    name: str
    type: str
    count: int | None = None


Definitions = Mapping[str, tuple[MessageField, ...]]  # "package/msg/Name" → members


def parse_definitions(name: str, text: str, where: str) -> dict[str, tuple[MessageField, ...]]:
    """Return the message `name` and those that its concatenated definition `text` holds."""
    if len(text) > _MAX_TEXT:
        raise DataError(f"{where}: a message definition is too long.", found=len(text), expected=f"≤ {_MAX_TEXT}")
    result: dict[str, tuple[MessageField, ...]] = {}
    for number, part in enumerate(_SEPARATOR.split(text)):
        lines = part.strip().splitlines()
        current = name
        if number and lines and lines[0].startswith("MSG:"):
            current = full_name(lines.pop(0)[4:].strip())
        fields = [_field(line, current, where) for line in lines]
        result[full_name(current)] = tuple(field for field in fields if field is not None)
    return result


@cache
def standard_definitions() -> Definitions:
    """Return the messages that come with ROS 2 Jazzy, from the library `rosbags`."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    return {name: tuple(_standard(item) for item in fields) for name, (_, fields) in store.fielddefs.items()}


def decode_message(name: str, data: bytes | memoryview, definitions: Definitions, where: str) -> dict[str, Any]:
    """Return one message as nested dicts; sequences of numbers are arrays. Raises `DataError` when it is malformed."""
    if len(data) < 4 or data[0] != 0 or data[1] not in (0, 1):
        raise DataError(f"{where} is no plain CDR message.", found=bytes(data[:4]).hex(), expected="0000… or 0001…")
    reader = _Reader(memoryview(data)[4:], "<" if data[1] else ">", definitions, where)
    return reader.message(full_name(name), 0)


def encode_message(name: str, value: Mapping[str, Any], definitions: Definitions) -> bytes:
    """Return the little-endian CDR of one message; members that are not given are zero or empty."""
    body = bytearray()
    _write(body, name, value, definitions)
    return b"\0\1\0\0" + bytes(body)


def _write(body: bytearray, name: str, value: Mapping[str, Any], definitions: Definitions) -> None:
    fields = definitions[name]
    body += b"" if fields else b"\0"
    for field in fields:
        content = value.get(field.name)
        if field.count is None:
            _write_single(body, field.type, content, definitions)
            continue
        content = () if content is None else content
        if field.count < 0:
            _write_single(body, "uint32", len(content), definitions)
        if field.type in _NUMBERS and len(content):
            array = np.ascontiguousarray(np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content)
            body += b"\0" * (-len(body) % int(_NUMBERS[field.type][1]))
            body += array.astype("<" + _NUMBERS[field.type], copy=False).tobytes()
        elif field.type not in _NUMBERS:
            for item in content:
                _write_single(body, field.type, item, definitions)


def _write_single(body: bytearray, kind: str, value: Any, definitions: Definitions) -> None:
    if kind in _NUMBERS:
        code = _NUMBERS[kind]
        body += b"\0" * (-len(body) % int(code[1]))
        body += np.array(value or 0, "<" + code).tobytes()
    elif kind == "string":
        text = (value or "").encode() + b"\0"
        _write_single(body, "uint32", len(text), definitions)
        body += text
    else:
        _write(body, kind, value or {}, definitions)


def full_name(name: str) -> str:
    """Return "package/msg/Name" for "package/Name" too."""
    parts = name.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else name


def _field(line: str, owner: str, where: str) -> MessageField | None:
    line = line.split("#", 1)[0].strip()
    if not line or line.startswith("@"):
        return None
    match = _FIELD.match(line)
    if match is None:
        raise DataError(f"{where}: a line of the definition of {owner} is not understood.", found=line[:80])
    if match["rest"].lstrip().startswith("="):
        return None  # a constant
    kind = match["type"]
    if kind not in _NUMBERS and kind not in ("string", "wstring"):
        kind = full_name(kind) if "/" in kind else f"{owner.split('/')[0]}/msg/{kind}"
        kind = {"time/msg/time": "builtin_interfaces/msg/Time"}.get(kind, kind)
        if kind.endswith("/Header") and "/" not in match["type"]:
            kind = "std_msgs/msg/Header"
    array = match["array"]
    digits = (array or "").strip("[]")
    count = None if array is None else -1 if not digits or digits.startswith("<=") else int(digits)
    return MessageField(match["name"], kind, count)


def _standard(item: Any) -> MessageField:
    from rosbags.interfaces import Nodetype

    name, (node, content) = item
    count = None
    if node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        count = -1 if node == Nodetype.SEQUENCE else content[1]
        node, content = content[0]
    return MessageField(name, content[0] if node == Nodetype.BASE else content, count)


class _Reader:
    """A position in one message; every length is checked against the bytes that are left."""

    def __init__(self, data: memoryview, order: str, definitions: Definitions, where: str):
        self.data, self.order, self.definitions, self.where, self.at = data, order, definitions, where, 0

    def message(self, name: str, depth: int) -> dict[str, Any]:
        if name not in self.definitions or depth > _MAX_DEPTH:
            raise DataError(f"{self.where} uses an unknown message type or is nested too deeply.", found=name)
        fields = self.definitions[name]
        if not fields:  # an empty structure is one byte on the wire
            self.take(1)
        return {field.name: self.value(field, depth) for field in fields}

    def value(self, field: MessageField, depth: int) -> Any:
        if field.count is None:
            return self.single(field.type, depth)
        count = self.length(1) if field.count < 0 else field.count
        if field.type in _NUMBERS:
            dtype = np.dtype(self.order + _NUMBERS[field.type])
            if not count:
                return np.zeros(0, dtype.newbyteorder("="))
            self.align(dtype.itemsize)
            raw = self.take(count * dtype.itemsize)
            return np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="), copy=False)
        if count > len(self.data) - self.at:
            raise self.cut(count)
        return [self.single(field.type, depth) for _ in range(count)]

    def single(self, kind: str, depth: int) -> Any:
        if kind in _NUMBERS:
            code = _NUMBERS[kind]
            size = int(code[1])
            self.align(size)
            return np.frombuffer(self.take(size), self.order + code)[0].item()
        if kind == "string":
            return bytes(self.take(self.length(1))).rstrip(b"\0").decode(errors="replace")
        if kind == "wstring":
            count = self.length(2)
            return bytes(self.take(2 * count)).decode("utf-16-le" if self.order == "<" else "utf-16-be", "replace")
        return self.message(kind, depth + 1)

    def length(self, size: int) -> int:
        self.align(4)
        count = struct.unpack(self.order + "I", self.take(4))[0]
        if count * size > len(self.data) - self.at:
            raise self.cut(count * size)
        return count

    def align(self, size: int) -> None:
        self.at += -self.at % size

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at or size > _SIZE_LIMIT:
            raise self.cut(size)
        self.at += size
        return self.data[self.at - size : self.at]

    def cut(self, size: int) -> DataError:
        return DataError(f"{self.where} is cut.", found=f"{len(self.data) - self.at} bytes left", expected=size)
