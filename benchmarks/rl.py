"""Reinforcement learning's environment steps per second, beside the same code over robosuite's AsyncVectorEnv.

Both sides run this library's residual explorer (a chunk policy and a correction in every step) through
the same rollout loop; `collect_learn` adds one update a step with the batch and the ensemble of the published
Lift rows. Ours has 32 rows in one process, the peer two processes (the fastest way to run it here); rounds
alternate, rows are medians. With OMP_NUM_THREADS=1 the peer gains about a fifth and ours loses a tenth:
`collect_lift` is then ×10.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
import torch

from robolearn.actor import make_actor
from robolearn.api import make_env
from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.checkpoint import Checkpoint
from robolearn.cli.arguments import Arguments
from robolearn.cli.compose import compose_config
from robolearn.config import parse, to_dict
from robolearn.contracts import Observations, VectorEnv
from robolearn.evaluation import EvalConfig
from robolearn.registry import configure
from robolearn.rl.algorithm import Problem
from robolearn.rl.collect import REWARDS, Trajectories
from robolearn.rollout import steps
from robolearn.transforms import Pipeline

ROWS, PROCESSES, EPISODE, NEVER = 32, 2, 400, 10**6
KEYS = ("observation.environment_state", "observation.state")
CLONE: dict[str, Any] = {
    "name": "flow",
    "history": 1,
    "chunk": 16,
    "network": {"name": "mlp", "width": 256, "depth": 2},
}


class PlainRobosuite(gymnasium.Env):
    """robosuite's task as its users wrap it, with the two vectors of its observations and a horizon."""

    def __init__(self, task: str):
        from robolearn.envs.exact.export import open_peer

        self._env, self._steps = open_peer(task, "Panda"), 0
        self._env.reward_shaping = False
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self._env.action_dim,), np.float32)
        sizes = {key: len(value) for key, value in _vectors(self._env.reset()).items()}
        self.observation_space = gymnasium.spaces.Dict(
            {key: gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in sizes.items()}
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observations, dict]:
        super().reset(seed=seed)
        np.random.seed(seed)  # noqa: NPY002 - robosuite draws from the global generator
        self._steps = 0
        return _vectors(self._env.reset()), {}

    def step(self, action: np.ndarray) -> tuple[Observations, float, bool, bool, dict]:
        given, reward, _, _ = self._env.step(action)
        success = bool(self._env._check_success())
        self._steps += 1
        return _vectors(given), float(reward), success, self._steps >= EPISODE, {"success": success}


def _vectors(given: Mapping[str, np.ndarray]) -> Observations:
    parts = (given["object-state"], given["robot0_proprio-state"])
    return {key: value.astype(np.float32) for key, value in zip(KEYS, parts, strict=True)}


class Peer:
    """gymnasium's AsyncVectorEnv over robosuite behind `contracts.VectorEnv`."""

    def __init__(self, task: str, like: VectorEnv):
        disabled = gymnasium.vector.AutoresetMode.DISABLED
        self.num_envs, self.max_episode_steps, self.spec = PROCESSES, EPISODE, like.spec
        self._env = gymnasium.vector.AsyncVectorEnv(
            [partial(PlainRobosuite, task)] * PROCESSES, context="spawn", autoreset_mode=disabled
        )

    def reset(
        self, *, seed: Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        return self._env.reset(seed=list(seed or [0] * PROCESSES), options=dict(options or {}))

    def step(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        return self._env.step(actions.astype(np.float32))

    def render(self, row: int = 0) -> np.ndarray:
        raise NotImplementedError("this peer runs without pictures")

    def close(self) -> None:
        self._env.close()


def problem(env: VectorEnv) -> Problem:
    """Return an untrained clone of the published size: speed does not depend on what it learned."""
    config = configure("policy", CLONE, "policy")
    raw = env.spec.select(KEYS)
    pipeline = Pipeline.from_plain([{"name": "normalize", "modes": {"*": "identity"}}]).bind(raw)
    torch.manual_seed(0)
    policy = config.build(pipeline.transform_spec(raw)).eval()
    spec = parse(type(raw), {**raw.to_dict(), "history": 1, "chunk": 16})
    clone = Checkpoint({"policy": to_dict(config)}, spec, pipeline, policy.state_dict())
    return Problem(clone, make_actor(policy, pipeline, spec), env.spec, EvalConfig(), 10**6, 0, True)


class Side:
    """One environment with its algorithm; `rate` takes it further and says how fast that went.

    It learns with the options `learner`, or not at all; learning begins when the first episodes are over.
    """

    def __init__(self, env: VectorEnv, learner: Mapping[str, Any] | None):
        self.warmup = env.num_envs * EPISODE if learner else 0
        options = {"name": "residual", **(learner or {}), "warmup": self.warmup or NEVER, "actor_after": 0}
        algo = configure("algo", options, "algo")
        self.env, self.algorithm = env, algo.build(problem(env))
        self.explorer = self.algorithm.explorer(env.num_envs, 0)
        self._take = Trajectories(self.explorer, REWARDS["sparse"])
        self._records = steps(env, self.explorer, range(100_000), 0)
        self.done, self.learning_s = 0, 0.0
        if learner is None:
            self.algorithm.updates = 1  # the correction is made, as after the first update

    def rate(self, total: int) -> float:
        """Return environment steps per second over about `total` of them."""
        start_s, before = perf_counter(), self.done
        while self.done - before < total:
            record = next(self._records)
            for trajectory in self._take(record):
                self.algorithm.observe(trajectory)
            self.done += int(record.active.sum())
            mark_s = perf_counter()
            self.algorithm.update(self.done, False)
            self.learning_s += perf_counter() - mark_s
        return (self.done - before) / (perf_counter() - start_s)


def row(name: str, task: str, learner: Mapping[str, Any] | None, rounds: int, size: int) -> Row:
    """Measure both sides in turns."""
    ours = make_env(f"robosuite/{task}", ROWS, {"max_steps": EPISODE})
    peer = Peer(task, ours)
    sides = [Side(ours, learner), Side(peer, learner)]
    rates: list[list[float]] = [[], []]
    try:
        for side in sides:  # warm up; where there is learning, until it has begun
            side.rate(side.warmup + 4 * side.env.num_envs)
        learned_s, spent = sides[0].learning_s, [0.0, 0.0]
        for _ in range(rounds):
            for number, (side, part) in enumerate(zip(sides, (size, max(2, size // 8)), strict=True)):
                start_s = perf_counter()
                rates[number].append(side.rate(part))
                spent[number] += perf_counter() - start_s
        share = (sides[0].learning_s - learned_s) / spent[0]
    finally:
        ours.close()
        peer.close()
    mine, theirs = (median(values) for values in rates)
    note = f"{task}, {ROWS} rows, against AsyncVectorEnv({PROCESSES}), {rounds} rounds"
    return Row(
        name, "steps/s", mine, theirs, mine / theirs, note + (f", learner {share:.0%} of ours" if learner else "")
    )


def main(options: Options) -> None:
    """Run all rows and print them."""
    rounds, size = (2, 512) if options.quick else (9, 2048)
    published = compose_config("rl", Arguments(overrides=("experiment=rl/lift_residual",)))["algo"]
    finish(
        [
            row("collect_lift", "Lift", None, rounds, size),
            row("collect_square", "NutAssemblySquare", None, rounds, size),
            row("collect_learn", "NutAssemblySquare", {**published, "updates": 1.0}, rounds, size // 2),
        ],
        options,
    )


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
