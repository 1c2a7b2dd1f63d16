"""What the time of inference costs: success over delay, and how smooth the commands stay where chunks meet.

    python benchmarks/delay.py [--quick] [--json FILE]

Push-T by the checkpoint beside this file, 10 steps a second, 4 of 16 actions before the next decision; a delay of
100 ms is one step. Three ways to live with it: a synchronous executor (the peer) stands still until the chunk is
there, then plays it from its start; splicing goes on with the old chunk and enters the new one where it is due
by now; real-time chunking (arXiv 2506.07339) also steers the new chunk towards what is left of the old one.

For smoothness the same policy's chunks, as they were decided in those episodes, are played by the real executor at
500 Hz (two joints, 0.3 mrad for a pixel of 512). Compared are the largest third differences of its commands within
0.2 s of a chunk's arrival, where it blends, and those of the chunks alone, each along its own path.
"""

from pathlib import Path
from typing import Any

import numpy as np
from control import HOME, FollowingArm

import robolearn
from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.buffer import ObservationBuffer
from robolearn.contracts import Actor, Observations
from robolearn.evaluation import EvalConfig, EvalResult, evaluate_controller
from robolearn.hardware.executor import Executor, ExecutorConfig
from robolearn.hardware.limits import SafetyConfig, limits_of
from robolearn.hardware.ring import Ring
from robolearn.plan import ChunkPlan, Execution
from robolearn.robots.panda import PANDA
from robolearn.rollout import PolicyController
from robolearn.seeding import policy_noise

CHECKPOINT = Path(__file__).parent / "checkpoints" / "pusht_flow"
PERIOD_S, EXECUTE, TEMPERATURE, SEED = 0.1, 4, 0.5, 100_000
BLEND_S, TICK_NS = 0.2, 2_000_000
WAYS = ("synchronous", "splice", "real-time chunking")
_ROW = np.zeros(1, np.int64)


