"""Arrays over msgpack, in openpi's dialect; nothing that is decoded can execute or grow without bound.

An array is `{b"__ndarray__": True, b"data", b"dtype", b"shape"}` and a numpy scalar
`{b"__npgeneric__": True, b"data", b"dtype"}`. The msgpack-numpy dialect (`nd`, `type`, `kind`, `shape`, `data`)
and text instead of bytes keys are read too, never written.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from robolearn.errors import WireError

__all__ = ["DEFAULT_LIMITS", "Limits", "Packer", "pack", "unpack"]

_DTYPES = {dtype.str: dtype for dtype in map(np.dtype, ("u1", "i4", "i8", "f2", "f4", "f8", "?"))}
_MAX_TEXT_BYTES = 4096
_MAX_RANK = 5


@dataclass(frozen=True)
class Limits:
    """What one message may hold; a message over a limit is refused before anything is allocated for it."""

    frame_bytes: int = 16 << 20
    values: int = 20_000  # numbers, strings, arrays and containers together
    depth: int = 16


DEFAULT_LIMITS = Limits()


def pack(value: Any) -> bytes:
    """Return the message for plain data with numpy arrays and scalars.

    Raises `WireError` for what has no place on the wire: objects, records, complex numbers.
    """
    with Packer().pack(value) as message:
        return message.tobytes()


class Packer:
    """Packs message after message into one buffer that stays."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(default=_encode, autoreset=False)

    def pack(self, value: Any) -> memoryview:
        """Return the message as `pack` does; release it before the next call."""
        self._packer.reset()
        try:
            self._packer.pack(value)
        except (TypeError, ValueError, OverflowError) as error:
            problem = "A message cannot be packed."
            raise WireError(problem, found=str(error), expected="plain data and arrays") from error
        return self._packer.getbuffer()


