"""Diffusion steering: a small soft actor-critic over the initial noise of a frozen policy (DSRL, arXiv 2506.15799).

To the learner the frozen policy is a part of the environment: its action is the noise w of a chunk, its reward
what the chunk earns, discounted by environment step. Soft actor-critic: arXiv 1812.05905; without entropy in the
targets, as in RLPD (arXiv 2302.02948).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.contracts import Observations
from robolearn.errors import ConfigError
from robolearn.learner import reseed
from robolearn.registry import configure
from robolearn.rl.algorithm import Problem, improved
from robolearn.rl.chunks import ChunkExplorer, decisions, window_of
from robolearn.rl.collect import Trajectory
from robolearn.rl.critics import CriticConfig
from robolearn.rl.learning import Critics, Trained
from robolearn.rl.networks import standardise
from robolearn.rl.replay import Replay, symmetric
from robolearn.seeding import derive_seed, generator

__all__ = ["Steering", "SteeringConfig", "squashed_log_prob"]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class SteeringConfig:
    """Noise stays within ±`bound`; `shared` chooses one vector for all actions of a chunk.

    After `warmup` environment steps, in which the clone draws its own noise, `updates` follow each step.
    `entropy` is the target per dimension. Demonstrations are of no use: nobody knows their noise.
    """

    name: Literal["steering"] = "steering"
    width: int = 128
    depth: int = 2
    bound: float = 1.5
    shared: bool = True
    critics: CriticConfig = field(default_factory=CriticConfig)
    gamma: float = 0.99  # per environment step
    updates: float = 0.5
    batch_size: int = 256
    warmup: int = 2000
    rate: float = 3e-4
    tau: float = 0.01
    entropy: float = -0.5
    replay: int = 100_000  # decisions

    def __post_init__(self):
        if not (0 < self.gamma < 1 and 0 < self.tau <= 1 and self.updates > 0 and self.bound > 0):
            raise ConfigError("Rates are out of range.", found=self, expected="gamma, tau within 0 to 1; bound above 0")
        for name in ("batch_size", "replay"):
            if getattr(self, name) < 1:
                raise ConfigError(f"algo.{name} is too small.", found=getattr(self, name), expected="1 or more")

    def build(self, problem: Problem) -> "Steering":
        """Return the algorithm; raises `ConfigError` for a clone that its first noise does not decide."""
        return Steering(self, problem)


class Steering:
    """π_w(w|s) = bound · tanh N(mean, deviation²), executed as clone(s, w)."""

    def __init__(self, config: SteeringConfig, problem: Problem):
        self.config, self.problem = config, problem
        reseed(derive_seed(problem.seed, "init"), _CPU)
        sizes = {"width": config.width, "depth": config.depth, "bound": config.bound, "shared": config.shared}
        self._plain = {"name": "steered", "base": problem.clone.config["policy"], **sizes}
        options = configure("policy", self._plain, "policy")
        self.net: Any = improved(options.build(problem.inner), problem.clone)
        self.actor = Trained("actor", self.net.actor, config.rate)
        inputs = problem.state_size + self.net.size
        self.critics = Critics(config.critics, inputs, config.rate, config.tau, problem.returns)
        self.entropy = _Entropy()
        self.weight = Trained("entropy", self.entropy, config.rate)
        self.online = Replay(config.replay)
        self.updates = 0

    def explorer(self, rows: int, seed: int) -> ChunkExplorer:
        return ChunkExplorer(self.problem, rows, seed, draw=self._draw)

    def demonstrate(self, trajectory: Trajectory) -> None:
        pass

    def observe(self, trajectory: Trajectory) -> None:
        found = decisions(trajectory, self.config.gamma)
        state = self.problem.encode(window_of(trajectory, np.append(found.step, len(trajectory))))
        noise = trajectory.notes["noise"][found.step].reshape(len(found.step), self.problem.inner.chunk, -1)
        noise = noise[:, 0] if self.config.shared else noise.reshape(len(noise), -1)
        rows = {"state": state[:-1], "noise": noise / self.config.bound, "next_state": state[1:]}
        self.online.add(rows | {"reward": found.reward, "discount": found.discount})

    def update(self, steps: int, round_over: bool) -> Mapping[str, float]:
        sums: dict[str, Tensor] = {}
        before = self.updates
        if not before and len(self.online) and steps > self.config.warmup:
            standardise(self.online.column("state"), self.net.actor, self.critics.online, self.critics.target)
        while len(self.online) and self.updates < (steps - self.config.warmup) * self.config.updates:
            for name, value in self._update().items():
                sums[name] = sums[name] + value if name in sums else value
            self.updates += 1
        self.net.ready.fill_(float(self.updates > 0))
        return {name: float(value) / (self.updates - before) for name, value in sums.items()}

    def policy(self) -> tuple[Mapping[str, Any], nn.Module]:
        return self._plain, self.net

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        trained = self.actor.state() | self.critics.state() | self.weight.state()
        return trained | self.online.state("online"), {"updates": self.updates}

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        for part in (self.actor, self.critics, self.weight):
            part.restore(tensors)
        self.online.restore(tensors, "online")
        self.updates = int(counters["updates"])
        self.net.ready.fill_(float(self.updates > 0))

    def _draw(self, window: Observations, noise: np.ndarray) -> np.ndarray:
        """Return the noise that collection uses: the clone's own during warm-up, then a draw of the actor."""
        first = torch.from_numpy(noise).reshape(len(noise), self.problem.inner.chunk, -1)
        z = first[:, 0] if self.config.shared else first.flatten(1)
        if self.updates:
            with torch.inference_mode():
                mean, log_std = self.net.gaussian(torch.from_numpy(self.problem.encode(window)))
                z = self.config.bound * (mean + log_std.exp() * z).tanh()
        return self.net.whole(z).numpy()

    def _update(self) -> dict[str, Tensor]:
        config, seed, number = self.config, self.problem.seed, self.updates
        reseed(derive_seed(seed, "update", number), _CPU)
        batch = symmetric((self.online,), config.batch_size, generator(seed, "batch", number))
        with torch.no_grad():
            following, _ = self._propose(batch["next_state"])
            value = self.critics.least(torch.cat([batch["next_state"], following], -1))
        x = torch.cat([batch["state"], batch["noise"]], -1)
        metrics = self.critics.update(x, batch["reward"], batch["discount"], value)
        chosen, log_prob = self._propose(batch["state"])
        weight = self.entropy.log_weight.exp()
        gain = self.critics.mean(torch.cat([batch["state"], chosen], -1))
        self.actor.step((weight.detach() * log_prob - gain).mean())
        missing = config.entropy * self.net.size + log_prob.detach().mean()
        self.weight.step(-self.entropy.log_weight * missing)
        return metrics | {"entropy": -log_prob.detach().mean(), "entropy_weight": weight.detach()}

    def _propose(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return a draw [B,W] in [-1, 1] and its log-probability [B]."""
        mean, log_std = self.net.gaussian(state)
        raw = mean + log_std.exp() * torch.randn_like(mean)
        return raw.tanh(), squashed_log_prob(raw, mean, log_std)


class _Entropy(nn.Module):
    """The logarithm of what entropy is worth; it begins small, so that sparse rewards are heard."""

    def __init__(self):
        super().__init__()
        self.log_weight = nn.Parameter(torch.tensor(math.log(0.01)))


def squashed_log_prob(raw: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return log p(tanh(raw)) [B] for raw ~ N(mean, exp(log_std)²) [B,W] (arXiv 1812.05905, appendix C)."""
    gaussian = -0.5 * ((raw - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
    return (gaussian - 2 * (math.log(2) - raw - F.softplus(-2 * raw))).sum(-1)
