"""Jobs for tests that kill processes: imported once, forked per job, told to stop by a real signal.

The parent of the forks never runs a backward pass: autograd's threads do not survive a fork.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

import torch

from robolearn import checkpoint, learner, loading, training
from robolearn.data import detect, windows
from robolearn.policies import flow, regression
from robolearn.run import parse_run

WARM = (detect, windows, flow, regression, learner, loading)


def train(config: dict) -> dict:
    """Train, continuing from the newest valid checkpoint of the folder when there is one."""
    out = Path(config["out"])
    resume = str(out) if checkpoint.folders(out) else None
    result = training.train(parse_run({**config, "train": {**config["train"], "resume": resume}}))
    generator = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
    return {**result.to_dict(), "generator": generator}


def save_for_ever(source: str, run: str, log: str) -> dict:
    """Save the checkpoint `source` under ever higher steps; each that is done is a line of `log`."""
    content = checkpoint.load(source)
    state = checkpoint.load_training_state(source)
    present = [int(folder.name[5:14]) for folder in checkpoint.folders(Path(run))]
    step = max(present, default=0)
    while True:
        step += 1
        folder = Path(run) / "checkpoints" / f"step_{step:09d}"
        checkpoint.save(folder, _at(content, step), _at(state, step))
        checkpoint.prune(Path(run), 2)
        with open(log, "a") as file:
            file.write(f"{step}\n")


def train_group(config: dict, count: int) -> dict:
    """Train with `count` processes, with the environment that torchrun gives them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
            os.environ.update({name: str(value) for name, value in {**place, "MASTER_PORT": port}.items()})
            torch.set_num_threads(1)  # makes the pool that a fork lost, before two threads want it at once
            try:
                train(config)
            except Exception:  # noqa: BLE001 - the exit status says so
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return {"statuses": statuses}


def _at(item, step: int):
    return type(item)(**{**vars(item), "step": step})


JOBS = {"train": train, "save_for_ever": save_for_ever, "train_group": train_group}


def _child(order: dict, pipe: int) -> None:
    torch.set_num_threads(1)
    try:
        answer = JOBS[order["job"]](**order["arguments"])
    except Exception as error:  # noqa: BLE001 - reported to the test
        answer = {"error": type(error).__name__, "text": str(error)}
    os.write(pipe, json.dumps(answer).encode())
    os._exit(1 if "error" in answer else 0)


def _kill(child: int, order: dict, done: threading.Event) -> None:
    """Send the signal once a file has so many lines, and a moment later."""
    if order["after_lines"] is None:
        return
    path = Path(order["watch"])
    while not path.exists() or path.read_bytes().count(b"\n") < order["after_lines"]:
        if done.wait(0.002):
            return
    if not done.wait(order["after_s"]):
        os.kill(child, order["signal"])


def _run(order: dict) -> dict:
    reading, writing = os.pipe()
    start_s, text = time.monotonic(), b""
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(order, writing)
    os.close(writing)
    done = threading.Event()
    killer = threading.Thread(target=_kill, args=(child, order, done))
    killer.start()
    _, status = os.waitpid(child, 0)
    done.set()
    killer.join()
    os.set_blocking(reading, False)  # orphaned loader workers may still hold the other end
    with contextlib.suppress(BlockingIOError):
        text = os.read(reading, 1 << 16)
    os.close(reading)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "wall_s": time.monotonic() - start_s,
        **(json.loads(text) if text else {}),
    }


def main() -> None:
    # What a first optimizer and a first save import and ask belongs to the parent.
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.AdamW([weight], fused=True).step()
    checkpoint._origin()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
