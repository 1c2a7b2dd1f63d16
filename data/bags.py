"""Robot recordings as datasets: MCAP files and rosbag2 folders (both storages), one episode per recording.

Topics become features by a typed map; messages arrive when they like, so every frame takes what was
known at its tick of the asked rate. Files written by `write_mcap` say what they hold and need no map.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.config import parse
from robolearn.data.bag_files import BagFile, Record, open_bag_file
from robolearn.data.cdr import decode_message
from robolearn.data.files import positive
from robolearn.data.frames import counters, span
from robolearn.data.hdf5_files import natural
from robolearn.data.messages import IMAGES, Topic, message_image, message_numbers
from robolearn.errors import ConfigError, DataError, SpecError, suggest
from robolearn.spec import ActionKind, ActionSpec, Feature, Rotation, Spec

__all__ = ["BagOptions", "BagReader", "bag_files", "open_dataset"]

_MAX_FRAMES = 10_000_000
_DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool")


@dataclass(frozen=True)
class BagOptions:
    """What a recording does not say: the rate to resample to, and which topic is which key.

    Times are the messages' own stamps where they have one (`stamp: header`), else when they were logged.
    A tick without a message within `max_age_s` is refused.
    """

    rate_hz: float | None = None
    keys: Mapping[str, Topic] = field(default_factory=dict)
    stamp: Literal["header", "log"] = "header"
    max_age_s: float = 1.0
    action_kind: ActionKind = ""
    rotation: Rotation = ""
    robot: str = ""
    task: str = ""


@dataclass
class _Track:
    """The messages of one key in one episode: stamps [n], and values [n,…] or where the pictures are."""

    stamps_ns: np.ndarray
    values: np.ndarray | None
    places: list[tuple[int, tuple[int, int]]]  # (file, place)


def open_dataset(path: Path, options: Mapping[str, Any]) -> "BagReader":
    """Open an .mcap or .db3 file, a rosbag2 folder, or a folder of either (one episode each)."""
    return BagReader(path, parse(BagOptions, options, where="data"))


def bag_files(path: Path) -> list[list[Path]]:
    """Return the files of every recording below `path`, in order; [] when there is none."""
    if path.is_file():
        return [[path]]
    here = sorted([*path.glob("*.mcap"), *path.glob("*.db3")], key=lambda p: natural(p.stem))
    if (path / "metadata.yaml").exists():
        return [here] if here else []
    below = [bag_files(folder) for folder in sorted(path.iterdir(), key=lambda p: natural(p.name)) if folder.is_dir()]
    folders = [files for found in below for files in found]
    return [[file] for file in here] + folders


class BagReader:
    """An `EpisodeSource` over recordings; signals are in memory, pictures stay in their files."""

    def __init__(self, path: Path, options: BagOptions | None = None):
        self.path, options = Path(path), options or BagOptions()
        recordings = bag_files(self.path) if self.path.exists() else []
        if not recordings:
            raise DataError(f"{path} holds no recording.", expected=".mcap, .db3 or a rosbag2 folder")
        self._files = [[open_bag_file(file) for file in files] for files in recordings]
        channels = _survey(self._files[0])
        own = self._files[0][0].metadata.get("robolearn")
        self._columns, given = _own_facts(self.path, own) if own is not None else ({}, None)
        self._topics = dict(options.keys) or _topics(self.path, channels, self._columns)
        self.options = options
        self._tracks = [self._scan(files) for files in self._files]
        self.spec = given or self._spec()
        self._ticks = [self._ticks_of(episode) for episode in range(len(self._files))]
        self._lengths = np.array([len(ticks) for ticks in self._ticks], np.int64)

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that `read` knows."""
        return tuple(dict.fromkeys((*self._topics, "task", "timestamp", "frame_index", "episode_index")))

    def metadata(self, episode: int) -> dict[str, Any]:
        """Return what was recorded about an episode."""
        own = self._files[episode][0].metadata.get("robolearn", {})
        return _json(own.get("metadata", "{}"), self._files[episode][0].path)

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys` of one episode."""
        start, stop = span(self._lengths, episode, start, stop, self.path)
        made = counters(episode, start, stop, self.spec.rate_hz)
        if "task" not in self._topics:
            made["task"] = np.full(stop - start, self.options.task)
        return {key: made[key] if key in made else self._column(episode, key, made["frame_index"]) for key in keys}

    def _column(self, episode: int, key: str, frames: np.ndarray) -> np.ndarray:
        if key not in self._topics:
            raise DataError(f"No key '{key}' in {self.path}.", expected=suggest(key, self.keys))
        track, topic, ticks = self._tracks[episode][key], self._topics[key], self._ticks[episode][frames]
        after = np.searchsorted(track.stamps_ns, ticks, side="left").clip(0, len(track.stamps_ns) - 1)
        before = (np.searchsorted(track.stamps_ns, ticks, side="right") - 1).clip(0)
        pick = topic.pick or ("next" if key == "action" else "last")
        for chosen in {"last": (before,), "next": (after,), "linear": (before, after)}[pick]:
            self._require_fresh(episode, key, track.stamps_ns[chosen] - ticks, frames)
        chosen = after if pick == "next" else before
        if track.values is None:
            return self._pictures(episode, key, chosen)
        values = track.values[chosen]
        if pick == "linear":
            low, high = track.stamps_ns[before], track.stamps_ns[after]
            share = np.where(high > low, (ticks - low) / np.maximum(high - low, 1), 0.0)
            share = share.reshape(-1, *[1] * (values.ndim - 1))
            values = (values + share * (track.values[after] - values)).astype(values.dtype)
        return values

    def _require_fresh(self, episode: int, key: str, age_ns: np.ndarray, frames: np.ndarray) -> None:
        late = np.abs(age_ns) > self.options.max_age_s * 1e9
        if late.any() and key != "task":
            row = int(late.argmax())
            raise DataError(
                f"{self._files[episode][0].path}: {self._topics[key].topic} has no message near frame {frames[row]} "
                f"of episode {episode}.",
                found=f"the nearest is {abs(age_ns[row]) / 1e9:.3f} s away",
                expected=f"≤ {self.options.max_age_s} s",
                do="cut the recording there, or raise data.options.max_age_s",
            )

    def _pictures(self, episode: int, key: str, chosen: np.ndarray) -> np.ndarray:
        feature = self.spec.observations[key]
        result = np.empty((len(chosen), *feature.shape), feature.dtype)
        for row, number in enumerate(chosen.tolist()):
            if row and number == chosen[row - 1]:
                result[row] = result[row - 1]
                continue
            file, place = self._tracks[episode][key].places[number]
            picture = self._picture(self._files[episode][file], key, place)
            if picture.shape != feature.shape:
                raise DataError(
                    f"{self._files[episode][file].path}: a picture of {key} has another size.",
                    found=picture.shape,
                    expected=feature.shape,
                )
            result[row] = picture
        return result

    def _picture(self, file: BagFile, key: str, place: tuple[int, int]) -> np.ndarray:
        channel = file.channels[self._topics[key].topic]
        where = f"{file.path}: {channel.topic}"
        return message_image(
            channel.type, decode_message(channel.type, file.payload(place), channel.definitions, where), where
        )

    # ---------------------------------------------------------------- opening

    def _scan(self, files: Sequence[BagFile]) -> dict[str, _Track]:
        """Go through one recording once: stamps of all keys, values of those that are no pictures."""
        by_topic: dict[str, list[str]] = {}
        for key, topic in self._topics.items():
            by_topic.setdefault(topic.topic, []).append(key)
        found: dict[str, list[tuple[int, Any, tuple[int, tuple[int, int]]]]] = {key: [] for key in self._topics}
        for number, file in enumerate(files):
            for record in file.records():
                if record.topic in by_topic:
                    stamp, values = self._values(file, record, by_topic[record.topic])
                    for key, value in values.items():
                        found[key].append((stamp, value, (number, record.place)))
        return {key: self._track(files[0], key, items) for key, items in found.items()}

    def _values(self, file: BagFile, record: Record, keys: Sequence[str]) -> tuple[int, dict[str, Any]]:
        channel = file.channels[record.topic]
        where = f"{file.path}: {record.topic}"
        if not channel.definitions:
            raise DataError(
                f"{where} is not readable.", found=channel.type, expected="CDR messages with a ros2msg definition"
            )
        message = decode_message(channel.type, record.data, channel.definitions, where)
        stamp = record.log_ns
        if self.options.stamp == "header" and isinstance(message.get("header"), dict):
            given = message["header"].get("stamp", {})
            stamp = int(given.get("sec", 0)) * 10**9 + int(given.get("nanosec", 0)) or stamp
        if channel.type in IMAGES:
            return stamp, dict.fromkeys(keys)
        return stamp, {key: message_numbers(channel.type, message, self._topics[key], where) for key in keys}

    def _track(self, file: BagFile, key: str, items: Sequence[tuple[int, Any, tuple[int, tuple[int, int]]]]) -> _Track:
        topic = self._topics[key].topic
        if not items:
            raise DataError(
                f"{file.path}: the topic {topic} of '{key}' has no messages.", expected=suggest(topic, file.channels)
            )
        items = sorted(items, key=lambda item: item[0])
        stamps, places = np.array([item[0] for item in items], np.int64), [item[2] for item in items]
        if items[0][1] is None:
            return _Track(stamps, None, places)
        if isinstance(items[0][1], str):
            return _Track(stamps, np.array([item[1] for item in items]), [])
        sizes = {len(item[1]) for item in items}
        if len(sizes) != 1:
            raise DataError(f"{file.path}: {topic} changes its size.", found=sorted(sizes)[:5], expected="one size")
        values = np.stack([item[1] for item in items])
        column = self._columns.get(key)
        if column is None:
            return _Track(stamps, values.astype(np.float32) if values.dtype.kind == "f" else values, [])
        return _Track(stamps, values.reshape(len(values), *column["shape"]).astype(column["dtype"]), [])

    def _ticks_of(self, episode: int) -> np.ndarray:
        tracks = {key: track.stamps_ns for key, track in self._tracks[episode].items() if key != "task"}
        if not tracks:
            raise DataError(f"{self.path}: only the task has a topic.", do="map more: data.options.keys")
        begin = max(int(stamps[0]) for stamps in tracks.values())
        end = min(int(stamps[-1]) for stamps in tracks.values())
        count = int((end - begin) * self.spec.rate_hz / 1e9 + 1.01) if end >= begin else 0
        if not 0 < count <= _MAX_FRAMES:
            raise DataError(
                f"{self._files[episode][0].path}: its topics share no stretch of time that is usable.",
                found=f"{(end - begin) / 1e9:.3f} s at {self.spec.rate_hz:g} Hz",
                do="check the map of topics, or use data.options.stamp=log",
            )
        return begin + np.rint(np.arange(count) * (1e9 / self.spec.rate_hz)).astype(np.int64)

    def _spec(self) -> Spec:
        if "action" not in self._topics:
            raise DataError(f"{self.path}: no topic is the action.", do="map it: data.options.keys.action.topic=/…")
        if self.options.rate_hz is None:
            raise DataError(f"{self.path} has no rate of its own.", do="say which: data.options.rate_hz=…")
        observations = {key: self._feature(key) for key in self._topics if key not in ("action", "task")}
        if "task" in self._topics or self.options.task:
            observations["task"] = Feature("text", dtype="str")
        values = self._tracks[0]["action"].values
        if values is None or values.ndim != 2:
            raise DataError(f"{self.path}: the action is no vector.", found=self._topics["action"].topic)
        action = self._topics["action"]
        return Spec(
            observations,
            ActionSpec(
                values.shape[1],
                self.options.action_kind,
                names=action.joints,
                unit=action.unit,
                frame=action.frame,
                rotation=self.options.rotation,
            ),
            rate_hz=positive(self.options.rate_hz, f"{self.path}: rate_hz"),
            robot=self.options.robot,
        )

    def _feature(self, key: str) -> Feature:
        topic, track = self._topics[key], self._tracks[0][key]
        if track.values is not None:
            return Feature(
                "signal", track.values.shape[1:], str(track.values.dtype), topic.unit, topic.frame, topic.joints
            )
        file, place = track.places[0]
        picture = self._picture(self._files[0][file], key, place)
        if picture.ndim == 2:
            return Feature("depth", picture.shape, "float32", unit="m")
        return Feature("image", picture.shape, "uint8")


def _survey(files: Sequence[BagFile]) -> dict[str, str]:
    """Return the message type of every topic of a recording."""
    for file in files:
        for _ in file.records():
            pass
    return {topic: channel.type for file in files for topic, channel in file.channels.items()}


def _topics(path: Path, channels: Mapping[str, str], columns: Mapping[str, Any]) -> dict[str, Topic]:
    """Return the map of our own recordings, else the obvious one: cameras, joint states, a command."""
    if columns:
        own = {key: Topic(f"/{key.replace('.', '/')}", pick="last") for key in (*columns, "task")}
        missing = [topic.topic for key, topic in own.items() if key in columns and topic.topic not in channels]
        if missing:
            raise DataError(f"{path} lacks topics that it describes.", found=missing, do="it was cut: restore the file")
        return {key: topic for key, topic in own.items() if topic.topic in channels}
    result = {}
    for topic, kind in sorted(channels.items()):
        if kind in IMAGES:
            parts = [part for part in topic.split("/") if part not in ("", "image_raw", "compressed", "image", "color")]
            result[f"observation.images.{'_'.join(parts) or 'camera'}"] = Topic(topic)
        elif kind == "sensor_msgs/msg/JointState" and "observation.state" not in result:
            result["observation.state"] = Topic(topic)
        elif kind in ("trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray"):
            result.setdefault("action", Topic(topic))
    return result


def _own_facts(path: Path, own: Mapping[str, str]) -> tuple[dict[str, Any], Spec]:
    columns = _json(own.get("columns", ""), path)
    for key, column in columns.items():
        shape, dtype = (column.get("shape"), column.get("dtype")) if isinstance(column, dict) else (None, None)
        sizes = isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**20 for size in shape)
        if not sizes or dtype not in _DTYPES:
            raise DataError(f"{path}: the description of '{key}' is damaged.", found=str(column)[:80])
    try:
        spec = Spec.from_dict(_json(own.get("spec", ""), path))
    except (SpecError, ConfigError) as error:
        raise DataError(f"{path}: its spec is not readable.", found=str(error)[:200]) from error
    stored = {key: tuple(column["shape"]) for key, column in columns.items()}
    wanted = {key: feature.shape for key, feature in spec.observations.items() if feature.kind != "text"}
    for key, shape in {**wanted, "action": (spec.action.dim,)}.items():
        if stored.get(key) != shape:
            raise DataError(f"{path}: '{key}' is not stored as its spec says.", found=stored.get(key), expected=shape)
        if key in wanted and spec.observations[key].dtype not in _DTYPES:
            raise DataError(f"{path}: '{key}' has an unknown type.", found=spec.observations[key].dtype)
    return columns, spec


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: its robolearn metadata is damaged.", found=str(error)[:120]) from error
    if not isinstance(data, dict):
        raise DataError(f"{path}: its robolearn metadata is damaged.", found=text[:40])
    return data
