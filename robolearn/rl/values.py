"""Learning from what people and the clone did, trying nothing: the data, its schedule, the value of a chunk.

Collection only adds episodes of the clone to the recorded ones; the policy that comes out is never executed
before it is evaluated.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.learner import reseed
from robolearn.rl.algorithm import Problem
from robolearn.rl.chunks import ChunkExplorer, chunk_transitions, executed_rows
from robolearn.rl.collect import Trajectory
from robolearn.rl.critics import CriticConfig
from robolearn.rl.learning import Critics, Trained
from robolearn.rl.networks import mlp, standardise
from robolearn.rl.replay import Replay, symmetric, visited
from robolearn.seeding import derive_seed, generator

__all__ = ["DataConfig", "ExpectileValues", "FromData", "chunk_vector", "expectile_loss"]

_CPU = torch.device("cpu")

Rows = dict[str, Tensor]


@dataclass(frozen=True)
class DataConfig:
    """After `warmup` environment steps of the clone, `updates` follow each step.

    Half of a batch are demonstrations where there are any. `gamma` is per environment step.
    """

    critics: CriticConfig = field(default_factory=CriticConfig)
    gamma: float = 0.99
    updates: float = 0.5
    batch_size: int = 256
    warmup: int = 2000
    critic_rate: float = 3e-4
    tau: float = 0.01
    expectile: float = 0.8
    replay: int = 100_000

    def __post_init__(self):
        if not (0 < self.gamma < 1 and 0 < self.tau <= 1 and 0.5 <= self.expectile < 1 and self.updates > 0):
            raise ConfigError("Rates are out of range.", found=self, expected="gamma, tau, expectile within 0 to 1")
        for name in ("batch_size", "replay"):
            if getattr(self, name) < 1:
                raise ConfigError(f"algo.{name} is too small.", found=getattr(self, name), expected="1 or more")


class FromData:
    """An `Algorithm` that learns from rows of `chunk_transitions`; subclasses say what."""

    def __init__(self, config: DataConfig, problem: Problem):
        self.config, self.problem = config, problem
        reseed(derive_seed(problem.seed, "init"), _CPU)
        self.online, self.recorded = Replay(config.replay), Replay(config.replay)
        self.updates = 0

    @abstractmethod
    def learn(self, batch: Rows) -> dict[str, Tensor]:
        """Do one update and return detached metrics."""

    @abstractmethod
    def policy(self) -> tuple[Mapping[str, Any], nn.Module]:
        """Return the present policy."""

    @abstractmethod
    def networks(self) -> tuple[nn.Module, ...]:
        """Return what looks at states."""

    @abstractmethod
    def parts(self) -> tuple[Trained | Critics, ...]:
        """Return what is trained."""

    def rows(self, trajectory: Trajectory) -> dict[str, np.ndarray]:
        """Return what is kept of an episode."""
        return chunk_transitions(self.problem, trajectory, self.config.gamma)

    def explorer(self, rows: int, seed: int) -> ChunkExplorer:
        return ChunkExplorer(self.problem, rows, seed)

    def demonstrate(self, trajectory: Trajectory) -> None:
        self.recorded.add(self.rows(trajectory))

    def observe(self, trajectory: Trajectory) -> None:
        self.online.add(self.rows(trajectory))

    def update(self, steps: int, round_over: bool) -> Mapping[str, float]:
        sums: dict[str, Tensor] = {}
        before = self.updates
        if not before and len(self.online) and steps > self.config.warmup:
            standardise(visited((self.online, self.recorded)), *self.networks())
        while len(self.online) and self.updates < (steps - self.config.warmup) * self.config.updates:
            seed, number = self.problem.seed, self.updates
            reseed(derive_seed(seed, "update", number), _CPU)
            batch = symmetric((self.online, self.recorded), self.config.batch_size, generator(seed, "batch", number))
            for name, value in self.learn(batch).items():
                sums[name] = sums[name] + value if name in sums else value
            self.updates += 1
        return {name: float(value) / (self.updates - before) for name, value in sums.items()}

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        found = self.online.state("online") | self.recorded.state("recorded")
        for part in self.parts():
            found |= part.state()
        return found, {"updates": self.updates}

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        for part in self.parts():
            part.restore(tensors)
        self.online.restore(tensors, "online")
        self.recorded.restore(tensors, "recorded")
        self.updates = int(counters["updates"])


class ExpectileValues:
    """Q(s, chunk) and V(s) of recorded behaviour at its better end (IQL, arXiv 2110.06169, eq. 5 and 6)."""

    def __init__(self, config: DataConfig, problem: Problem):
        self.rows, self.expectile = executed_rows(problem), config.expectile
        inputs = problem.state_size + self.rows * problem.inner.action.dim
        self.critics = Critics(config.critics, inputs, config.critic_rate, config.tau, problem.returns)
        width, depth = config.critics.width, config.critics.depth
        self.value = Trained("value", mlp(problem.state_size, width, depth, 1), config.critic_rate)
        self.networks = (self.critics.online, self.critics.target, self.value.module)

    def update(self, batch: Rows) -> dict[str, Tensor]:
        """Do one update of both and return detached metrics."""
        x = chunk_vector(batch["state"], batch["chunk"], self.rows)
        with torch.no_grad():
            better = self.critics.least(x)
            following = self.value.module(batch["next_state"]).squeeze(-1)
        self.value.step(expectile_loss(better - self.value.module(batch["state"]).squeeze(-1), self.expectile))
        return self.critics.update(x, batch["reward"], batch["discount"], following)

    @torch.no_grad()
    def advantage(self, batch: Rows) -> Tensor:
        """Return how much better [B] than V the chunks of a batch are."""
        x = chunk_vector(batch["state"], batch["chunk"], self.rows)
        return self.critics.least(x) - self.value.module(batch["state"]).squeeze(-1)


def chunk_vector(state: Tensor, chunk: Tensor, rows: int) -> Tensor:
    """Return what critics see of states [B,D] and chunks [B,K,A]: the first `rows` of each."""
    return torch.cat([state, chunk[:, :rows].flatten(1)], -1)


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """Return the mean of |expectile - 1(error < 0)| · error² (arXiv 2110.06169, eq. 4)."""
    return ((expectile - (error < 0).float()).abs() * error.square()).mean()
