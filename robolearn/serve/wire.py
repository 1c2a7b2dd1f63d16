"""The client's end of a web socket, without a thread of its own and without copies of what is sent.

The protocol is websockets' (https://websockets.readthedocs.io, "Sans-I/O"); only large frames are masked here, into
a buffer that stays: a fresh one of 300 kB costs more page faults than its contents cost to copy.
"""

import contextlib
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping

import numpy as np
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

__all__ = ["Wire"]

_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_HEAD = 16  # room for a frame's header, so that its payload is aligned
_CLOSE_S = 0.5


class Wire:
    """One connection to `uri`; raises `websockets` exceptions, `OSError` and `TimeoutError`.

    Nothing is answered while nobody calls: a server that pings drops a client that has nothing to ask.
    """

    def __init__(self, uri: str, headers: Mapping[str, str], timeout_s: float, max_bytes: int):
        address = parse_uri(uri)
        self._protocol = ClientProtocol(address, max_size=max_bytes)
        self._arrived: deque[Frame] = deque()
        self._frame = bytearray(_HEAD)
        self._socket = socket.create_connection((address.host, address.port), timeout_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.secure:
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=address.host)
            request = self._protocol.connect()
            request.headers.update(headers)
            self._protocol.send_request(request)
            self._flush()
            self._shake_hands(time.monotonic() + timeout_s)
        except BaseException:
            self._socket.close()
            raise

    def send(self, payload: memoryview) -> None:
        """Send one binary message."""
        frame = self._masked(payload)
        self._socket.settimeout(None)
        self._socket.sendall(frame)

    def recv(self, timeout_s: float | None) -> str | bytes:
        """Return the next message; raises `TimeoutError` when none comes in time."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        parts: list[bytes | bytearray | memoryview] = []
        text = False
        while True:
            while self._arrived:
                frame = self._arrived.popleft()
                text = text or frame.opcode is Opcode.TEXT
                parts.append(frame.data)
                if frame.fin:
                    message = b"".join(parts)
                    return message.decode() if text else message
            if self._protocol.state is State.CLOSED:
                raise self._protocol.close_exc
            self._receive(end_s)

    @property
    def open(self) -> bool:
        """Whether the connection still stands, after answering what came while nobody called."""
        with contextlib.suppress(OSError):
            while self._protocol.state is State.OPEN and select.select([self._socket], [], [], 0)[0]:
                self._receive(None)
        return self._protocol.state is State.OPEN

    def close(self) -> None:
        """Say goodbye, shortly."""
        with contextlib.suppress(OSError, ConnectionClosed):
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
                self._flush()
            end_s = time.monotonic() + _CLOSE_S
            while self._protocol.state is not State.CLOSED:
                self._receive(end_s)
        self._socket.close()

    def _masked(self, payload: memoryview) -> memoryview:
        """Return the frame of a binary message (RFC 6455, section 5.2)."""
        size = len(payload)
        if len(self._frame) < _HEAD + size:
            self._frame = bytearray(_HEAD + size)
        key = os.urandom(4)
        if size < 126:
            head = bytes((0x82, 0x80 | size)) + key
        elif size < 1 << 16:
            head = b"\x82\xfe" + size.to_bytes(2, "big") + key
        else:
            head = b"\x82\xff" + size.to_bytes(8, "big") + key
        start, whole = _HEAD - len(head), size - size % 8
        self._frame[start:_HEAD] = head
        source, target = np.frombuffer(payload, np.uint8), np.frombuffer(self._frame, np.uint8, size, _HEAD)
        mask = np.frombuffer(2 * key, np.uint8)
        np.bitwise_xor(source[:whole].view(np.uint64), mask.view(np.uint64), out=target[:whole].view(np.uint64))
        np.bitwise_xor(source[whole:], mask[: size - whole], out=target[whole:])
        return memoryview(self._frame)[start : _HEAD + size]

    def _shake_hands(self, end_s: float) -> None:
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            self._receive(end_s)
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc
        if self._protocol.state is State.CLOSED:
            raise InvalidMessage("the server hung up")

    def _receive(self, end_s: float | None) -> None:
        """Take what comes next and answer it as the protocol wants."""
        if end_s is None:
            self._socket.settimeout(None)
        else:
            self._socket.settimeout(max(end_s - time.monotonic(), 1e-6))
        data = self._socket.recv(1 << 16)
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self._flush()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in _DATA:
                self._arrived.append(event)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)
            else:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
