"""`robolearn eval openloop`: predicted action chunks beside the demonstrated ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import checkpoint
from robolearn.actor import load
from robolearn.cli.arguments import parse_arguments
from robolearn.cli.compose import merge
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import progress, say, table
from robolearn.errors import ConfigError
from robolearn.openloop import OpenLoopResult, openloop, recorded_windows
from robolearn.report import write_report
from robolearn.run import parse_run

__all__ = ["main"]

_USAGE = """usage: robolearn eval openloop ckpt=DIR [windows=512] [temperature=1.0] [data.path=DATASET] [out=DIR]

Error of the predicted actions by entry and step ahead, on the episodes that the run held out
(data.validation_fraction), or on another dataset. Leaves result.json and report.html with plots."""
_OWN: dict[str, Any] = {"ckpt": None, "windows": 512, "temperature": 1.0, "seed": 0, "out": None}


def main(arguments: Sequence[str]) -> None:
    """Compare one checkpoint with recorded episodes."""
    given = parse_arguments(arguments, _USAGE)
    ours = merge(_OWN, given)
    if not isinstance(ours["ckpt"], str):
        raise ConfigError("eval openloop needs ckpt.", do=_USAGE.splitlines()[0])
    trained = dict(checkpoint.load(ours["ckpt"]).config)
    unknown = [key for key in ours if key not in (*_OWN, "data")]
    if unknown:
        raise ConfigError(f"Unknown option {', '.join(unknown)}.", expected=", ".join((*_OWN, "data.KEY")))
    data = {**trained["data"], **ours.get("data", {})}
    config = parse_run({**trained, "data": data})
    actor = load(ours["ckpt"])
    job = Job("eval", out_folder("eval", ours["out"]), {key: ours[key] for key in ours if key != "out"})
    with job.stage("data"):
        windows, held_out = recorded_windows(config, actor)
    held_out = held_out or "path" in ours.get("data", {})
    with job.stage("evaluation"), progress("compare", min(ours["windows"], len(windows)), "windows") as advance:
        limit, seed, temperature = int(ours["windows"]), int(ours["seed"]), float(ours["temperature"])
        found = openloop(actor, windows, limit, seed, temperature, on_window=lambda done: advance(done, ""))
    plain = {**found.to_dict(), "held_out": held_out}
    content = job.finish({"openloop": plain})
    drawn = {**content, "openloop": {**plain, "examples": _examples(found)}}
    report = write_report(job.out / "report.html", f"open loop: {Path(ours['ckpt']).name}", drawn)
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
