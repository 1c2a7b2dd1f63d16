"""A policy behind a web socket, in openpi's protocol.

On connect the server sends one binary metadata frame; each binary observation is answered by one
binary reply. Anything wrong is answered by one short text frame and close code 1011.
`GET /healthz` answers 200 OK.
"""

import asyncio
import ctypes
import hmac
import http
import ipaddress
import logging
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from robolearn.buffer import ObservationBuffer
from robolearn.contracts import Actor, Corrector
from robolearn.errors import ConfigError, RobolearnError, WireError
from robolearn.seeding import policy_noise
from robolearn.serve.codec import DEFAULT_LIMITS, Limits, pack, unpack
from robolearn.serve.keys import PRESETS, Keys, to_observation

__all__ = ["PolicyServer", "ServerConfig", "run"]

_log = logging.getLogger(__name__)
_ROW = np.zeros(1, np.int64)
_BRIEF_S = 0.002
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class ServerConfig:
    """Where to listen and whom to trust; another address than this machine needs a token and TLS."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None  # at least 22 characters: 128 bit in base64
    certificate: str | None = None  # PEM files
    private_key: str | None = None
    insecure: bool = False  # allow another address without TLS
    preset: str | None = None
    execute: int = 8  # actions of each chunk that a policy which corrects every step executes
    temperature: float = 1.0  # of the policy's noise, as it was evaluated
    max_clients: int = 128
    ping_interval_s: float | None = 20.0
    ping_timeout_s: float | None = 20.0
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self):
        if self.token is not None and len(self.token) < 22:
            raise ConfigError(
                "The server's token is too short.",
                found=f"{len(self.token)} characters",
                expected="at least 22 (128 bit)",
                do="python -c 'import secrets; print(secrets.token_urlsafe(16))'",
            )
        if not 0 <= self.port <= 65535:
            raise ConfigError(
                "server.port is out of range.", found=self.port, expected="0 to 65535; 0 takes a free one"
            )
        if self.execute < 1:
            raise ConfigError("server.execute is too small.", found=self.execute, expected="1 or more")
        if not 0 <= self.temperature <= 10:
            raise ConfigError("server.temperature is out of range.", found=self.temperature, expected="0 to 10")
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError("TLS needs both a certificate and a private key.")
        if self.preset is not None and self.preset not in PRESETS:
            raise ConfigError("Unknown key preset.", found=self.preset, expected=", ".join(PRESETS))
        if not _is_loopback(self.host):
            if self.token is None:
                raise ConfigError("Another address than this machine needs a token.", found=self.host, do="set `token`")
            if self.certificate is None and not self.insecure:
                raise ConfigError(
                    "Another address than this machine needs TLS.",
                    found=self.host,
                    do="set `certificate` and `private_key`, or `insecure=true` on a network you trust",
                )


class PolicyServer:
    """Serves one actor to several clients, one inference at a time.

    Inference runs in a thread of its own; one that took less than 2 ms the last time is not worth the way there
    and back. Each connection is an episode with its own observation history and noise.
    """

    def __init__(self, actor: Actor, config: ServerConfig, metadata: Mapping[str, Any] | None = None, seed: int = 0):
        self.actor, self.config, self.seed = actor, config, seed
        self._keys: Keys | None = PRESETS[config.preset] if config.preset else None
        self._metadata = pack({"robot": actor.spec.robot, "rate_hz": actor.spec.rate_hz} | dict(metadata or {}))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._inferring = 0  # requests in or before the thread
        self._infer_s = float("inf")  # how long the last one took
        self._episodes = 0
        self._clients = 0
        self._server: Server | None = None

    async def start(self) -> int:
        """Listen; returns the port (useful with port 0)."""
        config = self.config
        context = None
        if config.certificate is not None and config.private_key is not None:
            context = _tls(Path(config.certificate), Path(config.private_key))
        self._server = await serve(
            self._client,
            config.host,
            config.port,
            process_request=self._admit,
            origins=[None],  # robots send no Origin; a web page on this machine would
            compression=None,
            max_queue=2,
            max_size=config.limits.frame_bytes,
            ping_interval=config.ping_interval_s,
            ping_timeout=config.ping_timeout_s,
            ssl=context,
            logger=_log.getChild("websocket"),
        )
        return self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close every connection and wait for the inference in flight."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self._thread.shutdown()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self.config.token is not None:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Api-Key {self.config.token}".encode()):
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "a valid token is required\n")
        if self._clients >= self.config.max_clients:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many clients\n")
        return None

    async def _client(self, connection: ServerConnection) -> None:
        self._clients += 1
        session = _Session(self.actor, self._keys, self.seed, self._episodes, self.config)
        self._episodes += 1
        try:
            await connection.send(self._metadata)
            await self._answer(connection, session)
        except ConnectionClosed:
            pass
        finally:
            self._clients -= 1

    async def _answer(self, connection: ServerConnection, session: "_Session") -> None:
        previous_s: float | None = None
        async for frame in connection:
            start = time.perf_counter()
            try:
                if isinstance(frame, str):
                    raise WireError("A request is text.", expected="a binary msgpack frame")
                obs = session.observe(unpack(frame, self.config.limits))
                reply = await self._infer(session, obs)
                if previous_s is not None:
                    reply["server_timing"]["prev_total_ms"] = 1e3 * previous_s
            except RobolearnError as error:
                return await _refuse(connection, str(error).split("\n  do:")[0][:500])
            except Exception:  # noqa: BLE001 one broken request must not end the server; the log has the traceback
                _log.exception("inference failed")
                return await _refuse(connection, "internal error")
            await connection.send(pack(reply))
            previous_s = time.perf_counter() - start
        return None

    async def _infer(self, session: "_Session", obs: dict[str, np.ndarray]) -> dict[str, Any]:
        if self._infer_s < _BRIEF_S and not self._inferring:
            reply = session.infer(obs)
        else:
            self._inferring += 1
            try:
                reply = await asyncio.get_running_loop().run_in_executor(self._thread, session.infer, obs)
            finally:
                self._inferring -= 1
        self._infer_s = 1e-3 * reply["policy_timing"]["infer_ms"]
        return reply


class _Session:
    """History, noise and decisions of one connection.

    A policy that corrects every step answers with one action at a time: one request is one control step.
    """

    def __init__(self, actor: Actor, keys: Keys | None, seed: int, episode: int, config: ServerConfig):
        self.actor, self.keys, self.seed, self.episode = actor, keys, seed, episode
        self.decision = 0
        self._execute, self._temperature = min(config.execute, actor.spec.chunk), np.float32(config.temperature)
        self._rest = np.zeros((0, actor.spec.action.dim))  # of the running chunk, for policies that correct
        self._buffer = ObservationBuffer(1, actor.spec.history, 1.0 / actor.spec.rate_hz)

    def observe(self, message: Any) -> dict[str, np.ndarray]:
        """Return the histories [1,T,…] that end with this message."""
        values = to_observation(message, self.actor.spec, self.keys)
        longest = max((len(value) for value in values.values()), default=1)
        if longest > 1 or self.actor.spec.history == 1:  # the client keeps the history itself, or there is none
            return {
                name: (value if len(value) == longest else np.repeat(value, longest, 0))[None]
                for name, value in values.items()
            }
        self._buffer.append(_ROW, np.array([time.monotonic()]), values)
        return self._buffer.window(_ROW)

    def infer(self, obs: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the reply."""
        start = time.perf_counter()
        actions = self._step(self.actor, obs) if isinstance(self.actor, Corrector) else self._decide(obs)
        if not np.isfinite(actions).all():
            raise WireError("The policy returned a non-finite action.", do="check the checkpoint")
        elapsed_ms = 1e3 * (time.perf_counter() - start)
        return {
            "actions": actions,
            "policy_timing": {"infer_ms": elapsed_ms},
            "server_timing": {"infer_ms": elapsed_ms},
        }

    def _decide(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the next chunk [K,A]."""
        noise = self._temperature * policy_noise(self.seed, self.episode, self.decision, self.actor.noise_shape)
        self.decision += 1
        return np.asarray(self.actor.act(obs, noise[None])[0])

    def _step(self, corrector: Corrector, obs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the corrected action [1,A] of this control step."""
        if not len(self._rest):
            self._rest = self._decide(obs)[: self._execute]
        due, self._rest = self._rest[:1], self._rest[1:]
        return corrector.correct(obs, due)


async def _refuse(connection: ServerConnection, text: str) -> None:
    await connection.send(text)
    await connection.close(1011, "refused")


def _tls(certificate: Path, private_key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, private_key)
    except OSError as error:  # also of a file that is not PEM
        raise ConfigError(
            "The server's certificate cannot be used.",
            found=f"{certificate}, {private_key}: {error.strerror or error}",
            expected="two PEM files that belong together",
        ) from error
    return context


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _keep_memory() -> None:
    """Have the C library keep large blocks: each request allocates some, and fresh pages cost more than copying."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc
        library.mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        library.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def run(actor: Actor, config: ServerConfig, metadata: Mapping[str, Any] | None = None, seed: int = 0) -> None:
    """Serve until interrupted."""
    _keep_memory()

    async def forever() -> None:
        server = PolicyServer(actor, config, metadata, seed)
        port = await server.start()
        _log.info("serving on %s:%d", config.host, port)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await server.stop()

    asyncio.run(forever())
