"""A million malformed frames beside a valid client, piece by piece into one file.

    python tests/serve/malformed.py [--folder outputs/serve] [--minutes M] [--rate HZ]

The server runs in a process of its own, with an audit hook that counts whatever would execute, start or open
something. One process sends malformed frames, each on a connection of its own, at up to `--rate` a second; the valid
client asks 50 times a second. Its latencies are taken alone and beside them in every piece.
"""

import argparse
import asyncio
import json
import multiprocessing
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.evaluation import write_json
from robolearn.provenance import provenance
from robolearn.serve.client import WebsocketClientPolicy
from robolearn.serve.codec import pack
from robolearn.serve.server import PolicyServer, ServerConfig
from robolearn.spec import ActionSpec, Feature, Spec

PIECES, FRAMES = 40, 25_000
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
EXECUTES = ("exec", "compile", "import", "open", "subprocess.Popen", "os.system", "os.exec", "pickle.find_class")
EXECUTES += ("marshal.loads", "ctypes.dlopen", "socket.connect", "code.__new__")


class Zeros:
    """An actor that answers zeros at once."""

    noise_shape: tuple[int, ...] = (0,)

    def __init__(self):
        image = Feature("image", (224, 224, 3), "uint8")
        features = {"observation.images.image": image, "observation.images.wrist_image": image}
        features |= {"observation.state": Feature("signal", (8,)), "task": Feature("text")}
        self.spec = Spec(features, ActionSpec(7), rate_hz=10.0, chunk=10, robot="panda")

    def act(self, obs, noise, prefix=None):
        return np.zeros((1, 10, 7), np.float32)


def serve(ready, watching, caught) -> None:
    """Run the server; `caught` counts what was executed while `watching`."""

    def audit(event: str, arguments: tuple) -> None:
        if watching.value and event in EXECUTES:
            caught.value += 1
            sys.stderr.write(f"{event} {arguments!r:.200}\n")

    async def forever() -> None:
        ready.put(await PolicyServer(Zeros(), ServerConfig(port=0, preset="libero")).start())
        await asyncio.get_running_loop().create_future()

    sys.addaudithook(audit)
    asyncio.run(forever())


def observation() -> dict[str, Any]:
    """Return one valid request."""
    pixels = np.random.default_rng(0).integers(0, 255, (2, 224, 224, 3), dtype=np.uint8)
    images = {"observation/image": pixels[0], "observation/wrist_image": pixels[1]}
    return images | {"observation/state": np.zeros(8), "prompt": "go"}


def array(dtype: bytes, shape: list, data: bytes) -> bytes:
    """Return a message with one array whose header says anything."""
    import msgpack

    return msgpack.packb({"observation/state": {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}})


def malformed(draw: np.random.Generator, good: bytes) -> tuple[str, bytes]:
    """Return what is wrong, and the payload."""
    kind = int(draw.integers(0, 8))
    if kind == 0:
        return "dtype O", array(b"|O", [1], b"\1" * 8)
    if kind == 1:
        return "negative shape", array(b"<f8", [-int(draw.integers(1, 1 << 40))], bytes(64))
    if kind == 2:
        return "overflowing shape", array(b"|u1", [1 << 32, 1 << 32, 1 << 31], bytes(64))
    if kind == 3:
        return "deep nesting", b"\x91" * int(draw.integers(17, 4000)) + b"\xc0"
    if kind == 4:
        return "cut", good[: int(draw.integers(0, len(good)))]
    if kind == 5:
        return "other bytes", draw.bytes(int(draw.integers(1, 200)))
    if kind == 6:
        return "record", array(b"|V8", [1], bytes(8))
    changed = bytearray(good)
    for position in draw.integers(0, 60, 4):
        changed[position] = draw.integers(0, 256)
    return "changed bytes", bytes(changed)


def frame(draw: np.random.Generator, payload: bytes) -> tuple[str, bytes]:
    """Return the payload as a masked frame; one in ten says it is larger than any may be, or is text."""
    odd = int(draw.integers(0, 20))
    size = 1 << int(draw.integers(25, 62)) if odd == 0 else len(payload)
    head = bytes([0x81 if odd == 1 else 0x82])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += b"\xfe" + struct.pack(">H", size)
    else:
        head += b"\xff" + struct.pack(">Q", size)
    return "oversized" if odd == 0 else "text" if odd == 1 else "", head + bytes(4) + payload  # masked with zeros


