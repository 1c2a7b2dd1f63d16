"""`robolearn eval openloop`: predicted action chunks beside the demonstrated ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import checkpoint
from robolearn.actor import load
from robolearn.cli.arguments import parse_arguments
from robolearn.cli.compose import merge
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import progress, say, table
from robolearn.config import parse, to_dict
from robolearn.errors import ConfigError
from robolearn.openloop import OpenLoopResult, openloop, recorded_windows
from robolearn.report import write_report
from robolearn.run import parse_run

__all__ = ["OpenLoopJob", "main"]

_USAGE = """usage: robolearn eval openloop ckpt=DIR [windows=512] [temperature=1.0] [data.path=DATASET] [out=DIR]

Error of the predicted actions by entry and step ahead, on the episodes that the run held out
(data.validation_fraction), or on another dataset. Leaves result.json and report.html with plots."""


@dataclass(frozen=True)
class OpenLoopJob:
    """The options of `robolearn eval openloop`; `data` overrides those of the training."""

    ckpt: str = ""
    windows: int = 512
    temperature: float = 1.0
    seed: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    out: str | None = None

    def __post_init__(self):
        if not self.ckpt or self.windows < 1:
            raise ConfigError(
                "eval openloop needs a checkpoint and a number of windows.",
                found=f"ckpt={self.ckpt} windows={self.windows}",
                do=_USAGE.splitlines()[0],
            )


def main(arguments: Sequence[str]) -> None:
    """Compare one checkpoint with recorded episodes."""
    ours = parse(OpenLoopJob, merge({}, parse_arguments(arguments, _USAGE)), where="config")
    trained = dict(checkpoint.load(ours.ckpt).config)
    config = parse_run({**trained, "data": {**trained["data"], **ours.data}})
    actor = load(ours.ckpt)
    job = Job("eval", out_folder("eval", ours.out), to_dict(replace(ours, out=None)))
    with job.stage("data"):
        windows, held_out = recorded_windows(config, actor)
    held_out = held_out or "path" in ours.data
    with job.stage("evaluation"), progress("compare", min(ours.windows, len(windows)), "windows") as advance:
        found = openloop(
            actor, windows, ours.windows, ours.seed, ours.temperature, on_window=lambda done: advance(done, "")
        )
    plain = {**found.to_dict(), "held_out": held_out}
    content = job.finish({"openloop": plain})
    drawn = {**content, "openloop": {**plain, "examples": _examples(found)}}
    report = write_report(job.out / "report.html", f"open loop: {Path(ours.ckpt).name}", drawn)
    _show(found, held_out, [report, job.out / "result.json"])


def _examples(found: OpenLoopResult) -> list[tuple[Mapping[str, list[float]], ...]]:
    def named(chunk: np.ndarray) -> dict[str, list[float]]:
        return {name: chunk[:, index].tolist() for index, name in enumerate(found.names)}

    return [(named(shown), named(said)) for shown, said in found.examples]


def _show(found: OpenLoopResult, held_out: bool, files: Sequence[Path]) -> None:
    last = found.error.shape[0] - 1
    columns = ("action", "error, first step", f"step {last}", "mean", "spread of the demonstrations")
    rows = [
        (name, *(f"{value:.4g}" for value in (error[0], error[-1], error.mean(), spread.mean())))
        for name, error, spread in zip(found.names, found.error.T, found.spread.T, strict=True)
    ]
    table("", columns, rows)
    say(f"{found.windows} windows, {'held out' if held_out else 'trained on: no episode was held out'}")
    for path in files:
        say(f"{path.suffix.lstrip('.')}: {path}")
