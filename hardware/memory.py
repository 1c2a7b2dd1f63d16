"""Topics inside one process, for tests and runs on a simulated clock; messages pass through CDR bytes."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from robolearn.errors import HardwareError
from robolearn.hardware.messages import decode, encode
from robolearn.hardware.transport import DEFAULT, Qos, Received, require_topic

__all__ = ["MemoryGraph", "MemoryTransport"]


@dataclass
class MemoryGraph:
    """What the participants share: the clock and, per topic, who listens and who speaks."""

    clock_ns: Callable[[], int]
    subscribers: dict[tuple[str, str], list["_Subscriber"]] = field(default_factory=dict)
    publishers: dict[str, list["_Publisher"]] = field(default_factory=dict)


class MemoryTransport:
    """One participant of a `MemoryGraph`."""

    def __init__(self, graph: MemoryGraph):
        self.graph = graph
        self._mine: list[_Publisher | _Subscriber] = []

    def publisher(self, topic: str, kind: str, qos: Qos = DEFAULT) -> "_Publisher":
        publisher = _Publisher(self.graph, require_topic(topic), kind, qos, self)
        self.graph.publishers.setdefault(publisher.topic, []).append(publisher)
        self._mine.append(publisher)
        return publisher

    def subscriber(self, topic: str, kind: str, qos: Qos = DEFAULT) -> "_Subscriber":
        subscriber = _Subscriber(self.graph, require_topic(topic), kind, qos)
        self.graph.subscribers.setdefault((subscriber.topic, kind), []).append(subscriber)
        self._mine.append(subscriber)
        if qos.latched:
            for publisher in self.graph.publishers.get(subscriber.topic, []):
                if publisher.qos.latched and publisher.last is not None and publisher.kind == kind:
                    subscriber.queue.append(publisher.last)
        return subscriber

    def others(self, topic: str) -> int:
        return sum(each.owner is not self for each in self.graph.publishers.get(require_topic(topic), []))

    def close(self) -> None:
        for each in self._mine:
            if isinstance(each, _Publisher):
                self.graph.publishers[each.topic].remove(each)
            else:
                self.graph.subscribers[each.topic, each.kind].remove(each)
        self._mine.clear()


class _Publisher:
    def __init__(self, graph: MemoryGraph, topic: str, kind: str, qos: Qos, owner: MemoryTransport):
        self._graph, self.topic, self.kind, self.qos, self.owner = graph, topic, kind, qos, owner
        self.last: bytes | None = None

    def publish(self, message: Any) -> None:
        if message.__msgtype__ != self.kind:
            raise HardwareError("A message of the wrong type.", found=message.__msgtype__, expected=self.kind)
        self.last = encode(message)
        for subscriber in self._listeners():
            subscriber.queue.append(self.last)

    def matched(self) -> int:
        return len(self._listeners())

    def _listeners(self) -> list["_Subscriber"]:
        listeners = self._graph.subscribers.get((self.topic, self.kind), [])
        return [each for each in listeners if self.qos.reliable or not each.qos.reliable]


class _Subscriber:
    def __init__(self, graph: MemoryGraph, topic: str, kind: str, qos: Qos):
        self._graph, self.topic, self.kind, self.qos = graph, topic, kind, qos
        self.queue: deque[bytes] = deque(maxlen=qos.depth)
        self.malformed = 0

    def take(self) -> list[Received]:
        received, now = [], self._graph.clock_ns()
        while self.queue:
            try:
                received.append(Received(decode(self.queue.popleft(), self.kind), now))
            except HardwareError:
                self.malformed += 1
        return received
