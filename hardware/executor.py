"""Turns chunks into a stream of checked set-points, at a fixed rate, from its own process.

Chunks come through a ring, stamped with the monotonic time of the observation they were decided on:
action i belongs to that time + i periods. What latency has consumed is skipped. A newer chunk takes
over from its own time on and is faded in. Without a chunk for now the arm decelerates and holds.
"""

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from robolearn.contracts import Robot, RobotState
from robolearn.errors import HardwareError
from robolearn.hardware import safety
from robolearn.hardware.braking import fading
from robolearn.hardware.limits import Limits
from robolearn.hardware.ring import Record, Ring
from robolearn.hardware.safety import Command, Decision, Mode, SafetyState
from robolearn.plan import ChunkPlan

__all__ = ["STATUS", "Executor", "ExecutorConfig", "run", "states_ring", "status_ring"]

_ROW = np.zeros(1, np.int64)
_MODES = tuple(Mode)
_EVENTS = (
    "starved", "limited", "braking", "position", "shape", "not_finite", "late", "order", "start_too_far", "tracking",
    "stall", "command_age", "state_missing", "state_joints", "state_not_finite", "state_age", "chunk_not_finite",
    "chunk_stale", "chunk_future", "chunk_order",
)  # fmt: skip
# Columns of a status record: what happened so far.
STATUS = ("mode", "ticks", "missed", "late_ns", "chunks", *_EVENTS)


@dataclass(frozen=True)
class ExecutorConfig:
    """Options of the executor; `chunk_age_s` is how old the observation behind a new chunk may be."""

    chunk_period_s: float
    blend_s: float = 0.1
    chunk_age_s: float = 1.0
    gripper_m_s: float = 0.1
    gripper_width_m: float = 0.08
    send_path: bool = False  # give the robot the checked way to rest with every set-point


