"""Round trips through the policy server with 301 kB observations (two 224 x 224 images), all checks on.

Rows: one_client_p50_ms, one_client_p99_ms, eight_clients_rps, eight_clients_p99_ms. The actor answers at
once, so that the figures are the wire's; clients run in their own processes for ten seconds (two with --quick).
"""

import asyncio
import multiprocessing
import time

import numpy as np

from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.serve.client import WebsocketClientPolicy
from robolearn.serve.codec import pack
from robolearn.serve.server import PolicyServer, ServerConfig
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


def serve(ready) -> None:
    """Run the server in its own process."""

    async def forever():
        ready.put(await PolicyServer(InstantActor(), ServerConfig(port=0, preset="libero")).start())
        await asyncio.get_running_loop().create_future()

    asyncio.run(forever())


def ask(port: int, seconds: float, barrier, results) -> None:
    """Ask as fast as possible; puts the latencies [s]."""
    client, obs = WebsocketClientPolicy(port=port), observation()
    for _ in range(50):
        client.infer(obs)
    barrier.wait()
    latencies, stop = [], time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.perf_counter()
        client.infer(obs)
        latencies.append(time.perf_counter() - start)
    results.put(latencies)


def load(port: int, clients: int, seconds: float) -> np.ndarray:
    """Return all latencies [s] of `clients` concurrent clients."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(clients), context.Queue()
    workers = [context.Process(target=ask, args=(port, seconds, barrier, results)) for _ in range(clients)]
    for worker in workers:
        worker.start()
    latencies = np.concatenate([results.get() for _ in workers])
    for worker in workers:
        worker.join()
    return latencies


def measure(options: Options) -> list[Row]:
    """Return the rows of one client and of eight."""
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    server = context.Process(target=serve, args=(ready,), daemon=True)
    server.start()
    port, seconds = ready.get(), 2.0 if options.quick else 10.0
    one, many = 1e3 * load(port, 1, seconds), 1e3 * load(port, 8, seconds)
    server.terminate()
    size = f"{len(pack(observation())):,} bytes a request"
    return [
        Row("one_client_p50_ms", "ms", float(np.percentile(one, 50)), note=f"{len(one):,} requests, {size}"),
        Row("one_client_p99_ms", "ms", float(np.percentile(one, 99)), note=size),
        Row("eight_clients_rps", "requests/s", len(many) / seconds, note=size),
        Row("eight_clients_p99_ms", "ms", float(np.percentile(many, 99)), note=size),
    ]


if __name__ == "__main__":
    options = parse_options(__doc__ or "")
    finish(measure(options), options)
