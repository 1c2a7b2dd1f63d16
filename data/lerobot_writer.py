"""Writing LeRobot v3.0 datasets, crash-safe: episodes go to the journal, the journal folds into the dataset.

`save_episode` returns when the episode is durable in the journal. `flush` (and `close`) folds the
journal into `data/`, `videos/` and `meta/`; `info.json` is replaced last, so it never names data that
is not there, and the folder opens at every moment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolearn.config import parse
from robolearn.data import stats as statistics
from robolearn.data.arrow import arrow_table
from robolearn.data.cameras import Camera, EncodedVideo
from robolearn.data.compaction import compact
from robolearn.data.files import is_leftover, write_json
from robolearn.data.journal import Entry, Journal
from robolearn.data.lerobot_info import features_of
from robolearn.data.lerobot_v3 import REAL_TIME, LeRobotReader
from robolearn.data.video import DEPTH, VideoOptions
from robolearn.errors import DataError, suggest
from robolearn.spec import Feature, Spec, check

__all__ = ["LeRobotWriter", "WriterOptions", "open_sink"]

_NUMBERS = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "uint16", "bool")
_STORED = {"timestamp": REAL_TIME}  # LeRobot's own time stamp is the frame number over the rate
_STATS_FRAMES = 100  # pictures per episode that enter the image statistics


@dataclass(frozen=True)
class WriterOptions:
    """How images are stored, and whether an existing dataset is continued."""

    images: Literal["video", "image"] = "video"
    video: VideoOptions = field(default_factory=VideoOptions)
    append: bool = False
    when_full: Literal["wait", "drop"] = "wait"  # what a frame does when the encoder is behind
    queue_frames: int = 64


def open_sink(path: Path, spec: Spec, options: Mapping[str, Any]) -> "LeRobotWriter":
    """Create (or with `append`, continue) the LeRobot v3 folder `path`."""
    return LeRobotWriter(path, spec, parse(WriterOptions, options, where="sink"))


class LeRobotWriter:
    """An `EpisodeSink` into a LeRobot v3 folder."""

    def __init__(self, root: Path, spec: Spec, options: WriterOptions | None = None):
        self.root, self.spec, self.options = Path(root), spec, options or WriterOptions()
        self._info = self._open()
        self.journal = Journal(self.root)
        self._frames: dict[str, list[Any]] = {}
        self._cameras: dict[str, Camera] = {}
        self._tasks = self._known_tasks()
        if self.journal.entries:
            self.flush()

    @property
    def num_episodes(self) -> int:
        """Acknowledged episodes, those of earlier sessions included."""
        last = self.journal.entries[-1:] if self.journal.entries else []
        return last[0].episode + 1 if last else int(self._info["total_episodes"])

    @property
    def num_frames(self) -> int:
        """Acknowledged frames."""
        last = self.journal.entries[-1:] if self.journal.entries else []
        return last[0].first_index + last[0].length if last else int(self._info["total_frames"])

    def add_frame(self, frame: Mapping[str, Any]) -> None:
        """Append one time step; arrays are copied. Refuses unknown or missing keys, shapes, NaN and infinity."""
        values = {_STORED.get(key, key): self._value(key, value) for key, value in frame.items()}
        if not self._frames:
            self._begin(values)
        if values.keys() != self._frames.keys():
            missing, unknown = self._frames.keys() - values.keys(), values.keys() - self._frames.keys()
            raise DataError(
                "A frame has other keys than the first one of its episode.",
                found=f"missing {sorted(missing)}, unknown {sorted(unknown)}",
                expected=suggest(next(iter(unknown), ""), self._frames),
            )
        for key, value in values.items():
            if key in self._cameras:
                self._cameras[key].add(value)
            else:
                self._frames[key].append(value)

    def save_episode(self, metadata: Mapping[str, Any] | None = None) -> int:
        """Commit the frames added since the last call; durable when it returns the episode's number."""
        return self.commit(self.take(), metadata)

    def take(self) -> "Episode":
        """Hand out the frames added since the last call and begin a new episode; returns at once."""
        if not self._frames:
            raise DataError("An episode without frames cannot be saved.", do="add frames first")
        videos = {key: self._cameras[key].end() for key in self._video_keys}
        taken = Episode({key: values for key, values in self._frames.items() if key not in videos}, videos)
        self._frames = {}
        return taken

    def commit(self, episode: "Episode", metadata: Mapping[str, Any] | None = None) -> int:
        """Make a taken episode durable and return its number; may run in another thread than `add_frame`."""
        videos = {key: result() for key, result in episode.videos.items()}
        columns = {key: _stack(values) for key, values in episode.frames.items()}
        return self._commit(columns, videos, dict(metadata or {}))

    def discard_episode(self) -> None:
        """Forget the frames added since the last commit."""
        self._frames = {}
        for camera in self._cameras.values():
            camera.discard()

    def flush(self) -> None:
        """Fold the journal into the dataset folder; refused while an episode is open."""
        if self._frames:
            raise DataError("An episode is open.", do="save or discard it before the journal is folded in")
        compact(self.root, self._info, self.journal, self.spec)
        self._info = LeRobotReader(self.root).info.raw
        self.journal = Journal(self.root)

    def close(self) -> None:
        """Fold in what is pending; frames without `save_episode` are dropped."""
        self._frames = {}
        for camera in self._cameras.values():
            camera.close()
        self._cameras = {}
        self.flush()
        self.journal.clear()

    def __enter__(self) -> "LeRobotWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---------------------------------------------------------------- opening

    def _open(self) -> Mapping[str, Any]:
        info = self.root / "meta" / "info.json"
        if info.exists():
            if not self.options.append:
                raise DataError(f"{self.root} holds a dataset already.", do="pick another path, or set append=true")
            reader = LeRobotReader(self.root)
            differences = check(reader.spec, self.spec)
            if differences:
                raise DataError(f"{self.root} has another spec.", found="; ".join(differences))
            return reader.info.raw
        if self.root.exists() and any(not is_leftover(path) for path in self.root.rglob("*") if path.is_file()):
            raise DataError(f"{self.root} exists and is no LeRobot dataset.", do="pick an empty or new folder")
        fps = int(self.spec.rate_hz) if float(self.spec.rate_hz).is_integer() else self.spec.rate_hz
        new = {
            "codebase_version": "v3.0",
            "fps": fps,
            "features": features_of(self.spec, {}, self.options.images),
            "total_episodes": 0,
            "total_frames": 0,
            "total_tasks": 0,
            "chunks_size": 1000,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "robot_type": self.spec.robot or None,
            "splits": {},
            "robolearn": {"spec": self.spec.to_dict()},
        }
        if "video" not in {feature["dtype"] for feature in new["features"].values()}:
            new["video_path"] = None
        write_json(info, new)
        return new

    def _known_tasks(self) -> dict[str, int]:
        if not (self.root / "meta" / "tasks.parquet").exists() and not self.journal.entries:
            return {}
        return {task: index for index, task in LeRobotReader(self.root).tasks.items()}

    # ---------------------------------------------------------------- frames

    def _begin(self, values: Mapping[str, Any]) -> None:
        wanted = {"action"} | {key for key, feature in self.spec.observations.items() if feature.kind != "text"}
        if not wanted <= values.keys():
            raise DataError("A frame lacks keys of the spec.", found=sorted(values), expected=sorted(wanted))
        declared = self._info["features"]
        extras = {key: np.asarray(value) for key, value in values.items() if key not in declared and key != "task"}
        if self.num_episodes and extras:
            raise DataError("The dataset does not have these keys.", found=sorted(extras), expected=sorted(declared))
        if extras or not self.num_episodes:
            features = features_of(self.spec, extras, self.options.images)
            if features != declared:
                self._info = {**self._info, "features": features}
                write_json(self.root / "meta" / "info.json", self._info)
        missing = self._info["features"].keys() - values.keys() - features_of(self.spec, {}, "image").keys()
        if missing:
            raise DataError("A frame lacks keys of the dataset.", found=sorted(values), expected=sorted(missing))
        self._frames = {key: [] for key in values}
        for key in self._video_keys:
            if key not in self._cameras:
                shape = self.spec.observations[key].shape
                limits = (self.options.when_full, self.options.queue_frames)
                video = DEPTH if len(shape) == 2 else self.options.video
                self._cameras[key] = Camera(self.journal.folder, key, shape, self.spec.rate_hz, video, *limits)

    @property
    def _video_keys(self) -> list[str]:
        return [key for key, feature in self._info["features"].items() if feature["dtype"] == "video"]

    def _value(self, key: str, value: Any) -> Any:
        if key == "task":
            return str(value)
        feature = self.spec.observations.get(key)
        if key == "action":
            feature = Feature("signal", (self.spec.action.dim,), "float32")
        if feature is None:
            array = np.array(value)
            if array.dtype == np.float64 and key not in _STORED:
                array = array.astype(np.float32)
        else:
            array = np.array(value, dtype=feature.dtype)
            if array.shape != feature.shape:
                raise DataError(f"'{key}' has the wrong shape.", found=array.shape, expected=feature.shape)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(
                f"'{key}' of frame {len(self._frames.get(key, ()))} of episode {self.num_episodes} is not finite.",
                found=array,
                do="find where it comes from; nothing was recorded",
            )
        return array

    # ---------------------------------------------------------------- commit

    def _commit(self, columns: dict[str, Any], encoded: Mapping[str, EncodedVideo], metadata: dict[str, Any]) -> int:
        episode, length, first = self.num_episodes, len(columns["action"]), self.num_frames
        new_tasks: dict[str, int] = {}
        tasks = columns.pop("task", [""] * length)
        for task in dict.fromkeys(tasks):
            if task not in self._tasks:
                new_tasks[task] = len(self._tasks) + len(new_tasks)
        known = {**self._tasks, **new_tasks}
        frame = np.arange(length)
        columns |= {
            "timestamp": (frame / self.spec.rate_hz).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, episode),
            "index": first + frame,
            "task_index": np.array([known[task] for task in tasks]),
        }
        features = self._info["features"]
        files, videos = {}, {}
        stats = _episode_stats(columns, {key: f for key, f in features.items() if key not in encoded})
        for key, video in encoded.items():
            videos[key] = name = f"episode-{episode:06d}.{key}.mp4"
            files[name] = self.journal.adopt(name, video.path)
            stats[key] = {"histogram": video.histogram, "frames": video.sampled}
            if video.dropped:
                metadata.setdefault("repeated_frames", {})[key] = video.dropped
        if REAL_TIME in columns and length > 1:
            metadata["measured_rate_hz"] = float(1 / np.median(np.diff(columns[REAL_TIME])))
        table = arrow_table({key: columns[key] for key in features if key not in videos}, features)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="snappy", write_page_checksum=True)
        entry = Entry(
            episode=episode,
            length=length,
            first_index=first,
            tasks={task: known[task] for task in dict.fromkeys(tasks)},
            videos=videos,
            files=files,
            stats=stats,
            metadata=metadata,
        )
        files[entry.table] = self.journal.put(entry.table, memoryview(sink.getvalue()))
        self.journal.acknowledge(entry)
        self._tasks = known
        return episode