class Executor:
    """One tick at a time: newest chunk → target for now → safety filter → robot.

    Chunks are [K,J] joint positions [rad], or [K,J+1] with the gripper's width [m] last.
    """

    def __init__(
        self,
        limits: Limits,
        robot: Robot,
        chunks: Ring,
        config: ExecutorConfig,
        status: Ring | None = None,
        states: Ring | None = None,
    ):
        joints = len(limits.names)
        if chunks.shape[1] not in (joints, joints + 1):
            raise HardwareError(
                "The policy's actions do not fit the arm.",
                found=f"{chunks.shape[1]} numbers",
                expected=f"{joints} joint positions, or {joints + 1} with the gripper",
                do="deploy a policy with joint_position actions for this robot",
            )
        self.limits, self.robot, self.config = limits, robot, config
        self.state, self.counts = SafetyState(), Counter[str]()
        self.measured: RobotState | None = None
        self.missed, self.late_ns, self.ticks = 0, 0, 0
        self._chunks, self._status, self._states = chunks, status, states
        self._plan = ChunkPlan(1, *chunks.shape, config.chunk_period_s)
        self._gap, self._gap_s = np.zeros((3, chunks.shape[1])), 0.0  # what the newest chunk jumped by, and when
        self._seen, self._start_ns = 0, 0
        self._gripper_m: float | None = None

    def request(self, verb: str, now_ns: int) -> None:
        """Change the mode: "arm", "hold", "stop" or "disarm"; raises `HardwareError` where that is refused."""
        if verb == "arm":
            self.measured = self.robot.read()
            self.state = safety.arm(self.limits, self.state, self.measured, now_ns)
            self._gripper_m = self.measured.gripper_m
            self._forget()
        elif verb == "hold":
            self.state = safety.hold(self.state, "asked")
        elif verb == "stop":
            self.state = safety.stop(self.state, "asked")
        elif verb == "disarm":
            self.state = safety.disarm(self.state)
        else:
            raise HardwareError("Unknown request.", found=verb, expected="arm, hold, stop, disarm")

    def tick(self, now_ns: int) -> Decision:
        """Run one period; sends one set-point unless disarmed."""
        self.measured = self.robot.read()
        self._receive(now_ns)
        target, gripper_m = self._target(now_ns)
        self.state, decision = safety.step(self.limits, self.state, target, self.measured, now_ns)
        self.counts.update(decision.events)
        self.ticks += 1
        if decision.send is not None:
            path = decision.send[None]
            if self.config.send_path:
                path = np.concatenate([path, self.state.escape])
            path = self._with_gripper(path, gripper_m)
            self.robot.send(path if self.config.send_path else path[0], now_ns)
        if self._status is not None:
            self._report(now_ns)
        if self._states is not None:
            self._publish(self._states, decision)
        return decision

    # ------------------------------------------------------------ chunks

    def _receive(self, now_ns: int) -> None:
        record = self._chunks.latest()
        if record is None or record.number == self._seen:
            return
        self._seen = record.number
        problem = self._problem(record, now_ns)
        if problem:
            self.counts[problem] += 1
            return
        before, before_left = self._motion(now_ns)
        self._plan.splice(_ROW, np.array([1e-9 * record.stamp_ns]), record.values[None])
        self._gap[:] = 0.0
        after, after_left = self._motion(now_ns)
        if before_left > 0 and after_left > 0:
            self._gap, self._gap_s = before - after, 1e-9 * now_ns
        self._start_ns = record.stamp_ns
        self.counts["chunks"] += 1

    def _problem(self, record: Record, now_ns: int) -> str:
        if not np.isfinite(record.values).all():
            return "chunk_not_finite"
        if record.stamp_ns > now_ns:
            return "chunk_future"
        if now_ns - record.stamp_ns > 1e9 * self.config.chunk_age_s:
            return "chunk_stale"
        return "chunk_order" if record.stamp_ns <= self._start_ns else ""

    def _motion(self, now_ns: int) -> tuple[np.ndarray, float]:
        """Return position, rate and acceleration [3,K] wanted now, and for how long [s] the chunk still covers it."""
        now_s = 1e-9 * now_ns
        (motion,), (left,) = self._plan.sample(np.array([now_s]))
        return motion + fading(self._gap, self.config.blend_s, now_s - self._gap_s), float(left)

    def _target(self, now_ns: int) -> tuple[Command | None, float | None]:
        """Return the joint target and the gripper width for now; None where no chunk covers it."""
        (position, rate, _), left = self._motion(now_ns)
        if left <= 0:
            return None, None
        joints = len(self.limits.names)
        gripper_m = float(position[joints]) if len(position) > joints else None
        return Command(position[:joints], rate[:joints], now_ns), gripper_m

    def _forget(self) -> None:
        self._plan.restart(_ROW)
        record = self._chunks.latest()  # decided before the arm was armed
        self._seen = record.number if record is not None else 0

    def _with_gripper(self, path: np.ndarray, wanted_m: float | None) -> np.ndarray:
        if self._chunks.shape[1] == path.shape[1] or self._gripper_m is None:
            return path
        if wanted_m is not None and self.state.mode in (Mode.RAMP_IN, Mode.RUN):
            most = self.config.gripper_m_s * self.limits.period_s
            wanted_m = min(max(wanted_m, 0.0), self.config.gripper_width_m)
            self._gripper_m += min(max(wanted_m - self._gripper_m, -most), most)
        return np.concatenate([path, np.full((len(path), 1), self._gripper_m)], axis=1)

    def _report(self, now_ns: int) -> None:
        known = (_MODES.index(self.state.mode), self.ticks, self.missed, self.late_ns, self.counts["chunks"])
        values = np.array([*known, *(self.counts[event] for event in _EVENTS)], float)
        if self._status is not None:
            self._status.write(now_ns, values[None])

    def _publish(self, states: Ring, decision: Decision) -> None:
        """Hand on the reading and what was sent, as rows of joints and gripper."""
        if self.measured is None:
            return
        gripper = np.nan if self.measured.gripper_m is None else self.measured.gripper_m
        sent = self.measured.position_rad if decision.send is None else decision.send
        rows = (self.measured.position_rad, self.measured.velocity_rad_s, sent)
        last = (gripper, 0.0, np.nan if self._gripper_m is None else self._gripper_m)
        states.write(
            self.measured.stamp_ns, np.array([np.append(row, end) for row, end in zip(rows, last, strict=True)])
        )


def states_ring(joints: int) -> Ring:
    """Return a ring for readings: rows position, velocity, sent; columns joints [rad] and gripper [m]."""
    return Ring.create((3, joints + 1), slots=64)


def status_ring() -> Ring:
    """Return a ring for the executor's status records."""
    return Ring.create((1, len(STATUS)))


def run(executor: Executor, keep_running, sleep=time.sleep, clock=time.monotonic_ns) -> None:
    """Tick at the executor's rate until `keep_running(now_ns)` says no.

    The schedule is absolute. A tick that comes more than a tenth of a period late moves the schedule:
    missed ticks are counted and dropped, never caught up, and no two ticks are close together.
    """
    period_ns = round(1e9 * executor.limits.period_s)
    due = clock() + period_ns
    while True:
        wait = due - clock()
        if wait > 0:
            sleep(1e-9 * wait)
        now = clock()
        late = now - due
        executor.late_ns = max(late, 0)
        if late > period_ns:
            executor.missed += late // period_ns
        if not keep_running(now):
            return
        executor.tick(now)
        due = (now if late > period_ns // 10 else due) + period_ns
