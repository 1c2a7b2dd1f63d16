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
from robolearn.metrics import read_metrics

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
CURVES = """
## Curves

Success [%] of the policy as it was after so many thousand environment steps, on the selection seeds, by which the best
is kept: of 50 to 200 episodes, and the best of several draws, it promises more than unseen seeds keep. A run's
report.html draws it, over minutes too.

"""
NOTES: Mapping[str, str] = {  # what to know of a row, by experiment: why it did not improve, above all
    "drawer_policy_gradient": "The learner's settings are those of `rl/lift_policy_gradient`. How long it went on was "
    "chosen by the selection seeds while it ran. On stacking, 69,000 steps with less noise (0.1) made 34 % of 32 % on "
    "the selection seeds; with this noise 5 % of the exploring episodes succeeded.",
    "drawer_residual": "From the start of `rl/drawer_policy_gradient`. A second try: corrections half as wide had been "
    "at 30 % on the selection seeds, and 26.0 % on these very episodes, after 24,000 steps.",
    "lift_value_guided": "Nothing, over three seeds: the clone's own samples are all there is to choose from, and "
    "values come from 2 demonstrations and 128 episodes of the clone.",
    "lift_advantage": "Nothing: six of the seven policies that the selection seeds saw after learning did worse than "
    "the clone, which was kept in two runs. The seventh, 35 of 100, was chance. Advantages come from 2 demonstrations "
    "and 192 episodes of the clone; not taken apart.",
    "lift_fql": "`algo.distillation` of 10 was tried once, on this training seed, and kept for what the selection "
    "seeds said; the default, 100, has not been run to its end.",
    "lift_trajectory": "Nothing, over three seeds: what succeeded among the clone's 256 episodes, one in four, is all "
    "there is to learn from, and the clone already does it.",
    "can_residual": "The settings of `rl/square_residual`, none of them chosen on this task.",
    "peg_insertion_residual": "Nothing within 50,000 steps. Wider corrections (1.5 cm, not 8 mm), less bound to the "
    "clone, brought 50 % down to 23 % on the selection seeds within 21,000 steps.",
    "vla_residual": "The wrist's camera, 64 px. The budget grew from 30,000 steps to 70,000 by what the selection "
    "seeds said. Clones of 24 demonstrations (89 % on those seeds) and, on the language task, of 80 (it took any cube: "
    "36 %, and 31 % after 20,000 steps) were given up as starts.",
    "vla_steering": "The start of `rl/vla_residual`, drawing its noise; the first and only try.",
    "handover_residual": "Two arms; the first and only try.",
    "stack_value_guided": "Three points, within what chance gives.",
    "square_residual": "A clone of a hundred demonstrations that never miss a grasp, of quaternions that change their "
    "sign, ended at 69.6 % under the same settings, and at 68.6 % where the actor imitates what succeeded "
    "(`algo.imitate`): what failed had never lifted the nut. Now the gripper closes out of turn in the demonstrations "
    "(`collect.jam`), so that the clone tries again, rotations are continuous, and an episode has 300 steps, not 250. "
    "The learner's settings were chosen on seed 0 of the former.",
}
Run = tuple[str, Mapping[str, Any], Sequence[Mapping[str, Any]]]  # experiment, result.json, lines of metrics.jsonl
_QUICK = ("rl.steps=1000", "rl.select_episodes=4", "episodes=8", "eval.videos=0", "clone.train.steps=50")


def main(options: Options) -> None:
    """Print the table."""
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "lift_residual" / "000"
            if robolearn(["reproduce", "rl/lift_residual", *_QUICK, f"out={out}"]):
                raise RobolearnError("The experiment did not run.")
            rows = [row(experiment, result) for experiment, result, _ in results(Path(folder))]
    else:
        found = list(results(runs_folder() / "rl"))
        rows = [row(experiment, result) for experiment, result, _ in found]
        PAGE.write_text(page(found))
    finish(rows, options)


def results(runs: Path) -> Iterator[Run]:
    """Yield the name of each experiment with the result and the metrics of one training seed."""
    found = sorted(runs.glob("*/*/result.json")) or sorted(runs.glob("*/result.json"))
    if not found:
        raise RobolearnError(f"There are no runs in {runs}.", do="run the commands at the top of this file")
    for path in found:
        experiment = path.parent.parent.name if path.parent.name.isdigit() else path.parent.name
        yield experiment, read_json(path, CheckpointError), read_metrics(path.parent)


def page(found: Sequence[Run]) -> str:
    """Return the page with one line per experiment and training seed, what to know of it, and its curve."""
    table = [{"experiment": f"`rl/{experiment}`", **facts(result)} for experiment, result, _ in found]
    curves = [
        {"experiment": cells["experiment"], "seed": cells["seed"], "success": curve(metrics)}
        for cells, (_, _, metrics) in zip(table, found, strict=True)
    ]
    noted = dict.fromkeys(experiment for experiment, _, _ in found if experiment in NOTES)
    notes = "".join(f"\n`rl/{experiment}`: {NOTES[experiment]}\n" for experiment in noted)
    return HEAD + drawn(table) + notes + CURVES + drawn(curves)


def drawn(table: Sequence[Mapping[str, str]]) -> str:
    """Return rows of the same columns as Markdown."""
    lines = [table[0].keys(), ["---"] * len(table[0]), *(cells.values() for cells in table)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def curve(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return success [%] on the selection seeds after so many thousand environment steps."""
    return ", ".join(f"{row['step'] / 1000:.0f}: {100 * row['success']:.0f}" for row in metrics if "success" in row)


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
