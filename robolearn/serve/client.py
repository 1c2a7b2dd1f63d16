"""The robot's side of a policy server: small, and free of everything but numpy, websockets and msgpack."""

import time
from collections.abc import Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed, WebSocketException

from robolearn.errors import WireError
from robolearn.serve.codec import DEFAULT_LIMITS, Limits, Packer, unpack
from robolearn.serve.wire import Wire

__all__ = ["WebsocketClientPolicy"]


class WebsocketClientPolicy:
    """Asks a policy server (ours or openpi's) for action chunks.

    Waits up to `wait_s` for the server. A reply that takes longer than `timeout_s` raises
    `WireError` and closes the connection: a late chunk must not answer the next question.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | None = 8000,
        api_key: str | None = None,
        wait_s: float = 30.0,
        timeout_s: float | None = 60.0,
        limits: Limits = DEFAULT_LIMITS,
    ):
        self._uri = host if host.startswith(("ws://", "wss://")) else f"ws://{host}"
        self._uri += "" if port is None else f":{port}"
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else {}
        self._wait_s, self._timeout_s, self._limits = wait_s, timeout_s, limits
        self._wire: Wire | None = None
        self._packer = Packer()
        self._metadata: dict[str, Any] = {}
        self._connect()

    def get_server_metadata(self) -> dict[str, Any]:
        """Return what the server said about itself when the connection was made."""
        return self._metadata

    def infer(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to one observation: "actions" [K,A] and timings.

        Raises `WireError` with the server's short text when it refuses the observation; the next
        call connects again, as does one after the server has dropped a client that was silent for long.
        """
        wire = self._wire if self._wire is not None and self._wire.open else self._connect()
        try:
            with self._packer.pack(dict(obs)) as message:
                wire.send(message)
            reply = wire.recv(self._timeout_s)
        except TimeoutError as error:
            self.close()
            raise WireError("The server did not answer in time.", expected=f"<= {self._timeout_s} s") from error
        except (ConnectionClosed, OSError) as error:
            self.close()
            raise WireError("The server closed the connection.", found=str(error), do="ask again") from error
        return self._read(reply)

    def reset(self) -> None:
        """Start a new episode: the server forgets the observation history of this client."""
        self.close()

    def close(self) -> None:
        """Close the connection; the next `infer` opens a new one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _connect(self) -> Wire:
        self.close()
        give_up = time.monotonic() + self._wait_s
        while True:
            try:
                self._wire = Wire(self._uri, self._headers, max(1.0, self._wait_s), self._limits.frame_bytes)
                self._metadata = self._read(self._wire.recv(self._timeout_s))
                return self._wire
            except ConnectionRefusedError as error:
                if time.monotonic() > give_up:
                    raise WireError(
                        f"No policy server at {self._uri}.", found=str(error), do="start it with `robolearn serve`"
                    ) from error
                time.sleep(0.1)
            except (WebSocketException, OSError) as error:
                self.close()
                raise WireError(f"The server at {self._uri} refused the connection.", found=str(error)) from error

    def _read(self, frame: str | bytes) -> dict[str, Any]:
        if isinstance(frame, str):
            self.close()
            raise WireError("The server refused the request.", found=frame[:2000])
        reply = unpack(frame, self._limits)
        if not isinstance(reply, dict):
            raise WireError("The server's reply is not a mapping.", found=type(reply).__name__)
        return reply
