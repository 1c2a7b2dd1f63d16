"""What perturbations cost a policy that reinforcement learning improved, beside the clone that it came from.

The rows read what `robolearn reproduce rl/lift_residual out=outputs/rl/lift_residual/000` left: both policies meet
every axis at its middle level in the same unseen episodes, executed as in that run. `--quick` takes a few episodes.
ROBOLEARN_RUNS names another folder than `outputs`. Finished episodes are kept beside the run, so an interrupted
evaluation goes on.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from robolearn.benchmark import Options, Row, evaluate_run, finish, parse_options, runs_folder
from robolearn.errors import CheckpointError, RobolearnError
from robolearn.files import read_json
from robolearn.intervals import Interval

RUN = Path("rl", "lift_residual", "000")
AXES = ("control_noise", "friction", "latency", "object_mass", "object_pose", "observation_noise")
LEVEL = 2  # of three


def main(options: Options) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    run = runs_folder() / RUN
    if not (run / "result.json").is_file():
        raise RobolearnError(f"There is no run {run}.", do="run the command at the top of this file")
    finish(list(rows_of(run, 16 if options.quick else 200)), options)


def rows_of(run: Path, episodes: int) -> Iterator[Row]:
    """Yield success of the improved policy and of the clone, unperturbed and on every axis."""
    config = read_json(run / "result.json", CheckpointError)["config"]
    policies = {"improved": run, "clone": Path(config["ckpt"])}
    nominal: dict[str, float] = {}
    for axis in ("none", *AXES):
        perturb = {} if axis == "none" else {axis: LEVEL}
        kept = f"{'_'.join(perturb) or 'none'}_{episodes}.jsonl"
        found = {
            who: evaluate_run(path, episodes, {"perturb": perturb}, run / f"robustness_{who}_{kept}", config).success
            for who, path in policies.items()
        }
        nominal = nominal or {who: rate.value for who, rate in found.items()}
        facts = "; ".join(_fact(who, rate, nominal[who]) for who, rate in found.items())
        name = axis if axis == "none" else f"{axis}_{LEVEL}"
        yield Row(
            f"{config['env']['name']}_{name}",
            "share",
            found["improved"].value,
            found["clone"].value,
            note=f"{facts}; {episodes} episodes",
        )


def _fact(who: str, rate: Interval, nominal: float) -> str:
    return f"{who} {rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}], drop {100 * (nominal - rate.value):.1f} points"


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
