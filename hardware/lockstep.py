"""Policy, executor and twin on one simulated clock, in one process: the whole way, as fast as it computes."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from robolearn.contracts import Actor, Scene
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.executor import Executor, ExecutorConfig
from robolearn.hardware.limits import limits_of
from robolearn.hardware.memory import MemoryGraph, MemoryTransport
from robolearn.hardware.observe import Reading
from robolearn.hardware.ring import Ring
from robolearn.hardware.ros_robot import RosRobot
from robolearn.hardware.safety import Mode
from robolearn.hardware.twin import Perceives, Twin, TwinConfig
from robolearn.hardware.worker import PolicyWorker
from robolearn.robots import Arm

__all__ = ["Episode", "Lockstep"]

_START_NS = 10**10


@dataclass(frozen=True)
class Episode:
    """How one simulated episode ended."""

    success: bool
    steps: int
    mode: Mode
    events: dict[str, int]


class Lockstep:
    """Runs episodes of an actor on a twin; inference takes `latency_s` of simulated time."""

    def __init__(self, scene: Scene, arm: Arm, actor: Actor, config: RobotConfig, execute: int, latency_s: float = 0.0):
        self.scene, self.arm, self.actor, self.config = scene, arm, actor, config
        self.now_ns, self._latency_ns = _START_NS, round(1e9 * latency_s)
        self._execute = execute
        self._tick_ns, self._step_ns = round(1e9 / config.ros.rate_hz), round(1e9 * scene.dt_s)

    def run(self, seed: int, episode: int, max_steps: int, hold_steps: int = 1) -> Episode:
        """Run one episode from the scene's start for `seed`; success must last `hold_steps` of the actor's steps."""
        graph = MemoryGraph(lambda: self.now_ns)
        twin = Twin(self.scene, MemoryTransport(graph), self._twin_config(seed), graph.clock_ns)
        robot = RosRobot(self.arm, MemoryTransport(graph), self.config.ros)
        robot.join()
        size = self.actor.spec.chunk, len(self.arm.joints) + 1
        arrived, decided = Ring.create(size), Ring.create(size)
        limits = limits_of(self.arm, self.config.ros.rate_hz, self.config.safety)
        path = self.config.ros.controller == "jtc"
        options = ExecutorConfig(1.0 / self.actor.spec.rate_hz, self.config.blend_s, send_path=path)
        executor = Executor(limits, robot, arrived, options)
        worker = PolicyWorker(self.actor, self.arm, decided, np.array(self.config.base_m), self._execute)
        try:
            return self._loop(twin, executor, worker, (decided, arrived), (episode, max_steps, hold_steps))
        finally:
            arrived.remove()
            decided.remove()

    def _twin_config(self, seed: int) -> TwinConfig:
        options = self.config.twin or TwinOptions()
        return TwinConfig(
            options.personality,
            self.config.ros.state_topic,
            self.config.ros.gripper_topic,
            self.config.ros.gripper_joint,
            seed=seed,
        )

    def _loop(
        self,
        twin: Twin,
        executor: Executor,
        worker: PolicyWorker,
        rings: tuple[Ring, Ring],
        plan: tuple[int, int, int],
    ) -> Episode:
        decided, arrived = rings
        episode, max_steps, hold_steps = plan
        worker.begin(episode)
        twin.tick(self.now_ns)
        executor.request("arm", self.now_ns)
        period_ns = round(1e9 * worker.period_s)
        due_step, due_tick, due_scene = self.now_ns, self.now_ns, self.now_ns + self._step_ns
        waiting: deque[tuple[int, int]] = deque()
        steps, held = 0, 0
        while steps < max_steps:
            if self.now_ns >= due_step:
                due_step += period_ns
                held = held + 1 if twin.success() else 0
                if held >= hold_steps:
                    break
                before = decided.latest()
                worker.step(self._reading(twin, executor, before is None))
                after = decided.latest()
                if after is not None and (before is None or after.number > before.number):
                    late = self._latency_ns if before is not None else 0  # an episode starts with a chunk
                    waiting.append((self.now_ns + late, after.number))
                steps += 1
            while waiting and waiting[0][0] <= self.now_ns:
                for record in decided.since(waiting.popleft()[1] - 1)[:1]:
                    arrived.write(record.stamp_ns, record.values)
            if self.now_ns >= due_tick:
                due_tick += self._tick_ns
                executor.tick(self.now_ns)
            if self.now_ns >= due_scene:
                due_scene += self._step_ns
                twin.tick(self.now_ns)
            self.now_ns = min(due_step, due_tick, due_scene)
        return Episode(held >= hold_steps, steps, executor.state.mode, dict(executor.counts))

    def _reading(self, twin: Twin, executor: Executor, first: bool) -> Reading:
        if first:
            executor.measured = executor.robot.read()
        state = executor.robot.read()
        wanted = self.actor.spec.observations
        names = [key.removeprefix("observation.images.") for key in wanted if key.startswith("observation.images.")]
        signals = {}
        if isinstance(twin.scene, Perceives):
            signals["observation.environment_state"] = twin.scene.environment_state()
        return Reading(state, {name: twin.scene.image(name) for name in names}, signals, twin.task())
