"""One contract for every transport, and the bytes of every standard message type."""

import itertools
import time

import numpy as np
import pytest

from robolearn.errors import HardwareError
from robolearn.hardware import messages
from robolearn.hardware.memory import MemoryGraph, MemoryTransport
from robolearn.hardware.transport import COMMAND, DEFAULT, LATCHED, SENSOR, Faults, FaultyPublisher, require_topic

STATE = "sensor_msgs/msg/JointState"
FLOATS = "std_msgs/msg/Float64MultiArray"


def memory_pair():
    graph = MemoryGraph(time.monotonic_ns)
    return MemoryTransport(graph), MemoryTransport(graph)


def dds_pair():
    from robolearn.hardware.dds import DdsTransport

    return DdsTransport(77), DdsTransport(77)


@pytest.fixture(params=[memory_pair, dds_pair], ids=["memory", "dds"])
def pair(request):
    both = request.param()
    yield both
    for each in both:
        each.close()


def wait(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing arrived"
        time.sleep(0.005)


def test_messages_arrive_in_order(pair):
    one, two = pair
    publisher, subscriber = one.publisher("/a/b", FLOATS), two.subscriber("a/b", FLOATS)
    wait(lambda: publisher.matched() == 1)
    got = []
    for i in range(50):
        publisher.publish(messages.float_array(np.arange(i)))
        got += subscriber.take()
    wait(lambda: got.extend(subscriber.take()) or len(got) == 50)
    assert [len(each.message.data) for each in got] == list(range(50))
    assert [each.stamp_ns for each in got] == sorted(each.stamp_ns for each in got)
    assert subscriber.malformed == 0


def test_a_joint_state_arrives_whole(pair):
    one, two = pair
    publisher, subscriber = one.publisher("/joint_states", STATE), two.subscriber("/joint_states", STATE, SENSOR)
    wait(lambda: publisher.matched() == 1)
    publisher.publish(messages.joint_state(["a", "b"], np.array([1.0, np.nan]), np.zeros(0), 1_500_000_001))
    got = []
    wait(lambda: got.extend(subscriber.take()) or got)
    state = got[0].message
    assert state.name == ["a", "b"]
    assert np.array_equal(state.position, [1.0, np.nan], equal_nan=True)
    assert (state.header.stamp.sec, state.header.stamp.nanosec) == (1, 500_000_001)


def test_a_command_subscriber_keeps_only_the_newest(pair):
    one, two = pair
    publisher, subscriber = one.publisher("/commands", FLOATS), two.subscriber("/commands", FLOATS, COMMAND)
    wait(lambda: publisher.matched() == 1)
    for i in range(20):
        publisher.publish(messages.float_array(np.array([float(i)])))
    got = []
    wait(lambda: got.extend(subscriber.take()) or (got and got[-1].message.data[0] == 19.0))
    assert len(subscriber.take()) == 0


def test_a_late_subscriber_gets_what_is_latched(pair):
    one, two = pair
    publisher = one.publisher("/robot_description", "std_msgs/msg/String", LATCHED)
    publisher.publish(messages.message("std_msgs/msg/String", "<robot/>"))
    subscriber = two.subscriber("/robot_description", "std_msgs/msg/String", LATCHED)
    got = []
    wait(lambda: got.extend(subscriber.take()) or got)
    assert got[0].message.data == "<robot/>"


def test_a_best_effort_publisher_does_not_reach_a_reliable_subscriber(pair):
    one, two = pair
    publisher = one.publisher("/x", FLOATS, SENSOR)
    reliable, best = two.subscriber("/x", FLOATS, DEFAULT), two.subscriber("/x", FLOATS, SENSOR)
    wait(lambda: publisher.matched() == 1)
    publisher.publish(messages.float_array(np.zeros(1)))
    got = []
    wait(lambda: got.extend(best.take()) or got)
    assert reliable.take() == []


def test_other_publishers_are_seen(pair):
    one, two = pair
    mine = one.publisher("/cmd", FLOATS)
    assert one.others("/cmd") == 0
    theirs = two.publisher("/cmd", FLOATS)
    wait(lambda: one.others("/cmd") == 1)
    assert one.others("/other") == 0
    assert mine is not theirs


def test_a_publisher_that_leaves_disturbs_nobody(pair):
    one, two = pair
    publishers, subscriber = [one.publisher("/joint_states", STATE)], two.subscriber("/joint_states", STATE)
    wait(lambda: publishers[0].matched() == 1)
    publishers[0].publish(messages.joint_state(["a"], np.zeros(1), np.zeros(1)))
    wait(lambda: two.others("/joint_states") == 1)
    got = []
    wait(lambda: got.extend(subscriber.take()) or got)
    publishers.clear()
    one.close()
    wait(lambda: two.others("/joint_states") == 0)
    assert subscriber.take() == []


def test_a_wrong_type_is_refused(pair):
    publisher = pair[0].publisher("/y", FLOATS)
    with pytest.raises(HardwareError, match="wrong type"):
        publisher.publish(messages.joint_state([], np.zeros(0), np.zeros(0)))
    with pytest.raises(HardwareError, match="Unknown message type"):
        messages.message("sensor_msgs/msg/JointStat")


@pytest.mark.parametrize(
    "topic", ["rq/move", "/rq/x", "rr/x", "move/_action/goal", "a/getRequest", "", "a b", "a//b", "/"]
)
def test_services_actions_and_bad_names_are_refused(pair, topic):
    with pytest.raises(HardwareError):
        pair[0].publisher(topic, FLOATS)
    with pytest.raises(HardwareError):
        require_topic(topic)


def test_domains_are_checked():
    from robolearn.hardware.dds import DdsTransport

    with pytest.raises(HardwareError, match="domain"):
        DdsTransport(102)


# ---------------------------------------------------------------- bytes


def filled(kind, draw):
    """Return a message of `kind` with every field set."""
    from rosbags.interfaces import Nodetype

    def base(name):
        if name == "string":
            return str(draw.choice(["", "a", "grüße", "panda_joint1"]))
        if name == "bool":
            return bool(draw.integers(2))
        return float(np.float32(draw.normal())) if name.startswith("float") else int(draw.integers(0, 100))

    def value(description):
        node, inner = description
        if node == Nodetype.BASE:
            return base(inner[0])
        if node == Nodetype.NAME:
            return filled(inner, draw)
        count = inner[1] if node == Nodetype.ARRAY else int(draw.integers(0, min(4, inner[1] or 4) + 1))
        items = [value(inner[0]) for _ in range(count)]
        plain = inner[0][0] == Nodetype.BASE and inner[0][1][0] != "string"
        alias = {"bool": "?", "byte": "u1", "octet": "u1", "char": "u1"}
        return np.array(items, alias.get(inner[0][1][0], inner[0][1][0])) if plain else items

    store = messages.types()
    return store.types[kind](**{name: value(each) for name, each in store.fielddefs[kind][1]})


def test_every_standard_type_has_equal_bytes_in_cyclonedds():
    """The codec against cyclonedds' own, an independent implementation."""
    from cyclonedds.idl import make_idl_struct
    from cyclonedds.idl import types as idl
    from rosbags.interfaces import Nodetype

    from robolearn.hardware.dds import _BASE

    store, draw, built = messages.types(), np.random.default_rng(0), {}

    def struct(kind):
        if kind not in built:
            fields = {name: field(each) for name, each in store.fielddefs[kind][1]}
            built[kind] = make_idl_struct(kind.replace("/", "_"), kind.replace("/", "."), fields)
        return built[kind]

    def field(description):
        node, inner = description
        if node == Nodetype.BASE:
            return _BASE[inner[0]]
        if node == Nodetype.NAME:
            return struct(inner)
        if node == Nodetype.ARRAY:
            return idl.array[field(inner[0]), inner[1]]
        return idl.sequence[field(inner[0]), inner[1]] if inner[1] else idl.sequence[field(inner[0])]

    def convert(value):
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, list):
            return [convert(each) for each in value]
        kind = getattr(value, "__msgtype__", None)
        names = [name for name, _ in store.fielddefs[kind][1]] if kind else []
        return struct(kind)(**{name: convert(getattr(value, name)) for name in names}) if kind else value

    packages = ("std_msgs", "geometry_msgs", "sensor_msgs", "trajectory_msgs", "builtin_interfaces", "control_msgs")
    kinds = [kind for kind in sorted(store.fielddefs) if kind.split("/")[0] in packages and store.fielddefs[kind][1]]
    kinds = [
        kind
        for kind in kinds
        if [name for name, _ in store.fielddefs[kind][1]] != ["structure_needs_at_least_one_member"]
    ]
    for kind in kinds:
        value = filled(kind, draw)
        data = messages.encode(value)
        theirs = convert(value).serialize(use_version_2=False)
        padded = max(len(data), len(theirs))
        assert data[4:].ljust(padded, b"\0") == theirs[4:].ljust(padded, b"\0"), kind
        assert messages.encode(messages.decode(data, kind)) == data
        assert messages.encode(messages.decode(data + b"\0" * 32, kind)) == data
    assert len(kinds) > 80


