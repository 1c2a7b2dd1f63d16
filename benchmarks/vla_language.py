"""Policies that follow instructions: success with the right one, one drawn at random, other words, and no sight.

Each row is a run of `robolearn reproduce NAME out=outputs/NAME` (ROBOLEARN_RUNS names another folder than `outputs`),
evaluated on 200 unseen seeds as it is and under the perturbations `shuffled` (chance: 1 in 6 for the VLAs, 1 in 12 for
the policy from the state), `paraphrase` (synonyms and phrases that training never used) and `blackout`, each at level
3. `cache_ms` is a decision of a flow, whose prefix is encoded once, beside one that encodes it in each solver step
(peer), in processor time for 16 rows. `--quick` evaluates the small checkpoint that lies beside, on a subset. What was
evaluated is kept beside the run, so an interrupted evaluation goes on, and rows without a run stay as they are in the
file that `--json` names.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

import robolearn
from robolearn import checkpoint
from robolearn.api import make_env
from robolearn.benchmark import (
    Options,
    Row,
    compare,
    evaluate_run,
    finish,
    parse_options,
    runs_folder,
    training_minutes,
)
from robolearn.metrics import read_metrics
from robolearn.policies.samplers import integrate

ROWS = 16
SMALL = Path(__file__).parent / "checkpoints" / "vla_language_small"
RUNS = {
    "small": "vla_language_small",
    "flow": "vla_language_flow",
    "reasoning": "vla_language_reasoning",
    "l1": "vla_language_l1",
    "state": "language_flow",
}


def main(options: Options) -> None:
    """Print the table of the runs that are there."""
    torch.set_num_threads(1)
    runs = runs_folder()
    found = {"small": SMALL} if options.quick else {name: runs / folder for name, folder in RUNS.items()}
    rows = [row for name, folder in found.items() if folder.is_dir() for row in rows_of(name, folder, options.quick)]
    if not rows:
        raise SystemExit(f"There are no runs in {runs}: see the head of {Path(__file__).name}.")
    finish(rows, options, merge=not options.quick)


def rows_of(name: str, run: Path, quick: bool) -> Iterator[Row]:
    """Yield success under each change, and what the training took."""
    config = checkpoint.load(run).config
    steps, batch = config["train"]["steps"], config["train"]["batch_size"]
    sees = any(".images." in key for key in config["data"]["keys"])
    for change in ("right", "shuffled", "paraphrase", *(["blackout"] if sees else [])):
        episodes, changes = 24 if quick else 200, {"perturb": {} if change == "right" else {change: 3}}
        rate = evaluate_run(run, episodes, changes, None if quick else run / f"language_{change}.jsonl").success
        note = f"[{rate.low:.3f}, {rate.high:.3f}], {episodes} episodes; {steps:,} steps of {batch}"
        yield Row(f"{name}_{change}", "rate", rate.value, note=note)
    if not quick:
        log = [line for line in read_metrics(run) if "compute_s" in line]
        marks = [next(line for line in log if line["step"] >= steps * part // 6) for part in range(1, 7)]
        curve = ", ".join(f"{line['step']}: {line['loss']:.3f}" for line in marks)
        parameters = sum(value.numel() for value in robolearn.load(run).policy.parameters()) / 1e6
        note = f"one thread; {parameters:.2f} M parameters; loss by step {curve}"
        yield Row(f"{name}_training_min", "min", training_minutes(run), note=note)
        if sees and config["policy"]["head"]["name"] == "flow":
            yield cache_row(name, run, config)


@torch.inference_mode()
def cache_row(name: str, run: Path, config: Mapping[str, Any]) -> Row:
    """Return the time of a decision with and without the prefix cache, and how far their chunks are apart."""
    actor = robolearn.load(run)
    policy, head, described = actor.policy, config["policy"]["head"], dict(config["env"])
    env = make_env(described.pop("name"), ROWS, described)
    obs, _ = env.reset(seed=range(ROWS))
    env.close()
    batch = actor.encode({key: np.asarray(obs[key])[:, None] for key in actor.spec.observations})
    noise = torch.randn(ROWS, *policy.noise_shape, generator=torch.Generator().manual_seed(0))

    def again(x: torch.Tensor, when: torch.Tensor) -> torch.Tensor:
        return policy.flow_field(batch, ROWS)(x, when)

    once = partial(policy.sample, batch, noise)
    always = partial(integrate, again, noise, head["steps"], head["solver"])
    apart = float((once() - always()).abs().max())
    ours, found = compare(once, always, 10, process_time)
    peer = found or 0.0
    note = f"peer: without the cache; {ROWS} rows; chunks at most {apart:.1e} apart, so success is the same"
    return Row(f"{name}_cache_ms", "ms", 1e3 * ours, 1e3 * peer, peer / ours, note)


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
