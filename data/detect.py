"""Which kind of dataset lies at a path."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robolearn.contracts import EpisodeSource
from robolearn.data.files import read_json
from robolearn.data.image_text import METADATA
from robolearn.data.rlds import version_folder
from robolearn.errors import DataError
from robolearn.registry import resolve

__all__ = ["OpenOptions", "detect", "open_auto"]


@dataclass(frozen=True)
class OpenOptions:
    """Which dataset: its path, its kind ("auto" detects it) and what its reader needs to be told."""

    path: str
    kind: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> EpisodeSource:
        """Open the dataset for reading."""
        return resolve("data", self.kind)(Path(self.path), self.options)


def open_auto(path: Path, options: Mapping[str, Any]) -> EpisodeSource:
    """Open `path` as the kind it looks like."""
    return resolve("data", detect(Path(path)))(Path(path), options)


def detect(path: Path) -> str:
    """Return the registered name of the storage at `path`; raises `DataError` when none fits."""
    if not path.exists():
        raise DataError(f"{path} does not exist.", do="check the dataset's path")
    kind = _folder(path) if path.is_dir() else _file(path)
    if kind is None:
        raise DataError(f"{path} is no dataset of a known kind.", do="name the kind: data.kind=lerobot, zarr, …")
    return kind


def _folder(path: Path) -> str | None:
    if (path / "meta" / "info.json").exists():
        version = str(read_json(path / "meta" / "info.json").get("codebase_version", ""))
        return "lerobot_v2" if version.startswith("v2") else "lerobot"
    if (path / ".zgroup").exists():
        return "zarr"
    if version_folder(path) is not None:
        return "rlds"
    if any(path.glob("*.hdf5")):
        return "hdf5"
    if (path / METADATA).exists():
        return "image_text"
    names = ("metadata.yaml", "*.mcap", "*.db3", "*/metadata.yaml")
    return "rosbag" if any(any(path.glob(name)) for name in names) else None


def _file(path: Path) -> str | None:
    if path.suffix == ".zip" and zipfile.is_zipfile(path):
        return "zarr"
    return {".hdf5": "hdf5", ".h5": "hdf5", ".mcap": "rosbag", ".db3": "rosbag"}.get(path.suffix)
