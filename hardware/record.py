"""What an arm did, on disk: raw messages as MCAP, and episodes for a dataset.

An episode's "intervention" says who acted at each step: `POLICY`, `HUMAN`, or the human's `REWIND` of what
the policy had done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.config import to_dict
from robolearn.contracts import EpisodeSink
from robolearn.errors import HardwareError
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.messages import encode, types
from robolearn.hardware.observe import ActionMap, Reading, arm_state
from robolearn.hardware.transport import Qos, Transport
from robolearn.robots import Arm
from robolearn.spec import ActionSpec, CameraSpec, Feature, Spec

__all__ = ["EpisodeWriter", "RawRecorder", "Recorded", "recorded_spec"]

Recorded = Literal["joint_position", "ee_pose"]
_DEEP = Qos(reliable=False, depth=200)
_CHUNK_BYTES = 1 << 16


class RawRecorder:
    """Writes every message of some topics to an MCAP file that ROS 2 tools read; call `drain` often.

    `log_time` is when a message was taken (monotonic), `publish_time` the stamp in its header where it has one.
    What is written lies on the disk in chunks of 64 kB: a recorder that is killed loses no more than the last one.
    """

    def __init__(self, path: Path, transport: Transport, topics: Mapping[str, str]):
        from mcap.writer import Writer

        self._file = Path(path).open("wb")  # noqa: SIM115 closed by close()
        self._writer = Writer(self._file, chunk_size=_CHUNK_BYTES)
        self._writer.start(profile="ros2", library="robolearn")
        self._subscribers = {topic: transport.subscriber(topic, kind, _DEEP) for topic, kind in topics.items()}
        self._channels = {topic: self._channel(topic, kind) for topic, kind in topics.items()}
        self.counts = dict.fromkeys(topics, 0)

    def drain(self) -> None:
        """Write what has arrived."""
        for topic, subscriber in self._subscribers.items():
            for received in subscriber.take():
                stamp = getattr(getattr(received.message, "header", None), "stamp", None)
                made = 0 if stamp is None else stamp.sec * 10**9 + stamp.nanosec
                self._writer.add_message(
                    self._channels[topic], received.stamp_ns, encode(received.message), made or received.stamp_ns
                )
                self.counts[topic] += 1
        self._file.flush()

    def close(self) -> None:
        """Write the rest and the file's end."""
        self.drain()
        self._writer.finish()
        self._file.close()

    def _channel(self, topic: str, kind: str) -> int:
        text, _ = types().generate_msgdef(kind, ros_version=2)
        schema = self._writer.register_schema(kind, "ros2msg", text.encode())
        return self._writer.register_channel(f"/{topic.removeprefix('/')}", "cdr", schema)


def recorded_spec(
    arm: Arm,
    rate_hz: float,
    reading: Reading,
    action: Recorded = "joint_position",
    calibration: Calibration | None = None,
) -> Spec:
    """Return the spec of a recording: the arm, the pictures and signals of `reading`, and targets.

    Actions are joint positions and the gripper's width, or the tool's pose in the world (x, y, z, yaw) and
    whether the gripper closes, as the simulated tasks have them.
    """
    observations = {
        "observation.state": _arm_feature(arm, action),
        "task": Feature("text", dtype="str"),
        "intervention": Feature(shape=(1,)),
    }
    cameras = calibration.cameras if calibration is not None else {}
    for name, image in reading.images.items():
        lens = None
        if name in cameras:
            scale = image.shape[1] / cameras[name].width
            fx, fy, cx, cy = (scale * value for value in cameras[name].intrinsics)
            lens = CameraSpec(intrinsics=(fx, fy, cx, cy))
        observations[f"observation.images.{name}"] = Feature("image", image.shape, "uint8", camera=lens)
    for key, value in reading.signals.items():
        observations[key] = Feature(shape=value.shape)
    metadata = {"calibration": to_dict(calibration)} if cameras else {}
    return Spec(observations, _action(arm, action), rate_hz, robot=arm.name, metadata=metadata)


def _arm_feature(arm: Arm, action: Recorded) -> Feature:
    if action == "joint_position":
        return Feature(shape=(len(arm.joints) + 1,), unit="rad, m", names=(*arm.joints, "gripper"))
    return Feature(shape=(5,), unit="m, rad", frame="world", names=("x", "y", "z", "yaw", "width"))


def _action(arm: Arm, action: Recorded) -> ActionSpec:
    if action == "ee_pose":
        names = ("x", "y", "z", "yaw", "gripper")
        return ActionSpec(5, action, names, "m, rad", "world", rotation="yaw", gripper="positive_closes")
    low, high = (*arm.low_rad, 0.0), (*arm.high_rad, arm.gripper.width_m)
    names = (*arm.joints, "gripper")
    return ActionSpec(len(names), action, names, unit="rad, m", gripper="positive_opens", low=low, high=high)


class EpisodeWriter:
    """Turns readings and joint targets into frames with their real times; who acted is stored per step.

    `base_m` is where the arm stands in the world.
    """

    def __init__(self, sink: EpisodeSink, task: str, arm: Arm, base_m: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0)):
        self._sink, self._task, self._arm, self._base_m = sink, task, arm, np.asarray(base_m, float)
        self._names = sink.spec.observations["observation.state"].names
        self._actions = ActionMap(sink.spec, arm, self._base_m)
        self._first_ns: int | None = None
        self.frames, self.longest_gap_s = 0, 0.0
        self._last_ns = 0

    def add(self, reading: Reading, target: np.ndarray, who: int) -> None:
        """Append one step and its joint target [J+1]; raises `HardwareError` when time does not advance."""
        stamp = reading.state.stamp_ns
        if self._first_ns is None:
            self._first_ns, self._last_ns = stamp, stamp - 1
        if stamp <= self._last_ns:
            raise HardwareError("The arm's readings do not advance.", do="check its driver")
        if self.frames:
            self.longest_gap_s = max(self.longest_gap_s, 1e-9 * (stamp - self._last_ns))
        self._last_ns = stamp
        state = reading.state if reading.state.gripper_m is not None else replace(reading.state, gripper_m=0.0)
        frame: dict[str, Any] = {
            "observation.state": arm_state(state, self._names, self._arm, self._base_m).astype(np.float32),
            "action": self._actions.actions(np.asarray(target, float)[None])[0].astype(np.float32),
            "task": reading.task or self._task,
            "intervention": np.array([float(who)], np.float32),
            "timestamp": 1e-9 * (stamp - self._first_ns),
        }
        frame |= {f"observation.images.{name}": image for name, image in reading.images.items()}
        frame |= {key: np.asarray(value, np.float32) for key, value in reading.signals.items()}
        self._sink.add_frame(frame)
        self.frames += 1

    def save(self, success: bool) -> int | None:
        """Commit the episode and return its number; None when there was nothing to commit."""
        if not self.frames:
            return None
        number = self._sink.save_episode({"success": success, "longest_gap_s": self.longest_gap_s})
        self._reset()
        return number

    def discard(self) -> None:
        """Forget the frames of this episode."""
        if self.frames:
            self._sink.discard_episode()
        self._reset()

    def _reset(self) -> None:
        self._first_ns, self.frames, self.longest_gap_s = None, 0, 0.0
