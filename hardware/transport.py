"""Topics as the drivers see them, whatever carries them: DDS, rclpy, or memory."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from robolearn.errors import HardwareError

__all__ = ["COMMAND", "DEFAULT", "LATCHED", "SENSOR", "Faults", "FaultyPublisher", "Publisher", "Qos", "Received"]
__all__ += ["Subscriber", "Transport", "require_topic"]


@dataclass(frozen=True)
class Qos:
    """Quality of service; the default is rclcpp's."""

    reliable: bool = True
    depth: int = 10
    latched: bool = False  # transient local: late subscribers get the last one


DEFAULT = Qos()
SENSOR = Qos(reliable=False, depth=5)
COMMAND = Qos(reliable=False, depth=1)  # what command subscriptions of ros2_control are
LATCHED = Qos(depth=1, latched=True)


@dataclass(frozen=True)
class Received:
    """A message and when it was taken (monotonic)."""

    message: Any
    stamp_ns: int


class Publisher(Protocol):
    """Sends messages of one topic."""

    def publish(self, message: Any) -> None: ...

    def matched(self) -> int:
        """Return how many subscribers are connected."""


class Subscriber(Protocol):
    """Receives messages of one topic."""

    malformed: int  # messages that could not be decoded

    def take(self) -> list[Received]:
        """Return what arrived since the last call, oldest first; never waits."""


class Transport(Protocol):
    """A participant of a ROS 2 graph; topics only."""

    def publisher(self, topic: str, kind: str, qos: Qos = DEFAULT) -> Publisher: ...

    def subscriber(self, topic: str, kind: str, qos: Qos = DEFAULT) -> Subscriber: ...

    def others(self, topic: str) -> int:
        """Return how many publishers of `topic` other participants have."""

    def close(self) -> None: ...


def require_topic(topic: str) -> str:
    """Return the topic without its leading slash; services and actions are refused."""
    name = topic.removeprefix("/")
    if name.startswith(("rq/", "rr/")) or "/_action/" in f"/{name}/" or name.endswith(("Request", "Reply")):
        raise HardwareError(
            "Only topics are carried here.",
            found=topic,
            do="use services and actions through the rclpy transport: across vendors they can exhaust a server",
        )
    if not name or any(not (part.isidentifier()) for part in name.split("/")):
        raise HardwareError("This is not a topic name.", found=topic, expected="/words_and_1digits/with_slashes")
    return name


# ---------------------------------------------------------------- faults


@dataclass(frozen=True)
class Faults:
    """What happens to messages on their way, each with a probability."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    delay_s: float = 0.1
    seed: int = 0


class FaultyPublisher:
    """Drops, duplicates, delays and so reorders what it publishes, by a seeded draw per message."""

    def __init__(self, publisher: Publisher, faults: Faults, clock_ns: Callable[[], int]):
        self._publisher, self._faults, self._clock_ns = publisher, faults, clock_ns
        self._draw = np.random.default_rng(faults.seed)
        self._late: list[tuple[int, int, Any]] = []
        self._count = 0

    def publish(self, message: Any) -> None:
        drop, duplicate, delay = self._draw.random(3)
        self.flush()
        if drop < self._faults.drop:
            return
        for _ in range(2 if duplicate < self._faults.duplicate else 1):
            if delay < self._faults.delay:
                self._count += 1
                due = self._clock_ns() + round(1e9 * self._faults.delay_s)
                heapq.heappush(self._late, (due, self._count, message))
            else:
                self._publisher.publish(message)

    def flush(self) -> None:
        """Publish the delayed messages that are due."""
        while self._late and self._late[0][0] <= self._clock_ns():
            self._publisher.publish(heapq.heappop(self._late)[2])

    def matched(self) -> int:
        return self._publisher.matched()
