"""What every file of `benchmarks/` shares: its two options, its table, its JSON."""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from robolearn import checkpoint
from robolearn.actor import load
from robolearn.api import make_env
from robolearn.config import config_hash, parse
from robolearn.errors import RobolearnError
from robolearn.evaluation import EvalConfig, EvalResult, evaluate, write_json
from robolearn.files import read_json
from robolearn.metrics import read_metrics
from robolearn.outcomes import OutcomeLog
from robolearn.provenance import machine, versions

__all__ = ["Options", "Row", "compare", "evaluate_run", "finish", "parse_options", "runs_folder", "training_minutes"]


@dataclass(frozen=True)
class Options:
    """What a benchmark was asked for."""

    quick: bool = False
    json: Path | None = None


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` > 1 means ours is better; `peer` is None where there is none."""

    name: str
    unit: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    note: str = ""


def parse_options(what: str, arguments: Sequence[str] | None = None) -> Options:
    """Read `--quick` and `--json FILE`."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--quick", action="store_true", help="a stated subset, a minute or a few")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args(arguments)
    return Options(given.quick, given.json)


def compare(
    ours: Callable[[], object],
    peer: Callable[[], object] | None,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float | None]:
    """Return the median seconds of both, run in turns so that they share the machine's moods.

    The `clock` is the wall's, or that of the processor (`time.process_time`) where others use the machine too.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for work, kept in zip((ours, peer), times, strict=True):
            if work is not None:
                start_s = clock()
                work()
                kept.append(clock() - start_s)
    return median(times[0]), median(times[1]) if times[1] else None


def runs_folder() -> Path:
    """Return where the runs lie that a benchmark reads: `outputs`, or what ROBOLEARN_RUNS names."""
    return Path(os.environ.get("ROBOLEARN_RUNS", "outputs"))


def evaluate_run(
    run: Path,
    episodes: int,
    changes: Mapping[str, Any],
    kept: Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> EvalResult:
    """Evaluate a run where and as it was trained to be, or another `config` says, with other environment options.

    Finished episodes lie in the file `kept`, so an interrupted evaluation goes on.
    """
    config = config or checkpoint.load(run).config
    settings = parse(EvalConfig, {**config["eval"], "episodes": episodes, "num_envs": min(50, episodes)})
    described = {**config["env"], **changes}
    log = OutcomeLog(kept, config_hash({"config": config, "changes": changes})) if kept else None
    env = make_env(described.pop("name"), settings.num_envs, described)
    try:
        return evaluate(load(run), env, settings, log=log)
    finally:
        env.close()


def training_minutes(run: Path) -> float:
    """Return how long a run's steps took by the wall's clock, which starts again where a run goes on."""
    total = before = 0.0
    for line in read_metrics(run):
        if "compute_s" in line:
            now = line["compute_s"] + line["data_s"]
            total, before = total + now - (before if now >= before else 0.0), now
    return total / 60


def finish(rows: Sequence[Row], options: Options, merge: bool = False) -> None:
    """Print the table and write the JSON file that was asked for; with `merge` its other rows stay in it."""
    from rich.console import Console
    from rich.table import Table

    if merge and options.json is not None and options.json.exists():
        new = {row.name: row for row in rows}
        kept = [new.pop(row["name"], Row(**row)) for row in read_json(options.json, RobolearnError)["rows"]]
        rows = [*kept, *new.values()]
    drawn = Table("name", "unit", "ours", "peer", "ratio", "note")
    for row in rows:
        figures = [f"{value:.4g}" if value is not None else "–" for value in (row.ours, row.peer, row.ratio)]
        drawn.add_row(row.name, row.unit, *figures, row.note)
    Console().print(drawn)
    if options.json is not None:
        write_json(options.json, {"machine": machine(), "versions": versions(), "rows": [asdict(row) for row in rows]})
