"""The executor's timing and motion: tick lateness, tracking lag, jerk at splices, error over delay.

Lateness is measured in real time, alone and beside a process that computes without pause; the rest runs
on a simulated clock and does not depend on the machine. The peer of an error is an executor that waits for
each chunk and starts it when it comes; that of a jerk is switching between chunks without a blend.
"""

import gc
import multiprocessing
import os
import time
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np

from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.contracts import RobotState
from robolearn.hardware.executor import Executor, ExecutorConfig, run
from robolearn.hardware.limits import SafetyConfig, limits_of
from robolearn.hardware.processes import ask_realtime
from robolearn.hardware.ring import Ring
from robolearn.hardware.ros_robot import robot_spec
from robolearn.robots.panda import PANDA

HOME = np.array(PANDA.home_rad)
DT, K = 0.02, 32


class FollowingArm:
    """Follows every set-point at once."""

    spec = robot_spec(PANDA, 500.0, gripper=False)

    def __init__(self, clock):
        self.position, self.clock, self.sent = HOME.copy(), clock, []

    def connect(self): ...

    def close(self): ...

    def read(self):
        return RobotState(self.clock(), PANDA.joints, self.position, np.zeros(7))

    def send(self, positions_rad, stamp_ns):
        self.position = np.atleast_2d(positions_rad)[0]
        self.sent.append((stamp_ns, self.position.copy()))
        return positions_rad


def compute() -> None:
    """Compute for ever, as a policy would."""
    matrix = np.random.default_rng(0).standard_normal((400, 400))
    while True:
        matrix = np.tanh(matrix @ matrix.T / 400)


@contextmanager
def busy_process() -> Generator[None]:
    """Keep a second process computing."""
    process = multiprocessing.get_context("spawn").Process(target=compute, daemon=True)
    process.start()
    time.sleep(1.0)
    yield
    process.terminate()


