"""What is in a ROS message: the numbers that a feature asks for, or a picture."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from robolearn.data.tables import decode_image, image_size
from robolearn.errors import DataError, suggest

__all__ = ["IMAGES", "Topic", "message_image", "message_numbers"]

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
IMAGES = (_IMAGE, _COMPRESSED)
# Which member of a message is meant when none is named; "" takes every number of it, in order.
_FIELDS = {
    "sensor_msgs/msg/JointState": "position",
    "trajectory_msgs/msg/JointTrajectory": "points.0.positions",
    "geometry_msgs/msg/PoseStamped": "pose",
    "geometry_msgs/msg/TwistStamped": "twist",
    "geometry_msgs/msg/WrenchStamped": "wrench",
}
_NAMES = {"sensor_msgs/msg/JointState": "name", "trajectory_msgs/msg/JointTrajectory": "joint_names"}
_PIXELS = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "mono8": ("u1", 1),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "16UC1": ("u2", 1),
    "mono16": ("u2", 1),
    "32FC1": ("f4", 1),
}


@dataclass(frozen=True)
class Topic:
    """Where one key comes from: a topic, the dotted member of its messages, and which entries in which order.

    `joints` picks entries by the names in the message, `entries` [start, stop) by number. `pick` says which
    message belongs to a tick: the last one before it, the next one from it on, or a line between the two;
    it is "next" for the action (the command that answers the observation) and "last" for all else.
    """

    topic: str
    field: str = ""
    joints: tuple[str, ...] = ()
    entries: tuple[int, int] | None = None
    pick: Literal["", "last", "next", "linear"] = ""
    unit: str = ""
    frame: str = ""


def message_numbers(kind: str, message: Mapping[str, Any], topic: Topic, where: str) -> Any:
    """Return the numbers [n] of a message that `topic` asks for; a text as it is."""
    member = topic.field or _FIELDS.get(kind) or ("data" if "data" in message else "")
    value = _member(message, member, where) if member else {k: v for k, v in message.items() if k != "header"}
    if isinstance(value, str):
        return value
    numbers = np.concatenate([np.zeros(0), *_flat(value, where)]) if not isinstance(value, np.ndarray) else value
    if topic.joints:
        names = _member(message, _NAMES.get(kind, "name"), where)
        missing = [joint for joint in topic.joints if joint not in names]
        if missing:
            raise DataError(f"{where} lacks the joint '{missing[0]}'.", expected=suggest(missing[0], map(str, names)))
        order = [names.index(joint) for joint in topic.joints]
        if max(order) >= len(numbers):
            raise DataError(f"{where} has more names than numbers.", found=len(numbers), expected=len(names))
        return numbers[order]
    if topic.entries is not None:
        start, stop = topic.entries
        if not 0 <= start < stop <= len(numbers):
            raise DataError(f"{where} has no entries {start} … {stop}.", found=len(numbers))
        return numbers[start:stop]
    return numbers


def _member(message: Any, name: str, where: str) -> Any:
    value = message
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            known = suggest(part, value) if isinstance(value, Mapping) else f"{len(value)} entries"
            raise DataError(f"{where} has no member '{name}'.", expected=known)
    return value


def _flat(value: Any, where: str) -> Iterator[np.ndarray]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _flat(item, where)
    elif isinstance(value, list):
        for item in value:
            yield from _flat(item, where)
    elif isinstance(value, str):
        raise DataError(f"{where} holds a text among its numbers.", found=value[:40], do="name a member: keys.….field=")
    else:
        yield np.atleast_1d(np.asarray(value, np.float64))


def message_image(kind: str, message: Mapping[str, Any], where: str) -> np.ndarray:
    """Return uint8 (H, W, 3), or depth float32 (H, W) in metres."""
    if kind == _COMPRESSED:
        return _compressed(message, where)
    height, width, step = message["height"], message["width"], message["step"]
    encoding, data = message["encoding"], message["data"]
    if encoding not in _PIXELS:
        raise DataError(f"{where}: the encoding '{encoding[:20]}' is not known.", expected=", ".join(_PIXELS))
    code, channels = _PIXELS[encoding]
    dtype = np.dtype((">" if message["is_bigendian"] else "<") + code)
    row = width * channels * dtype.itemsize
    if step < row or height * step != len(data) or not row:
        raise DataError(f"{where}: a picture has another size than declared.", found=len(data), expected=height * step)
    pixels = data.reshape(height, step)[:, :row].copy().view(dtype).reshape(height, width, channels)
    if channels == 1 and dtype.itemsize > 1:
        depth = pixels[..., 0].astype(np.float32)
        return depth / 1000 if dtype.kind == "u" else depth  # REP 118: 16-bit depth is in millimetres
    order = [2, 1, 0] if encoding.startswith("bgr") else [0, 0, 0] if channels == 1 else [0, 1, 2]
    return np.ascontiguousarray(pixels[..., order])


def _compressed(message: Mapping[str, Any], where: str) -> np.ndarray:
    content = message["data"].tobytes()
    return decode_image(content, (*image_size(content, where), 3), where)
