"""LeRobot v3.0 datasets: a reader over pyarrow and PyAV that trusts nothing positional.

Layout: `meta/info.json`, `meta/tasks.parquet`, `meta/episodes/**.parquet`, `data/**.parquet`,
`videos/<key>/**.mp4`, as lerobot 0.6 writes it. Episodes that a recording acknowledged but did not
fold in yet are read from its journal.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from robolearn.config import parse
from robolearn.data import journal
from robolearn.data.frames import span
from robolearn.data.language import COLUMN, STYLES, active
from robolearn.data.lerobot_info import StoredFeature, load_info
from robolearn.data.options import NoOptions
from robolearn.data.tables import decode_images, one_array, open_parquet, plain_numbers, read_parquet, to_array
from robolearn.data.video import DEPTH_INFO, DEPTH_PIXELS, decode_span, depth_levels
from robolearn.errors import DataError
from robolearn.files import inside

__all__ = ["REAL_TIME", "LeRobotReader", "open_dataset"]

REAL_TIME = "real_timestamp_s"  # the clock of the recording; "timestamp" is the nominal frame / fps


def open_dataset(path: Path, options: Mapping[str, Any]) -> "LeRobotReader":
    """Open the LeRobot v3 folder `path`."""
    parse(NoOptions, options, where="data")
    return LeRobotReader(path)


class LeRobotReader:
    """An `EpisodeSource` over a LeRobot v3 folder, pending journal episodes included."""

    def __init__(self, root: Path, raw_info: Mapping[str, Any] | None = None):
        self.root = Path(root)
        self.info = load_info(self.root, ("v3.0",), raw_info)
        self.spec = self.info.spec
        self.pending = [e for e in journal.entries(self.root) if e.episode >= self.info.total_episodes]
        self._table = _episode_table(self.root, self.info.total_episodes, self.info.total_frames)
        stored = self._table["length"]
        self._lengths = np.concatenate([stored, np.array([e.length for e in self.pending], np.int64)])
        self._files: dict[Path, _DataFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # open files stay in their process

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that `read` knows."""
        spoken = STYLES if COLUMN in self.info.features else ()
        columns = (key for key, feature in self.info.features.items() if feature.dtype != "language")
        return tuple(dict.fromkeys((*columns, "task", *spoken)))

    @cached_property
    def tasks(self) -> dict[int, str]:
        """Task strings by their index."""
        table = _tasks(self.root) if self.info.total_episodes else {}
        return table | {index: task for entry in self.pending for task, index in entry.tasks.items()}

    def metadata(self, episode: int) -> dict[str, Any]:
        """Return what `save_episode` was given for this episode."""
        import json

        if episode >= self.info.total_episodes:
            return dict(self.pending[episode - self.info.total_episodes].metadata)
        text = self._table.get("robolearn/metadata")
        return json.loads(text[episode]) if text is not None and text[episode] else {}

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys` of one episode."""
        start, stop = span(self._lengths, episode, start, stop, self.root)
        spoken = [key for key in keys if key in self.keys and key not in (*self.info.features, "task")]
        if spoken:
            rest = self.read(episode, [key for key in keys if key not in spoken], start, stop)
            return {key: rest[key] if key in rest else self._spoken(episode, key, start, stop) for key in keys}
        signals = [key for key in keys if key != "task" and self.info.feature(key).dtype != "video"]
        columns = [*signals, "task_index"] if "task" in keys and "task_index" not in signals else signals
        result: dict[str, np.ndarray] = {}
        if columns:
            file = self._data_file(episode)
            table = file.rows(episode, int(self._lengths[episode]), columns, start, stop)
            for key in columns:
                where = f"{file.path}: {key}, episode {episode}"
                feature = self.info.feature(key)
                if feature.dtype == "image":
                    result[key] = decode_images(table.column(key), feature, self.root, where)
                else:
                    result[key] = to_array(table.column(key), feature, where)
        if "task" in keys:
            result["task"] = self._task_strings(result["task_index"], episode, start)
        for key in keys:
            if key != "task" and self.info.feature(key).dtype == "video":
                result[key] = self._video(episode, key, start, stop)
        return {key: result[key] for key in keys}

    def read_all(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Return whole columns over all episodes in order; each file is read once. Signals only."""
        ends = np.cumsum(self._lengths)
        result: dict[str, np.ndarray] = {}
        by_file: dict[Path, list[int]] = {}
        for episode in range(len(self._lengths)):
            by_file.setdefault(self._data_path(episode), []).append(episode)
        for path, episodes in by_file.items():
            file = self._data_file(episodes[0])
            table = read_parquet(file.file, path, keys)
            for key in keys:
                values = to_array(table.column(key), self.info.feature(key), f"{path}: {key}")
                if key not in result:
                    result[key] = np.empty((int(ends[-1]), *values.shape[1:]), values.dtype)
                for episode in episodes:
                    length = int(self._lengths[episode])
                    first = file.first_row(episode, length)
                    result[key][ends[episode] - length : ends[episode]] = values[first : first + length]
            file.forget()
        return result

    def video_file(self, episode: int, key: str) -> tuple[Path, float]:
        """Return the mp4 of one camera and where the episode begins in it [s]."""
        if episode >= self.info.total_episodes:
            entry = self.pending[episode - self.info.total_episodes]
            return inside(self.root / journal.FOLDER, entry.videos[key], "a journal video"), 0.0
        prefix = f"videos/{key}/"
        if prefix + "chunk_index" not in self._table or self.info.video_path is None:
            raise DataError(f"{self.root}/meta/episodes has no columns {prefix}*.", do="restore the metadata")
        relative = self.info.video_path.format(
            video_key=key,
            chunk_index=int(self._table[prefix + "chunk_index"][episode]),
            file_index=int(self._table[prefix + "file_index"][episode]),
        )
        return inside(self.root, relative, f"{self.info.path}: video_path"), float(
            self._table[prefix + "from_timestamp"][episode]
        )

    def _spoken(self, episode: int, style: str, start: int, stop: int) -> np.ndarray:
        """Return the annotation of `style` that holds at each frame [start, stop), str [frames]."""
        file = self._data_file(episode)
        first = file.rows(episode, int(self._lengths[episode]), [COLUMN], 0, 1).column(COLUMN).to_pylist()[0]
        time_s = self.read(episode, ["timestamp"], start, stop)["timestamp"]
        return active(first or (), style, time_s, f"{file.path}: {COLUMN}, episode {episode}")

    def _data_path(self, episode: int) -> Path:
        if episode >= self.info.total_episodes:
            entry = self.pending[episode - self.info.total_episodes]
            return self.root / journal.FOLDER / entry.table
        relative = self.info.data_path.format(
            chunk_index=int(self._table["data/chunk_index"][episode]),
            file_index=int(self._table["data/file_index"][episode]),
        )
        return inside(self.root, relative, f"{self.info.path}: data_path")

    def _data_file(self, episode: int) -> "_DataFile":
        path = self._data_path(episode)
        if path not in self._files:
            self._files[path] = _DataFile(path)
        return self._files[path]

    def _task_strings(self, index: np.ndarray, episode: int, start: int) -> np.ndarray:
        unknown = ~np.isin(index, list(self.tasks))
        if unknown.any():
            frame = int(unknown.argmax())
            raise DataError(
                f"{self.root}/meta/tasks.parquet lacks a task: episode {episode}, frame {start + frame}.",
                found=f"task_index {index[frame]}",
                expected=f"one of {len(self.tasks)} tasks",
            )
        return np.array([self.tasks[int(i)] for i in index])

    def _video(self, episode: int, key: str, start: int, stop: int) -> np.ndarray:
        path, from_s = self.video_file(episode, key)
        feature = self.info.feature(key)
        fps = self.info.fps
        if feature.depth:
            return self._depth(path, feature, from_s + start / fps, stop - start)
        frames = decode_span(path, from_s + start / fps, stop - start, fps)
        if len(frames) and frames.shape[1:] != feature.shape:
            raise DataError(f"{path} has another size than declared.", found=frames.shape[1:], expected=feature.shape)
        return frames.reshape(-1, *feature.shape)

    def _depth(self, path: Path, feature: StoredFeature, start_s: float, count: int) -> np.ndarray:
        """Return depth [count,H,W] float32 m."""
        stated = feature.info or {}
        wrong = [
            name for name, value in DEPTH_INFO.items() if name.startswith("video.") and stated.get(name, value) != value
        ]
        if wrong:
            raise DataError(f"{self.info.path}: depth is quantised in another way.", found=wrong)
        levels = decode_span(path, start_s, count, self.info.fps, DEPTH_PIXELS)
        if len(levels) and (levels.dtype != np.uint16 or levels.shape[1:] != feature.shape[:2] or levels.max() > 4095):
            raise DataError(f"{path} holds no depth of the declared size.", found=levels.shape, expected=feature.shape)
        return depth_levels()[levels.reshape(-1, *feature.shape[:2])]


class _DataFile:
    """One parquet file: which rows belong to which episode is read from its own `episode_index`."""

    def __init__(self, path: Path):
        self.path = path
        self.file = open_parquet(path)
        column = read_parquet(self.file, path, ["episode_index"]).column("episode_index")
        episode = to_array(column, StoredFeature("int64", (1,)), f"{path}: episode_index")
        starts = np.flatnonzero(np.diff(episode, prepend=episode[:1] - 1))
        ends = np.append(starts[1:], len(episode))
        numbers = episode[starts]
        if len(np.unique(numbers)) != len(numbers):
            twice = numbers[np.flatnonzero(np.bincount(np.unique(numbers, return_inverse=True)[1]) > 1)[:1]]
            raise DataError(f"{path}: episode_index is not contiguous.", found=f"episode {twice} in several places")
        self._rows = {int(n): (int(a), int(b)) for n, a, b in zip(numbers, starts, ends, strict=True)}
        sizes = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self._group_ends = np.cumsum(sizes)
        self._last: tuple[Any, Any] = (None, None)

    def first_row(self, episode: int, length: int) -> int:
        """Return the row where `episode` begins; its rows must be `length`."""
        first, end = self._rows.get(episode, (0, 0))
        if end - first != length:
            raise DataError(
                f"{self.path}: episode {episode} has another length than meta/episodes says.",
                found=f"{end - first} rows",
                expected=length,
                do="run `robolearn data verify`, then `repair`",
            )
        return first

    def rows(self, episode: int, length: int, columns: Sequence[str], start: int, stop: int) -> Any:
        """Return frames [start, stop) of `episode` as a table of `columns`."""
        first = self.first_row(episode, length)
        low = int(np.searchsorted(self._group_ends, first + start, side="right"))
        high = int(np.searchsorted(self._group_ends, max(first + stop, 1), side="left"))
        wanted = (tuple(columns), low, high)
        if self._last[0] != wanted:
            self._last = (wanted, read_parquet(self.file, self.path, columns, range(low, high + 1)))
        offset = int(self._group_ends[low - 1]) if low else 0
        return self._last[1].slice(first + start - offset, stop - start)

    def forget(self) -> None:
        """Drop the rows kept from the last read."""
        self._last = (None, None)


def _episode_table(root: Path, episodes: int, frames: int) -> dict[str, np.ndarray]:
    folder = root / "meta" / "episodes"
    table: dict[str, list[np.ndarray]] = {}
    for path in sorted(folder.glob("*/*.parquet")):
        file = open_parquet(path)
        wanted = [name for name in file.schema_arrow.names if not name.startswith("stats/") and name != "tasks"]
        part = read_parquet(file, path, wanted)
        for name in wanted:
            table.setdefault(name, []).append(plain_numbers(one_array(part.column(name))))
    columns = {name: np.concatenate(parts) for name, parts in table.items()}
    for name in (
        "episode_index",
        "length",
        "dataset_from_index",
        "dataset_to_index",
        "data/chunk_index",
        "data/file_index",
    ):
        values = columns.get(name, np.zeros(0, np.int64))
        if (name not in columns and episodes) or values.dtype.kind not in "iu":
            raise DataError(f"{folder}: the column '{name}' is missing or holds no integers.", found=values.dtype)
        columns[name] = values.astype(np.int64)
    return _checked(folder, columns, episodes, frames)


def _checked(folder: Path, columns: dict[str, np.ndarray], episodes: int, frames: int) -> dict[str, np.ndarray]:
    numbers = columns["episode_index"]
    keep = np.flatnonzero(numbers < episodes)  # later ones were never committed
    keep = keep[np.argsort(numbers[keep], kind="stable")]
    if any(len(values) != len(numbers) for values in columns.values()):
        raise DataError(f"{folder}: its files have different columns.", do="restore the metadata")
    columns = {name: values[keep] for name, values in columns.items()}
    if len(keep) != episodes or not np.array_equal(columns["episode_index"], np.arange(episodes)):
        present = set(columns["episode_index"].tolist())
        missing = [number for number in range(min(episodes, len(keep) + 5)) if number not in present][:5]
        raise DataError(
            f"{folder}: episode_index has {'gaps' if missing else 'duplicates'}.",
            found=f"missing {missing}" if missing else f"{len(keep)} rows",
            expected=f"0 … {episodes - 1}, once each (info.json: total_episodes)",
            do="run `robolearn data repair`",
        )
    lengths, begin, end = columns["length"], columns["dataset_from_index"], columns["dataset_to_index"]
    wrong = (end - begin != lengths) | (lengths <= 0) | (begin != np.concatenate([[0], np.cumsum(lengths)[:-1]]))
    if episodes and wrong.any():
        episode = int(wrong.argmax())
        raise DataError(
            f"{folder}: episode {episode} overlaps others or has an impossible length.",
            found=f"length {lengths[episode]}, frames {begin[episode]} … {end[episode]}",
            expected=f"it begins at frame {int(lengths[:episode].sum())}",
            do="run `robolearn data repair`",
        )
    if int(lengths.sum()) != frames:
        raise DataError(
            f"{folder.parent / 'info.json'}: total_frames disagrees with the episodes.",
            found=frames,
            expected=int(lengths.sum()),
            do="run `robolearn data repair`",
        )
    return columns


def _tasks(root: Path) -> dict[int, str]:
    path = root / "meta" / "tasks.parquet"
    table = read_parquet(open_parquet(path), path, ["task_index"])
    names = pq_column(path, ("task", "__index_level_0__"))
    index = [int(i) for i in table.column("task_index").to_pylist()]
    if len(set(index)) != len(index):
        raise DataError(f"{path}: task_index has duplicates.")
    return dict(zip(index, names, strict=True))


def pq_column(path: Path, names: Sequence[str]) -> list[str]:
    """Return the first of the columns `names` that `path` has, as strings."""
    file: pq.ParquetFile = open_parquet(path)
    for name in names:
        if name in file.schema_arrow.names:
            return [str(value) for value in read_parquet(file, path, [name]).column(name).to_pylist()]
    raise DataError(f"{path} lacks the column '{names[0]}'.", found=", ".join(file.schema_arrow.names))
