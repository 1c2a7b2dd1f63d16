"""Folding a journal into a LeRobot v3 folder. Every step may be killed and done again.

Files are written under temporary names and renamed; `info.json` is the commit point. What a killed
run left behind is overwritten by the next one, because file numbers follow from what is committed.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as arrow_json
import pyarrow.parquet as pq

from robolearn.data import stats as statistics
from robolearn.data.files import read_json, write_json
from robolearn.data.journal import Entry, Journal
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.tables import open_parquet, read_parquet
from robolearn.data.video import join, probe
from robolearn.files import fsync_folder
from robolearn.spec import Spec

__all__ = ["compact", "dataset_stats"]

_MB = 2**20
_HISTOGRAMS = "meta/robolearn_histograms.json"


def compact(root: Path, info: Mapping[str, Any], journal: Journal, spec: Spec) -> None:
    """Move the acknowledged episodes of `journal` into the dataset under `root`."""
    waiting = [entry for entry in journal.entries if entry.episode >= info["total_episodes"]]
    if waiting:
        rows = _write_data(root, info, journal, waiting)
        for key, feature in info["features"].items():
            if feature["dtype"] == "video":
                _write_videos(root, info, journal, waiting, key, rows)
        _write_episodes(root, info, waiting, rows)
        _write_tasks(root, waiting)
        info = _write_info(root, info, waiting)
    if journal.entries:
        write_stats(root, journal.entries, fresh=int(info["total_episodes"]) == len(journal.entries))
        journal.clear()


def _next_place(used: Sequence[tuple[int, int]], chunks_size: int) -> tuple[int, int]:
    if not used:
        return 0, 0
    chunk, file = max(used)
    return (chunk + 1, 0) if file >= chunks_size - 1 else (chunk, file + 1)


def _used(root: Path, info: Mapping[str, Any], prefix: str) -> list[tuple[int, int]]:
    """Return the (chunk, file) places that committed episodes use."""
    found: set[tuple[int, int]] = set()
    names = [f"{prefix}/chunk_index", f"{prefix}/file_index"]
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        file = open_parquet(path)
        table = read_parquet(file, path, ["episode_index", *names])
        for episode, chunk, number in zip(*(table.column(i).to_pylist() for i in range(3)), strict=True):
            if episode < info["total_episodes"]:
                found.add((int(chunk), int(number)))
    return sorted(found)


def _batches(entries: Sequence[Entry], sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    batch, total = [], 0
    for i in range(len(entries)):
        if batch and total + sizes[i] >= limit:
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += sizes[i]
    yield batch


def _write_data(root: Path, info: Mapping[str, Any], journal: Journal, entries: Sequence[Entry]) -> list[dict]:
    rows: list[dict] = []
    used = _used(root, info, "data")
    sizes = [entry.files[entry.table][0] for entry in entries]
    for batch in _batches(entries, sizes, info["data_files_size_in_mb"] * _MB):
        place = _next_place(used, info["chunks_size"])
        used.append(place)
        path = root / info["data_path"].format(chunk_index=place[0], file_index=place[1])
        with _replacing(path) as temporary:
            parts = ((journal.folder / entries[i].table) for i in batch)
            _merge_tables(parts, temporary)
        for i in batch:
            entry = entries[i]
            rows.append(
                {
                    "episode_index": entry.episode,
                    "tasks": list(entry.tasks),
                    "length": entry.length,
                    "data/chunk_index": place[0],
                    "data/file_index": place[1],
                    "dataset_from_index": entry.first_index,
                    "dataset_to_index": entry.first_index + entry.length,
                }
            )
    return rows


def _merge_tables(parts: Iterator[Path], target: Path) -> None:
    writer = None
    for part in parts:
        table = open_parquet(part).read(use_threads=False)
        if writer is None:
            writer = pq.ParquetWriter(target, table.schema, compression="snappy", write_page_checksum=True)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _write_videos(
    root: Path, info: Mapping[str, Any], journal: Journal, entries: Sequence[Entry], key: str, rows: list[dict]
) -> None:
    used = _used(root, info, f"videos/{key}")
    sizes = [entry.files[entry.videos[key]][0] for entry in entries]
    for batch in _batches(entries, sizes, info["video_files_size_in_mb"] * _MB):
        place = _next_place(used, info["chunks_size"])
        used.append(place)
        path = root / info["video_path"].format(video_key=key, chunk_index=place[0], file_index=place[1])
        with _replacing(path) as temporary:
            join([journal.folder / entries[i].videos[key] for i in batch], temporary, info["fps"])
        frames = 0
        for i in batch:
            rows[i] |= {
                f"videos/{key}/chunk_index": place[0],
                f"videos/{key}/file_index": place[1],
                f"videos/{key}/from_timestamp": frames / info["fps"],
                f"videos/{key}/to_timestamp": (frames + entries[i].length) / info["fps"],
            }
            frames += entries[i].length


def _write_episodes(root: Path, info: Mapping[str, Any], entries: Sequence[Entry], rows: list[dict]) -> None:
    place = _next_place(_used(root, info, "meta/episodes"), info["chunks_size"])
    for entry, row in zip(entries, rows, strict=True):
        for key, stats in entry.stats.items():
            full = _full_stats(stats)
            row |= {f"stats/{key}/{name}": value for name, value in full.items()}
        row |= {
            "meta/episodes/chunk_index": place[0],
            "meta/episodes/file_index": place[1],
            "robolearn/metadata": json.dumps(entry.metadata) if entry.metadata else "",
        }
    path = root / f"meta/episodes/chunk-{place[0]:03d}/file-{place[1]:03d}.parquet"
    with _replacing(path) as temporary:
        pq.write_table(_table(rows), temporary, compression="snappy", write_page_checksum=True)


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return plain rows as a table, by way of JSON: `pa.array` on Python objects would import pandas."""
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    options = arrow_json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    texts = {"task": pa.string(), "tasks": pa.list_(pa.string()), "robolearn/metadata": pa.string()}
    present = pa.schema([(name, kind) for name, kind in texts.items() if name in rows[0]])  # a date is a text here
    parsing = arrow_json.ParseOptions(explicit_schema=present)
    return arrow_json.read_json(pa.BufferReader(lines), read_options=options, parse_options=parsing)


