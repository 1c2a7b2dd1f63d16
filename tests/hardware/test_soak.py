"""Long runs on a simulated clock: dropped policies, and memory, threads and descriptors over many ticks."""

import gc
import os
import threading

import numpy as np
import pytest

from robolearn.contracts import RobotState
from robolearn.hardware.executor import Executor, ExecutorConfig, status_ring
from robolearn.hardware.ring import Ring
from robolearn.hardware.safety import Mode
from robolearn.robots.panda import PANDA

MS, DT, K = 1_000_000, 0.02, 32


class Arm:
    """Follows at once; keeps only the last set-points."""

    spec = None

    def __init__(self, home):
        self.position, self.now, self.last = home.copy(), 0, []

    def connect(self): ...

    def close(self): ...

    def read(self):
        return RobotState(self.now, PANDA.joints, self.position, np.zeros(7))

    def send(self, positions_rad, stamp_ns):
        self.position = positions_rad
        self.last = [*self.last[-60:], positions_rad]
        return positions_rad


class Run:
    def __init__(self, limits, home):
        self.home, self.chunks, self.status = home, Ring.create((K, 7)), status_ring()
        self.arm = Arm(home)
        self.executor = Executor(limits, self.arm, self.chunks, ExecutorConfig(DT), self.status)
        self.now = self.start = self.arm.now = 10_000 * MS
        self.executor.request("arm", self.now)

    def chunk(self):
        t = 1e-9 * (self.now - self.start) + DT * np.arange(K)
        self.chunks.write(self.now, self.home + 0.2 * np.sin(t)[:, None] * np.eye(7)[6])

    def tick(self):
        self.now += 4 * MS
        self.arm.now = self.now
        self.executor.tick(self.now)

    def close(self):
        self.chunks.remove()
        self.status.remove()


def drops(limits, home, count):
    """Return, per drop of the policy, the ticks from its last target to the begin of deceleration, and to rest."""
    run, draw, begins, rests = Run(limits, home), np.random.default_rng(0), [], []
    for _ in range(count):
        for i in range(int(draw.integers(80, 160))):
            if i % 10 == 0:
                run.chunk()
            run.tick()
        speeds, counted = [], run.executor.counts["starved"]
        for _ in range(400):  # the policy is gone; its last chunk lasts for 0.62 s
            run.tick()
            if run.executor.counts["starved"] > counted:
                speeds.append(np.abs(run.executor.state.velocity).max())
        assert run.executor.state.mode == Mode.HOLD
        slower = np.flatnonzero(np.array(speeds) < speeds[0] * 0.999)
        begins.append(slower[0] if len(slower) else 0)  # it may have stood still
        rests.append(np.flatnonzero(np.array(speeds) == 0)[0])
        run.executor.counts.clear()
        run.executor.request("arm", run.now)
    run.close()
    return np.array(begins), np.array(rests)


def test_every_dropped_policy_brings_the_arm_to_rest_at_once(limits, home):
    begins, rests = drops(limits, home, 8)
    assert begins.max() * 4 <= 100
    assert rests.max() * 4 <= 200  # at rest, with the braking itself


@pytest.mark.long
def test_a_thousand_dropped_policies(limits, home):
    begins, rests = drops(limits, home, 1000)
    assert np.percentile(begins, 99.9) * 4 <= 100
    assert rests.max() * 4 <= 200


def resources():
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, threading.active_count(), len(os.listdir("/proc/self/fd"))


def soak(limits, home, ticks):
    run, seen = Run(limits, home), []
    for i in range(ticks):
        if i % 25 == 0:
            run.chunk()
        run.tick()
        if i % (ticks // 10) == ticks // 10 - 1:
            seen.append(resources())
    assert run.executor.state.mode == Mode.RUN
    run.close()
    return np.array(seen)


def test_resources_stay_flat(limits, home):
    seen = soak(limits, home, 3000)
    assert seen[-1, 0] - seen[2, 0] < 4.0
    assert seen[-1, 1:].tolist() == seen[2, 1:].tolist()


@pytest.mark.long
def test_resources_stay_flat_over_a_day_of_ticks(limits, home):
    seen = soak(limits, home, 4_320_000)
    assert seen[-1, 0] - seen[2, 0] < 8.0
    assert seen[-1, 1:].tolist() == seen[2, 1:].tolist()
