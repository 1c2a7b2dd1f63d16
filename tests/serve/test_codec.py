"""The wire codec: round trips, the dialects it reads, and what it refuses."""

import contextlib
import struct

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from robolearn.errors import WireError
from robolearn.serve.codec import Limits, pack, unpack

DTYPES = ["u1", "<i4", "<i8", "<f2", "<f4", "<f8", "?"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=5, max_side=3))
)
scalars = st.sampled_from([np.float32(1.5), np.int64(-3), np.bool_(True), np.uint8(7), np.float16(0.5)])
plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=9)
values = st.recursive(
    plain | arrays | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def same(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return a == b


@given(values)
@settings(max_examples=150, deadline=None)
def test_round_trip(value):
    assert same(value, unpack(pack(value)))


def test_arrays_come_back_writable_and_owned():
    array = unpack(pack({"a": np.zeros(3)}))["a"]
    array[0] = 1
    assert array.flags.owndata


def test_the_bytes_are_openpis():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": "<f4", b"shape": [2, 3]}
    assert msgpack.unpackb(pack(array)) == expected
    assert msgpack.unpackb(pack(np.float32(2))) == {b"__npgeneric__": True, b"data": 2.0, b"dtype": "<f4"}


@pytest.mark.parametrize("key", [lambda name: name.encode(), lambda name: name])
def test_reads_msgpack_numpy_with_bytes_and_text_keys(key):
    array = np.arange(4, dtype=np.int64)
    wire = {key("nd"): True, key("type"): "<i8", key("kind"): b"", key("shape"): [4], key("data"): array.tobytes()}
    assert np.array_equal(unpack(msgpack.packb(wire)), array)
    scalar = {key("nd"): False, key("type"): "<f8", key("data"): np.float64(2.5).tobytes()}
    assert unpack(msgpack.packb(scalar)) == 2.5


def test_text_scalars_are_read():
    wire = {b"__npgeneric__": True, b"data": "pick", b"dtype": "<U4"}
    assert unpack(msgpack.packb(wire)) == "pick"
    assert unpack(pack({"prompt": np.array("grüße")}))["prompt"].item() == "grüße"


@pytest.mark.parametrize("value", [object(), np.array([None]), np.array([1j]), np.zeros(1, "V4"), 2**70, {1: object()}])
def test_pack_refuses_what_has_no_place_on_the_wire(value):
    with pytest.raises(WireError):
        pack(value)


def wire_array(data=b"\0" * 16, dtype="<f4", shape=(4,)):
    return msgpack.packb({"x": {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": list(shape)}})


MALFORMED = {
    "object": wire_array(dtype="|O"),
    "object by msgpack-numpy": msgpack.packb({b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": b"x"}),
    "record": wire_array(dtype="|V16"),
    "complex": wire_array(dtype="<c8"),
    "date": wire_array(dtype="<M8[s]"),
    "big-endian": wire_array(dtype=">f4"),
    "dtype as list": wire_array(dtype=[["a", "<f4"]]),
    "dtype with comma": wire_array(dtype="f4,f4"),
    "no dtype": msgpack.packb({b"__ndarray__": True, b"data": b"", b"shape": [0]}),
    "negative shape": wire_array(shape=(-4,)),
    "two negatives": wire_array(shape=(-2, -2)),
    "overflowing shape": wire_array(shape=(2**62, 4)),
    "wrapping shape": wire_array(shape=(2**32, 2**32, 4)),
    "zero-size shape": wire_array(data=b"", shape=(0, 4)),
    "fractional shape": wire_array(shape=(4.0,)),
    "bool shape": wire_array(data=b"\0" * 4, shape=(True,)),
    "rank 6": wire_array(shape=(1, 1, 1, 1, 1, 4)),
    "too few bytes": wire_array(data=b"\0" * 15),
    "too many bytes": wire_array(data=b"\0" * 17),
    "data as text": wire_array(data="0" * 16),
    "bool of 2": wire_array(data=b"\2", dtype="|b1", shape=(1,)),
    "huge text": wire_array(dtype="<U99999999", shape=()),
    "broken text": wire_array(data=b"\xff" * 16, dtype="<U4", shape=()),
    "text array": wire_array(dtype="<U4", shape=(1,)),
    "scalar object": msgpack.packb({b"__npgeneric__": True, b"data": 1, b"dtype": "|O"}),
    "scalar overflow": msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}),
    "scalar float overflow": msgpack.packb({b"__npgeneric__": True, b"data": 1e300, b"dtype": "<f4"}),
    "scalar of other type": msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}),
    "integer keys": msgpack.packb({1: 2}),
    "deep lists": b"\x91" * 5000 + b"\xc0",
    "deep maps": b"\x81\xa1a" * 17 + b"\xc0",
    "map announcing 4 G": b"\xdf" + struct.pack(">I", 2**32 - 1),
    "list announcing 4 G": b"\xdd" + struct.pack(">I", 2**32 - 1),
    "many empty maps": b"\xdd" + struct.pack(">I", 100_000) + b"\x80" * 100_000,
    "bytes announcing 4 G": b"\xc6" + struct.pack(">I", 2**32 - 1),
    "extension": msgpack.packb(msgpack.ExtType(5, b"x")),
    "time stamp": msgpack.packb(msgpack.Timestamp(1)),
    "never used type": b"\xc1",
    "broken utf-8": b"\xa2\xff\xff",
    "bytes behind the end": msgpack.packb({}) + b"\0",
    "empty": b"",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_refuses(name):
    with pytest.raises(WireError):
        unpack(MALFORMED[name])


@pytest.mark.parametrize("cut", [1, 2, 5, 9, 20, 40])
def test_refuses_cut_frames(cut):
    with pytest.raises(WireError):
        unpack(wire_array()[:-cut])


def test_limits_are_inclusive():
    exact = pack(np.zeros(4, np.uint8))
    assert unpack(exact, Limits(frame_bytes=len(exact))).shape == (4,)
    with pytest.raises(WireError, match="too large"):
        unpack(exact, Limits(frame_bytes=len(exact) - 1))
    nested = b"\x91" * 16 + b"\xc0"
    assert unpack(nested) is not None
    with pytest.raises(WireError, match="too deep"):
        unpack(b"\x91" + nested)
    assert len(unpack(pack([0] * 9), Limits(values=10))) == 9
    with pytest.raises(WireError, match="too much"):
        unpack(pack([0] * 10), Limits(values=10))


def mutations(examples):
    good = pack({"image": np.zeros((4, 4, 3), np.uint8), "state": np.arange(8.0), "prompt": "go", "n": np.float32(1)})
    return given(st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), min_size=1, max_size=6))(
        settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))(
            lambda flips: _only_wire_errors(good, flips)
        )
    )


def _only_wire_errors(good, flips):
    damaged = bytearray(good)
    for position, byte in flips:
        damaged[position] = byte
    with contextlib.suppress(WireError):
        unpack(bytes(damaged))


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_only_wire_errors(data):
    with contextlib.suppress(WireError):
        unpack(data)


def test_damaged_messages_raise_only_wire_errors():
    mutations(500)()


@pytest.mark.long
def test_a_million_damaged_messages_raise_only_wire_errors():
    good = pack({"image": np.zeros((4, 4, 3), np.uint8), "state": np.arange(8.0), "prompt": "go", "n": np.float32(1)})
    draw = np.random.default_rng(0)
    for _ in range(1_000_000):
        count = int(draw.integers(1, 5))
        _only_wire_errors(good, zip(draw.integers(0, len(good), count), draw.integers(0, 256, count), strict=True))
