"""Repairing a LeRobot v3 folder: the longest prefix of episodes that verifies is kept, nothing else is guessed."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from robolearn.data.files import read_json, write_json
from robolearn.data.journal import FOLDER, entries
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.data.tables import open_parquet, read_parquet
from robolearn.data.verify import verify_episode
from robolearn.errors import DataError

__all__ = ["repair_dataset"]

_BACKUP = "meta/robolearn_info_before_repair.json"


def repair_dataset(root: Path) -> dict[str, Any]:
    """Make the folder at `root` open again and return what was kept; running it twice changes nothing more.

    A journal is folded in. Otherwise `info.json` is set back to the last episode before the first one
    that does not read; no data file is touched, and the former `info.json` is kept beside it.
    """
    if (root / FOLDER).exists() and _opens(root):
        before = len(entries(root))
        reader = LeRobotReader(root)
        LeRobotWriter(root, reader.spec, WriterOptions(append=True)).close()
        return {"kept": len(LeRobotReader(root).lengths), "folded_in": before, "changed": True}
    info_path = root / "meta" / "info.json"
    info = _info(info_path)
    lengths = _readable_lengths(root)
    kept = _kept(root, info, lengths)
    frames = int(sum(lengths[:kept]))
    declared = (info.get("total_episodes"), info.get("total_frames"))
    if declared == (kept, frames):
        return {"kept": kept, "folded_in": 0, "changed": False}
    if not (root / _BACKUP).exists():
        shutil.copyfile(info_path, root / _BACKUP)
    write_json(info_path, _shortened(info, kept, frames))
    return {"kept": kept, "folded_in": 0, "changed": True}


def _info(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except DataError as error:
        raise DataError(
            f"{path} cannot be repaired.",
            found=error.found,
            do="restore it from a copy: what the columns mean is written nowhere else",
        ) from error


def _opens(root: Path) -> bool:
    try:
        LeRobotReader(root)
    except DataError:
        return False
    return True


def _shortened(info: dict[str, Any], kept: int, frames: int) -> dict[str, Any]:
    return {**info, "total_episodes": kept, "total_frames": frames, "splits": {"train": f"0:{kept}"}}


def _readable_lengths(root: Path) -> list[int]:
    """Return the lengths of the episodes 0, 1, … that the metadata names without a gap."""
    found: dict[int, int] = {}
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        try:
            file: pq.ParquetFile = open_parquet(path)
            table = read_parquet(file, path, ["episode_index", "length", "dataset_from_index"])
        except DataError:
            continue
        for episode, length in zip(*(table.column(i).to_pylist() for i in range(2)), strict=True):
            found.setdefault(int(episode), int(length))
    lengths: list[int] = []
    while len(lengths) in found and found[len(lengths)] > 0:
        lengths.append(found[len(lengths)])
    return lengths


def _kept(root: Path, info: dict[str, Any], lengths: list[int]) -> int:
    """Return how many episodes from the first on can be read completely."""
    low, high = 0, len(lengths)
    while low < high:  # the largest prefix whose metadata is consistent
        middle = (low + high + 1) // 2
        try:
            LeRobotReader(root, _shortened(info, middle, sum(lengths[:middle])))
            low = middle
        except DataError:
            high = middle - 1
    reader = LeRobotReader(root, _shortened(info, low, sum(lengths[:low])))
    for episode in range(low):
        if verify_episode(reader, episode):
            return episode
    return low
