"""Environments in worker processes that may die or hang: `workers/<any environment>`, and LIBERO.

A worker that dies or does not answer in time is replaced; its episodes are run again from their seeds and
actions, so outcomes stay what they were. Workers share nothing: the rows of the others do not notice.
"""

import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.contracts import Observations
from robolearn.envs.base import RowsEnv
from robolearn.envs.worker import receive, send
from robolearn.errors import ConfigError, EnvError, MissingLibraryError, suggest
from robolearn.spec import Spec

__all__ = ["LiberoConfig", "Restart", "WorkersConfig", "WorkersEnv"]

_log = logging.getLogger(__name__)
_HERE = Path(__file__).resolve().parent
_TRIES = 3  # of one call, each in a fresh worker
_SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
_LIBERO = "ROBOLEARN_LIBERO_PYTHON"


@dataclass(frozen=True)
class WorkersConfig:
    """Any registered environment in worker processes: `workers/gym/Pusher-v5`.

    answer_s, start_s: how long a worker may take for one call, and to start [s].
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of the environment inside
    workers: int = 0  # 0: one per core
    max_steps: int | None = None
    answer_s: float = 4.0
    start_s: float = 120.0

    def build(self, num_envs: int) -> "WorkersEnv":
        """Return `num_envs` rows, shared out over the workers."""
        inside = {"name": self.name.removeprefix("workers/"), "options": dict(self.options)}
        if self.max_steps is not None:
            inside["options"]["max_steps"] = self.max_steps
        return WorkersEnv(sys.executable, "registered.py", inside, num_envs, self.workers, self.answer_s, self.start_s)


@dataclass(frozen=True)
class LiberoConfig:
    """A task of LIBERO, `libero/<suite>/<number>`, in LIBERO's own Python.

    Its libraries exclude ours, so it lives in an environment that $ROBOLEARN_LIBERO_PYTHON names.
    """

    name: str
    image_px: int = 256
    max_steps: int = 600
    workers: int = 0
    answer_s: float = 4.0
    start_s: float = 300.0

    def build(self, num_envs: int) -> "WorkersEnv":
        """Return `num_envs` rows; raises `MissingLibraryError` that says how to get LIBERO."""
        _, _, rest = self.name.partition("/")
        suite, _, number = rest.partition("/")
        if suite not in _SUITES or not number.isdecimal():
            expected = f"libero/<suite>/<number>; {suggest(suite, _SUITES)}"
            raise ConfigError(f"Unknown task '{self.name}'.", expected=expected)
        python = os.environ.get(_LIBERO, "")
        if not Path(python).is_file():
            raise MissingLibraryError(
                "LIBERO has no Python of its own here.",
                found=f"{_LIBERO}={python or 'unset'}",
                expected="the interpreter of an environment with LIBERO and its assets",
                do="uv venv --python 3.10 DIR && uv pip install --python DIR/bin/python hf-libero, put LIBERO's "
                f"assets where its `get_libero_path('assets')` points, and set {_LIBERO}=DIR/bin/python",
            )
        inside = {"suite": suite, "task": int(number), "image_px": self.image_px, "max_steps": self.max_steps}
        return WorkersEnv(python, "libero_rows.py", inside, num_envs, self.workers, self.answer_s, self.start_s)


@dataclass(frozen=True)
class Restart:
    """One worker that was replaced, and how long that took [s]."""

    worker: int
    reason: str
    noticed_s: float  # from the call to the decision that it is lost
    restarted_s: float  # from there until its episodes were where they had been


@dataclass
class _Call:
    """One call of a worker, kept to be made again, with what it answered."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]
    digest: bytes = b""


class _LostError(Exception):
    """A worker died, hangs, or answered with bytes that mean nothing."""


