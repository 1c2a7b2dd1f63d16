"""Round trips through the policy server with 301 kB observations (two 224 x 224 images), all checks on.

Rows: one_client_p50_ms, one_client_p99_ms, eight_clients_p50_ms, eight_clients_p99_ms, eight_clients_rps. The actor
answers at once, so that the figures are the wire's. The peer is the websockets library alone: its server answers the
same bytes without looking at them, its client sends them ready-made. Both run in turns, clients in their own
processes, for ten seconds each (two with --quick).
"""

import asyncio
import contextlib
import multiprocessing
import socket
import time
from collections.abc import Callable

import numpy as np
import websockets.asyncio.server
import websockets.sync.client
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.serve.client import WebsocketClientPolicy
from robolearn.serve.codec import pack
from robolearn.serve.server import ServerConfig, run
from robolearn.spec import ActionSpec, Feature, Spec


class InstantActor:
    """Answers zeros without thinking."""

    def __init__(self):
        image = Feature("image", (224, 224, 3), "uint8")
        observations = {
            "observation.images.image": image,
            "observation.images.wrist_image": image,
            "observation.state": Feature("signal", (8,)),
            "task": Feature("text"),
        }
        self.spec = Spec(observations, ActionSpec(7), rate_hz=10.0, chunk=10, robot="panda")
        self.noise_shape: tuple[int, ...] = (0,)
        self._chunk = np.zeros((1, 10, 7), np.float32)

    def act(self, obs, noise, prefix=None):
        return self._chunk


def observation() -> dict:
    """Return one LIBERO request."""
    pixels = np.random.default_rng(0).integers(0, 255, (2, 224, 224, 3), dtype=np.uint8)
    return {
        "observation/image": pixels[0],
        "observation/wrist_image": pixels[1],
        "observation/state": np.zeros(8),
        "prompt": "pick up the cube",
    }


def serve(port: int) -> None:
    """Run the server as `robolearn serve` does."""
    run(InstantActor(), ServerConfig(port=port, preset="libero"))


def serve_bare(port: int) -> None:
    """Answer every frame with bytes as long as our replies, without looking at it: the floor of websockets."""
    reply = bytes(len(pack({"actions": np.zeros((10, 7), np.float32)})) + 80)

    async def answer(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # a client that is gone
            async for _ in connection:
                await connection.send(reply)

    async def forever() -> None:
        async with websockets.asyncio.server.serve(answer, "127.0.0.1", port, compression=None, max_size=None):
            await asyncio.get_running_loop().create_future()

    asyncio.run(forever())


def connect(port: int) -> Callable[[], object]:
    """Return one round trip of our client."""
    client, obs = WebsocketClientPolicy(port=port), observation()
    return lambda: client.infer(obs)


def connect_bare(port: int) -> Callable[[], object]:
    """Return one round trip of a client that sends bytes which it has ready."""
    frame = pack(observation())
    while True:
        try:
            opened = websockets.sync.client.connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None)
            client = contextlib.ExitStack().enter_context(opened)
            break
        except ConnectionRefusedError:
            time.sleep(0.1)

    def trip() -> None:
        client.send(frame)
        client.recv()

    return trip


def ask(connect: Callable[[int], Callable[[], object]], port: int, seconds: float, barrier, results) -> None:
    """Ask as fast as possible; puts the latencies [s]."""
    trip = connect(port)
    for _ in range(50):
        trip()
    barrier.wait()
    latencies, stop = [], time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.perf_counter()
        trip()
        latencies.append(time.perf_counter() - start)
    results.put(latencies)


def load(connect: Callable[[int], Callable[[], object]], port: int, clients: int, seconds: float) -> np.ndarray:
    """Return all latencies [ms] of `clients` concurrent clients."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(clients), context.Queue()
    workers = [context.Process(target=ask, args=(connect, port, seconds, barrier, results)) for _ in range(clients)]
    for worker in workers:
        worker.start()
    latencies = np.concatenate([results.get() for _ in workers])
    for worker in workers:
        worker.join()
    return 1e3 * latencies


def measure(options: Options) -> list[Row]:
    """Return the rows of one client and of eight."""
    context = multiprocessing.get_context("spawn")
    ours, bare = (free_port() for _ in range(2))
    servers = [context.Process(target=serve, args=(ours,)), context.Process(target=serve_bare, args=(bare,))]
    for server in servers:
        server.start()
    seconds, rounds = (1.0, 2) if options.quick else (2.5, 4)
    latencies: dict[tuple[str, int], list[np.ndarray]] = {}
    for _ in range(rounds):  # in turns, so that both meet the machine in the same moods
        for clients in (1, 8):
            for name, way, port in (("ours", connect, ours), ("bare", connect_bare, bare)):
                latencies.setdefault((name, clients), []).append(load(way, port, clients, seconds))
    for server in servers:
        server.terminate()
    one, many = (np.concatenate(latencies["ours", clients]) for clients in (1, 8))
    floor, floors = (np.concatenate(latencies["bare", clients]) for clients in (1, 8))
    size = f"{len(pack(observation())):,} bytes a request"
    rows = []
    for name, at, floor_at in (("one_client", one, floor), ("eight_clients", many, floors)):
        for quantile in (50, 99):
            here, there = (float(np.percentile(values, quantile)) for values in (at, floor_at))
            note = f"{len(at):,} requests, {size}"
            rows.append(Row(f"{name}_p{quantile}_ms", "ms", here, there, there / here, note))
    whole = seconds * rounds
    rps, floor_rps = len(many) / whole, len(floors) / whole
    rows.append(Row("eight_clients_rps", "requests/s", rps, floor_rps, rps / floor_rps, size))
    return rows


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


if __name__ == "__main__":
    options = parse_options(__doc__ or "")
    finish(measure(options), options)
