"""The Python verbs over names: the same registry and configs as the command line."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robolearn.contracts import EpisodeSource, VectorEnv
from robolearn.errors import DataError
from robolearn.registry import configure, resolve

__all__ = ["locate_data", "make_env", "open_dataset"]


def make_env(name: str, num_envs: int = 1, options: Mapping[str, Any] | None = None) -> VectorEnv:
    """Build `num_envs` rows of the registered environment `name`, with its config's `options`."""
    return configure("env", {**(options or {}), "name": name}, "env").build(num_envs)


def open_dataset(path: str | Path, kind: str = "auto", options: Mapping[str, Any] | None = None) -> EpisodeSource:
    """Open a dataset folder or file for reading; `kind` is its storage, detected when "auto"."""
    return resolve("data", kind)(locate_data(path), dict(options or {}))


def locate_data(path: str | Path) -> Path:
    """Return where the dataset `path` is: as it stands, or in the folder that ROBOLEARN_DATA names.

    Raises `DataError` that says how to get it.
    """
    folder = os.environ.get("ROBOLEARN_DATA")
    places = [Path(path).expanduser(), *([Path(folder) / path] if folder else [])]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise DataError(
            f"There is no dataset {path}.",
            found=f"nothing at {' or '.join(map(str, places))}",
            expected="an existing file or folder",
            do="write data.path=PATH, or set ROBOLEARN_DATA to the folder that holds it. Where there is a network, a "
            "public copy from the hub serves too: robolearn pull lerobot/pusht to=pusht kind=dataset, then "
            "data=auto data.path=pusht",
        )
    return found
