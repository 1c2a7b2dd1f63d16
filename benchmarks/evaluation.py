"""Wall time of a 500-episode evaluation of one state policy on Lift, beside LeRobot's loop over robosuite.

The policy is a reflex in torch: over the cube, down, close, up. Both sides evaluate the same module,
count resets and stop an episode at success; seconds are per 500 episodes. LeRobot's `rollout` drives
gymnasium's AsyncVectorEnv with two robosuite processes.
"""

import time
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from sim import PlainRobosuite
from torch import Tensor, nn

from robolearn.api import make_env
from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.evaluation import EvalConfig, evaluate
from robolearn.spec import Spec

EPISODES, HORIZON, PROCESSES = 500, 200, 2


class Reflex(nn.Module):
    """Actions [B,7] from robosuite's state vector [B,53] (43 of the robot, 10 of the cube)."""

    def forward(self, state: Tensor) -> Tensor:
        tool, width, cube = state[:, 28:31], state[:, 39] - state[:, 40], state[:, 43:46]
        flat = (cube - tool)[:, :2].norm(dim=1)
        near = (cube - tool).norm(dim=1) < 0.02
        held = near & (width < 0.06)
        height = torch.where(flat > 0.02, 0.08, 0.0) + torch.where(held, 0.1, 0.0)
        goal = cube + torch.stack([torch.zeros_like(height), torch.zeros_like(height), height], 1)
        move = ((goal - tool) * 30.0).clamp(-1.0, 1.0)
        grip = torch.where(near, 1.0, -1.0)[:, None]
        return torch.cat([move, torch.zeros_like(move), grip], 1)


class ReflexActor:
    """The reflex as `contracts.Actor`: chunks of one action."""

    noise_shape: tuple[int, ...] = (0,)

    def __init__(self, spec: Spec):
        self.spec = spec
        self._policy = Reflex()

    def act(self, obs: dict[str, np.ndarray], noise: np.ndarray, prefix: np.ndarray | None = None) -> np.ndarray:
        parts = [obs["observation.state"][:, -1], obs["observation.environment_state"][:, -1]]
        with torch.inference_mode():
            return self._policy(torch.from_numpy(np.concatenate(parts, 1)))[:, None].numpy()


class ReflexPolicy(Reflex):
    """The reflex as LeRobot's loop calls it."""

    def reset(self) -> None:
        """Forget nothing: there is no state."""

    def select_action(self, batch: dict[str, Tensor]) -> Tensor:
        return self(batch["observation.state"])


class StoppingRobosuite(PlainRobosuite):
    """robosuite that ends an episode at success, with the keys that LeRobot's loop reads."""

    task = task_description = "lift the red cube"
    _max_episode_steps = HORIZON

    def __init__(self, task: str):
        super().__init__(task)
        spaces: Any = self.observation_space
        self.observation_space = gymnasium.spaces.Dict({"agent_pos": spaces["state"]})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        given, info = super().reset(seed=seed)
        return {"agent_pos": given["state"]}, info

    def step(self, action: np.ndarray) -> Any:
        given, reward, _, _, info = super().step(action)
        return {"agent_pos": given["state"]}, reward, info["success"], False, {"is_success": info["success"]}


def main(options: Options) -> None:
    """Run both sides and print the row."""
    mine, theirs = (100, 8) if options.quick else (EPISODES, EPISODES)
    ours_s, ours_rate = ours(mine)
    peer_s, peer_rate = peer(theirs)
    here, there = ours_s * EPISODES / mine, peer_s * EPISODES / theirs
    note = f"success {ours_rate:.3f} here, {peer_rate:.3f} there; {mine} and {theirs} episodes run"
    finish([Row("eval500", "s", here, there, there / here, note)], options)


def ours(episodes: int) -> tuple[float, float]:
    """Return seconds and success of our evaluation."""
    env = make_env("robosuite/Lift", 64, {"max_steps": HORIZON})
    spec = env.spec.select(("observation.state", "observation.environment_state"))
    actor = ReflexActor(spec)
    evaluate(actor, env, EvalConfig(episodes=64, num_envs=64, execute=1))  # compiles
    start_s = time.perf_counter()
    result = evaluate(actor, env, EvalConfig(episodes=episodes, num_envs=64, execute=1))
    seconds = time.perf_counter() - start_s
    env.close()
    return seconds, result.success_rate


def peer(episodes: int) -> tuple[float, float]:
    """Return seconds and success of LeRobot's loop over robosuite."""
    from lerobot.scripts.lerobot_eval import rollout

    env = gymnasium.vector.AsyncVectorEnv([partial(StoppingRobosuite, "Lift")] * PROCESSES, context="spawn")
    policy, successes = ReflexPolicy(), []
    same = lambda value: value  # noqa: E731 - LeRobot's processing steps, of which there are none
    start_s = time.perf_counter()
    for batch in range(episodes // PROCESSES):
        seeds = [batch * PROCESSES + index for index in range(PROCESSES)]
        data = rollout(env, policy, same, same, same, same, seeds=seeds)  # ty: ignore[invalid-argument-type]
        successes += data["success"].any(1).tolist()
    seconds = time.perf_counter() - start_s
    env.close()
    return seconds, float(np.mean(successes))


if __name__ == "__main__":
    main(parse_options(__doc__ or ""))
