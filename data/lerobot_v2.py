"""LeRobot v2.0 and v2.1 datasets (openpi and GR00T read v2.1): one parquet and one mp4 per episode."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolearn.config import parse
from robolearn.contracts import EpisodeSource
from robolearn.data import stats as statistics
from robolearn.data.arrow import arrow_table
from robolearn.data.files import read_json, read_json_lines, write_json
from robolearn.data.frames import counters, extras, metadata_of, span
from robolearn.data.lerobot_info import AUTO_FEATURES, features_of, load_info
from robolearn.data.options import NoOptions
from robolearn.data.progress import bar
from robolearn.data.tables import decode_images, open_parquet, read_parquet, to_array
from robolearn.data.video import VideoOptions, decode_span, encode
from robolearn.errors import DataError
from robolearn.files import inside, write_file, written_aside
from robolearn.spec import Spec

__all__ = ["LeRobotV2Reader", "open_dataset", "write_v2"]

_DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def open_dataset(path: Path, options: Mapping[str, Any]) -> "LeRobotV2Reader":
    """Open a LeRobot v2.0 or v2.1 folder."""
    parse(NoOptions, options, where="data")
    return LeRobotV2Reader(path)


class LeRobotV2Reader:
    """An `EpisodeSource` over a LeRobot v2 folder; `modality.json` (GR00T) names the parts of its vectors."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self.info = load_info(self.root, ("v2.0", "v2.1"))
        episodes = read_json_lines(self.root / "meta" / "episodes.jsonl")
        numbers = [_integer(item, "episode_index", self.root) for item in episodes]
        if len(numbers) != self.info.total_episodes or sorted(numbers) != list(range(len(numbers))):
            raise DataError(
                f"{self.root}/meta/episodes.jsonl has gaps or duplicates.",
                found=f"{len(numbers)} lines",
                expected=f"0 … {self.info.total_episodes - 1}, once each",
            )
        by_number = dict(zip(numbers, episodes, strict=True))
        lengths = [_integer(by_number[number], "length", self.root) for number in range(len(numbers))]
        if sum(lengths) != self.info.total_frames or min(lengths, default=1) < 1:
            raise DataError(
                f"{self.info.path}: total_frames disagrees with meta/episodes.jsonl.",
                found=self.info.total_frames,
                expected=sum(lengths),
            )
        self._lengths = np.array(lengths, np.int64)
        facts = (by_number[number].get("metadata") for number in range(len(numbers)))
        self._metadata = [item if isinstance(item, dict) else {} for item in facts]
        self.tasks = {
            _integer(item, "task_index", self.root): str(item.get("task", ""))
            for item in read_json_lines(self.root / "meta" / "tasks.jsonl")
        }
        self.spec = _named(self.info.spec, self.root / "meta" / "modality.json")

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that `read` knows."""
        return (*self.info.features, "task")

    def metadata(self, episode: int) -> dict[str, Any]:
        """Return what was recorded about an episode."""
        return dict(self._metadata[episode])

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys` of one episode."""
        start, stop = span(self._lengths, episode, start, stop, self.root)
        length = int(self._lengths[episode])
        path = self._path(self.info.data_path, episode)
        columns = [key for key in keys if key != "task" and self.info.feature(key).dtype != "video"]
        columns += ["task_index"] if "task" in keys and "task_index" not in columns else []
        result: dict[str, np.ndarray] = {}
        if columns:
            table = read_parquet(open_parquet(path), path, columns)
            if table.num_rows != length:
                raise DataError(f"{path} has another length than meta says.", found=table.num_rows, expected=length)
            for key in columns:
                column, feature = table.column(key).slice(start, stop - start), self.info.feature(key)
                decode = feature.dtype == "image"
                where = f"{path}: {key}"
                result[key] = (
                    decode_images(column, feature, self.root, where) if decode else to_array(column, feature, where)
                )
        if "task" in keys:
            result["task"] = self._task_strings(result["task_index"], path)
        for key in keys:
            if key not in result:
                video = self._path(str(self.info.video_path), episode, key)
                fps, shape = self.info.fps, self.info.feature(key).shape
                frames = decode_span(video, start / fps, stop - start, fps)
                if len(frames) and frames.shape[1:] != shape:
                    raise DataError(f"{video} has another size than declared.", found=frames.shape[1:], expected=shape)
                result[key] = frames.reshape(-1, *shape)
        return {key: result[key] for key in keys}

    def _path(self, template: str, episode: int, key: str = "") -> Path:
        chunk = episode // self.info.chunks_size
        relative = template.format(episode_chunk=chunk, episode_index=episode, video_key=key)
        return inside(self.root, relative, f"{self.info.path}: a path template")

    def _task_strings(self, index: np.ndarray, path: Path) -> np.ndarray:
        unknown = ~np.isin(index, list(self.tasks))
        if unknown.any():
            raise DataError(
                f"{path}: task_index out of range at frame {int(unknown.argmax())}.",
                found=index[unknown][0],
                expected=f"one of {len(self.tasks)} tasks",
            )
        return np.array([self.tasks[int(i)] for i in index])


