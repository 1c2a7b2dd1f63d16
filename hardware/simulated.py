"""A robot in use on a simulated clock, in one process: what `RobotSession` does, without waiting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import HardwareError
from robolearn.hardware.deploy import RobotConfig, executor_config, logged_topics, make_ros_robot, open_scene
from robolearn.hardware.executor import Executor
from robolearn.hardware.kinematics import Kinematics
from robolearn.hardware.limits import limits_of
from robolearn.hardware.memory import MemoryGraph, MemoryTransport
from robolearn.hardware.observe import Reading
from robolearn.hardware.record import RawRecorder
from robolearn.hardware.ring import Ring
from robolearn.hardware.safety import Mode, at_rest
from robolearn.hardware.session import STILL_RAD_S
from robolearn.hardware.transport import Transport
from robolearn.hardware.twin import Perceives, Twin, TwinConfig
from robolearn.registry import resolve
from robolearn.robots import Arm

__all__ = ["SimulatedSession"]

_START_NS = 10**10


class SimulatedSession:
    """The twin of a robot config behind the same executor, topics and filter; time passes in `every` only."""

    def __init__(self, config: RobotConfig, chunk: int, period_s: float):
        if config.twin is None:
            raise HardwareError("Only a twin can run on a simulated clock.", found=config.name, do="use robot=twin/…")
        self.config, self.period_s = config, period_s
        self.arm_constants: Arm = resolve("robot", config.arm)
        self.kinematics = Kinematics(self.arm_constants)
        size = chunk, len(self.arm_constants.joints) + 1
        self.chunks, self._arrived = Ring.create(size), Ring.create(size)
        self._delivered, self._latency_ns = 0, round(1e9 * config.twin.latency_s)
        scene = open_scene(config.twin, self.arm_constants)
        self._now_ns = _START_NS
        graph = MemoryGraph(self.now_ns)
        self._transports = [self._open_transport(graph) for _ in range(3)]  # twin, robot, log
        names = TwinConfig(
            config.twin.personality,
            config.ros.state_topic,
            config.ros.gripper_topic,
            config.ros.gripper_joint,
            seed=config.twin.seed,
        )
        self.twin = Twin(scene, self._transports[0], names, self.now_ns)
        self._robot = make_ros_robot(config, self._transports[1])
        self._robot.join()
        self._log = RawRecorder(Path(config.log), self._transports[2], logged_topics(config)) if config.log else None
        limits = limits_of(self.arm_constants, config.ros.rate_hz, config.safety)
        self.executor = Executor(limits, self._robot, self._arrived, executor_config(config, period_s))
        self._tick_ns, self._step_ns = round(1e9 * limits.period_s), round(1e9 * scene.dt_s)
        self._tick_due = self._step_due = self._now_ns
        self._advance(self._now_ns + 2 * self._step_ns)

    def __enter__(self) -> "SimulatedSession":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def now_ns(self) -> int:
        """Return the simulated time."""
        return self._now_ns

    def request(self, verb: str) -> str:
        """Ask the executor to "arm", "hold", "stop" or "disarm"; returns its mode."""
        self.executor.request(verb, self._now_ns)
        return str(self.executor.state.mode)

    def rest(self) -> None:
        """Hold, come to rest and disarm."""
        self.executor.request("hold", self._now_ns)
        for _ in range(100):
            self._advance(self._now_ns + 50_000_000)
            if at_rest(self.executor.state) and np.abs(self._robot.read().velocity_rad_s).max() < STILL_RAD_S:
                break
        self.executor.request("disarm", self._now_ns)

    def reset_twin(self, seed: int) -> None:
        """Put the twin's scene at its start for `seed`; the arm must be disarmed."""
        if self.executor.state.mode != Mode.DISARMED:
            raise HardwareError("The arm must be disarmed.", found=self.executor.state.mode, do="call rest first")
        self.twin.reset(seed)
        self._advance(self._now_ns + 2 * self._step_ns)

    def succeeded(self) -> bool:
        """Say whether the twin's task is done now."""
        return self.twin.success()

    def status(self) -> dict[str, Any]:
        """Return the executor's counts and mode."""
        counts = dict(self.executor.counts)
        return counts | {"mode": str(self.executor.state.mode), "ticks": self.executor.ticks, "age_s": 0.0}

    def mode(self) -> str:
        """Return the executor's mode."""
        return str(self.executor.state.mode)

    def reading(self, task: str = "") -> Reading:
        """Return the newest state, pictures and signals."""
        signals = {}
        scene = self.twin.scene
        if isinstance(scene, Perceives):
            signals["observation.environment_state"] = scene.environment_state()
        images = {name: scene.image(name) for name in self.config.cameras}
        return Reading(self._robot.read(), images, signals, task or self.twin.task())

    def every(self, period_s: float, work: Callable[[int], bool]) -> None:
        """Call `work(step)` once per `period_s` of simulated time until it says False."""
        step = 0
        while work(step):
            step += 1
            self._advance(self._now_ns + round(1e9 * period_s))

    def close(self) -> None:
        """Delete the rings and end the log."""
        if self._log is not None:
            self._log.close()
        for transport in self._transports:
            transport.close()
        for ring in (self.chunks, self._arrived):
            ring.path.unlink(missing_ok=True)

    def _open_transport(self, graph: MemoryGraph) -> Transport:
        """Join the twin's graph; within one process DDS too hands a message over before `publish` returns."""
        if self.config.twin is None or self.config.twin.wire == "memory":
            return MemoryTransport(graph)
        from robolearn.hardware.dds import DdsTransport

        return DdsTransport(self.config.domain, self.now_ns)

    def _advance(self, until_ns: int) -> None:
        while True:
            self._now_ns = min(self._tick_due, self._step_due, until_ns)
            if self._now_ns >= until_ns:
                return
            if self._now_ns == self._step_due:
                self._step_due += self._step_ns
                self.twin.tick(self._now_ns)
                if self._log is not None:
                    self._log.drain()
            if self._now_ns == self._tick_due:
                self._tick_due += self._tick_ns
                self._deliver()
                self.executor.tick(self._now_ns)

    def _deliver(self) -> None:
        """Hand on the chunks whose inference has taken its time."""
        for record in self.chunks.since(self._delivered):
            if record.stamp_ns + self._latency_ns > self._now_ns:
                return
            self._arrived.write(record.stamp_ns, record.values)
            self._delivered = record.number
