"""VLA policies that follow instructions from pictures: success with the right, another, and no sight of things.

Each row is a run of `robolearn reproduce vla_language_NAME out=outputs/vla_language_NAME` (ROBOLEARN_RUNS names another
folder than `outputs`), evaluated on 200 unseen seeds: as it is, with an instruction drawn at random for each episode
(chance 1 in 6), and with every picture black. `--quick` evaluates the small checkpoint that lies beside, on a subset.
What was evaluated is kept beside the run, so an interrupted evaluation goes on.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import robolearn
from robolearn import checkpoint
from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.config import parse
from robolearn.contracts import Observations, VectorEnv
from robolearn.envs.tasks.pick_place_language import VOCABULARY
from robolearn.errors import RobolearnError
from robolearn.evaluation import EvalConfig, evaluate, write_json
from robolearn.files import read_json
from robolearn.intervals import wilson
from robolearn.metrics import read_metrics
from robolearn.seeding import generator

SMALL = Path(__file__).parent / "checkpoints" / "vla_language_small"
ROWS = ("small", "flow", "l1")
CHANGES = ("right", "shuffled", "blackout")


class Altered:
    """An environment whose instructions are drawn at random by episode, or whose pictures are black."""

    def __init__(self, env: VectorEnv, change: str):
        self.spec, self.num_envs, self.max_episode_steps = env.spec, env.num_envs, env.max_episode_steps
        self._env, self._change = env, change
        self._sentences = VOCABULARY.sentences.flatten()
        self._texts = np.array([str(self._sentences[0])] * env.num_envs, dtype=object)

    def reset(
        self, *, seed: Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start episodes; their seeds choose their instructions."""
        obs, info = self._env.reset(seed=seed, options=options)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        for row in np.flatnonzero(mask):
            draw = generator(int((seed or [0] * self.num_envs)[row] or 0), "instruction")
            self._texts[row] = str(draw.choice(self._sentences))
        return self._altered(obs), info

    def step(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environment."""
        obs, reward, terminated, truncated, info = self._env.step(actions)
        return self._altered(obs), reward, terminated, truncated, info

    def render(self, row: int = 0) -> np.ndarray:
        """Return the picture for people."""
        return self._env.render(row)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _altered(self, obs: Observations) -> Observations:
        if self._change == "blackout":
            return {key: np.zeros_like(value) if ".images." in key else value for key, value in obs.items()}
        if self._change == "shuffled":
            return {**obs, "task": self._texts.astype(str)}
        return obs


def main(options: Options) -> None:
    """Print the table of the runs that are there."""
    torch.set_num_threads(1)
    runs = Path(os.environ.get("ROBOLEARN_RUNS", "outputs"))
    found = [("small", SMALL)] if options.quick else [(name, runs / f"vla_language_{name}") for name in ROWS]
    rows = [row for name, folder in found if folder.is_dir() for row in rows_of(name, folder, options.quick)]
    if not rows:
        raise SystemExit(f"There are no runs in {runs}: see the head of {Path(__file__).name}.")
    finish(rows, options)


def rows_of(name: str, run: Path, quick: bool) -> Iterator[Row]:
    """Yield success under each change, and what the training took."""
    config = checkpoint.load(run).config
    steps, batch = config["train"]["steps"], config["train"]["batch_size"]
    for change in CHANGES:
        outcomes = successes(run, config, change, 24 if quick else 200, keep=not quick)
        rate = wilson(sum(outcomes), len(outcomes))
        note = f"[{rate.low:.3f}, {rate.high:.3f}], {len(outcomes)} episodes; {steps:,} steps of {batch}"
        yield Row(f"{name}_{change}", "rate", rate.value, note=note)
    if not quick:
        log = [line for line in read_metrics(run) if "compute_s" in line]
        curve = ", ".join(f"{line['step']}: {line['loss']:.3f}" for line in log if line["step"] % 400 == 0)
        yield Row(f"{name}_training_min", "min", minutes(log), note=f"one thread; loss by step {curve}")


def minutes(log: Sequence[Mapping[str, float]]) -> float:
    """Return how long the steps took by the wall's clock; it starts again where a run goes on."""
    total = before = 0.0
    for line in log:
        now = line["compute_s"] + line["data_s"]
        total, before = total + now - (before if now >= before else 0.0), now
    return total / 60


def successes(run: Path, config: Mapping[str, Any], change: str, episodes: int, keep: bool) -> list[bool]:
    """Return the outcome of each episode, read where it was evaluated before."""
    kept = run / f"language_{change}.json"
    if keep and kept.is_file():
        return [bool(value) for value in read_json(kept, RobolearnError)["success"]]
    options = parse(EvalConfig, {**config["eval"], "episodes": episodes, "num_envs": min(50, episodes)})
    described = dict(config["env"])
    env = Altered(robolearn.make_env(described.pop("name"), options.num_envs, described), change)
    try:
        found = [outcome.success for outcome in evaluate(robolearn.load(run), env, options).outcomes]
    finally:
        env.close()
    if keep:
        write_json(kept, {"success": found})
    return found


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
