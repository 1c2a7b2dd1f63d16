"""A policy server in a thread of the test, around an actor that answers in a known way."""

import asyncio
import threading
import time

import numpy as np
import pytest

from robolearn.serve.server import PolicyServer, ServerConfig
from robolearn.spec import ActionSpec, Feature, Spec

CHUNK = 5


class EchoActor:
    """Answers the newest state repeated over the chunk; `delay_s` and `broken` inject faults."""

    def __init__(self, history=1, images=("image", "wrist_image"), shape=(224, 224, 3), dim=8):
        features = {f"observation.images.{name}": Feature("image", shape, "uint8") for name in images}
        features["observation.state"] = Feature("signal", (dim,))
        features["task"] = Feature("text")
        self.spec = Spec(features, ActionSpec(dim), rate_hz=10.0, history=history, chunk=CHUNK, robot="panda")
        self.noise_shape = (CHUNK, dim)
        self.delay_s, self.broken = 0.0, None
        self.seen: list[dict] = []

    def act(self, obs, noise, prefix=None):
        if self.broken is not None:
            raise self.broken
        if self.delay_s:
            time.sleep(self.delay_s)
        self.seen.append({key: value for key, value in obs.items() if not key.startswith("observation.images")})
        return np.repeat(obs["observation.state"][:, -1:], CHUNK, axis=1)


class ServerThread:
    """Runs `PolicyServer` on its own event loop."""

    def __init__(self, actor, config):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = PolicyServer(actor, config)
        self.port = asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(10)

    def stop(self):
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def echo():
    return EchoActor


@pytest.fixture
def serve():
    running = []

    def start(actor, **options):
        running.append(ServerThread(actor, ServerConfig(port=0, **options)))
        return running[-1].port

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def libero():
    """One LIBERO request as openpi's client sends it: 2 images of 224 x 224, 8 numbers, a prompt."""
    pixels = np.random.default_rng(0).integers(0, 255, (2, 224, 224, 3), dtype=np.uint8)
    return {
        "observation/image": pixels[0],
        "observation/wrist_image": pixels[1],
        "observation/state": np.arange(8, dtype=np.float64),
        "prompt": "pick up the cube",
    }
