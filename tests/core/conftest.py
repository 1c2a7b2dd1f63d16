"""A tiny dataset and runs over it, and a process that forks training runs quickly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robolearn.data.synthetic import record

POLICY = {"name": "flow", "history": 2, "chunk": 4, "network": {"name": "mlp", "width": 32, "depth": 1}}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Five episodes of 20 steps: a state of 3, an action of 2."""
    return record(tmp_path_factory.mktemp("data") / "tiny", [20] * 5)


@pytest.fixture
def plain_run(dataset, tmp_path):
    """Return a function that gives the plain config of a small run, with changes by section."""
    return _builder(dataset, tmp_path)


@pytest.fixture(scope="module")
def plain_run_factory(dataset, tmp_path_factory):
    """The same for a whole module."""
    return _builder(dataset, tmp_path_factory.mktemp("runs"))


def _builder(dataset, folder):
    def build(out="run", seed=0, policy=None, data=None, **train):
        small = {"steps": 12, "batch_size": 16, "warmup_steps": 2, "save_every": 5, "log_every": 1}
        return {
            "policy": {**POLICY, **(policy or {})},
            "data": {"path": str(dataset), "keys": ["observation.state"], **(data or {})},
            "train": {**small, "precision": "fp32", **train},
            "seed": seed,
            "device": "cpu",
            "out": str(folder / out),
        }

    return build


class Forks:
    """Starts jobs of `forks.py` in fresh processes that share the imports of one parent."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "forks.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, job: str, kill: tuple[Path, int, float] | None = None, signal: int = 9, **arguments):
        """Run a job; returns its exit status, wall time and answer.

        `kill` = (file, n, s): send `signal` s seconds after the file has n lines.
        """
        watch, after_lines, after_s = kill or (None, None, None)
        order = {"job": job, "arguments": arguments, "signal": signal}
        order |= {"watch": str(watch), "after_lines": after_lines, "after_s": after_s}
        self._parent.stdin.write(json.dumps(order) + "\n")
        self._parent.stdin.flush()
        return json.loads(self._parent.stdout.readline())

    def close(self):
        self._parent.stdin.close()
        self._parent.terminate()  # processes that a compiler left behind may hold the pipe open
        self._parent.wait(timeout=30)


@pytest.fixture(scope="session")
def forks():
    """One process with everything imported, from which jobs are forked."""
    forks = Forks()
    yield forks
    forks.close()
