"""Loading Diffusion Policy windows (2 observations, 16 actions, batch 64) beside LeRobotDataset, in one run.

Rows: image_windows, state_windows, stream_windows [samples/s], image_gather (beside a bare gather in memory),
open_large [s], open_large_mb, memory [MB that two workers and their parent grow after the first epoch].

The data are the Push-T demonstrations when `ROBOLEARN_DATA` names their folder, else synthetic data of
their shapes. The whole takes about ten minutes on two cores; `--quick` takes the first 12 episodes.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.benchmark import Row, finish, parse_options
from robolearn.contracts import EpisodeSource
from robolearn.data.cache import build_cached_windows
from robolearn.data.exports import write_lerobot
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import WriterOptions
from robolearn.data.stream import StreamWindows
from robolearn.data.windows import build_windows
from robolearn.data.zarr_replay import ZarrReader
from robolearn.spec import ActionSpec, Feature, Spec

HISTORY, CHUNK, BATCH = 2, 16, 64
IMAGE, STATE = "observation.images.top", "observation.state"


class Synthetic:
    """Episodes of the shapes of Push-T."""

    def __init__(self, episodes: int):
        self.spec = Spec(
            {STATE: Feature("signal", (2,)), IMAGE: Feature("image", (96, 96, 3), "uint8")}, ActionSpec(2), rate_hz=10.0
        )
        self.lengths = np.full(episodes, 125)

    def read(self, episode: int, keys: Any, start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(episode)
        low = generator.integers(0, 255, (125, 12, 12, 3), dtype=np.uint8)
        columns = {
            STATE: generator.random((125, 2), np.float32),
            IMAGE: low.repeat(8, 1).repeat(8, 2),
            "action": generator.random((125, 2), np.float32),
            "task": np.full(125, "push"),
        }
        return {key: columns[key][start:stop] for key in keys}


class Part:
    """The first episodes of a source, with the observations `keys`."""

    def __init__(self, source: EpisodeSource, episodes: int, keys: tuple[str, ...] = (STATE, IMAGE)):
        self._source = source
        self.spec = source.spec.select(keys)
        self.lengths = np.asarray(source.lengths)[:episodes]

    def read(self, episode: int, keys: Any, start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        return self._source.read(episode, keys, start, stop)


def demonstrations(quick: bool) -> tuple[EpisodeSource, str]:
    """Return the data and what to call them."""
    episodes = 12 if quick else 206
    folder = os.environ.get("ROBOLEARN_DATA")
    path = Path(folder) / "pusht_cchi_v7_replay.zarr.zip" if folder else None
    if path is not None and path.exists():
        return Part(ZarrReader(path), episodes), f"Push-T, {episodes} episodes"
    return Synthetic(episodes), f"synthetic, {episodes} episodes of Push-T's shapes"


def rate(batches: Iterator[Any], seconds: float) -> float:
    """Return samples/s over `seconds`, the first batch not counted."""
    next(batches)
    samples, start_s = 0, time.perf_counter()
    for batch in batches:
        samples += len(batch["action"])
        if time.perf_counter() - start_s > seconds:
            break
    return samples / (time.perf_counter() - start_s)


def ours(windows: Any) -> Iterator[Any]:
    """Yield shuffled batches for ever."""
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(len(windows))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            yield windows.gather(order[start : start + BATCH])


def peer(root: Path, keys: tuple[str, ...], workers: int) -> Iterator[Any]:
    """Yield LeRobotDataset's batches for ever."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    stamps = {key: [-0.1, 0.0] for key in keys} | {"action": [i / 10 for i in range(-1, 15)]}
    dataset = LeRobotDataset("robolearn/bench", root=root, delta_timestamps=stamps, return_uint8=True)
    start = "spawn" if workers else None  # a forked copy of an open decoder cannot decode
    loader = torch.utils.data.DataLoader(
        dataset,
        BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        multiprocessing_context=start,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def bare_gather(frames: np.ndarray, seconds: float) -> float:
    """Return samples/s of copying two frames per sample out of one array in memory."""
    flat = frames.reshape(len(frames), -1)
    generator = np.random.default_rng(0)
    samples, start_s = 0, time.perf_counter()
    while time.perf_counter() - start_s < seconds:
        index = generator.integers(1, len(flat), BATCH)
        np.take(flat, np.stack([index - 1, index], 1).ravel(), axis=0)
        samples += BATCH
    return samples / (time.perf_counter() - start_s)


def in_turns(works: dict[str, Callable[[], Iterator[Any]]], seconds: float, repeats: int) -> dict[str, float]:
    """Return the median rate of each, measured in turns."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    opened = {name: make() for name, make in works.items()}
    for _ in range(repeats):
        for name, batches in opened.items():
            rates[name].append(rate(batches, seconds))
    return {name: float(np.median(values)) for name, values in rates.items()}


def best_peer(rates: dict[str, float]) -> tuple[float | None, str]:
    """Return the fastest of LeRobot's variants and its name."""
    theirs = {name: value for name, value in rates.items() if name != "ours"}
    name = max(theirs, key=lambda key: theirs[key]) if theirs else ""
    return theirs.get(name), name


def loading_rows(folder: Path, quick: bool) -> list[Row]:
    """Return the rows about windows."""
    source, what = demonstrations(quick)
    seconds, repeats = (2.0, 1) if quick else (10.0, 3)
    reader = write_datasets(source, folder)
    os.environ["ROBOLEARN_CACHE"] = str(folder / "cache")
    cached = build_cached_windows(reader, HISTORY, CHUNK, [STATE, IMAGE])
    memory = build_windows(reader, HISTORY, CHUNK, [STATE])
    tasks = (("image_windows", cached, ("av1", "images")), ("state_windows", memory, ("state",)))
    rows: list[Row] = []
    for row, windows, roots in tasks:
        works: dict[str, Callable[[], Iterator[Any]]] = {"ours": lambda windows=windows: ours(windows)}
        keys = tuple(windows.spec.observations)
        for name in roots if find_spec("lerobot") else ():
            for count in (0, 2):
                works[f"{name}, {count} workers"] = lambda r=folder / name, k=keys, c=count: peer(r, k, c)
        rates = in_turns(works, seconds, repeats)
        value, name = best_peer(rates)
        others = ", ".join(f"{key}: {rates[key]:.0f}" for key in rates if key != "ours")
        rows.append(row_of(row, rates["ours"], value, f"{what}; best of {others}"))
        if row == "image_windows":
            bare = bare_gather(np.asarray(cached.images[IMAGE]), seconds)
            rows.append(row_of("image_gather", rates["ours"], bare, "peer: a bare gather of the same bytes in memory"))
    first = first_epoch(StreamWindows(reader, HISTORY, CHUNK, [STATE, IMAGE]))
    return [*rows, row_of("stream_windows", first, rows[0].peer, "first epoch, nothing decoded before")]


def write_datasets(source: EpisodeSource, folder: Path) -> LeRobotReader:
    """Write the source as LeRobot datasets with video, with pictures and without either; returns the first."""
    write_lerobot(source, folder / "av1")
    reader = LeRobotReader(folder / "av1")
    write_lerobot(reader, folder / "images", WriterOptions(images="image"))
    write_lerobot(Part(reader, len(reader.lengths), (STATE,)), folder / "state")
    return reader


def row_of(name: str, ours: float, peer: float | None, note: str) -> Row:
    """Return a row of rates."""
    return Row(name, "samples/s", ours, peer, ours / peer if peer else None, note)


def first_epoch(windows: StreamWindows) -> float:
    """Return samples/s of every window once, in random order."""
    order = np.random.default_rng(0).permutation(len(windows))
    start_s = time.perf_counter()
    for start in range(0, len(order), BATCH):
        windows.gather(order[start : start + BATCH])
    return len(order) / (time.perf_counter() - start_s)


# ---------------------------------------------------------------- large datasets, fresh processes


def write_large(root: Path, episodes: int, length: int) -> None:
    """Write a state dataset of `episodes` episodes in LeRobot's layout, by whole columns."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    from robolearn.data.arrow import arrow_table
    from robolearn.data.lerobot_info import features_of

    spec = Spec({STATE: Feature("signal", (14,))}, ActionSpec(14), rate_hz=50.0)
    features = features_of(spec, {}, "video")
    generator = np.random.default_rng(0)
    rows, per_file = [], 500
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    frame = np.arange(length)
    for file in range(-(-episodes // per_file)):
        writer = None
        for episode in range(file * per_file, min((file + 1) * per_file, episodes)):
            columns = {
                STATE: generator.random((length, 14), np.float32),
                "action": generator.random((length, 14), np.float32),
                "timestamp": (frame / 50).astype(np.float32),
                "frame_index": frame,
                "episode_index": np.full(length, episode),
                "index": episode * length + frame,
                "task_index": np.zeros(length, np.int64),
            }
            table = arrow_table(columns, features)
            writer = writer or pq.ParquetWriter(root / f"data/chunk-000/file-{file:03d}.parquet", table.schema)
            writer.write_table(table)
            rows.append((episode, length, 0, file, episode * length, (episode + 1) * length))
        if writer is not None:
            writer.close()
    names = ("episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})
    table = table.append_column("tasks", pa.array([["large"]] * len(rows)))
    pq.write_table(table, root / "meta/episodes/chunk-000/file-000.parquet")
    import pandas as pd

    pd.DataFrame({"task_index": [0]}, index=pd.Index(["large"], name="task")).to_parquet(root / "meta/tasks.parquet")
    (root / "meta/info.json").write_text(json.dumps(large_info(features, episodes, length)))


def large_info(features: dict[str, Any], episodes: int, length: int) -> dict[str, Any]:
    """Return the description of the large dataset."""
    return {
        "codebase_version": "v3.0",
        "fps": 50,
        "features": features,
        "total_episodes": episodes,
        "total_frames": episodes * length,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "robot_type": None,
        "splits": {"train": f"0:{episodes}"},
    }


OPEN_OURS = """
from pathlib import Path
from robolearn.data.lerobot_v3 import LeRobotReader
import time, sys
start = time.perf_counter()
reader = LeRobotReader(Path(sys.argv[1]))
reader.read(len(reader.lengths) // 2, ["observation.state", "action"])
print(time.perf_counter() - start, int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
"""
OPEN_PEER = """
from pathlib import Path
from lerobot.datasets.lerobot_dataset import LeRobotDataset
import time, sys
start = time.perf_counter()
dataset = LeRobotDataset("robolearn/bench", root=sys.argv[1])
dataset[len(dataset) // 2]
print(time.perf_counter() - start, int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
"""


def fresh(code: str, root: Path) -> tuple[float, float]:
    """Run `code` in a new process; returns what it printed."""
    home = os.environ | {"HF_HOME": str(root.parent / "hf")}
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True, env=home)
    seconds, megabytes = done.stdout.split()[-2:]
    return float(seconds), float(megabytes)


def large_rows(folder: Path, quick: bool) -> list[Row]:
    """Return the rows about opening a large dataset."""
    episodes, length = (1000, 100) if quick else (10_000, 500)
    write_large(folder / "large", episodes, length)
    own_s, own_mb = fresh(OPEN_OURS, folder / "large")
    peer_s, peer_mb = fresh(OPEN_PEER, folder / "large") if find_spec("lerobot") else (None, None)
    note = f"{episodes} episodes, {episodes * length} frames, and one episode read"
    return [
        Row("open_large", "s", own_s, peer_s, peer_s / own_s if peer_s else None, note),
        Row("open_large_mb", "MB", own_mb, peer_mb, peer_mb / own_mb if peer_mb else None, "peak of the process"),
    ]


def memory_row(folder: Path) -> Row:
    """Return how much two workers and the main process grow after the first of three epochs of pictures."""
    windows = build_cached_windows(LeRobotReader(folder / "av1"), HISTORY, CHUNK, [STATE, IMAGE])

    class Batches(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return windows.gather(np.asarray(index))

        def __len__(self):
            return len(windows)

    sampler = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(windows), BATCH, drop_last=True)
    loader = torch.utils.data.DataLoader(
        Batches(),
        batch_size=None,
        sampler=sampler,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    held = []
    for _ in range(3):
        for _ in loader:
            pass
        held.append(resident_mb())
    note = "2 workers; after three epochs " + ", ".join(f"{value:.0f}" for value in held) + " MB, cache included"
    return Row("memory", "MB", held[-1] - held[0], None, None, note)


def resident_mb() -> float:
    """Return the resident memory of this process and its children [MB]; what they share counts once."""
    children = [int(c) for task in Path("/proc/self/task").iterdir() for c in (task / "children").read_text().split()]
    rollups = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in (os.getpid(), *children)]
    return sum(int(text.split("Pss:")[1].split()[0]) for text in rollups) / 1024


def main() -> None:
    options = parse_options(__doc__ or "")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = loading_rows(folder, options.quick)
        rows += large_rows(folder, options.quick)
        rows.append(memory_row(folder))
        finish(rows, options)


if __name__ == "__main__":
    main()
