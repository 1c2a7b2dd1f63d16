"""Whether success means the same everywhere: a policy in robosuite itself and here, experts on exact and lean models.

The rows of `POLICIES` evaluate one policy in robosuite's own environment and in the exact mode, from robosuite's
initial states, with the same noise. They are runs that these commands leave, and without a run its row stays as it
is in the file that `--json` names (ROBOLEARN_RUNS names another folder than `outputs`):

    robolearn demo task=lift_clone out=outputs/lift_clone
    robolearn reproduce robosuite_lift out=outputs/robosuite_lift  # robosuite_can, _square and _tool_hang alike

The other rows are the scripted experts' success on the lean model, with the exact model's as peer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import robolearn
from robolearn import checkpoint
from robolearn.api import make_env
from robolearn.benchmark import Options, Row, finish, parse_options, runs_folder
from robolearn.config import parse
from robolearn.contracts import Observations
from robolearn.envs.base import RowsEnv
from robolearn.envs.exact.env import ExactEnv, Snapshot
from robolearn.envs.exact.experts import EXPERTS
from robolearn.envs.exact.export import open_peer
from robolearn.envs.exact.peer import adopt, reset_peer
from robolearn.evaluation import EvalConfig, evaluate
from robolearn.intervals import mcnemar
from robolearn.rollout import ExpertController, rollout

SEED = 100_000
# row → run
POLICIES = {
    "lift_policy": "lift_clone",
    "robosuite_lift": "robosuite_lift",
    "robosuite_can": "robosuite_can",
    "robosuite_square": "robosuite_square",
    "robosuite_tool_hang": "robosuite_tool_hang",  # robosuite itself takes hours for 500 episodes
}


class Robosuite(RowsEnv):
    """robosuite's own task as one row that ends at success; keeps every start, for ours to begin alike."""

    def __init__(self, task: str, max_steps: int):
        super().__init__(1, max_steps)
        self._peer, self._ours = open_peer(task, "Panda"), exact(task, 1, max_steps)
        self._given: Mapping[str, np.ndarray] = {}
        self.starts: dict[int, Snapshot] = {}
        self.declare(self._ours.spec)

    def begin(self, rows: np.ndarray) -> None:
        seed = int(self._seed[0] or 0)
        self._given = reset_peer(self._peer, seed)
        adopt(self._ours, 0, self._peer)
        self.starts[seed] = self._ours.snapshot(0)
        for key, value in self._ours.observe().items():
            if key != "task" and not np.allclose(value, self.observe()[key], atol=1e-5):
                raise SystemExit(f"{key} is not what robosuite observes.")

    def advance(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self._given, reward, _, _ = self._peer.step(actions[0])
        return np.array([reward]), np.array([bool(self._peer._check_success())]), np.zeros(1, bool)

    def observe(self) -> Observations:
        parts = {"observation.state": "robot0_proprio-state", "observation.environment_state": "object-state"}
        found = {ours: self._given[theirs][None].astype(np.float32) for ours, theirs in parts.items()}
        return found | {"task": self._ours.observe()["task"]}

    def render(self, row: int = 0) -> np.ndarray:  # ty: ignore[incompatible-method-override]  # one row
        """Return our picture of robosuite's state."""
        adopt(self._ours, 0, self._peer)
        return self._ours.render(0)


class Begun:
    """Our environment, whose episodes begin where `starts` say, by seed."""

    def __init__(self, env: ExactEnv, starts: Mapping[int, Snapshot]):
        self.spec, self.num_envs, self.max_episode_steps = env.spec, env.num_envs, env.max_episode_steps
        self._env, self._starts = env, starts

    def reset(
        self, *, seed: Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Bring the masked rows to the starts of their seeds."""
        _, info = self._env.reset(seed=seed, options=options)
        for row, number in enumerate(seed or ()):
            if number is not None:
                self._env.restore(row, self._starts[number])
        return self._env.observe(), info

    def step(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environment."""
        return self._env.step(actions)

    def render(self, row: int = 0) -> np.ndarray:
        """Return the picture for people."""
        return self._env.render(row)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


def main(options: Options) -> None:
    """Print the rows of what is there."""
    torch.set_num_threads(1)
    runs = {name: runs_folder() / folder for name, folder in POLICIES.items()}
    rows = [policy_row(name, run, 12 if options.quick else 500) for name, run in runs.items() if run.is_dir()]
    rows += [expert_row(task, 24 if options.quick else 200) for task in EXPERTS]
    finish(rows, options, merge=True)


def policy_row(name: str, run: Path, episodes: int) -> Row:
    """Return the success of one policy here, with its success in robosuite as peer."""
    config = checkpoint.load(run).config
    actor, steps = robolearn.load(run), config["env"]["max_steps"]
    task = config["env"]["name"].removeprefix("robosuite/")
    options = {**config["eval"], "episodes": episodes, "seed": SEED}
    peer = Robosuite(task, steps)
    theirs = evaluate(actor, peer, parse(EvalConfig, {**options, "num_envs": 1}))
    env = exact(task, min(50, episodes), steps)
    ours = evaluate(actor, Begun(env, peer.starts), parse(EvalConfig, {**options, "num_envs": env.num_envs}))
    env.close()
    here, there = ([outcome.success for outcome in found.outcomes] for found in (ours, theirs))
    gained, lost = (sum(a and not b for a, b in zip(*both, strict=True)) for both in ((here, there), (there, here)))
    ranges = (f"[{found.success.low:.3f}, {found.success.high:.3f}]" for found in (ours, theirs))
    note = f"{' and '.join(ranges)}, {episodes} paired episodes: only here {gained}, only there {lost}, "
    note += f"McNemar p {mcnemar(here, there):.2g}"
    return Row(name, "share", ours.success_rate, theirs.success_rate, note=note)


def expert_row(task: str, episodes: int) -> Row:
    """Return an expert's success on the lean model, with that on the exact one as peer."""
    rates = []
    for fidelity in ("lean", "exact"):
        options = {"fidelity": fidelity, "max_steps": EXPERTS[task].max_steps}
        env = make_env(f"robosuite/{task}", min(50, episodes), options)
        expert = ExpertController(getattr(env, "expert")(), SEED)  # noqa: B009 - beyond the contract of an environment
        rates.append(np.mean([outcome.success for outcome in rollout(env, expert, range(episodes), SEED)]))
        env.close()
    return Row(f"{task}_expert_lean", "share", *map(float, rates), note=f"peer: the exact model; {episodes} episodes")


def exact(task: str, rows: int, max_steps: int) -> ExactEnv:
    """Return robosuite's task in the exact mode."""
    env = make_env(f"robosuite/{task}", rows, {"max_steps": max_steps})
    if not isinstance(env, ExactEnv):
        raise SystemExit(f"robosuite/{task} is no exact environment.")
    return env


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