def attack(port: int, seed: int, frames: int, rate_hz: float, results) -> None:
    """Send malformed frames; puts the counts by kind, of answers that tell too much, and of frames taken for valid."""
    draw, counts = np.random.default_rng(seed), Counter()
    good = pack({"observation/image": np.zeros((8, 8, 3), np.uint8), "observation/state": np.zeros(8), "prompt": "x"})
    due = time.monotonic()
    for _ in range(frames):
        kind, payload = malformed(draw, good)
        odd, data = frame(draw, payload)
        with socket.create_connection(("127.0.0.1", port), 30) as wire:
            wire.sendall(HANDSHAKE + data)
            answer = b""
            while not _closed(answer) and (chunk := _receive(wire)):
                answer += chunk
        counts[odd or kind] += 1
        counts["tracebacks"] += b"Traceback" in answer or b".py" in answer
        counts["answered"] += b"actions" in answer
        due = max(due + 1 / rate_hz, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0.0))
    results.put(counts)


def _closed(answer: bytes) -> bool:
    """Say whether a close frame came, after the handshake and other frames."""
    position = answer.find(b"\r\n\r\n") + 4
    while 4 <= position < len(answer) - 1:
        if answer[position] == 0x88:
            return True
        size = answer[position + 1]
        if size == 126:
            size = 2 + int.from_bytes(answer[position + 2 : position + 4], "big")
        position += 2 + size
    return False


def _receive(wire: socket.socket) -> bytes:
    try:
        return wire.recv(65536)
    except ConnectionResetError:
        return b""


def ask(port: int, keep_on) -> np.ndarray:
    """Ask 50 times a second as long as `keep_on()`; returns the latencies [ms]."""
    client, obs, latencies = WebsocketClientPolicy(port=port), observation(), []
    due = time.monotonic()
    while keep_on():
        start = time.perf_counter()
        client.infer(obs)
        latencies.append(1e3 * (time.perf_counter() - start))
        due = max(due + 0.02, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0.0))
    client.close()
    return np.array(latencies)


def piece(number: int, frames: int = FRAMES, rate_hz: float = 400.0, alone_s: float = 5.0) -> dict[str, Any]:
    """Run one piece."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Queue(), context.Queue()
    watching, caught = context.Value("b", 0), context.Value("l", 0)
    server = context.Process(target=serve, args=(ready, watching, caught), daemon=True)
    server.start()
    port = ready.get()
    attack(port, 0, 50, 1e9, _Nowhere())  # what is imported late is imported now
    end = time.monotonic() + alone_s
    alone = ask(port, lambda: time.monotonic() < end)
    watching.value = 1
    attacker = context.Process(target=attack, args=(port, 1 + number, frames, rate_hz, results))
    attacker.start()
    beside = ask(port, attacker.is_alive)
    counts = results.get()
    attacker.join()
    watching.value = 0
    server.terminate()
    server.join()
    return {
        "frames": frames,
        "executed": int(caught.value),
        "kinds": dict(counts),
        "valid": len(beside),
        "alone_ms": [float(np.percentile(alone, q)) for q in (50, 99)],
        "beside_ms": [float(np.percentile(beside, q)) for q in (50, 99)],
    }


class _Nowhere:
    def put(self, counts) -> None: ...


def collect(folder: Path, end_s: float = float("inf"), rate_hz: float = 400.0) -> list[dict[str, Any]]:
    """Run the pieces that are missing, as long as there is time, and return all."""
    file = folder / "malformed.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    while len(done) < PIECES and time.monotonic() < end_s:
        done.append(piece(len(done), rate_hz=rate_hz))
        with file.open("a") as out:
            out.write(json.dumps(done[-1]) + "\n")
        write_json(folder / "malformed.json", {**provenance(), **summarise(done)})
    return done


def summarise(done: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the pieces; latencies are medians over them."""
    figures: dict[str, Any] = {key: sum(each[key] for each in done) for key in ("frames", "executed", "valid")}
    figures["kinds"] = dict(sum((Counter(each["kinds"]) for each in done), Counter()))
    for key in ("alone_ms", "beside_ms"):
        figures[key] = np.median([each[key] for each in done], axis=0).tolist()
    return figures | {"p99_ratio": figures["beside_ms"][1] / figures["alone_ms"][1], "pieces": len(done)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/serve"))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--rate", type=float, default=400.0)
    given = parser.parse_args()
    done = collect(given.folder, time.monotonic() + 60 * given.minutes, given.rate)
    sys.stdout.write(json.dumps(summarise(done), indent=1) + "\n")


if __name__ == "__main__":
    main()