def test_broken_bytes_raise_only_our_error():
    draw = np.random.default_rng(0)
    good = messages.encode(filled(STATE, draw))
    for _ in range(2000):
        data = bytearray(good[: draw.integers(0, len(good) + 1)])
        for position in draw.integers(0, max(len(data), 1), 3):
            if len(data):
                data[position] = draw.integers(0, 256)
        try:
            messages.decode(bytes(data), STATE)
        except HardwareError:
            continue
    with pytest.raises(HardwareError, match="size"):
        messages.decode(good + b"\0" * 40, STATE)


def test_type_hashes_are_those_of_ros():
    expected = "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e"
    assert messages.type_hash(STATE) == expected


# ---------------------------------------------------------------- faults


def test_faults_drop_duplicate_and_delay():
    now = [0]
    graph = MemoryGraph(lambda: now[0])
    transport = MemoryTransport(graph)
    subscriber = transport.subscriber("/a", FLOATS, DEFAULT)
    subscriber.queue = type(subscriber.queue)(maxlen=10_000)
    faults = Faults(drop=0.2, duplicate=0.1, delay=0.3, delay_s=0.05, seed=1)
    publisher = FaultyPublisher(transport.publisher("/a", FLOATS), faults, graph.clock_ns)
    for i in range(2000):
        now[0] += 10_000_000
        publisher.publish(messages.float_array(np.array([float(i)])))
    now[0] += 10**9
    publisher.flush()
    order = [each.message.data[0] for each in subscriber.take()]
    assert 0.75 < len(set(order)) / 2000 < 0.85
    assert 0.05 < (len(order) - len(set(order))) / 2000 < 0.12
    assert sum(a > b for a, b in itertools.pairwise(order)) > 100


# ---------------------------------------------------------------- rclpy


def test_without_ros_the_rcl_transport_says_what_to_do():
    from robolearn.errors import MissingLibraryError
    from robolearn.hardware.rcl import RclTransport

    with pytest.raises(MissingLibraryError, match="source a ROS 2"):
        RclTransport(77)
