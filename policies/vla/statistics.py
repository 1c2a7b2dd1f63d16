"""Normalisation statistics as others publish them, as those of our `normalize`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from robolearn.errors import CheckpointError, suggest
from robolearn.files import read_json

__all__ = ["read_lerobot_stats", "read_openpi_stats", "read_oxe_stats", "read_tensors"]

_NAMES = ("min", "max", "mean", "std", "q01", "q99")
_OPENPI = {"state": "observation.state", "actions": "action"}


def read_openpi_stats(path: str | Path) -> dict[str, Tensor]:
    """Return openpi's norm_stats.json as `{"observation.state/mean": …, "action/q01": …}`."""
    plain = _mapping(read_json(Path(path), CheckpointError), str(path))
    groups = _mapping(plain.get("norm_stats", plain), str(path))
    result = {}
    for group, values in groups.items():
        result.update(_rows(_OPENPI.get(group, f"observation.{group}"), _mapping(values, f"{path}: {group}")))
    return _finite(result, str(path))


def read_oxe_stats(path: str | Path, unnorm_key: str) -> dict[str, Tensor]:
    """Return the statistics that OpenVLA or Octo publish for the data set `unnorm_key`.

    They lie in `norm_stats` of its config.json, or are a dataset_statistics.json. A dimension that its mask
    leaves alone (the gripper) gets statistics that change nothing.
    """
    plain = _mapping(read_json(Path(path), CheckpointError), str(path))
    known = _mapping(plain.get("norm_stats", plain), str(path))
    if unnorm_key not in known:
        raise CheckpointError(f"{path} has no data set '{unnorm_key}'.", expected=suggest(unnorm_key, known))
    result = {}
    for group, name in (("proprio", "observation.state"), ("action", "action")):
        values = known[unnorm_key].get(group)
        if values is not None:
            rows = _rows(name, values)
            mask = torch.tensor(values.get("mask", [True] * len(values["mean"])))
            idle = {"min": -1.0, "max": 1.0, "mean": 0.0, "std": 1.0, "q01": -1.0, "q99": 1.0}
            result |= {key: torch.where(mask, value, idle[key.rpartition("/")[2]]) for key, value in rows.items()}
    return _finite(result, str(path))


def read_lerobot_stats(folder: str | Path) -> dict[str, Tensor]:
    """Return the statistics in the preprocessor of a LeRobot policy."""
    found = read_tensors(Path(folder), "policy_preprocessor*normalizer*.safetensors")
    result = {}
    for key, value in found.items():
        name, _, statistic = key.rpartition(".")
        if statistic in _NAMES:
            result[f"{name}/{statistic}"] = value.float()
    return _finite(result, str(folder))


def read_tensors(folder: Path, pattern: str) -> dict[str, Tensor]:
    """Return the tensors of the safetensors files of `folder` that `pattern` names."""
    files = sorted(folder.glob(pattern))
    if not files:
        raise CheckpointError(f"{folder} lacks a file.", expected=pattern)
    return {key: value for file in files for key, value in load_file(file).items()}


def _rows(name: str, values: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": torch.tensor(values[key], dtype=torch.float32) for key in _NAMES if values.get(key) is not None
    }


def _mapping(plain: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(plain, Mapping):
        raise CheckpointError(f"{where} holds no statistics.", found=type(plain).__name__, expected="a mapping")
    return plain


def _finite(stats: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    bad = [key for key, value in stats.items() if not torch.isfinite(value).all()]
    if bad or not stats:
        raise CheckpointError(f"{where} holds no usable statistics.", found=", ".join(bad) or "none")
    return stats
