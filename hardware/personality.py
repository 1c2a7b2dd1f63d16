"""What control stacks do with commands, without an arm: the twin's controllers.

Each personality takes messages of its topic and answers the joint target for now. They reject,
ignore, extrapolate and stop as the stacks they are named after do.
"""

from collections import Counter
from typing import Any, Protocol

import numpy as np

from robolearn.errors import HardwareError, suggest

__all__ = ["PERSONALITIES", "Forward", "Franka", "Personality", "Trajectory", "UniversalRobots", "make"]

_FLOATS, _TRAJECTORY = "std_msgs/msg/Float64MultiArray", "trajectory_msgs/msg/JointTrajectory"


class Personality(Protocol):
    """A controller: where it listens, and what it wants of the joints."""

    topic: str
    kind: str
    rejected: Counter[str]
    stopped: str  # why it gave up; empty while it works

    def receive(self, message: Any, now_ns: int) -> None: ...

    def target(self, now_ns: int) -> np.ndarray:
        """Return the joint target [J] for `now_ns`."""


class Trajectory:
    """joint_trajectory_controller: cubic between points with velocities, linear without.

    It checks names, sizes, times, the final velocity and stamps, not finiteness; it has no time-out:
    a trajectory is followed to its end.
    """

    topic, kind = "/joint_trajectory_controller/joint_trajectory", _TRAJECTORY

    def __init__(self, names: tuple[str, ...], start: np.ndarray, period_s: float):
        self._names, self._hold = names, np.array(start, float)
        self._times_ns = np.zeros(0, np.int64)
        self._points: list[np.ndarray] = []
        self.rejected, self.stopped = Counter[str](), ""

    def receive(self, message: Any, now_ns: int) -> None:
        problem = self._problem(message)
        if problem:
            self.rejected[problem] += 1
            return
        order = [list(message.joint_names).index(name) for name in self._names]
        times = np.array([p.time_from_start.sec * 10**9 + p.time_from_start.nanosec for p in message.points])
        position = np.array([np.asarray(p.positions)[order] for p in message.points])
        given = all(len(p.velocities) for p in message.points)
        velocity = np.array([np.asarray(p.velocities)[order] for p in message.points]) if given else None
        here, speed = self._at(now_ns)
        self._times_ns = np.concatenate([[now_ns], now_ns + times])
        joined = None if velocity is None else np.concatenate([speed[None], velocity])
        self._points = [np.concatenate([here[None], position])] + ([] if joined is None else [joined])

    def target(self, now_ns: int) -> np.ndarray:
        return self._at(now_ns)[0]

    def _problem(self, message: Any) -> str:
        if sorted(message.joint_names) != sorted(self._names):
            return "names"
        if not message.points:
            return "empty"
        joints, last = len(self._names), -1
        for point in message.points:
            if len(point.positions) != joints or len(point.velocities) not in (0, joints):
                return "size"
            time = point.time_from_start.sec * 10**9 + point.time_from_start.nanosec
            if time <= last:
                return "times"
            last = time
        if len(message.points[-1].velocities) and np.abs(message.points[-1].velocities).max() > 1e-6:
            return "end_velocity"
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        return "stamp" if stamp else ""  # only "start now" is understood here

    def _at(self, now_ns: int) -> tuple[np.ndarray, np.ndarray]:
        if not self._points:
            return self._hold, np.zeros(len(self._hold))
        position = self._points[0]
        i = int(np.searchsorted(self._times_ns, now_ns, side="right")) - 1
        if i >= len(position) - 1:
            self._hold, self._points = position[-1], []
            return self._hold, np.zeros(len(self._hold))
        span = max(1e-9 * (self._times_ns[i + 1] - self._times_ns[i]), 1e-9)
        u, step = 1e-9 * (now_ns - self._times_ns[i]) / span, position[i + 1] - position[i]
        if len(self._points) == 1:
            return position[i] + u * step, step / span
        a, b = span * self._points[1][i], span * self._points[1][i + 1]
        cubic, square = a + b - 2 * step, 3 * step - 2 * a - b
        return position[i] + u * (a + u * (square + u * cubic)), (a + u * (2 * square + 3 * u * cubic)) / span


