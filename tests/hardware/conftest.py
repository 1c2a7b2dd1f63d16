"""An independent checker of what reaches an arm, and a panda at home."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from robolearn.contracts import RobotState
from robolearn.hardware.limits import limits_of
from robolearn.robots.panda import PANDA

MS = 1_000_000


@dataclass
class Checker:
    """Looks only at the numbers that were sent, one per tick, and at the arm's published constants."""

    period_s: float
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    box: tuple
    tool_m_s: float = 0.25
    sent: list = field(default_factory=list)

    @classmethod
    def usual(cls, period_s=0.004, box=((-0.9, -0.9, -0.1), (0.9, 0.9, 1.3))):
        """A checker of the filter's usual shares of the maker's limits."""
        shares = ((0.9, PANDA.velocity_rad_s), (0.7, PANDA.acceleration_rad_s2), (0.7, PANDA.jerk_rad_s3))
        return cls(period_s, *(share * np.array(limit) for share, limit in shares), box=box)

    def start(self, measured):
        """A new sequence begins at rest where the arm is."""
        self.sent = [np.array(measured)] * 4

    def see(self, positions):
        self.sent.append(np.array(positions))

    def violations(self):
        q = np.array(self.sent)
        found = []
        if not np.isfinite(q).all():
            found.append("finite")
        if (q < np.array(PANDA.low_rad)).any() or (q > np.array(PANDA.high_rad)).any():
            found.append("position")
        rate = q
        for name, bound in (("velocity", self.velocity), ("acceleration", self.acceleration), ("jerk", self.jerk)):
            rate = np.diff(rate, axis=0) / self.period_s
            if (np.abs(rate) > bound * (1 + 1e-4) + 1e-6).any():
                found.append(name)
        tool = np.array([modified_dh_tool(row) for row in q[3:]])
        if (np.linalg.norm(np.diff(tool, axis=0), axis=1) / self.period_s > self.tool_m_s * (1 + 1e-4)).any():
            found.append("tool speed")
        if (tool[1:] < self.box[0]).any() or (tool[1:] > self.box[1]).any():
            found.append("workspace")
        return found


def modified_dh_tool(q):
    """The Panda's tool by its published Denavit-Hartenberg table (Craig's convention), one 4 x 4 matrix per joint."""
    half = np.pi / 2
    table = [
        (0, 0.333, 0), (0, 0, -half), (0, 0.316, half), (0.0825, 0, half), (-0.0825, 0.384, -half), (0, 0, half),
        (0.088, 0, half),
    ]  # fmt: skip
    pose = np.eye(4)
    for (a, d, alpha), theta in zip(table, q, strict=True):
        ct, st, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
        pose = pose @ np.array(
            [[ct, -st, 0, a], [st * ca, ct * ca, -sa, -d * sa], [st * sa, ct * sa, ca, d * ca], [0, 0, 0, 1]]
        )
    return (pose @ np.array([0, 0, 0.1065 + 0.097, 1.0]))[:3]


class FollowingArm:
    """A Panda that is where it was told to be last, and remembers what it was told; `clock` gives nanoseconds."""

    spec = None

    def __init__(self, start, clock):
        self.position, self.sent, self._clock = np.array(start), [], clock
        self.gripper_m, self.lost = 0.08, False

    def connect(self): ...

    def close(self): ...

    def read(self):
        stamp = 0 if self.lost else self._clock()
        return RobotState(stamp, PANDA.joints, self.position, np.zeros(7), self.gripper_m)

    def send(self, positions_rad, stamp_ns):
        self.position = positions_rad[:7]
        self.gripper_m = positions_rad[7] if len(positions_rad) > 7 else None
        self.sent.append(np.array(positions_rad))
        return positions_rad


class ListSink:
    """Keeps frames and episodes in memory; reads them back."""

    def __init__(self, spec):
        self.spec, self.frames, self.episodes, self.closed = spec, [], [], False

    def add_frame(self, frame):
        self.frames.append(dict(frame))

    def save_episode(self, metadata=None):
        self.episodes.append((self.frames, metadata))
        self.frames = []
        return len(self.episodes) - 1

    def discard_episode(self):
        self.frames = []

    def close(self):
        self.closed = True

    def read(self, episode, keys, start=0, stop=None):
        return {key: np.array([frame[key] for frame in self.episodes[episode][0]]) for key in keys}


@pytest.fixture
def list_sink():
    """Return the class, for tests that open sinks themselves."""
    return ListSink


@pytest.fixture
def limits():
    return limits_of(PANDA, rate_hz=250.0)


@pytest.fixture
def checker():
    return Checker.usual


@pytest.fixture
def following_arm():
    """Return the class, for tests that make arms themselves."""
    return FollowingArm


@pytest.fixture
def at():
    """Return `at(positions, stamp_ns)`, a reading of a Panda."""

    def reading(position, stamp_ns, names=PANDA.joints):
        return RobotState(stamp_ns, tuple(names), np.array(position, float), np.zeros(len(position)))

    return reading


@pytest.fixture
def home():
    return np.array(PANDA.home_rad)
