"""Many clients, hostile neighbours, long runs."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from robolearn.serve.client import WebsocketClientPolicy


def valid_client(port, libero, seconds, rate_hz, latencies, errors):
    client = WebsocketClientPolicy(port=port)
    end, due = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < end:
        start = time.perf_counter()
        try:
            client.infer(libero)
        except Exception as error:  # noqa: BLE001 every failure counts
            errors.append(error)
            return
        latencies.append(time.perf_counter() - start)
        due = max(due + 1 / rate_hz, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0))
    client.close()


@pytest.mark.long
def test_64_clients_for_10_minutes_without_an_error(serve, echo):
    port = serve(echo(images=()), max_clients=80)
    small = {"observation.state": np.zeros(8), "task": "go"}
    errors, latencies = [], []
    arguments = (port, small, 600.0, 20.0, latencies, errors)
    threads = [threading.Thread(target=valid_client, args=arguments) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(latencies) > 64 * 600 * 5


@pytest.fixture(scope="module")
def frames(script):
    return script(Path(__file__).with_name("malformed.py"))


def test_malformed_frames_leave_a_valid_client_alone(frames, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    done = frames.piece(0, frames=500, alone_s=1.0)
    assert (done["executed"], done["kinds"]["tracebacks"]) == (0, 0)
    assert done["kinds"]["answered"] == 0
    assert done["valid"] > 0
    assert len(done["kinds"]) >= 10


@pytest.mark.long
def test_a_million_malformed_frames(frames, monkeypatch):
    """Goes on where an earlier run ended; figures are in outputs/serve/malformed.json."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    total = frames.summarise(frames.collect(Path(__file__).resolve().parents[2] / "outputs" / "serve"))
    assert (total["frames"], total["executed"], total["kinds"].get("tracebacks", 0)) == (1_000_000, 0, 0)
    assert total["kinds"].get("answered", 0) == 0
    assert total["p99_ratio"] <= 2
