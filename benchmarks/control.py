"""The executor's timing and motion: tick lateness, tracking lag, jerk at splices, success over delay.

    python benchmarks/control.py [--seconds 10] [--busy] [--quick]

Lateness is measured in real time, beside a process that computes without pause when --busy is given;
the rest runs on a simulated clock and does not depend on the machine.
"""

import argparse
import json
import multiprocessing
import os
import time

import numpy as np

from robolearn.contracts import RobotState
from robolearn.hardware.executor import Executor, ExecutorConfig, run
from robolearn.hardware.limits import SafetyConfig, limits_of
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


def busy() -> None:
    """Compute for ever, as a policy would."""
    matrix = np.random.default_rng(0).standard_normal((400, 400))
    while True:
        matrix = np.tanh(matrix @ matrix.T / 400)


def lateness(rate_hz: float, seconds: float) -> dict[str, float]:
    """Return how late ticks and commands come [us], in real time."""
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

    run(executor, keep_running)
    chunks.remove()
    gaps = np.diff([stamp for stamp, _ in robot.sent]) / 1e3
    return {
        "ticks": len(late),
        "late_p50_us": round(float(np.percentile(late, 50)), 1),
        "late_p99_us": round(float(np.percentile(late, 99)), 1),
        "late_p999_us": round(float(np.percentile(late, 99.9)), 1),
        "gap_p99_over_period": round(float(np.percentile(gaps, 99)) * rate_hz / 1e6, 3),
        "missed": int(executor.missed),
    }


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    load = multiprocessing.get_context("spawn").Process(target=busy, daemon=True)
    if options.busy:
        load.start()
        time.sleep(1.0)
    seconds = 2.0 if options.quick else options.seconds
    rows = {f"{rate:.0f}_hz": lateness(rate, seconds) for rate in (250.0, 500.0, 1000.0)}
    if options.busy:
        load.terminate()
    delays = (0.0, 0.2) if options.quick else (0.0, 0.1, 0.2, 0.3, 0.4)
    result = {
        "cpus": os.cpu_count(),
        "busy": options.busy,
        "real_time": rows,
        "tracking_lag_ms": {str(delay): round(lag_ms(delay), 3) for delay in delays},
        "splice_jerk_rad_s3": {
            str(delay): {"switched": round(splice_jerk(delay, 0.0)), "blended": round(splice_jerk(delay, 0.1))}
            for delay in delays
        },
        "median_error_rad": {
            str(delay): {"by_time": round(error(delay, False), 5), "synchronous": round(error(delay, True), 5)}
            for delay in delays
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
