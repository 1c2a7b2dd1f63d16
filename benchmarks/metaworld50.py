"""Meta-World's fifty tasks by one policy each row: success at any step, by difficulty as published tables group them.

Training and rolling out are not part of it: the full run reads what these commands left (NAME is a row's),

    robolearn collect protocol=metaworld_mt50 …             # the demonstrations: see configs/experiment/NAME.yaml
    robolearn reproduce NAME out=outputs/NAME
    robolearn eval ckpt=outputs/NAME protocol=metaworld_mt50 protocol.episodes=20 out=outputs/NAME/mt50

`--quick` rolls the first of them out in three tasks for five episodes. ROBOLEARN_RUNS names another folder than
`outputs`; rows without a run stay as they are in the file that `--json` names. Policies that see pictures are published
beside (π0 and reinforcement learning: 85.8 %, MP1 from point clouds: 78.9 % of 37 tasks); these read the state.
"""

from collections.abc import Iterator
from pathlib import Path

import robolearn
from robolearn.benchmark import Options, Row, finish, parse_options, runs_folder
from robolearn.errors import RobolearnError
from robolearn.evaluation import EvalConfig
from robolearn.files import read_json
from robolearn.intervals import wilson

NAMES = ("metaworld50_flow", "metaworld50_meanflow")
# The groups of Seo et al. 2022 (arXiv 2206.14244); what is not named here is easy.
GROUPS = {
    "medium": "basketball bin-picking box-close coffee-pull coffee-push hammer peg-insert-side push-wall soccer sweep "
    "sweep-into",
    "hard": "assembly hand-insert pick-out-of-hole pick-place push push-back",
    "very_hard": "shelf-place disassemble stick-pull stick-push pick-place-wall",
}
GROUP_OF = {task: group for group, tasks in GROUPS.items() for task in tasks.split()}


def main(options: Options) -> None:
    """Print the table of the runs that are there."""
    runs = runs_folder()
    found = [name for name in NAMES if (runs / name).is_dir()]
    if not found:
        raise SystemExit(f"There are no runs in {runs}: see the head of {Path(__file__).name}.")
    rows = quick_rows(runs / found[0]) if options.quick else (row for name in found for row in rows_of(runs / name))
    finish(list(rows), options, merge=not options.quick)


def quick_rows(run: Path) -> Iterator[Row]:
    """Yield the success in three tasks, a subset."""
    actor = robolearn.load(run)
    for task in ("reach", "drawer-open", "pick-place"):
        env = robolearn.make_env(f"metaworld/{task}-v3", 5)
        success = robolearn.evaluate(actor, env, EvalConfig(episodes=5, num_envs=5, execute=8)).success
        env.close()
        yield Row(f"{run.name}_{task}", "rate", success.value, note="5 episodes")


def rows_of(run: Path) -> Iterator[Row]:
    """Yield the mean over all tasks and over each group, then every task."""
    result = read_json(run / "mt50" / "result.json", RobolearnError)
    tasks = {name.removeprefix("metaworld/").removesuffix("-v3"): found for name, found in result["tasks"].items()}
    groups = {"all": list(tasks)}
    for task in tasks:
        groups.setdefault(GROUP_OF.get(task, "easy"), []).append(task)
    for group in ("all", "easy", "medium", "hard", "very_hard"):
        rates = [tasks[task]["success_rate"] for task in groups[group]]
        episodes = sum(tasks[task]["episodes"] for task in groups[group])
        interval = wilson(round(sum(tasks[t]["success_rate"] * tasks[t]["episodes"] for t in groups[group])), episodes)
        note = f"mean of {len(rates)} tasks; [{interval.low:.3f}, {interval.high:.3f}] over {episodes} episodes"
        yield Row(f"{run.name}_{group}", "rate", sum(rates) / len(rates), note=note)
    for task, found in sorted(tasks.items()):
        note = f"{GROUP_OF.get(task, 'easy')}, {found['episodes']} episodes"
        yield Row(f"{run.name}_{task}", "rate", found["success_rate"], note=note)


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
