"""Push-T from state: score and success by policy and training budget, and what a sampler's steps buy.

Training is not part of it: the full run reads what these commands left,

    robolearn reproduce pusht_flow -m seed=0,1,2 out=outputs/pusht_flow
    robolearn reproduce pusht_diffusion -m seed=0,1,2 out=outputs/pusht_diffusion
    robolearn reproduce pusht_regression -m seed=0,1,2 out=outputs/pusht_regression

and evaluates their checkpoints (moving average) after 20,000, 40,000 and 80,000 steps, which one of
two cores reaches within about 5, 10 and 20 minutes. Episodes are pooled over the training seeds.
`--quick` evaluates the small checkpoint that lies beside, on few episodes. ROBOLEARN_RUNS names
another folder than `outputs`. What has no runs there keeps its rows of the file that `--json` names.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import robolearn
from robolearn.actor import PolicyActor
from robolearn.benchmark import Options, Row, finish, parse_options, runs_folder
from robolearn.errors import RobolearnError
from robolearn.evaluation import EvalConfig, summarise
from robolearn.files import read_json
from robolearn.registry import configure
from robolearn.rollout import Outcome

BUDGETS = {20_000: "5min", 40_000: "10min", 80_000: "20min"}
EVALUATION = EvalConfig(episodes=200, num_envs=50, seed=100_000, execute=4, temperature=0.5)
SMALL = Path(__file__).parent / "checkpoints" / "pusht_flow"
NETWORK = {"width": 512, "depth": 3}
SAMPLERS = {
    **{f"flow{steps}": {"name": "flow", "steps": steps} for steps in (1, 2, 4, 8)},
    "ddim10": {"name": "diffusion", "prediction": "v", "sampler": {"name": "ddim", "steps": 10}},
    "ddpm100": {"name": "diffusion", "prediction": "v", "sampler": {"name": "ddpm", "steps": 100}},
}


def main(options: Options) -> None:
    """Evaluate and print the table."""
    torch.set_num_threads(1)
    if options.quick:
        rows = cell("small", [SMALL], replace(EVALUATION, episodes=50), "shipped checkpoint, 50 episodes, a subset")
        rows += latency_rows(2)
    else:
        runs = runs_folder()
        rows = [row for policy in ("flow", "diffusion", "regression") for row in budget_rows(runs / f"pusht_{policy}")]
        rows += [*sampler_rows(runs), *latency_rows()]
    finish(rows, options, merge=not options.quick)


def budget_rows(folder: Path) -> Iterator[Row]:
    """Yield score and success of one policy after each budget."""
    policy = folder.name.removeprefix("pusht_")
    evaluation = EVALUATION if policy != "regression" else replace(EVALUATION, temperature=1.0)
    for steps, budget in BUDGETS.items():
        checkpoints = sorted(folder.glob(f"*/checkpoints/step_{steps:09d}"))
        if checkpoints:
            note = f"{steps:,} steps, {minutes(checkpoints, steps):.1f} min on one of two cores"
            yield from cell(f"{policy}_{{}}_{budget}", checkpoints, evaluation, note)


def sampler_rows(runs: Path) -> Iterator[Row]:
    """Yield score and success of every sampler on the latest checkpoints of all seeds."""
    for name, options in SAMPLERS.items():
        folders = [folder for folder in sorted((runs / f"pusht_{options['name']}").glob("*/")) if folder.is_dir()]
        checkpoints = [sorted(folder.glob("checkpoints/step_*"))[-1] for folder in folders]
        if checkpoints:
            changes = {key: value for key, value in options.items() if key != "name"}
            actors = [robolearn.load(path, policy=changes) for path in checkpoints]
            yield from cell(f"{name}_{{}}", checkpoints, EVALUATION, "last checkpoints", actors)


def latency_rows(rounds: int = 20) -> Iterator[Row]:
    """Yield milliseconds of single decisions, transforms included, the samplers taking turns of ten.

    The network is the experiments', its weights random: latency does not depend on them.
    """
    small = robolearn.load(SMALL)
    spec = small.pipeline.transform_spec(small.spec)
    obs = {key: np.full((1, spec.history, *f.shape), 200.0, np.float32) for key, f in spec.observations.items()}
    actors, times_ms = {}, {name: [] for name in SAMPLERS}
    for name, options in SAMPLERS.items():
        config = configure("policy", {**options, "history": 2, "chunk": 16, "network": NETWORK}, "sampler")
        actors[name] = PolicyActor(config.build(spec), small.pipeline, small.spec, microbatch=1)
    for number in range(rounds + 1):
        for name, actor in actors.items():
            for _ in range(10):  # in blocks, so that no sampler pays for the weights of the one before
                start_s = time.perf_counter()
                actor.act(obs, np.zeros((1, *actor.noise_shape), np.float32))
                if number:
                    times_ms[name].append(1e3 * (time.perf_counter() - start_s))
    for name, times in times_ms.items():
        note = f"p99 {np.quantile(times, 0.99):.2f} ms, {len(times)} decisions in blocks of ten, one thread"
        yield Row(f"{name}_latency_ms", "ms", float(np.median(times)), note=note)


def cell(
    name: str, checkpoints: list[Path], evaluation: EvalConfig, note: str, actors: list[PolicyActor] | None = None
) -> list[Row]:
    """Return the rows of score and success over the pooled episodes of `checkpoints`."""
    outcomes: list[Outcome] = []
    env = robolearn.make_env("pusht", evaluation.num_envs)
    for actor in actors or [robolearn.load(path) for path in checkpoints]:
        outcomes += robolearn.evaluate(actor, env, evaluation).outcomes
    env.close()
    found = summarise(outcomes, 1.0)
    name = name if "{}" in name else name + "_{}"
    return [
        Row(
            name.format(what),
            unit,
            interval.value,
            note=f"[{interval.low:.3f}, {interval.high:.3f}], {len(checkpoints)} seeds × {evaluation.episodes}; {note}",
        )
        for what, unit, interval in (("score", "0..1", found.score), ("success", "rate", found.success))
    ]


def minutes(checkpoints: list[Path], steps: int) -> float:
    """Return the mean minutes that `steps` steps took in the runs of `checkpoints`."""
    rates = [
        read_json(path.parent.parent / "result.json", RobolearnError)["training"]["samples_per_s"]
        for path in checkpoints
    ]
    return float(np.mean([steps * 256 / rate / 60 for rate in rates]))


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
