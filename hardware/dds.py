"""A ROS 2 graph over DDS without a ROS installation; topics only.

Types, names and quality of service are as ROS 2 has them: type `sensor_msgs::msg::dds_::JointState_`,
topic `rt/joint_states`, XCDR1. The bytes are made by rosbags; the ones of cyclonedds are equal but
ten to a thousand times slower.
"""

import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
from cyclonedds.core import InstanceState, Policy, ReadCondition, SampleState, ViewState
from cyclonedds.core import Qos as DdsQos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import make_idl_struct
from cyclonedds.idl import types as idl
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from robolearn.errors import HardwareError
from robolearn.hardware.messages import decode, encode, type_hash, types
from robolearn.hardware.transport import DEFAULT, Qos, Received, require_topic

__all__ = ["DdsTransport"]

_LOCALHOST = (
    '<CycloneDDS><Domain id="any"><General><Interfaces><NetworkInterface address="127.0.0.1" multicast="false"/>'
    "</Interfaces><AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    '<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex><Peers><Peer address="127.0.0.1"/></Peers></Discovery>'
    "<Compatibility><IgnoreTypeInformation>1.15</IgnoreTypeInformation></Compatibility></Domain></CycloneDDS>"
)
_BASE = {
    "bool": bool, "byte": idl.byte, "octet": idl.byte, "char": idl.uint8, "int8": idl.int8, "uint8": idl.uint8,
    "int16": idl.int16, "uint16": idl.uint16, "int32": idl.int32, "uint32": idl.uint32, "int64": idl.int64,
    "uint64": idl.uint64, "float32": idl.float32, "float64": idl.float64, "string": str,
}  # fmt: skip
_ALIVE = SampleState.Any | ViewState.Any | InstanceState.Alive


class DdsTransport:
    """One participant of domain `domain` (the environment's ROS_DOMAIN_ID without one).

    On this machine only, unless the user's own CYCLONEDDS_URI says otherwise. `clock_ns` stamps what is taken.
    """

    def __init__(self, domain: int | None = None, clock_ns: Callable[[], int] = time.monotonic_ns):
        number = int(os.environ.get("ROS_DOMAIN_ID", "0")) if domain is None else domain
        if not 0 <= number <= 101:
            raise HardwareError("This is not a ROS domain.", found=number, expected="0 to 101")
        self._domain = _domain(number, os.environ.get("CYCLONEDDS_URI", _LOCALHOST))
        self._participant, self._clock_ns = DomainParticipant(number), clock_ns
        self._publications = BuiltinDataReader(self._participant, BuiltinTopicDcpsPublication)
        self._topics: dict[tuple[str, str], Topic] = {}
        self._open = True

    def publisher(self, topic: str, kind: str, qos: Qos = DEFAULT) -> "_Publisher":
        policies = [*_policies(qos), Policy.Userdata(f"typehash={type_hash(kind)};".encode())]
        writer = DataWriter(self._participant, self._topic(topic, kind), DdsQos(*policies))
        return _Publisher(writer, kind)

    def subscriber(self, topic: str, kind: str, qos: Qos = DEFAULT) -> "_Subscriber":
        reader = DataReader(self._participant, self._topic(topic, kind), DdsQos(*_policies(qos)))
        return _Subscriber(reader, kind, qos.depth, self._clock_ns)

    def others(self, topic: str) -> int:
        name, mine = f"rt/{require_topic(topic)}", self._participant.guid
        condition = ReadCondition(self._publications, _ALIVE)
        found = self._publications.read(1000, condition)
        return sum(each.topic_name == name and each.participant_key != mine for each in found)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._topics.clear()
            del self._publications, self._participant

    def _topic(self, topic: str, kind: str) -> Topic:
        key = require_topic(topic), kind
        if key not in self._topics:
            self._topics[key] = Topic(self._participant, f"rt/{key[0]}", _idl(kind))
        return self._topics[key]


@cache
def _domain(number: int, config: str) -> Domain:
    return Domain(number, config)


class _Publisher:
    def __init__(self, writer: DataWriter, kind: str):
        self._writer, self._kind, self._sample = writer, kind, _idl(kind)

    def publish(self, message: Any) -> None:
        if message.__msgtype__ != self._kind:
            raise HardwareError("A message of the wrong type.", found=message.__msgtype__, expected=self._kind)
        self._writer.write(self._sample(encode(message)))

    def matched(self) -> int:
        return len(self._writer.get_matched_subscriptions())


class _Subscriber:
    def __init__(self, reader: DataReader, kind: str, depth: int, clock_ns: Callable[[], int]):
        self._reader, self._kind, self._depth, self._clock_ns = reader, kind, depth, clock_ns
        self.malformed = 0

    def take(self) -> list[Received]:
        received, now = [], self._clock_ns()
        for sample in self._reader.take(max(self._depth, 1)):
            if not isinstance(sample, _Raw):  # a writer left
                continue
            try:
                received.append(Received(decode(sample.data, self._kind), now))
            except HardwareError:
                self.malformed += 1
        return received


# ---------------------------------------------------------------- types


class _Raw:
    """The undecoded bytes of one sample."""

    def __init__(self, data: bytes):
        self.data = data
        self.sample_info: Any = None


@cache
def _idl(kind: str) -> Any:
    """Return the DDS type of a message, carrying ready-made CDR bytes."""
    store = types()
    if kind not in store.fielddefs:
        raise HardwareError(f"Unknown message type '{kind}'.", do="use a type of the standard interfaces")
    fields = {name: _field(description) for name, description in store.fielddefs[kind][1]}
    package, _, name = kind.split("/")
    struct = make_idl_struct(
        f"{name}_", f"{package}.msg.dds_.{name}_", fields or {"structure_needs_at_least_one_member": idl.uint8}
    )
    carried = {
        "__init__": lambda self, data: setattr(self, "data", data),
        "serialize": lambda self, buffer=None, endianness=None, use_version_2=None: self.data,
        "deserialize_key": classmethod(lambda cls, data, has_header=True, use_version_2=None: None),
        "deserialize": classmethod(lambda cls, data, has_header=True, use_version_2=None: _Raw(bytes(data))),
    }
    for attribute, function in carried.items():
        setattr(struct, attribute, function)
    return struct


def _field(description: Any) -> Any:
    from rosbags.interfaces import Nodetype

    node, inner = description
    if node == Nodetype.BASE:
        return _BASE[inner[0]]
    if node == Nodetype.NAME:
        return _idl(inner)
    if node == Nodetype.ARRAY:
        return idl.array[_field(inner[0]), inner[1]]
    bound = inner[1]
    return idl.sequence[_field(inner[0]), bound] if bound else idl.sequence[_field(inner[0])]


def _policies(qos: Qos) -> list[Any]:
    return [
        Policy.Reliability.Reliable(duration(milliseconds=100)) if qos.reliable else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if qos.latched else Policy.Durability.Volatile,
        Policy.History.KeepLast(qos.depth),
        Policy.DataRepresentation(use_cdrv0_representation=True),
    ]