class Forward:
    """forward_command_controller: the last finite command of the right length, for ever."""

    topic, kind = "/forward_position_controller/commands", _FLOATS

    def __init__(self, names: tuple[str, ...], start: np.ndarray, period_s: float):
        self._target = np.array(start, float)
        self.rejected, self.stopped = Counter[str](), ""

    def receive(self, message: Any, now_ns: int) -> None:
        command = np.asarray(message.data)
        if command.shape != self._target.shape:
            self.rejected["size"] += 1
        elif not np.isfinite(command).all():
            self.rejected["not_finite"] += 1
        else:
            self._target = command.astype(float)

    def target(self, now_ns: int) -> np.ndarray:
        return self._target


class _Watching(Forward):
    """Knows how fast its set-points move."""

    def __init__(self, names: tuple[str, ...], start: np.ndarray, period_s: float):
        super().__init__(names, start, period_s)
        self._period_s, self._velocity = period_s, np.zeros(len(self._target))
        self._heard_ns: int | None = None

    def _elapsed_s(self, now_ns: int) -> float:
        """Return the time since the last set-point, a period at least."""
        return self._period_s if self._heard_ns is None else max(1e-9 * (now_ns - self._heard_ns), self._period_s)


class UniversalRobots(_Watching):
    """Ignores set-points that imply too much speed; without one for 40 ms it extrapolates, then stops for good."""

    speed_rad_s, timeout_ns = 3.14, 40_000_000

    def receive(self, message: Any, now_ns: int) -> None:
        if self.stopped:
            self.rejected["stopped"] += 1
            return
        before = self._target
        super().receive(message, now_ns)
        velocity = (self._target - before) / self._elapsed_s(now_ns)
        if np.abs(velocity).max() > self.speed_rad_s:
            self._target = before
            self.rejected["speed"] += 1
        else:
            self._velocity = velocity
        self._heard_ns = now_ns

    def target(self, now_ns: int) -> np.ndarray:
        if self._heard_ns is None or self.stopped:
            return self._target
        silent = now_ns - self._heard_ns
        if silent > 2 * self.timeout_ns:
            self._target = self._target + 1e-9 * self.timeout_ns * self._velocity
            self.stopped = "no command within robot_receive_timeout"
            return self._target
        return self._target + 1e-9 * max(silent - self.timeout_ns, 0) * self._velocity


class Franka(_Watching):
    """Stops after 20 periods without a command, on a command that is not finite, and on a discontinuity."""

    acceleration_rad_s2, lost = 10.0, 20

    def receive(self, message: Any, now_ns: int) -> None:
        if self.stopped:
            self.rejected["stopped"] += 1
            return
        before = self._target
        super().receive(message, now_ns)
        if self.rejected["not_finite"]:
            self.stopped = "a command that is not finite"
            return
        elapsed = self._elapsed_s(now_ns)
        velocity = (self._target - before) / elapsed
        if np.abs(velocity - self._velocity).max() / elapsed > 20 * self.acceleration_rad_s2:
            self._target, self.stopped = before, "cartesian_reflex: a discontinuity of the command"
        self._velocity, self._heard_ns = velocity, now_ns

    def target(self, now_ns: int) -> np.ndarray:
        if (
            not self.stopped
            and self._heard_ns is not None
            and now_ns - self._heard_ns > 1e9 * self.lost * self._period_s
        ):
            self.stopped = "communication_constraints_violation: 20 packets lost"
        return self._target


PERSONALITIES: dict[str, type[Trajectory] | type[Forward]] = {
    "jtc": Trajectory,
    "forward": Forward,
    "ur": UniversalRobots,
    "franka": Franka,
}


def make(name: str, joints: tuple[str, ...], start: np.ndarray, period_s: float) -> Personality:
    """Return the personality `name` for joints that are at `start`."""
    if name not in PERSONALITIES:
        raise HardwareError(f"Unknown personality '{name}'.", expected=suggest(name, PERSONALITIES))
    return PERSONALITIES[name](joints, start, period_s)
