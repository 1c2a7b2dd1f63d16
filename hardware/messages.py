"""ROS 2 messages without ROS: their types, their CDR bytes, and the few that an arm needs."""

import struct
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.errors import HardwareError, suggest

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

__all__ = [
    "decode",
    "encode",
    "float_array",
    "header",
    "image",
    "joint_state",
    "message",
    "trajectory",
    "types",
    "type_hash",
]

_TRAILING = 32  # padding bytes that real peers leave behind a message
_EXTRA = {  # field lists of interfaces that the standard store lacks
    "control_msgs/msg/JointJog": "std_msgs/Header header\nstring[] joint_names\nfloat64[] displacements\n"
    "float64[] velocities\nfloat64 duration",
    "control_msgs/msg/GripperCommand": "float64 position\nfloat64 max_effort",
}


@cache
def types() -> "Typestore":
    """Return the store of message types."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_KILTED)
    for name, text in _EXTRA.items():
        store.register(get_types_from_msg(text, name))
    return store


def message(kind: str, *values: Any) -> Any:
    """Return a message of `kind` ("sensor_msgs/msg/JointState") from its fields in order."""
    known = types().types
    if kind not in known:
        raise HardwareError(f"Unknown message type '{kind}'.", expected=suggest(kind, known))
    return known[kind](*values)


def encode(value: Any) -> bytes:
    """Return the CDR bytes of a message, its four-byte header included."""
    return bytes(types().serialize_cdr(value, value.__msgtype__))


def decode(data: bytes, kind: str) -> Any:
    """Return the message of `kind` in CDR bytes; raises `HardwareError` when they do not hold one."""
    from rosbags.serde.errors import SerdeError

    if len(data) < 4 or data[:2] not in (b"\0\0", b"\0\1"):
        raise HardwareError(f"A {kind} has no CDR header.", found=data[:4].hex())
    definition = types().get_msgdef(kind)
    read = definition.deserialize_cdr_le if data[1] else definition.deserialize_cdr_be
    try:
        value, end = read(data[4:], 0, definition.cls, types())
    except (struct.error, UnicodeDecodeError, ValueError, IndexError, MemoryError, SerdeError) as error:
        raise HardwareError(f"A {kind} cannot be decoded.", found=str(error)[:200]) from error
    if end > len(data) - 4 or len(data) - 4 - end > _TRAILING:
        raise HardwareError(f"A {kind} has the wrong size.", found=f"{len(data) - 4} bytes", expected=f"{end}")
    return value


def type_hash(kind: str) -> str:
    """Return the RIHS01 hash of a type, as ROS 2 reports it."""
    return types().hash_rihs01(kind)


def header(stamp_ns: int | None = None, frame: str = "") -> Any:
    """Return a header; without a stamp it is now, in wall-clock time as ROS has it."""
    now = time.time_ns() if stamp_ns is None else stamp_ns
    return message("std_msgs/msg/Header", message("builtin_interfaces/msg/Time", now // 10**9, now % 10**9), frame)


def joint_state(names: Sequence[str], position: np.ndarray, velocity: np.ndarray, stamp_ns: int | None = None) -> Any:
    """Return a sensor_msgs/JointState without efforts."""
    none = np.zeros(0)
    return message(
        "sensor_msgs/msg/JointState",
        header(stamp_ns),
        list(names),
        np.asarray(position, float),
        np.asarray(velocity, float),
        none,
    )


def float_array(values: np.ndarray) -> Any:
    """Return a std_msgs/Float64MultiArray."""
    layout = message("std_msgs/msg/MultiArrayLayout", [], 0)
    return message("std_msgs/msg/Float64MultiArray", layout, np.asarray(values, float))


def trajectory(
    names: Sequence[str], times_s: np.ndarray, position: np.ndarray, velocity: np.ndarray, stamp_ns: int = 0
) -> Any:
    """Return a trajectory_msgs/JointTrajectory of points [K,J]; stamp 0 starts it when it arrives."""
    none = np.zeros(0)
    points = [
        message(
            "trajectory_msgs/msg/JointTrajectoryPoint",
            np.asarray(q, float),
            np.asarray(v, float),
            none,
            none,
            message("builtin_interfaces/msg/Duration", int(t), round(1e9 * (t - int(t)))),
        )
        for t, q, v in zip(times_s, position, velocity, strict=True)
    ]
    return message("trajectory_msgs/msg/JointTrajectory", header(stamp_ns), list(names), points)


def image(pixels: np.ndarray, frame: str, stamp_ns: int | None = None) -> Any:
    """Return a sensor_msgs/Image of RGB pixels (H, W, 3) uint8."""
    height, width, _ = pixels.shape
    flat = np.ascontiguousarray(pixels).reshape(-1)
    return message("sensor_msgs/msg/Image", header(stamp_ns, frame), height, width, "rgb8", 0, 3 * width, flat)
