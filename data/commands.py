"""The verbs of `robolearn data`: each takes plain options and returns plain results.

`COMMANDS` maps a verb to its function, `OPTIONS` to the dataclass of its options. Options are strict;
results are JSON data, ready to print or to save.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.config import parse
from robolearn.data.bench import BenchOptions, bench
from robolearn.data.compare import CompareOptions, compare
from robolearn.data.detect import OpenOptions, detect
from robolearn.data.edit import EditOptions, edit
from robolearn.data.exports import write_lerobot, write_mcap, write_robomimic, write_zarr
from robolearn.data.frames import metadata_of
from robolearn.data.lerobot_v2 import write_v2
from robolearn.data.lerobot_writer import WriterOptions
from robolearn.data.mixture import MixtureOptions, describe
from robolearn.data.progress import bar
from robolearn.data.reexpress import Reexpressed
from robolearn.data.repair import repair_dataset
from robolearn.data.replay import ReplayOptions, replay
from robolearn.data.stats import column_stats
from robolearn.data.verify import verify_source
from robolearn.data.view import ViewOptions, view
from robolearn.errors import DataError

__all__ = ["COMMANDS", "OPTIONS", "ConvertOptions", "convert", "edit", "info", "repair", "stats", "verify"]


@dataclass(frozen=True)
class ConvertOptions(OpenOptions):
    """Where a dataset goes and in which format."""

    out: str = ""
    to: Literal["lerobot", "lerobot_v2", "gr00t", "robomimic", "zarr", "mcap"] = "lerobot"
    images: Literal["video", "image"] = "video"
    actions: Literal["", "joint_position", "ee_pose", "ee_delta"] = ""  # the space to re-express them in
    arm: str = ""


def info(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a dataset holds: kind, episodes, frames, seconds, spec, tasks, and loops that ran slow."""
    given = parse(OpenOptions, arguments, where="data info")
    source = given.open()
    lengths, spec = np.asarray(source.lengths), source.spec
    result: dict[str, Any] = {
        "path": given.path,
        "kind": detect(Path(given.path)) if given.kind == "auto" else given.kind,
        "episodes": len(lengths),
        "frames": int(lengths.sum()),
        "seconds": float(lengths.sum() / spec.rate_hz),
        "shortest": int(lengths.min()) if len(lengths) else 0,
        "longest": int(lengths.max(initial=0)),
        "spec": spec.to_dict(),
    }
    if hasattr(source, "metadata"):
        rates = {episode: metadata_of(source, episode).get("measured_rate_hz") for episode in range(len(lengths))}
        slow = {episode: rate for episode, rate in rates.items() if rate and rate < 0.95 * spec.rate_hz}
        result["slow_episodes"] = {str(episode): rate for episode, rate in slow.items()}
    tasks = getattr(source, "tasks", None)
    if tasks is not None:
        result["tasks"] = sorted(tasks.values())
    return result


def stats(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Compute min, max, mean, std and quantiles of every signal over all frames, from the data."""
    source = parse(OpenOptions, arguments, where="data stats").open()
    keys = [key for key, feature in source.spec.observations.items() if feature.kind == "signal"] + ["action"]
    parts: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for episode in bar(range(len(source.lengths)), "read episodes", len(source.lengths)):
        for key, values in source.read(episode, keys).items():
            parts[key].append(values)
    if not len(source.lengths):
        raise DataError("The dataset has no episodes.", do="record some first")
    merged = {key: column_stats(np.concatenate(values)) for key, values in parts.items()}
    return {key: {name: value.tolist() for name, value in item.items()} for key, item in merged.items()}


def verify(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Read everything and list every problem with its file, field, episode and frame."""
    given = parse(OpenOptions, arguments, where="data verify")
    try:
        source = given.open()
    except DataError as error:
        return {"path": given.path, "good": False, "problems": [str(error)]}
    problems = verify_source(source)
    return {"path": given.path, "good": not problems, "problems": problems, "episodes": len(source.lengths)}


def repair(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the longest verified prefix of a LeRobot v3 folder; what it replaces is kept beside it."""
    given = parse(OpenOptions, arguments, where="data repair")
    return repair_dataset(Path(given.path))


def convert(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Write a dataset in another format: lerobot (v3), lerobot_v2, gr00t, robomimic, zarr or mcap."""
    given = parse(ConvertOptions, arguments, where="data convert")
    if not given.out:
        raise DataError("Where to is missing.", do="give out=PATH")
    source, target = given.open(), Path(given.out)
    source = Reexpressed(source, given.actions, given.arm) if given.actions else source
    if given.to == "lerobot":
        write_lerobot(source, target, WriterOptions(images=given.images))
    elif given.to in ("lerobot_v2", "gr00t"):
        write_v2(source, target, modality=given.to == "gr00t")
    else:
        {"robomimic": write_robomimic, "zarr": write_zarr, "mcap": write_mcap}[given.to](source, target)
    return {"path": given.out, "kind": given.to, "episodes": len(source.lengths)}


OPTIONS: dict[str, type[OpenOptions] | type[MixtureOptions]] = {
    "bench": BenchOptions,
    "compare": CompareOptions,
    "convert": ConvertOptions,
    "edit": EditOptions,
    "mixture": MixtureOptions,
    "replay": ReplayOptions,
    "view": ViewOptions,
}  # of the verbs that take more than `OpenOptions`

COMMANDS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "bench": bench,
    "compare": compare,
    "convert": convert,
    "edit": edit,
    "info": info,
    "mixture": describe,
    "repair": repair,
    "replay": replay,
    "stats": stats,
    "verify": verify,
    "view": view,
}
