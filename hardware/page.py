"""Teleoperation from a page in a browser on this machine: pictures, keys, gamepad, marks, live signals."""

import asyncio
import hmac
import http
import json
import math
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from robolearn.hardware.observe import Reading
from robolearn.hardware.teleop import MARKS, Twist

__all__ = ["Page"]

_FRESH_S = 0.25  # a page that falls silent asks for nothing


class Page:
    """Serves the page on 127.0.0.1 and is its `Device`; `url` holds a secret that the page must know."""

    def __init__(self, port: int = 0):
        self._secret = secrets.token_urlsafe(16)
        self._twist, self._heard_s, self._marks = Twist(), -math.inf, list[str]()
        self._clients: set[ServerConnection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="teleop-page")
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(port), self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/?key={self._secret}"

    def read(self) -> Twist:
        """Return what the page asks for now; nothing when it has been silent for a quarter of a second."""
        twist = self._twist if time.monotonic() - self._heard_s < _FRESH_S else Twist()
        mark: Any = self._marks.pop(0) if self._marks else ""
        return Twist(twist.linear, twist.yaw, twist.gripper, mark)

    def show(self, reading: Reading, signals: Mapping[str, float | str]) -> None:
        """Send the reading's pictures and the signals to the page."""
        import cv2

        frames = [json.dumps({"signals": dict(signals)})]
        for name, pixels in reading.images.items():
            good, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
            if good:
                frames.append(name.encode()[:64].ljust(64, b" ") + data.tobytes())
        self._loop.call_soon_threadsafe(self._send, frames)

    def close(self) -> None:
        """Stop serving."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # ------------------------------------------------------------ in the loop's thread

    async def _start(self, port: int) -> Any:
        return await serve(self._client, "127.0.0.1", port, process_request=self._admit, max_size=4096)

    async def _stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _send(self, frames: list[str | bytes]) -> None:
        for frame in frames:
            broadcast(self._clients, frame)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        path, _, query = request.path.partition("?")
        host = request.headers.get("Host", "")
        known = hmac.compare_digest(query.encode(), f"key={self._secret}".encode())
        origin = request.headers.get("Origin", f"http://{host}")
        if not known or host not in (f"127.0.0.1:{self.port}", f"localhost:{self.port}") or origin != f"http://{host}":
            return connection.respond(http.HTTPStatus.FORBIDDEN, "open the address that robolearn printed\n")
        if path == "/":
            body = (Path(__file__).parent / "page.html").read_bytes()
            headers = Headers([("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
            return Response(200, "OK", headers, body)
        return None if path == "/ws" else connection.respond(http.HTTPStatus.NOT_FOUND, "no such page\n")

    async def _client(self, connection: ServerConnection) -> None:
        self._clients.add(connection)
        try:
            async for frame in connection:
                twist, mark = _parse(frame)
                if twist is not None:
                    self._twist, self._heard_s = twist, time.monotonic()
                if mark:
                    self._marks = [*self._marks[-7:], mark]
        finally:
            self._clients.discard(connection)
            self._twist = Twist()


def _parse(frame: str | bytes) -> tuple[Twist | None, str]:
    """Return the twist and mark of a frame; nothing of a frame that is not what our page sends."""
    try:
        data = json.loads(frame)
    except (ValueError, RecursionError):
        return None, ""
    if not isinstance(data, dict):
        return None, ""
    mark = data.get("mark") if data.get("mark") in MARKS else ""
    axes = data.get("axes")
    if (
        not isinstance(axes, list)
        or len(axes) != 5
        or not all(type(a) in (int, float) and math.isfinite(a) for a in axes)
    ):
        return None, str(mark)
    x, y, z, yaw, gripper = (min(max(float(a), -1.0), 1.0) for a in axes)
    return Twist((x, y, z), yaw, gripper), str(mark)
