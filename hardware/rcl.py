"""A ROS 2 graph through rclpy, where ROS is installed. Bytes and message types are those of the DDS transport.

Messages cross rclpy as serialized bytes, so that a driver sees the same objects whatever carries them.
"""

import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

from robolearn.errors import HardwareError, MissingLibraryError
from robolearn.hardware.messages import decode, encode
from robolearn.hardware.transport import DEFAULT, Qos, Received, require_topic

__all__ = ["RclTransport"]


class RclTransport:
    """One node; its callbacks run when a subscriber is asked for messages."""

    def __init__(self, domain: int | None = None, node: str = "robolearn"):
        try:
            self._rclpy = import_module("rclpy")
            executors = import_module("rclpy.executors")
        except ModuleNotFoundError as error:
            raise MissingLibraryError(
                "The rcl transport needs rclpy.",
                found=f"no module '{error.name}'",
                do="source a ROS 2 installation (Jazzy or newer), or use transport=dds",
            ) from error
        self._arrived = 0
        self._context = self._rclpy.Context()
        self._context.init(domain_id=domain)
        self._node = self._rclpy.create_node(node, context=self._context)
        self._executor = executors.SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def publisher(self, topic: str, kind: str, qos: Qos = DEFAULT) -> "_Publisher":
        name = f"/{require_topic(topic)}"
        return _Publisher(self._node.create_publisher(_class(kind), name, self._profile(qos)), kind)

    def subscriber(self, topic: str, kind: str, qos: Qos = DEFAULT) -> "_Subscriber":
        queue: deque[bytes] = deque(maxlen=qos.depth)

        def keep(data: bytes) -> None:
            self._arrived += 1
            queue.append(data)

        name = f"/{require_topic(topic)}"
        handle = self._node.create_subscription(_class(kind), name, keep, self._profile(qos), raw=True)
        return _Subscriber(self, handle, queue, kind)

    def others(self, topic: str) -> int:
        known = self._node.get_publishers_info_by_topic(f"/{require_topic(topic)}")
        mine = (self._node.get_name(), self._node.get_namespace())
        return sum((each.node_name, each.node_namespace) != mine for each in known)

    def spin(self) -> None:
        """Run the callbacks that are ready; an executor runs one at a time."""
        for _ in range(64):
            before = self._arrived
            self._executor.spin_once(timeout_sec=0)
            if self._arrived == before:
                return

    def action(self, kind: Any, name: str) -> Any:
        """Return rclpy's client of an action."""
        return import_module("rclpy.action").ActionClient(self._node, kind, name)

    def as_ros(self, message: Any) -> Any:
        """Return rclpy's own object of a message."""
        return import_module("rclpy.serialization").deserialize_message(encode(message), _class(message.__msgtype__))

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Run callbacks until `condition` holds; says whether it did in time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.01)
        return True

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _profile(self, qos: Qos) -> Any:
        module = import_module("rclpy.qos")
        return module.QoSProfile(
            depth=qos.depth,
            history=module.HistoryPolicy.KEEP_LAST,
            reliability=module.ReliabilityPolicy.RELIABLE if qos.reliable else module.ReliabilityPolicy.BEST_EFFORT,
            durability=module.DurabilityPolicy.TRANSIENT_LOCAL if qos.latched else module.DurabilityPolicy.VOLATILE,
        )


class _Publisher:
    def __init__(self, handle: Any, kind: str):
        self._handle, self._kind = handle, kind

    def publish(self, message: Any) -> None:
        if message.__msgtype__ != self._kind:
            raise HardwareError("A message of the wrong type.", found=message.__msgtype__, expected=self._kind)
        self._handle.publish(encode(message))

    def matched(self) -> int:
        return self._handle.get_subscription_count()


class _Subscriber:
    def __init__(self, transport: RclTransport, handle: Any, queue: deque[bytes], kind: str):
        self._transport, self._handle, self._queue, self._kind = transport, handle, queue, kind
        self.malformed = 0

    def take(self) -> list[Received]:
        self._transport.spin()
        received, now = [], time.monotonic_ns()
        while self._queue:
            try:
                received.append(Received(decode(self._queue.popleft(), self._kind), now))
            except HardwareError:
                self.malformed += 1
        return received


def _class(kind: str) -> Any:
    package, _, name = kind.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            f"'{kind}' is not installed.", found=f"no module '{error.name}'", do=f"install ros-<distro>-{package}"
        ) from error