class Synchronous:
    """Stands still while the policy decides, then plays a chunk from its start; `contracts.Controller`."""

    def __init__(self, actor: Actor, rows: int, delay_steps: int):
        self._actor, self._delay = actor, delay_steps
        self._buffer = ObservationBuffer(rows, actor.spec.history, PERIOD_S)
        self._episode, self._step = np.full(rows, -1), np.zeros(rows, np.int64)
        self._chunk = np.zeros((rows, actor.spec.chunk, actor.spec.action.dim))

    def begin(self, rows: np.ndarray, episodes: np.ndarray, obs: Observations) -> None:
        self._buffer.restart(rows)
        self._episode[rows], self._step[rows] = episodes, 0

    def act(self, obs: Observations, active: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(active)
        seen = {key: obs[key][rows] for key in self._actor.spec.observations}
        self._buffer.append(rows, self._step[rows] * PERIOD_S, seen)
        # An episode starts with a chunk; every later one is waited for.
        cycle, phase = np.divmod(self._step + self._delay, self._delay + EXECUTE)
        action = self._chunk[np.arange(len(phase)), np.maximum(phase - self._delay, 0)]
        action[phase < self._delay] = self._chunk[phase < self._delay, EXECUTE - 1]
        asking = rows[(phase[rows] == 0) | (self._step[rows] == 0)]
        if len(asking):
            shape = self._actor.noise_shape
            noise = [policy_noise(SEED, int(self._episode[row]), int(cycle[row]), shape) for row in asking]
            chunks = self._actor.act(self._buffer.window(asking), np.float32(TEMPERATURE) * np.stack(noise), None)
            last = action[asking].copy()
            self._chunk[asking] = chunks
            now = phase[asking] == self._delay
            action[asking] = np.where(now[:, None], chunks[:, 0], last)
        self._step[rows] += 1
        return action


class Kept:
    """An actor whose chunks are kept with the number of their call; `contracts.Actor`."""

    def __init__(self, actor: Actor):
        self.spec, self.noise_shape, self._actor = actor.spec, actor.noise_shape, actor
        self.chunks: list[np.ndarray] = []

    def act(self, obs: Observations, noise: np.ndarray, prefix: np.ndarray | None = None) -> np.ndarray:
        self.chunks.append(self._actor.act(obs, noise, prefix))
        return self.chunks[-1]


def controller(way: str, actor: Actor, rows: int, delay_steps: int) -> Any:
    """Return what drives `rows` environments in one of the ways."""
    if way == "synchronous":
        return Synchronous(actor, rows, delay_steps)
    continuity = "rest" if way == "real-time chunking" else "none"
    return PolicyController(actor, rows, Execution(EXECUTE, delay_steps, TEMPERATURE, continuity), SEED)


def policy(way: str, delay_steps: int) -> Actor:
    """Return the checkpoint's policy; guided, with what the delay commits frozen, for real-time chunking."""
    guided = {"prefix": {"name": "guided", "frozen": delay_steps}}
    return robolearn.load(CHECKPOINT, policy=guided if way == "real-time chunking" else None)


def success(way: str, delay_steps: int, episodes: int) -> EvalResult:
    """Evaluate one way at one delay."""
    rows = min(50, episodes)
    env = robolearn.make_env("pusht", num_envs=rows, options={"max_steps": 300})
    acting = controller(way, policy(way, delay_steps), rows, delay_steps)
    return evaluate_controller(acting, env, EvalConfig(episodes=episodes, num_envs=rows, seed=SEED))


def chunks_of(way: str, delay_steps: int, episode: int) -> list[np.ndarray]:
    """Return the chunks [K,2] of one episode, one every `EXECUTE` steps, as joint angles [rad]."""
    kept = Kept(policy(way, delay_steps))
    env = robolearn.make_env("pusht", num_envs=1, options={"max_steps": 300})
    config = EvalConfig(episodes=1, num_envs=1, seed=SEED)
    evaluate_controller(controller(way, kept, 1, delay_steps), env, config, episodes=[episode])
    return [np.asarray(chunk[0]) * 3e-4 for chunk in kept.chunks]


def jerk_of(positions: np.ndarray) -> np.ndarray:
    """Return the largest jerk [rad/s3] of any joint between the ticks of `positions` [N,J]."""
    return np.abs(np.diff(positions, 3, axis=0)).max(1) / (1e-9 * TICK_NS) ** 3


def jerk_within(chunks: list[np.ndarray]) -> float:
    """Return the largest jerk [rad/s3] that the chunks have on their own."""
    times = np.arange(0, (len(chunks[0]) - 1) * PERIOD_S - 1e-9, 1e-9 * TICK_NS)
    rows, plan = np.arange(len(times)), ChunkPlan(len(times), *chunks[0].shape, PERIOD_S)
    largest = []
    for chunk in chunks:
        plan.splice(rows, np.zeros(len(rows)), np.tile(chunk, (len(rows), 1, 1)))
        largest.append(jerk_of(plan.sample(times)[0][:, 0]).max())
    return float(max(largest))


def jerk_at_arrivals(chunks: list[np.ndarray], delay_steps: int) -> float:
    """Play chunks through the executor; returns the largest jerk [rad/s3] near their arrivals."""
    now = start = 10**10
    arm, ring = FollowingArm(lambda: now), Ring.create((len(chunks[0]), 7))
    limits = limits_of(PANDA, 500.0, SafetyConfig(tool_m_s=1.5, workspace_high_m=(0.9, 0.9, 1.5)))
    executor = Executor(limits, arm, ring, ExecutorConfig(PERIOD_S, BLEND_S))
    executor.request("arm", now)
    begin, meets = chunks[0][0], []
    waiting = [(EXECUTE * i, chunk) for i, chunk in enumerate(chunks)]
    every = round(1e9 * PERIOD_S)
    while now < start + every * EXECUTE * len(chunks):
        delay = 0 if waiting and waiting[0][0] == 0 else delay_steps
        if waiting and now >= start + every * (waiting[0][0] + delay):
            asked, chunk = waiting.pop(0)
            targets = np.tile(HOME, (len(chunk), 1))
            targets[:, 5:] += chunk - begin
            ring.write(start + every * asked, targets)
            meets.append(len(arm.sent))
        executor.tick(now)
        now += TICK_NS
    ring.remove()
    jerk = jerk_of(np.array([position for _, position in arm.sent]))
    around = [jerk[tick - 4 : tick + round(BLEND_S * 500) + 2] for tick in meets[1:]]  # the ramp in is another motion
    return float(np.concatenate(around).max())


def measure(options: Options) -> list[Row]:
    """Return success and smoothness at every delay; --quick takes two delays and few episodes."""
    episodes, played, delays = (20, 2, (0, 2)) if options.quick else (100, 3, (0, 2, 4))
    rows: list[Row] = []
    for delay in delays:
        at = f"{100 * delay}ms"
        waited = success("synchronous", delay, episodes).success
        for way in WAYS[1:]:
            rate = success(way, delay, episodes).success
            note = f"[{100 * rate.low:.0f}, {100 * rate.high:.0f}] of {episodes}; peer: synchronous "
            note += f"[{100 * waited.low:.0f}, {100 * waited.high:.0f}]"
            name = way.replace(" ", "_").replace("-", "_")
            rows.append(Row(f"success_{name}_{at}", "%", 100 * rate.value, 100 * waited.value, note=note))
            found = [chunks_of(way, delay, episode) for episode in range(played)]
            meet = float(np.median([jerk_at_arrivals(chunks, delay) for chunks in found]))
            within = float(np.median([jerk_within(chunks) for chunks in found]))
            note = f"largest at arrivals, median of {played} episodes; peer: largest of the chunks themselves"
            rows.append(Row(f"jerk_{name}_{at}", "rad/s3", meet, within, within / meet, note))
            finish(rows, options)
    return rows


if __name__ == "__main__":
    options = parse_options(__doc__ or "")
    finish(measure(options), options)
