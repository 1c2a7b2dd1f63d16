"""What reinforcement learning makes of a clone: the table of every published row, from the results of its runs.

Learning is not part of it: the full run reads what commands like these left, one folder per experiment,

    robolearn reproduce rl/lift_residual -m seed=0,1,2 out=outputs/rl/lift_residual clone.out=outputs/clones/lift_clone

and pairs the clone with what it became on the same unseen episodes. It writes docs/rl.md, too. `--quick` runs one
experiment for a few steps. ROBOLEARN_RUNS names another folder than `outputs`.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robolearn.benchmark import Options, Row, finish, parse_options, runs_folder
from robolearn.cli import main as robolearn
from robolearn.errors import CheckpointError, RobolearnError
from robolearn.files import read_json

PAGE = Path(__file__).parents[1] / "docs" / "rl.md"
HEAD = """# Reinforcement learning

Written by `python benchmarks/rl_results.py`. Any checkpoint is improved with a reward, on simulation's own episodes:

```
robolearn rl algo=residual ckpt=RUN env=robosuite/Lift demos.path=DATASET   # the best by selection seeds is kept
robolearn rl rl.resume=RUN                                                  # goes on, bit for bit
```

| `algo` | what learns | after |
|---|---|---|
| `residual` | a correction in every step, on a frozen policy of any kind | ResFiT (arXiv 2509.19301) |
| `rlpd` | a second policy; critics choose between its action and the clone's | RLPD, IBRL (2302.02948, 2311.02198) |
| `policy_gradient` | the flow or diffusion policy, through its chain | DPPO, ReinFlow (2409.00588, 2505.22094) |
| `steering` | the initial noise of a frozen policy | DSRL (2506.15799) |
| `value_guided` | a value that picks among samples of a frozen policy | V-GPS (2410.13816) |
| `offline` | weighted cloning or flow Q-learning, from recorded episodes | IQL, FQL (2110.06169, 2502.02538) |

Rewards (`rl.reward`): sparse success, the task's dense one, a success classifier, or progress learned from
demonstrations. Steps are collected by the batched engine in the same process; `rl.curriculum=true` meets perturbations
level by level. The result deploys like any policy, with a report that compares it with the clone on unseen seeds.

## Results

The same unseen episodes before and after, 95 % Wilson intervals; demonstrations are all that the clone and the learner
have seen. One thread of a shared machine. What is missing has not been run, or not to its end.

"""
NOTES: Mapping[str, str] = {  # what to know of a row, by experiment: why it did not improve, above all
    "lift_value_guided": "Nothing, over three seeds: the clone's own samples are all there is to choose from, and "
    "values come from 2 demonstrations and 128 episodes of the clone.",
    "lift_trajectory": "Nothing, over three seeds: what succeeded among the clone's 256 episodes, one in four, is all "
    "there is to learn from, and the clone already does it.",
    "can_residual": "The settings of `rl/square_residual`, none of them chosen on this task.",
    "square_residual": "A clone of a hundred demonstrations that never miss a grasp, of quaternions that change their "
    "sign, ended at 69.6 % under the same settings, and at 68.6 % where the actor imitates what succeeded "
    "(`algo.imitate`): what failed had never lifted the nut. Now the gripper closes out of turn in the demonstrations "
    "(`collect.jam`), so that the clone tries again, rotations are continuous, and an episode has 300 steps, not 250. "
    "The learner's settings were chosen on seed 0 of the former.",
}
_QUICK = ("rl.steps=1000", "rl.select_episodes=4", "episodes=8", "eval.videos=0", "clone.train.steps=50")


def main(options: Options) -> None:
    """Print the table."""
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "lift_residual" / "000"
            if robolearn(["reproduce", "rl/lift_residual", *_QUICK, f"out={out}"]):
                raise RobolearnError("The experiment did not run.")
            rows = [row(*found) for found in results(Path(folder))]
    else:
        found = list(results(runs_folder() / "rl"))
        rows = [row(*each) for each in found]
        PAGE.write_text(page(found))
    finish(rows, options)


def results(runs: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name of each experiment with the result of one training seed."""
    found = sorted(runs.glob("*/*/result.json")) or sorted(runs.glob("*/result.json"))
    if not found:
        raise RobolearnError(f"There are no runs in {runs}.", do="run the commands at the top of this file")
    for path in found:
        experiment = path.parent.parent.name if path.parent.name.isdigit() else path.parent.name
        yield experiment, read_json(path, CheckpointError)


def page(found: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the page with one line per experiment and training seed."""
    table = [{"experiment": f"`rl/{experiment}`", **facts(result)} for experiment, result in found]
    lines = [table[0].keys(), ["---"] * len(table[0]), *(cells.values() for cells in table)]
    noted = dict.fromkeys(experiment for experiment, _ in found if experiment in NOTES)
    notes = [f"\n`rl/{experiment}`: {NOTES[experiment]}\n" for experiment in noted]
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + "".join(notes)


def row(experiment: str, result: Mapping[str, Any]) -> Row:
    """Return success after learning beside the clone's; the note says at what price."""
    after, before = (result["comparison"][when]["value"] for when in ("after", "before"))
    told = facts(result)
    parts = [result["config"]["env"]["name"], *(f"{name} {value}" for name, value in told.items())]
    note = "; ".join([*parts, f"robolearn reproduce rl/{experiment} seed={told['seed']}"])
    return Row(f"{experiment}_seed{told['seed']}", "share", after, before, after / before if before else None, note)


def facts(result: Mapping[str, Any]) -> dict[str, str]:
    """Return what is told of one training seed, by column."""
    config, learned, pair = result["config"], result["learning"], result["comparison"]
    after, algo = pair["after"], config["algo"]
    return {
        "seed": str(config["seed"]),
        "before → after": f"{pair['before']['value']:.1%} → {after['value']:.1%} "
        f"[{after['low']:.1%}, {after['high']:.1%}]",
        "episodes": str(pair["episodes"]),
        "p": f"{pair['mcnemar_p']:.0e}",
        "demonstrations": str(learned["demonstrations"]),
        "steps": f"{learned['steps']:,}",
        "updates": f"{algo['updates']:g} a step" if "updates" in algo else f"{algo['epochs']} epochs a round",
        "minutes": f"{learned['minutes']:.0f}",
    }


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
