"""What reinforcement learning makes of a clone: the table of every published row, from the results of its runs.

Learning is not part of it: the full run reads what commands like these left, one folder per experiment,

    robolearn reproduce rl/lift_residual -m seed=0,1,2 out=outputs/rl/lift_residual

and pairs the clone with what it became on the same unseen episodes. `--quick` runs one experiment for a few
steps. ROBOLEARN_RUNS names another folder than `outputs`.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robolearn.benchmark import Options, Row, finish, parse_options, runs_folder
from robolearn.cli import main as robolearn
from robolearn.errors import CheckpointError, RobolearnError
from robolearn.files import read_json

_QUICK = ("rl.steps=1000", "rl.select_episodes=4", "episodes=8", "eval.videos=0", "clone.train.steps=50")


def main(options: Options) -> None:
    """Print the table."""
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "lift_residual" / "000"
            if robolearn(["reproduce", "rl/lift_residual", *_QUICK, f"out={out}"]):
                raise RobolearnError("The experiment did not run.")
            rows = list(rows_of(Path(folder)))
    else:
        rows = list(rows_of(runs_folder() / "rl"))
    finish(rows, options)


def rows_of(runs: Path) -> Iterator[Row]:
    """Yield one row per experiment and training seed."""
    found = sorted(runs.glob("*/*/result.json")) or sorted(runs.glob("*/result.json"))
    if not found:
        raise RobolearnError(f"There are no runs in {runs}.", do="run the commands at the top of this file")
    for path in found:
        experiment = path.parent.parent.name if path.parent.name.isdigit() else path.parent.name
        yield row(experiment, read_json(path, CheckpointError))


def row(experiment: str, result: Mapping[str, Any]) -> Row:
    """Return success after learning beside the clone's; the note says at what price."""
    config, learned, pair = result["config"], result["learning"], result["comparison"]
    after, before = pair["after"], pair["before"]
    seed, updates = config["seed"], config["algo"].get("updates")
    facts = [
        config["env"]["name"],
        f"{before['value']:.1%} → {after['value']:.1%} [{after['low']:.1%}, {after['high']:.1%}]",
        f"{pair['episodes']} episodes",
        f"McNemar p {pair['mcnemar_p']:.1g}",
        f"{learned['demonstrations']} demonstrations",
        f"{learned['steps']:,} environment steps",
        *([f"{updates:g} updates a step"] if updates else []),
        f"{learned['minutes']:.1f} min",
        f"robolearn reproduce rl/{experiment} seed={seed}",
    ]
    ratio = after["value"] / before["value"] if before["value"] else None
    return Row(f"{experiment}_seed{seed}", "share", after["value"], before["value"], ratio, "; ".join(facts))


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
