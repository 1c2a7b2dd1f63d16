"""A VLA behind the openpi protocol gives the actions of direct evaluation."""

import asyncio
import threading

import numpy as np
import pytest

from robolearn.actor import PolicyActor
from robolearn.seeding import policy_noise
from robolearn.serve.client import WebsocketClientPolicy
from robolearn.serve.server import PolicyServer, ServerConfig


@pytest.fixture
def port(actor):
    """Serves the actor from a thread and gives its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = PolicyServer(actor, ServerConfig(port=0, temperature=0.5))
    yield asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(params=["smolvlm", "small"])
def actor(bench, request):
    options = {"prompt": {"length": 24}} if request.param == "smolvlm" else {}
    policy, pipeline, spec = bench.build(bench.config(request.param, **options))
    return PolicyActor(policy, pipeline, spec)


def test_serving_changes_no_action(actor, port, bench):
    client = WebsocketClientPolicy(port=port)
    raw = bench.given(actor.spec, 3)
    for decision in range(3):
        seen = {key: np.asarray(value[decision]) for key, value in raw.items() if key != "task"}
        wire = {key: value[-1] for key, value in seen.items()} | {"task": raw["task"][decision]}
        served = client.infer(wire)["actions"]
        obs = {key: value[None] for key, value in seen.items()} | {"task": np.array([raw["task"][decision]])}
        direct = actor.act(obs, 0.5 * policy_noise(0, 0, decision, actor.noise_shape)[None])[0]
        np.testing.assert_allclose(served, direct, rtol=0, atol=1e-5)
    client.close()
