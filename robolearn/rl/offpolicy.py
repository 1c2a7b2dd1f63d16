"""What off-policy algorithms that act in every step share: rings, critics, one explorer, the schedule of updates."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.contracts import Observations
from robolearn.errors import ConfigError
from robolearn.learner import reseed
from robolearn.registry import configure
from robolearn.rl.algorithm import Problem, improved
from robolearn.rl.collect import Notes, Trajectory
from robolearn.rl.critics import CriticConfig
from robolearn.rl.learning import Critics, Trained
from robolearn.rl.networks import standardise
from robolearn.rl.replay import Replay, symmetric, transitions, visited
from robolearn.rollout import PolicyController
from robolearn.seeding import derive_seed, generator

__all__ = ["OffPolicy", "OffPolicyConfig", "StepExplorer"]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class OffPolicyConfig:
    """Noises are shares of half the action range.

    After the first `warmup` environment steps each one is followed by `updates` critic updates; past the
    first `actor_after` of them the actor learns in every `actor_every`th. Half of a batch are
    demonstrations and, with `keep_successes`, what succeeded since. `penalty` weighs the squared
    deviation from the clone's action: while values say little, nothing moves. With `imitate`, where a row
    was recorded, it weighs the deviation from what was done there: the actor keeps to what succeeded.
    Targets ask, and what is deployed is, a moving average of the actor, as slow as the critics' targets (`tau`).
    """

    width: int = 256  # of the actor
    depth: int = 2
    critics: CriticConfig = field(default_factory=CriticConfig)
    gamma: float = 0.99
    n_step: int = 3
    updates: float = 0.5
    batch_size: int = 256
    warmup: int = 3000
    actor_every: int = 2
    actor_after: int = 500
    penalty: float = 0.02
    penalty_decay: float = 0.0  # the n-th update weighs it penalty / (1 + penalty_decay · n)
    imitate: bool = False
    keep_successes: bool = True
    actor_rate: float = 1e-4
    critic_rate: float = 3e-4
    tau: float = 0.01
    noise: float = 0.1  # of exploration
    noise_decay: float = 0.0  # its correlation from step to step
    smoothing: float = 0.05  # of the actions in the targets
    replay: int = 300_000

    def __post_init__(self):
        if not (0 < self.gamma < 1 and 0 < self.tau <= 1 and 0 <= self.noise_decay < 1 and self.updates > 0):
            raise ConfigError("Rates are out of range.", found=self, expected="gamma, tau, noise_decay within 0 to 1")
        for name in ("n_step", "batch_size", "actor_every", "replay"):
            if getattr(self, name) < 1:
                raise ConfigError(f"algo.{name} is too small.", found=getattr(self, name), expected="1 or more")


class OffPolicy:
    """An `Algorithm` whose policy has `propose(state, action)`; subclasses say what is learned from a batch.

    `plain` are the options of the deployed policy. The actor of `net` learns and explores; `slow` has its
    moving average and is deployed.
    """

    def __init__(self, config: OffPolicyConfig, problem: Problem, plain: Mapping[str, Any]):
        self.config, self.problem, self._plain = config, problem, dict(plain)
        reseed(derive_seed(problem.seed, "init"), _CPU)
        options = configure("policy", plain, "policy")
        self.net: Any = improved(options.build(problem.inner), problem.clone)
        self.net.low[:], self.net.high[:] = problem.bounds
        self.actor = Trained("actor", self.net.actor, config.actor_rate, tau=config.tau)
        self.slow: Any = copy.deepcopy(self.net, {id(self.net.base): self.net.base})
        self.slow.actor = self.actor.slow
        inputs = problem.state_size + problem.spec.action.dim
        self.critics = Critics(config.critics, inputs, config.critic_rate, config.tau, problem.returns)
        self.online, self.recorded = Replay(config.replay), Replay(config.replay)
        self.updates = 0
        self.explored = np.ones(problem.spec.action.dim, np.float32)  # share of the noise that an entry gets

    @abstractmethod
    def following(self, state: Tensor, base: Tensor, noise: Tensor) -> Tensor:
        """Return the value [B] of going on from next states [B,D] with the clone's actions `base` [B,A]."""

    @abstractmethod
    def learned(self, state: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actor's actions and how far they are from the clone's `base`, both [B,A]."""

    @abstractmethod
    def deviation(self, action: Tensor, base: Tensor) -> Tensor:
        """Return how far actions are from the clone's `base`, both [B,A], in the measure of `learned`."""

    def explorer(self, rows: int, seed: int) -> "StepExplorer":
        return StepExplorer(self, self.problem.controller(rows, seed), rows, seed)

    def demonstrate(self, trajectory: Trajectory) -> None:
        self.recorded.add(self._transitions(trajectory))

    def observe(self, trajectory: Trajectory) -> None:
        rows = self._transitions(trajectory)
        self.online.add(rows)
        if trajectory.success and self.config.keep_successes:
            self.recorded.add(rows)

    def update(self, steps: int, round_over: bool) -> Mapping[str, float]:
        sums: dict[str, Tensor] = {}
        before = self.updates
        if not before and len(self.online) and steps > self.config.warmup:
            self._standardise()
        while len(self.online) and self.updates < (steps - self.config.warmup) * self.config.updates:
            for name, value in self._update().items():
                sums[name] = sums[name] + value if name in sums else value
            self.updates += 1
        return {name: float(value) / (self.updates - before) for name, value in sums.items()}

    def policy(self) -> tuple[Mapping[str, Any], nn.Module]:
        return self._plain, self.slow

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        rings = self.online.state("online") | self.recorded.state("recorded")
        return self.actor.state() | self.critics.state() | rings, {"updates": self.updates}

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        self.actor.restore(tensors)
        self.critics.restore(tensors)
        self.online.restore(tensors, "online")
        self.recorded.restore(tensors, "recorded")
        self.updates = int(counters["updates"])

    def scaled(self, action: np.ndarray) -> np.ndarray:
        """Return real actions [n,A] in [-1, 1]."""
        return self.net.scaled(torch.as_tensor(action, dtype=torch.float32)).numpy()

    def _transitions(self, trajectory: Trajectory) -> dict[str, np.ndarray]:
        rows = transitions(trajectory, self.config.gamma, self.config.n_step)
        return rows | {"action": self.scaled(rows["action"])}

    def _standardise(self) -> None:
        """Let actor and critics see states in deviations of what the warm-up visited."""
        networks = self.net.actor, self.slow.actor, self.critics.online, self.critics.target
        standardise(visited((self.online, self.recorded)), *networks)

    def _update(self) -> dict[str, Tensor]:
        config, seed, number = self.config, self.problem.seed, self.updates
        reseed(derive_seed(seed, "update", number), _CPU)
        batch = symmetric((self.online, self.recorded), config.batch_size, generator(seed, "batch", number))
        with torch.no_grad():
            noise = config.smoothing * torch.randn_like(batch["action"]).clamp(-2, 2)
            following = self.following(batch["next_state"], batch["next_base"], noise)
        x = torch.cat([batch["state"], batch["action"]], -1)
        metrics = self.critics.update(x, batch["reward"], batch["discount"], following)
        if number >= config.actor_after and number % config.actor_every == 0:
            action, away = self.learned(batch["state"], batch["base"])
            value = self.critics.mean(torch.cat([batch["state"], action], -1))
            if config.imitate and len(self.recorded):
                wanted = self.deviation(batch["action"], batch["base"])
                wanted[: config.batch_size // 2] = 0.0  # rows that are not recorded come first
                away = away - wanted
            penalty = config.penalty / (1 + config.penalty_decay * number)
            self.actor.step(penalty * away.square().mean() - value.mean())
        return metrics


class StepExplorer:
    """The present policy with noise on its actions; see `rl.collect.Explorer`.

    Notes: "state" [D], and "base" [A], what the clone's chunk would do. Until the first update the
    clone acts alone.
    """

    def __init__(self, algorithm: OffPolicy, base: PolicyController, rows: int, seed: int):
        self._algorithm, self._base, self._seed = algorithm, base, seed
        dim = algorithm.problem.spec.action.dim
        self._noise = np.zeros((rows, dim))
        self._random = [generator(seed, "explore", -1)] * rows
        self._state = np.zeros((rows, algorithm.problem.state_size), np.float32)
        self._chunk = np.zeros((rows, dim), np.float32)

    def begin(self, rows: np.ndarray, episodes: np.ndarray, obs: Observations) -> None:
        self._base.begin(rows, episodes, obs)
        self._noise[rows] = 0.0
        for row, episode in zip(rows, episodes, strict=True):
            self._random[row] = generator(self._seed, "explore", int(episode))

    def act(self, obs: Observations, active: np.ndarray) -> np.ndarray:
        algorithm, config = self._algorithm, self._algorithm.config
        rows = np.flatnonzero(active)
        action = np.array(self._base.act(obs, active))
        state = algorithm.problem.encode(self._base.window(rows))
        chunk = algorithm.scaled(action[rows])
        self._state[rows], self._chunk[rows] = state, chunk
        fresh = np.stack([self._random[row].standard_normal(chunk.shape[1]) for row in rows])
        share = np.sqrt(1 - config.noise_decay**2) * config.noise * algorithm.explored
        self._noise[rows] = config.noise_decay * self._noise[rows] + share * fresh
        with torch.inference_mode():
            chosen = torch.from_numpy(chunk)
            if algorithm.updates:
                chosen = algorithm.net.propose(torch.from_numpy(state), chosen)
            noisy = (chosen + torch.as_tensor(self._noise[rows], dtype=torch.float32)).clamp(-1, 1)
            action[rows] = algorithm.net.real(noisy).numpy()
        return action

    def notes(self) -> Notes:
        return {"state": self._state, "base": self._chunk}

    def outlook(self, rows: np.ndarray, obs: Observations) -> Notes:
        window, chunk = self._base.outlook(rows, obs)
        return {"state": self._algorithm.problem.encode(window), "base": self._algorithm.scaled(chunk)}