@contextmanager
def realtime() -> Generator[str]:
    """Schedule this process as the executor's own, as far as that is permitted; yields what came of it."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield ask_realtime().partition(":")[0]
    gc.enable()
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def lateness(rate_hz: float, seconds: float, beside: str) -> list[Row]:
    """Return how late ticks come and how far apart commands are [us], in real time, scheduled as deployed."""
    chunks = Ring.create((K, 7))
    robot = FollowingArm(time.monotonic_ns)
    executor = Executor(limits_of(PANDA, rate_hz), robot, chunks, ExecutorConfig(DT))
    executor.request("arm", time.monotonic_ns())
    late, end, due = [], time.monotonic_ns() + round(1e9 * seconds), 0

    def keep_running(now_ns: int) -> bool:
        nonlocal due
        late.append(executor.late_ns / 1e3)
        if now_ns >= due:
            due = now_ns + 100_000_000
            times = 1e-9 * now_ns + DT * np.arange(K)
            chunks.write(now_ns, HOME + 0.1 * np.sin(times)[:, None] * np.eye(7)[6])
        return now_ns < end

    with realtime() as schedule:
        run(executor, keep_running)
    chunks.remove()
    gaps = np.diff([stamp for stamp, _ in robot.sent]) / 1e3
    jitter_us = np.abs(gaps - 1e6 / rate_hz)
    note = f"p99, {len(late):,} ticks, p50 {np.percentile(late, 50):.0f}, p99.9 {np.percentile(late, 99.9):.0f} us"
    note += f", missed {executor.missed}; {schedule}"
    return [
        Row(f"late_{rate_hz:.0f}hz_{beside}", "us", float(np.percentile(late, 99)), note=note),
        Row(f"jitter_{rate_hz:.0f}hz_{beside}", "us", float(np.percentile(jitter_us, 99)), note=f"p99, {beside}"),
    ]


def motion(reference, latency_s: float, blend_s: float, seconds: float = 6.0, spread: float = 0.0, synchronous=False):
    """Run the executor on a simulated clock; returns times, references and commands.

    Chunks come every 0.1 s, `latency_s` after their observation, each off by a constant of `spread` [rad].
    A synchronous executor waits for each chunk and starts it when it comes, as if no time had passed.
    """
    now, draw = 10**10, np.random.default_rng(0)
    start, chunks = now, Ring.create((K, 7))
    robot = FollowingArm(lambda: now)
    limits = limits_of(PANDA, 500.0, SafetyConfig(tool_m_s=1.5))
    executor = Executor(limits, robot, chunks, ExecutorConfig(DT, blend_s))
    executor.request("arm", now)
    waiting, asked = [], -(10**10)
    every = 100_000_000 if not synchronous else 100_000_000 + round(1e9 * latency_s)
    wanted = []
    for _ in range(round(seconds * 500)):
        if now - asked >= every:
            asked = now
            t = 1e-9 * (now - start)
            offset = draw.normal(0, spread, 7) if spread else 0.0
            chunk = np.array([reference(t + DT * i) for i in range(K)]) + offset
            waiting.append((now + round(1e9 * latency_s), now, chunk))
        while waiting and waiting[0][0] <= now:
            arrival, stamp, chunk = waiting.pop(0)
            chunks.write(arrival if synchronous else stamp, chunk)
        executor.tick(now)
        wanted.append(reference(1e-9 * (now - start)))
        now += 2_000_000
    chunks.remove()
    return np.array(wanted), np.array([position for _, position in robot.sent]), executor


def lag_ms(latency_s: float) -> float:
    """Return how far behind [ms] a motion of 1 rad/s runs."""
    period = 2.0

    def triangle(t):
        phase = (t % period) / period
        return HOME + (2 * abs(2 * phase - 1) - 2) * 0.5 * np.eye(7)[6]

    wanted, sent, _ = motion(triangle, latency_s, 0.1)
    middle = (np.abs(np.gradient(wanted[:, 6], 0.002)) > 0.99) & (np.arange(len(wanted)) > 1000)
    direction = np.sign(np.gradient(wanted[:, 6]))
    return float(np.median(((wanted[:, 6] - sent[:, 6]) * direction)[middle]) * 1e3)


def sway(t):
    """Return a smooth motion of several joints."""
    return HOME + 0.2 * (1 - np.cos(2 * np.pi * 0.25 * t)) * np.array([0.5, 0.3, 0.5, 0.3, 1, 0.5, 1])


def splice_jerk(latency_s: float, blend_s: float) -> float:
    """Return the largest third difference [rad/s3] of commands at chunk boundaries of disagreeing chunks."""
    _, sent, _ = motion(sway, latency_s, blend_s, spread=0.002)
    return float(np.abs(np.diff(sent[1000:], 3, axis=0)).max() / 0.002**3)


def error(latency_s: float, synchronous: bool) -> float:
    """Return the median error [rad] against the reference at a delay."""
    wanted, sent, _ = motion(sway, latency_s, 0.1, synchronous=synchronous)
    return float(np.median(np.abs(wanted - sent).max(axis=1)[1000:]))


def delay_rows(delay_s: float) -> list[Row]:
    """Return lag, jerk and error at one inference delay, on a simulated clock."""
    at = f"{1e3 * delay_s:.0f}ms"
    blended, switched = splice_jerk(delay_s, 0.1), splice_jerk(delay_s, 0.0)
    ours, waiting = error(delay_s, False), error(delay_s, True)
    gain = waiting / ours if ours > 0 else None
    return [
        Row(f"lag_{at}", "ms", lag_ms(delay_s), note="behind a motion of 1 rad/s"),
        Row(f"splice_jerk_{at}", "rad/s3", blended, switched, switched / blended, "chunks that disagree by 2 mrad"),
        Row(f"error_{at}", "rad", ours, waiting, gain, "median; peer: starts chunks when they come"),
    ]


def measure(options: Options) -> list[Row]:
    """Return all rows; --quick takes two seconds a rate and two delays."""
    seconds = 2.0 if options.quick else 10.0
    rates = (250.0, 500.0, 1000.0)
    rows = [row for rate in rates for row in lateness(rate, seconds, "alone")]
    with busy_process():
        rows += [row for rate in rates for row in lateness(rate, seconds, "busy")]
    for delay_s in (0.0, 0.2) if options.quick else (0.0, 0.1, 0.2, 0.3, 0.4):
        rows += delay_rows(delay_s)
    return rows


if __name__ == "__main__":
    options = parse_options(__doc__ or "")
    finish(measure(options), options)