def _full_stats(stats: Mapping[str, Any]) -> dict[str, Any]:
    if "histogram" not in stats:
        return dict(stats)
    full = statistics.histogram_stats(np.array(stats["histogram"]), stats["frames"])
    return {name: value.tolist() for name, value in full.items()}


def _write_tasks(root: Path, entries: Sequence[Entry]) -> None:
    path = root / "meta" / "tasks.parquet"
    tasks = {}
    if path.exists():
        table = read_parquet(open_parquet(path), path, ["task", "task_index"])
        tasks = dict(zip(table.column("task").to_pylist(), table.column("task_index").to_pylist(), strict=True))
    for entry in entries:
        tasks |= entry.tasks
    ordered = sorted(tasks.items(), key=lambda item: item[1])
    table = _table([{"task_index": index, "task": task} for task, index in ordered])
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": stored, "metadata": None}
        for name, (kind, stored) in kinds.items()
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.3.3"}
    with _replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), temporary)


def _write_info(root: Path, info: Mapping[str, Any], entries: Sequence[Entry]) -> Mapping[str, Any]:
    features = {key: dict(feature) for key, feature in info["features"].items()}
    for key, feature in features.items():
        stated = feature.get("info", {})
        if feature["dtype"] == "video" and "video.codec" not in stated:
            place = {"chunk_index": 0, "file_index": 0, "video_key": key}
            facts = probe(root / info["video_path"].format(**place))
            facts.pop("frames")
            feature["info"] = (
                facts | {"video.channels": feature["shape"][2], "has_audio": False, "is_depth_map": False} | stated
            )
    total = entries[-1].episode + 1
    new = {
        **info,
        "features": features,
        "total_episodes": total,
        "total_frames": entries[-1].first_index + entries[-1].length,
        "total_tasks": pq.read_metadata(root / "meta" / "tasks.parquet").num_rows,
        "splits": {"train": f"0:{total}"},
    }
    write_json(root / "meta" / "info.json", new)
    return new


# ---------------------------------------------------------------- statistics


def write_stats(root: Path, entries: Sequence[Entry], fresh: bool) -> None:
    """Write `meta/stats.json`: signals from all data, images from the histograms of their episodes."""
    path = root / _HISTOGRAMS
    histograms = read_json(path) if path.exists() and not fresh else {"episodes": 0, "keys": {}}
    reader = LeRobotReader(root)
    stats = dataset_stats(reader)
    done = int(histograms["episodes"])
    keys = {key: (np.array(item["counts"]), item["frames"]) for key, item in histograms["keys"].items()}
    for entry in entries:
        for key, item in entry.stats.items():
            if entry.episode >= done and "histogram" in item:
                counts, frames = keys.get(key, (0, 0))
                keys[key] = (counts + np.array(item["histogram"]), frames + item["frames"])
    for key, (counts, frames) in keys.items():
        stats[key] = statistics.histogram_stats(counts, frames)
    plain = {key: {name: value.tolist() for name, value in item.items()} for key, item in stats.items()}
    write_json(root / "meta" / "stats.json", plain)
    if keys:
        kept = {
            key: {"counts": np.asarray(counts).tolist(), "frames": frames} for key, (counts, frames) in keys.items()
        }
        write_json(path, {"episodes": entries[-1].episode + 1, "keys": kept})


def dataset_stats(reader: LeRobotReader) -> dict[str, dict[str, np.ndarray]]:
    """Return the statistics of every signal over all frames."""
    stats = {}
    for key, feature in reader.info.features.items():
        if feature.visual or feature.dtype in ("string", "language"):
            continue
        stats[key] = statistics.column_stats(reader.read_all([key])[key])
    return stats


class _replacing:
    """A temporary file beside `path` that takes its place, durably, when the block succeeds."""

    def __init__(self, path: Path):
        self.path, self.temporary = path, path.parent / f".{path.name}.tmp"

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.temporary

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if kind is not None:
            self.temporary.unlink(missing_ok=True)
            return
        with self.temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.temporary, self.path)
        fsync_folder(self.path.parent)