def write_v2(source: EpisodeSource, root: Path, modality: bool = False, video: VideoOptions | None = None) -> None:
    """Write `source` as a LeRobot v2.1 folder; `modality` adds GR00T's `modality.json`.

    What was recorded beside observations and actions is kept, metadata in `meta/episodes.jsonl`.
    """
    spec, options = source.spec, video or VideoOptions(codec="h264")
    depth = [key for key, feature in spec.observations.items() if feature.kind == "depth"]
    if depth:
        raise DataError("LeRobot v2.1 has no place for depth.", found=depth, do="write lerobot (v3), or drop it")
    features = features_of(spec, _first_frame(source, extras(source)), "video")
    keys = [key for key in features if key not in AUTO_FEATURES]
    tasks: dict[str, int] = {}
    episodes: list[dict[str, Any]] = []
    stats: list[dict[str, Any]] = []
    lengths = np.asarray(source.lengths).tolist()
    with written_aside(root) as temporary:
        for episode, length in bar(enumerate(lengths), "write episodes", len(lengths)):
            columns = source.read(episode, [*keys, "task"])
            texts = [str(text) for text in columns.pop("task")]
            columns |= counters(episode, 0, length, spec.rate_hz)
            columns["index"] = sum(lengths[:episode]) + np.arange(length)
            columns["task_index"] = np.array([tasks.setdefault(text, len(tasks)) for text in texts])
            _write_episode(temporary, episode, columns, features, spec.rate_hz, options)
            facts = metadata_of(source, episode)
            line = {"episode_index": episode, "tasks": list(dict.fromkeys(texts)), "length": length}
            episodes.append(line | ({"metadata": facts} if facts else {}))
            stats.append({"episode_index": episode, "stats": _stats(columns, features)})
        write_file(temporary / "meta/episodes.jsonl", _jsonl(episodes))
        write_file(temporary / "meta/episodes_stats.jsonl", _jsonl(stats))
        lines = [{"task_index": number, "task": task} for task, number in tasks.items()]
        write_file(temporary / "meta/tasks.jsonl", _jsonl(lines))
        if modality:
            write_json(temporary / "meta/modality.json", _modality(spec))
        _write_info(temporary, spec, features, len(episodes), sum(lengths), len(tasks))


def _first_frame(source: EpisodeSource, keys: Sequence[str]) -> dict[str, np.ndarray]:
    if not keys or not len(source.lengths):
        return {}
    return {key: np.asarray(values[0]) for key, values in source.read(0, keys, 0, 1).items()}


