"""The Python verbs over names: the same registry and configs as the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robolearn.config import parse
from robolearn.contracts import EpisodeSource, VectorEnv
from robolearn.registry import resolve

__all__ = ["make_env", "open_dataset"]


def make_env(name: str, num_envs: int = 1, options: Mapping[str, Any] | None = None) -> VectorEnv:
    """Build `num_envs` rows of the registered environment `name`, with its config's `options`."""
    config = parse(resolve("env", name), {**(options or {}), "name": name}, where="env")
    return config.build(num_envs)


def open_dataset(path: str | Path, kind: str = "auto", options: Mapping[str, Any] | None = None) -> EpisodeSource:
    """Open a dataset folder or file for reading; `kind` is its storage, detected when "auto"."""
    return resolve("data", kind)(Path(path), dict(options or {}))