class WorkersEnv(RowsEnv):
    """Rows shared out over worker processes; `maker` is the file in `makers/` that each of them runs."""

    def __init__(
        self,
        python: str,
        maker: str,
        inside: Mapping[str, Any],
        num_envs: int,
        workers: int = 0,
        answer_s: float = 4.0,
        start_s: float = 120.0,
    ):
        count = min(workers or len(os.sched_getaffinity(0)), num_envs)
        shares = np.array_split(np.arange(num_envs), max(count, 1))
        command = [python, "-I", str(_HERE / "worker.py"), str(_HERE / "makers" / maker), json.dumps(dict(inside))]
        self._workers = [_Worker(command, share, answer_s, start_s) for share in shares]
        self.events: list[Restart] = []
        told, *_ = [worker.described() for worker in self._workers]
        super().__init__(num_envs, int(told["max_episode_steps"]), stop_on_success=False)
        self.declare(Spec.from_dict(told["spec"]))
        for worker in self._workers:
            worker.latest = _nothing(self.spec, len(worker.rows))

    @property
    def restarts(self) -> int:
        """How many workers were replaced so far."""
        return len(self.events)

    def begin(self, rows: np.ndarray) -> None:
        calls = {}
        for index, worker in enumerate(self._workers):
            mask = np.isin(worker.rows, rows)
            if mask.any():
                seeds = [self._seed_of(row) for row in worker.rows]
                arrays = {"mask": mask, "episode": self._episode[worker.rows]}
                calls[index] = _Call({"call": "reset", "seeds": seeds}, arrays)
        for index, answer in self._ask(calls).items():
            if answer is None:
                raise EnvError(
                    "A worker cannot start an episode.", found=f"{_TRIES} failures", do="see its messages above"
                )
            self._workers[index].see(answer)

    def advance(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        whole = np.full((self.num_envs, len(self._low)), np.nan)  # a row without an action ends, inside as here
        whole[rows] = actions
        reward, success, diverged = (
            np.zeros(self.num_envs),
            np.zeros(self.num_envs, bool),
            np.zeros(self.num_envs, bool),
        )
        busy = [index for index, worker in enumerate(self._workers) if np.isin(worker.rows, rows).any()]
        calls = {index: _Call({"call": "step"}, {"actions": whole[self._workers[index].rows]}) for index in busy}
        for index, answer in self._ask(calls).items():
            worker, mine = self._workers[index], self._workers[index].rows
            if answer is None:
                diverged[mine] = True
                continue
            worker.see(answer)
            reward[mine], success[mine], diverged[mine] = answer["reward"], answer["success"], answer["diverged"]
            self._ended[mine] = answer["terminated"]
        return reward, success, diverged

    def observe(self) -> Observations:
        return {key: np.concatenate([worker.latest[key] for worker in self._workers]) for key in self.spec.observations}

    def render(self, row: int = 0) -> np.ndarray:  # ty: ignore[incompatible-method-override]  # one row
        """Return the picture that the environment inside makes of one row."""
        index = next(index for index, worker in enumerate(self._workers) if row in worker.rows)
        worker = self._workers[index]
        call = _Call({"call": "render", "row": int(row - worker.rows[0])}, {})
        answer = self._ask({index: call}, keep=False)[index]
        if answer is None:
            raise EnvError("A worker gives no picture.", found=f"{_TRIES} failures", do="see its messages above")
        return answer["picture"]

    def close_extras(self, **kwargs: Any) -> None:
        for worker in self._workers:
            worker.stop()

    def _seed_of(self, row: int) -> int:
        seed = self._seed[row]
        return int(self._random[row].integers(2**31)) if seed is None else int(seed)

    def _ask(self, calls: Mapping[int, _Call], keep: bool = True) -> dict[int, dict[str, np.ndarray] | None]:
        """Make one call of each worker, all at the same time; None where a worker failed every time."""
        start_s, lost, answers = time.monotonic(), {}, {}
        for index, call in calls.items():
            if keep:
                self._workers[index].remember(call)
            self._workers[index].request(call)
        for index, call in calls.items():
            try:
                answers[index] = self._workers[index].answer(call, start_s)
            except _LostError as problem:
                lost[index] = str(problem), time.monotonic() - start_s
        for index, (reason, noticed_s) in lost.items():
            answers[index] = self._replace(index, reason, noticed_s, calls[index], keep)
        return answers

    def _replace(
        self, index: int, reason: str, noticed_s: float, call: _Call, kept: bool
    ) -> dict[str, np.ndarray] | None:
        worker, start_s = self._workers[index], time.monotonic()
        for _ in range(_TRIES - 1):
            _log.warning("worker %d %s; starting another", index, reason)
            try:
                answer = worker.resume(None if kept else call)
            except _LostError as problem:
                reason = str(problem)
                continue
            self.events.append(Restart(index, reason, noticed_s, time.monotonic() - start_s))
            return answer
        _log.error("worker %d failed %d times at the same call; its episodes end as diverged", index, _TRIES)
        self.events.append(Restart(index, reason, noticed_s, 0.0))
        worker.forget()
        return None


class _Worker:
    """One process, the rows in it, and every call since the oldest of their present episodes began."""

    def __init__(self, command: list[str], rows: np.ndarray, answer_s: float, start_s: float):
        options = {**json.loads(command[-1]), "rows": len(rows)}
        self._command, self.rows = [*command[:-1], json.dumps(options)], rows
        self._answer_s, self._start_s = answer_s, start_s
        self.latest: Observations = {}
        self._calls: list[_Call] = []
        self._start()

    def described(self) -> dict[str, Any]:
        """Return what is inside: `spec` and `max_episode_steps`, both plain data."""
        try:
            self.request(_Call({"call": "describe"}, {}))
            return self._receive(time.monotonic() + self._start_s)[0]
        except _LostError as problem:
            self.stop()
            do = "see its messages above"
            raise EnvError("A worker process does not start.", found=str(problem), do=do) from problem

    def see(self, answer: Mapping[str, np.ndarray]) -> None:
        """Keep the observations of an answer."""
        self.latest = {name.removeprefix("obs:"): value for name, value in answer.items() if name.startswith("obs:")}

    def remember(self, call: _Call) -> None:
        """Keep a call; forget those that no present episode needs."""
        self._calls.append(call)
        if call.header["call"] != "reset":
            return
        first = len(self.rows) * [0]
        for number, past in enumerate(self._calls):
            if past.header["call"] == "reset":
                for row in np.flatnonzero(past.arrays["mask"]):
                    first[row] = number
        self._calls = self._calls[min(first) :]

    def forget(self) -> None:
        """Begin anew: the episodes of these rows are over."""
        self._calls = []
        self.stop()
        self._start()
        self.described()

    def request(self, call: _Call) -> None:
        """Send a call without waiting for its answer; that nobody is there shows when it is waited for."""
        with suppress(OSError):
            send(self._connection, call.header, call.arrays)

    def answer(self, call: _Call, since_s: float) -> dict[str, np.ndarray]:
        """Return the arrays that answer a call made at `since_s`."""
        header, arrays = self._receive(since_s + self._answer_s)
        if "error" in header:
            raise EnvError("An environment failed in its worker.", found=header["error"])
        call.digest = _digest(arrays)
        return arrays

    def resume(self, extra: _Call | None = None) -> dict[str, np.ndarray]:
        """Start another process, bring its episodes to where they were, and answer the last call (or `extra`)."""
        self.stop()
        self._start()
        self.request(_Call({"call": "describe"}, {}))
        self._receive(time.monotonic() + self._start_s)
        answer: dict[str, np.ndarray] = {}
        for call in [*self._calls, *([extra] if extra else [])]:
            before = call.digest
            self.request(call)
            answer = self.answer(call, time.monotonic())
            if before and call.digest != before:
                _log.warning("an environment is not a function of its seed and actions: its episode went another way")
        return answer

    def stop(self) -> None:
        """End the process."""
        self._finalizer()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        python, isolated, worker, *rest = self._command
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [python, isolated, worker, str(theirs.fileno()), *rest], env=environment, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        self._finalizer = weakref.finalize(self, _end, self._process, self._connection)

    def _receive(self, until_s: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        left_s = until_s - time.monotonic()
        try:
            if self._connection.poll(max(left_s, 0.0)):
                return receive(self._connection)
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
            raise _LostError(f"broke off (exit code {self._process.poll()})") from error
        raise _LostError(f"did not answer in {self._answer_s:g} s")


def _nothing(spec: Spec, rows: int) -> Observations:
    """Return observations of rows that no episode has begun in."""
    return {
        key: np.full(rows, "") if feature.kind == "text" else np.zeros((rows, *feature.shape), feature.dtype)
        for key, feature in spec.observations.items()
    }


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    return digest.digest()


def _end(process: "subprocess.Popen[bytes]", connection: Connection) -> None:
    connection.close()
    process.kill()
    process.wait()