@dataclass(frozen=True)
class Episode:
    """Frames taken from a writer, not yet durable."""

    frames: Mapping[str, list[Any]]
    videos: Mapping[str, Callable[[], EncodedVideo]]


def _stack(values: list[Any]) -> Any:
    return values if isinstance(values[0], str) else np.stack(values)


def _episode_stats(columns: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    vectors = [key for key, f in features.items() if f["dtype"] in _NUMBERS and columns[key].ndim <= 2]
    for key, feature in features.items():
        values = columns[key]
        if feature["dtype"] in ("image", "video"):
            picked = np.unique(np.linspace(0, len(values) - 1, min(len(values), _STATS_FRAMES)).astype(int))
            counts = statistics.image_histogram(values[i] for i in picked)
            result[key] = {"histogram": counts.tolist(), "frames": len(picked)}
        elif feature["dtype"] in _NUMBERS and key not in vectors:
            result[key] = {name: value.tolist() for name, value in statistics.signal_stats(values).items()}
    # All vectors at once: one pass of numpy instead of one per feature.
    blocks = [columns[key].reshape(len(columns[key]), -1).astype(np.float64) for key in vectors]
    ends = np.cumsum([block.shape[1] for block in blocks])
    together = statistics.signal_stats(np.concatenate(blocks, axis=1))
    for key, block, end in zip(vectors, blocks, ends, strict=True):
        columns_of_key = slice(end - block.shape[1], end)
        result[key] = {name: value[columns_of_key].tolist() for name, value in together.items() if name != "count"}
        result[key]["count"] = together["count"].tolist()
    return {key: result[key] for key in features if key in result}