def unpack(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Return what `pack` (ours, openpi's or msgpack-numpy's) was given; arrays are writable copies.

    Raises `WireError` for anything malformed or over `limits`.
    """
    if len(data) > limits.frame_bytes:
        raise WireError("A message is too large.", found=f"{len(data)} bytes", expected=f"<= {limits.frame_bytes}")
    _scan(data, limits)
    try:
        return msgpack.unpackb(data, object_hook=_decode, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise WireError("A message cannot be read.", found=str(error) or type(error).__name__) from error


# ---------------------------------------------------------------- arrays


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        _refuse_kind(value.dtype)
        return {b"__ndarray__": True, b"data": _bytes(value), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        _refuse_kind(value.dtype)
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__}")


def _bytes(value: np.ndarray) -> memoryview | bytes:
    """Return the array's bytes, not copied where they lie in order."""
    if value.dtype.kind == "U":
        return value.tobytes()
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data


def _refuse_kind(dtype: np.dtype) -> None:
    if dtype.kind not in "biufU":
        raise TypeError(f"an array of dtype {dtype}")


def _decode(raw: dict) -> Any:
    if _get(raw, "__ndarray__") is True:
        return _array(_get(raw, "data"), _get(raw, "dtype"), _get(raw, "shape"))
    if _get(raw, "__npgeneric__") is True:
        return _scalar(_get(raw, "data"), _get(raw, "dtype"))
    kind = _get(raw, "nd")
    if isinstance(kind, bool) and _has(raw, "type"):  # msgpack-numpy
        if _get(raw, "kind") not in (None, b"", ""):
            raise WireError("An array is of a refused kind.", found=_get(raw, "kind"), expected="plain numbers")
        array = _array(_get(raw, "data"), _get(raw, "type"), _get(raw, "shape") if kind else [])
        return array if kind else array[()]
    return raw


def _array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    if not isinstance(data, bytes) or not isinstance(shape, list | tuple):
        raise WireError("An array lacks its bytes or its shape.", expected="data, dtype and shape")
    if len(shape) > _MAX_RANK or not all(type(size) is int and size > 0 for size in shape):
        raise WireError(
            "An array has an impossible shape.", found=str(shape)[:80], expected=f"<= {_MAX_RANK} sizes > 0"
        )
    text = _text_bytes(dtype)
    if text is not None and not shape:
        return np.array(_text(data, text))
    known = _dtype(dtype)
    if math.prod(shape) * known.itemsize != len(data):
        raise WireError(
            "An array's bytes do not fill its shape.",
            found=f"{len(data)} bytes",
            expected=f"{known.str} {list(shape)}, {math.prod(shape) * known.itemsize} bytes",
        )
    if known.kind == "b" and any(byte > 1 for byte in set(data)):
        raise WireError("A bool array holds other bytes than 0 and 1.")
    return np.frombuffer(data, known).reshape(shape).copy()


def _scalar(data: Any, dtype: Any) -> np.generic:
    text = _text_bytes(dtype)
    if text is not None:
        if not isinstance(data, str) or 4 * len(data) > text:
            raise WireError("A text scalar does not fit its dtype.", found=str(data)[:80], expected=dtype)
        return np.str_(data)
    known = _dtype(dtype)
    fits = {"b": bool, "i": int, "u": int, "f": float}[known.kind]
    if type(data) is not fits:
        raise WireError("A scalar is not of its dtype.", found=type(data).__name__, expected=known.str)
    try:
        with np.errstate(over="raise"):
            return known.type(data)
    except (OverflowError, FloatingPointError) as error:
        raise WireError("A scalar does not fit its dtype.", found=data, expected=known.str) from error


def _dtype(name: Any) -> np.dtype:
    plain = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    known = _DTYPES.get(plain) if isinstance(plain, str) else None
    if known is None:
        raise WireError("An array has a refused dtype.", found=str(plain)[:40], expected=", ".join(_DTYPES))
    return known


def _text_bytes(name: Any) -> int | None:
    """Return the byte count of the dtype `<U…`; None for any other."""
    plain = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(plain, str) or not plain.startswith("<U") or not plain[2:].isascii() or not plain[2:].isdigit():
        return None
    if len(plain) > 6 or not 0 <= 4 * int(plain[2:]) <= _MAX_TEXT_BYTES:
        raise WireError("A text is too long.", found=plain[:40], expected=f"<= {_MAX_TEXT_BYTES} bytes")
    return 4 * int(plain[2:])


def _text(data: bytes, size: int) -> str:
    if len(data) != size:
        raise WireError("A text does not fill its dtype.", found=f"{len(data)} bytes", expected=f"{size} bytes")
    try:
        return data.decode("utf-32-le").rstrip("\0")
    except UnicodeDecodeError as error:
        raise WireError("A text is not valid Unicode.") from error


def _get(raw: Mapping, name: str) -> Any:
    return raw.get(name.encode(), raw.get(name))


def _has(raw: Mapping, name: str) -> bool:
    return name.encode() in raw or name in raw


# ---------------------------------------------------------------- headers

_MAP, _LIST, _BYTES, _FIXED = range(4)
# first byte → (what follows, bytes of the length or of the value)
_HEADERS = {
    0xC0: (_FIXED, 0), 0xC2: (_FIXED, 0), 0xC3: (_FIXED, 0),  # nil, false, true
    0xC4: (_BYTES, 1), 0xC5: (_BYTES, 2), 0xC6: (_BYTES, 4),  # bin
    0xCA: (_FIXED, 4), 0xCB: (_FIXED, 8),  # float
    0xCC: (_FIXED, 1), 0xCD: (_FIXED, 2), 0xCE: (_FIXED, 4), 0xCF: (_FIXED, 8),  # unsigned
    0xD0: (_FIXED, 1), 0xD1: (_FIXED, 2), 0xD2: (_FIXED, 4), 0xD3: (_FIXED, 8),  # signed
    0xD9: (_BYTES, 1), 0xDA: (_BYTES, 2), 0xDB: (_BYTES, 4),  # text
    0xDC: (_LIST, 2), 0xDD: (_LIST, 4), 0xDE: (_MAP, 2), 0xDF: (_MAP, 4),
}  # fmt: skip


def _scan(data: bytes, limits: Limits) -> None:
    """Walk the headers of a message: complete, nothing behind its end, within `limits`, no extension types."""
    size, position, values = len(data), 0, 0
    waiting = [1]  # values still to come, per open container
    while waiting:
        if waiting[-1] == 0:
            waiting.pop()
            continue
        waiting[-1] -= 1
        values += 1
        if position >= size:
            raise WireError("A message is cut.", found=f"{size} bytes")
        kind, count, position = _header(data, position)
        if kind == _BYTES:
            position += count
        elif kind != _FIXED:
            waiting.append(2 * count if kind == _MAP else count)
            values_to_come = values + waiting[-1]
            if values_to_come > limits.values or len(waiting) > limits.depth + 1:
                raise WireError(
                    "A message holds too much or nests too deep.",
                    found=f"{values_to_come} values at depth {len(waiting) - 1}",
                    expected=f"<= {limits.values} values, depth <= {limits.depth}",
                )
        if values > limits.values:
            raise WireError("A message holds too many values.", expected=f"<= {limits.values}")
    if position != size:
        raise WireError("A message is cut or has bytes behind its end.", found=size, expected=f"{position} bytes")


def _header(data: bytes, position: int) -> tuple[int, int, int]:
    """Return what the header at `position` announces, how much of it, and where its content starts."""
    head = data[position]
    position += 1
    if head <= 0x7F or head >= 0xE0:
        return _FIXED, 0, position
    if head <= 0x8F:
        return _MAP, head & 0x0F, position
    if head <= 0x9F:
        return _LIST, head & 0x0F, position
    if head <= 0xBF:
        return _BYTES, head & 0x1F, position
    if head not in _HEADERS:
        raise WireError("A message holds a refused type.", found=f"msgpack type 0x{head:02x}")
    kind, width = _HEADERS[head]
    if kind == _FIXED:
        return _FIXED, 0, position + width
    length = data[position : position + width]
    if len(length) < width:
        raise WireError("A message is cut.", found=f"{len(data)} bytes")
    return kind, int.from_bytes(length, "big"), position + width
