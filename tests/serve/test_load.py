"""Many clients, hostile neighbours, long runs: full counts, not part of the quick suite."""

import threading
import time

import numpy as np
import pytest
import websockets.sync.client
from websockets.exceptions import WebSocketException

from robolearn.serve.client import WebsocketClientPolicy
from robolearn.serve.codec import pack

pytestmark = pytest.mark.long


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


def hostile(port, seed, stop, counts):
    draw = np.random.default_rng(seed)
    good = pack({"observation/image": np.zeros((8, 8, 3), np.uint8), "observation/state": np.zeros(8)})
    while not stop.is_set():
        frame = bytearray(good)
        for position in draw.integers(0, len(good), 4):
            frame[position] = draw.integers(0, 256)
        frame = bytes(frame[: draw.integers(1, len(frame) + 1)])
        try:
            with websockets.sync.client.connect(f"ws://127.0.0.1:{port}", compression=None) as wire:
                wire.recv(timeout=10)
                wire.send(frame)
                text = wire.recv(timeout=10)
                counts.append("Traceback" not in str(text))
        except (WebSocketException, TimeoutError, OSError):
            counts.append(True)


def test_malformed_frames_leave_a_valid_client_alone(serve, echo, libero):
    """Compared by ratio, both measured here: alone, then beside four hostile clients."""
    port = serve(echo(), preset="libero")
    alone, beside, errors = [], [], []
    valid_client(port, libero, 20.0, 50.0, alone, errors)
    stop, counts = threading.Event(), []
    neighbours = [threading.Thread(target=hostile, args=(port, seed, stop, counts)) for seed in range(2)]
    for neighbour in neighbours:
        neighbour.start()
    valid_client(port, libero, 60.0, 50.0, beside, errors)
    stop.set()
    for neighbour in neighbours:
        neighbour.join()
    assert errors == []
    assert all(counts)
    assert len(counts) > 1000
    assert np.median(beside) < 10 * np.median(alone)