def _write_episode(
    root: Path, episode: int, columns: Mapping[str, np.ndarray], features: dict, fps: float, options: VideoOptions
) -> None:
    """Write one parquet file and one mp4 per camera."""
    place = {"episode_chunk": episode // 1000, "episode_index": episode}
    videos = [key for key, feature in features.items() if feature["dtype"] == "video"]
    for key in videos:
        path = root / _VIDEO_PATH.format(**place, video_key=key)
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, columns[key], fps, features[key]["shape"][:2], options)
    table = arrow_table({key: columns[key] for key in features if key not in videos}, features)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", write_page_checksum=True)
    write_file(root / _DATA_PATH.format(**place), memoryview(sink.getvalue()))


def _write_info(root: Path, spec: Spec, features: dict, episodes: int, frames: int, tasks: int) -> None:
    videos = sum(feature["dtype"] == "video" for feature in features.values())
    info = {
        "codebase_version": "v2.1",
        "robot_type": spec.robot or None,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "total_videos": videos * episodes,
        "total_chunks": -(-episodes // 1000),
        "chunks_size": 1000,
        "fps": int(spec.rate_hz) if float(spec.rate_hz).is_integer() else spec.rate_hz,
        "splits": {"train": f"0:{episodes}"},
        "data_path": _DATA_PATH,
        "video_path": _VIDEO_PATH if videos else None,
        "features": features,
        "robolearn": {"spec": spec.to_dict()},
    }
    write_json(root / "meta/info.json", info)


def _stats(columns: Mapping[str, np.ndarray], features: Mapping[str, Any]) -> dict[str, Any]:
    result = {}
    for key, feature in features.items():
        if feature["dtype"] == "video":
            counts = statistics.image_histogram(columns[key][:: max(len(columns[key]) // 100, 1)])
            values = statistics.histogram_stats(counts, len(columns[key]))
        else:
            values = statistics.signal_stats(columns[key])
        result[key] = {name: values[name].tolist() for name in ("min", "max", "mean", "std", "count")}
    return result


def _modality(spec: Spec) -> dict[str, Any]:
    """Return GR00T's description: one part per state vector, the whole action, every camera."""
    state = spec.observations.get("observation.state")
    cameras = [key for key, feature in spec.observations.items() if feature.kind == "image"]
    return {
        "state": {"state": {"start": 0, "end": state.shape[0]}} if state else {},
        "action": {"action": {"start": 0, "end": spec.action.dim}},
        "video": {key.removeprefix("observation.images."): {"original_key": key} for key in cameras},
        "annotation": {"human.task_description": {"original_key": "task_index"}},
    }


def _named(spec: Spec, path: Path) -> Spec:
    """Return `spec` with the vector entries named after the parts in `modality.json`, where they have no names."""
    if not path.exists():
        return spec
    raw = read_json(path)
    observations = dict(spec.observations)
    state = observations.get("observation.state")
    if state is not None and not state.names:
        names = _part_names(raw.get("state"), state.shape[0], path)
        observations["observation.state"] = replace(state, names=names)
    action = spec.action
    if not action.names:
        action = replace(action, names=_part_names(raw.get("action"), action.dim, path))
    return replace(spec, observations=observations, action=action)


def _part_names(parts: Any, size: int, path: Path) -> tuple[str, ...]:
    names = [""] * size
    for name, part in parts.items() if isinstance(parts, Mapping) else ():
        start, end = (part.get("start"), part.get("end")) if isinstance(part, Mapping) else (None, None)
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= size:
            raise DataError(
                f"{path}: the part '{name}' does not fit.", found=part, expected=f"0 ≤ start < end ≤ {size}"
            )
        for i in range(start, end):
            names[i] = f"{name}_{i - start}" if end - start > 1 else str(name)
    return tuple(names) if all(names) else ()


def _integer(item: Mapping[str, Any], key: str, root: Path) -> int:
    value = item.get(key)
    if type(value) is not int or not 0 <= value < 2**40:
        raise DataError(f"{root}/meta: {key} is not an integer.", found=value)
    return value


def _jsonl(items: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(item, allow_nan=False) + "\n" for item in items).encode()
