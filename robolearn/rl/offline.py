"""Offline policy learning from demonstrations and episodes of the clone: weighted cloning, IQL, flow Q-learning.

- "advantage": the clone's own loss, weighted by exp(A/temperature) with IQL's advantages (arXiv 2110.06169, eq. 7);
- "trajectory": weighted by the episode's return instead (arXiv 2006.15134, section 4): with a sparse reward,
  failures hardly count;
- "fql": a one-step policy that is distilled from the clone and climbs Q (FQL, arXiv 2502.02538, eq. 7 and 8).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.registry import configure
from robolearn.rl.algorithm import Problem, improved
from robolearn.rl.chunks import cloning_batch
from robolearn.rl.collect import Trajectory
from robolearn.rl.learning import Critics, Trained
from robolearn.rl.networks import familiar
from robolearn.rl.values import DataConfig, ExpectileValues, FromData, Rows, chunk_vector

__all__ = ["FlowQ", "OfflineConfig", "WeightedCloning", "exponential_weights"]


@dataclass(frozen=True)
class OfflineConfig(DataConfig):
    """`temperature` is in units of advantages or returns; weights stay below `limit`.

    `distillation` is what FQL's closeness to the clone weighs; `width` and `depth` are of its one-step policy.
    """

    name: Literal["offline"] = "offline"
    method: Literal["advantage", "trajectory", "fql"] = "advantage"
    temperature: float = 0.1
    limit: float = 20.0
    actor_rate: float = 1e-4
    distillation: float = 100.0  # at 1 the policy leaves what the data hold, where values mean nothing
    width: int = 256
    depth: int = 3

    def __post_init__(self):
        super().__post_init__()
        if min(self.temperature, self.limit, self.distillation) <= 0:
            raise ConfigError("Weights are out of range.", found=self, expected="temperature, limit, distillation > 0")

    def build(self, problem: Problem) -> "WeightedCloning | FlowQ":
        """Return the algorithm; raises `ConfigError` where FQL finds no noise to begin with."""
        return FlowQ(self, problem) if self.method == "fql" else WeightedCloning(self, problem)


class WeightedCloning(FromData):
    """The clone, trained on: its loss counts more where the data did better."""

    config: OfflineConfig

    def __init__(self, config: OfflineConfig, problem: Problem):
        super().__init__(config, problem)
        self.net: Any = problem.clone.build()
        self.actor = Trained("actor", self.net, config.actor_rate)
        self.values = ExpectileValues(config, problem)

    def learn(self, batch: Rows) -> dict[str, Tensor]:
        if self.config.method == "advantage":
            metrics, score = self.values.update(batch), self.values.advantage(batch)
        else:
            metrics, score = {}, batch["episode_return"] - batch["episode_return"].max()
        weight = exponential_weights(score, self.config.temperature, self.config.limit) * familiar(batch["state"])
        self.net.eval()
        loss, _ = self.net.loss(cloning_batch(batch))
        mean = (weight * loss).sum() / weight.sum().clamp(min=1e-6)
        self.actor.step(mean)
        return metrics | {"actor_loss": mean.detach(), "weight": weight.mean()}

    def rows(self, trajectory: Trajectory) -> dict[str, np.ndarray]:
        total = np.full(len(trajectory), trajectory.reward.sum())
        return super().rows(trajectory) | {"episode_return": total}

    def policy(self) -> tuple[Mapping[str, Any], nn.Module]:
        return self.problem.clone.config["policy"], self.net

    def networks(self) -> tuple[nn.Module, ...]:
        return self.values.networks

    def parts(self) -> tuple[Trained | Critics, ...]:
        return self.actor, self.values.critics, self.values.value


class FlowQ(FromData):
    """μ(s, z) stays near clone(s, z) and climbs Q; the frozen clone is FQL's behaviour flow."""

    config: OfflineConfig

    def __init__(self, config: OfflineConfig, problem: Problem):
        super().__init__(config, problem)
        sizes = {"width": config.width, "depth": config.depth}
        self._plain = {"name": "one_step", "base": problem.clone.config["policy"], **sizes}
        options = configure("policy", self._plain, "policy")
        self.net: Any = improved(options.build(problem.inner), problem.clone)
        self.actor = Trained("actor", self.net.actor, config.actor_rate)
        self.values = ExpectileValues(config, problem)

    def learn(self, batch: Rows) -> dict[str, Tensor]:
        critics, rows = self.values.critics, self.values.rows
        noise, again = (torch.randn(len(batch["state"]), *self.net.noise_shape) for _ in range(2))
        with torch.no_grad():
            following = critics.least(chunk_vector(batch["next_state"], self.net.act(batch["next_state"], again), rows))
            wanted = self.net.base.sample(cloning_batch(batch), noise)
        x = chunk_vector(batch["state"], batch["chunk"], rows)
        metrics = critics.update(x, batch["reward"], batch["discount"], following)
        own = self.net.act(batch["state"], noise)
        value = critics.mean(chunk_vector(batch["state"], own, rows))
        known = familiar(batch["state"]).float()  # elsewhere the clone's chunks are nothing to stay near to
        distance = (known * (own - wanted).square().mean((1, 2))).mean()
        scale = 1 / value.detach().abs().mean().clamp(min=1e-3)  # of FQL's implementation: rewards have any scale
        self.actor.step(self.config.distillation * distance - scale * (known * value).mean())
        return metrics | {"distance": distance.detach()}

    def update(self, steps: int, round_over: bool) -> Mapping[str, float]:
        metrics = super().update(steps, round_over)
        self.net.ready.fill_(float(self.updates > 0))
        return metrics

    def policy(self) -> tuple[Mapping[str, Any], nn.Module]:
        return self._plain, self.net

    def networks(self) -> tuple[nn.Module, ...]:
        return self.net.actor, *self.values.networks

    def parts(self) -> tuple[Trained | Critics, ...]:
        return self.actor, self.values.critics

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        super().restore(tensors, counters)
        self.net.ready.fill_(float(self.updates > 0))


def exponential_weights(score: Tensor, temperature: float, limit: float) -> Tensor:
    """Return min(exp(score / temperature), limit) [B]."""
    return (score / temperature).exp().clamp(max=limit)
