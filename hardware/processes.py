"""The twin, the executor and the recorder as processes of their own, and how their parent talks to them.

    python -m robolearn.hardware.processes twin|executor|recorder OPTIONS

OPTIONS is JSON. Requests are lines on standard input, answers are JSON lines on standard output. A
closed standard input means that the parent is gone: the executor holds, comes to rest and ends.
"""

import gc
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robolearn.config import parse, to_dict
from robolearn.errors import HardwareError, RobolearnError
from robolearn.hardware.deploy import (
    RobotConfig,
    TwinOptions,
    executor_config,
    logged_topics,
    make_robot,
    open_scene,
    open_transport,
)
from robolearn.hardware.executor import Executor
from robolearn.hardware.executor import run as run_executor
from robolearn.hardware.limits import limits_of
from robolearn.hardware.record import RawRecorder
from robolearn.hardware.ring import Ring
from robolearn.hardware.safety import Mode, at_rest
from robolearn.hardware.twin import Twin, TwinConfig
from robolearn.hardware.twin import run as run_twin
from robolearn.registry import resolve

__all__ = ["Child", "ask_realtime", "main", "start_executor", "start_recorder", "start_twin"]
__all__ += ["wait_for"]

_FIFO_PRIORITY = 60
_DRAIN_S = 0.01  # the subscribers keep 200 messages


class Child:
    """A process of ours; requests get one answer each."""

    def __init__(self, role: str, options: Mapping[str, Any], timeout_s: float = 180.0):
        command = [sys.executable, "-m", "robolearn.hardware.processes", role, json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.role, self._timeout_s = role, timeout_s
        self.hello = self._answer()

    def request(self, verb: str) -> dict[str, Any]:
        """Ask for something and return the answer; raises `HardwareError` with the child's own words."""
        if self._process.stdin is None or self._process.poll() is not None:
            raise HardwareError(f"The {self.role} process has ended.", found=f"status {self._process.returncode}")
        self._process.stdin.write(verb + "\n")
        self._process.stdin.flush()
        return self._answer()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def close(self) -> None:
        """End the process: it comes to rest first; killed when it does not end in time."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        stream = self._process.stdout
        if stream is None or not select.select([stream], [], [], self._timeout_s)[0]:
            raise HardwareError(f"The {self.role} process does not answer.", expected=f"within {self._timeout_s} s")
        line = stream.readline()
        if not line:
            raise HardwareError(f"The {self.role} process has ended.", do="see its messages above")
        answer = json.loads(line)
        if "error" in answer:
            raise HardwareError(answer["error"])
        return answer


class _Requests:
    """Lines on standard input, without waiting for them."""

    def __init__(self) -> None:
        os.set_blocking(0, False)
        self._rest, self.closed = b"", False

    def take(self) -> list[str]:
        try:
            data = os.read(0, 4096)
        except BlockingIOError:
            return []
        self.closed = self.closed or not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("ascii", "replace") for line in lines]


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def run_twin_process(options: Mapping[str, Any]) -> None:
    """Run the twin of a robot config until the parent goes."""
    config = parse(RobotConfig, options["robot"], where="robot")
    twin = config.twin or TwinOptions()
    arm = resolve("robot", config.arm)
    scene = open_scene(twin, arm)
    transport = open_transport(config)
    names = TwinConfig(
        twin.personality,
        config.ros.state_topic,
        config.ros.gripper_topic,
        config.ros.gripper_joint,
        config.cameras,
        twin.camera_hz,
        signals=dict(config.signals),
        seed=twin.seed,
    )
    stage, requests = Twin(scene, transport, names), _Requests()
    for camera in config.cameras:
        scene.image(camera)  # a fresh install compiles here, not while someone waits for joint states
    _say({"ready": True, "dt_s": scene.dt_s})

    def keep_running() -> bool:
        for line in requests.take():
            verb, _, argument = line.partition(" ")
            if verb == "reset":
                stage.reset(int(argument))
            _say(
                {"success": stage.success(), "stopped": stage.control.stopped, "rejected": dict(stage.control.rejected)}
            )
        return not requests.closed

    run_twin(stage, keep_running)
    stage.close()


def run_executor_process(options: Mapping[str, Any]) -> None:
    """Run the executor of a robot config until the parent goes."""
    config = parse(RobotConfig, options["robot"], where="robot")
    arm = resolve("robot", config.arm)
    robot = make_robot(config)
    rings = {name: Ring.open(options[name]) for name in ("chunks", "states", "status")}
    limits = limits_of(arm, config.ros.rate_hz, config.safety)
    settings = executor_config(config, options["chunk_period_s"])
    executor = Executor(limits, robot, rings["chunks"], settings, rings["status"], rings["states"])
    robot.connect()
    realtime = ask_realtime()
    requests = _Requests()
    _say({"ready": True, "realtime": realtime})

    def keep_running(now_ns: int) -> bool:
        for verb in requests.take():
            try:
                executor.request(verb, now_ns)
                _say({"mode": executor.state.mode})
            except RobolearnError as error:
                _say({"error": str(error)})
        if requests.closed and executor.state.mode in (Mode.RAMP_IN, Mode.RUN):
            executor.request("hold", now_ns)
        moving = executor.state.mode != Mode.DISARMED and not at_rest(executor.state)
        return not requests.closed or moving

    gc.collect()
    gc.freeze()
    gc.disable()
    run_executor(executor, keep_running)
    robot.close()


def run_recorder_process(options: Mapping[str, Any]) -> None:
    """Log the topics of a robot config until the parent goes."""
    config = parse(RobotConfig, options["robot"], where="robot")
    recorder = RawRecorder(Path(options["path"]), open_transport(config), logged_topics(config))
    requests = _Requests()
    _say({"ready": True})
    while not requests.closed:
        for _ in requests.take():
            _say(recorder.counts)
        recorder.drain()
        time.sleep(_DRAIN_S)
    recorder.close()


def ask_realtime() -> str:
    """Ask for a real-time schedule and say what came of it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_FIFO_PRIORITY))
    except PermissionError:
        return "no: SCHED_FIFO is not permitted here (set rtprio in /etc/security/limits.conf); ticks may come late"
    return f"SCHED_FIFO {_FIFO_PRIORITY}"


def main(arguments: list[str]) -> None:
    """Run one role."""
    role, options = arguments[0], json.loads(arguments[1])
    roles = {"twin": run_twin_process, "executor": run_executor_process, "recorder": run_recorder_process}
    try:
        roles[role](options)
    except RobolearnError as error:
        _say({"error": str(error)})
        raise SystemExit(2) from error


def start_twin(config: RobotConfig) -> Child:
    """Start the twin of `config`."""
    return Child("twin", {"robot": to_dict(config)})


def start_recorder(config: RobotConfig, path: str) -> Child:
    """Start to log the robot of `config` into an MCAP file; closing the child ends the file."""
    return Child("recorder", {"robot": to_dict(config), "path": path})


def start_executor(config: RobotConfig, chunk_period_s: float, rings: Mapping[str, Ring]) -> Child:
    """Start the executor of `config` over the rings "chunks", "states" and "status"."""
    paths = {name: str(ring.path) for name, ring in rings.items()}
    return Child("executor", {"robot": to_dict(config), "chunk_period_s": chunk_period_s, **paths})


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until `condition()` holds; raises `HardwareError` naming `what` when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise HardwareError(f"{what} did not happen.", expected=f"within {seconds} s")
        time.sleep(0.005)


if __name__ == "__main__":
    main(sys.argv[1:])
