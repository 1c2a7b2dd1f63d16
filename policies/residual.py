"""Policies that act in every step beside a frozen chunk policy: a residual (arXiv 2407.16677, 2509.19301), and
the better of two proposals (IBRL, arXiv 2311.02198).

The chunk policy decides as it always did; `correct` then looks at every new observation. Learned by
`robolearn rl`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.around import AroundConfig, AroundPolicy
from robolearn.policies.common import parameter_groups
from robolearn.rl.critics import CriticConfig
from robolearn.rl.networks import mlp, state_of, state_size
from robolearn.spec import Spec

__all__ = ["ChosenConfig", "ChosenPolicy", "ResidualConfig", "ResidualPolicy"]


@dataclass(frozen=True)
class ResidualConfig(AroundConfig):
    """A correction of at most `scale` of half the action range is added to every action.

    `scales` bounds each entry of the action by itself instead.
    """

    name: Literal["residual"] = "residual"
    width: int = 256
    scale: float = 0.3
    scales: tuple[float, ...] = ()

    def build(self, spec: Spec) -> "ResidualPolicy":
        """Return the policy for `spec`."""
        return ResidualPolicy(self, self.inner().build(spec))


@dataclass(frozen=True)
class ChosenConfig(AroundConfig):
    """The actor proposes an action beside the chunk's; the one that the critics value more is taken."""

    name: Literal["chosen"] = "chosen"
    width: int = 256
    critics: CriticConfig = field(default_factory=CriticConfig)

    def build(self, spec: Spec) -> "ChosenPolicy":
        """Return the policy for `spec`."""
        return ChosenPolicy(self, self.inner().build(spec))


class _StepPolicy(AroundPolicy):
    """Samples the frozen policy's chunks; subclasses propose the action of one step.

    `low`, `high` [A] bound actions in real units; inside, they are scaled to [-1, 1].
    """

    low: Tensor
    high: Tensor

    def __init__(self, base: Any, actor: nn.Module):
        super().__init__(base)
        self.actor = actor
        dim = base.spec.action.dim
        self.register_buffer("low", -torch.ones(dim))
        self.register_buffer("high", torch.ones(dim))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the base: cloning leaves the actor alone, `robolearn rl` the base."""
        return self.base.loss(batch)

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks of the base."""
        return self.base.blocks()

    def param_groups(self) -> Iterator[dict]:
        """Yield matrices, which decay, and vectors, which do not."""
        yield from parameter_groups(self)

    def propose(self, state: Tensor, action: Tensor) -> Tensor:
        """Return actions [B,A] in [-1, 1] for states [B,D] and the chunk's `action` [B,A]."""
        raise NotImplementedError

    def correct(self, obs: Batch, action: Tensor) -> Tensor:
        """Return actions [B,A] in real units for histories `obs` and the chunk's `action` [B,A]."""
        return self.real(self.propose(state_of(self.base, obs), self.scaled(action)))

    def scaled(self, action: Tensor) -> Tensor:
        """Return real actions in [-1, 1]."""
        return ((action - (self.high + self.low) / 2) / ((self.high - self.low) / 2)).clamp(-1, 1)

    def real(self, action_n: Tensor) -> Tensor:
        """Return scaled actions in real units."""
        return (self.high + self.low) / 2 + action_n * (self.high - self.low) / 2


class ResidualPolicy(_StepPolicy):
    """a = a_chunk + scale · tanh f(s, a_chunk); `scale` [A] is zero where nothing is corrected."""

    scale: Tensor

    def __init__(self, config: ResidualConfig, base: Any):
        dim = base.spec.action.dim
        super().__init__(base, mlp(state_size(base) + dim, config.width, config.depth, dim))
        self.register_buffer("scale", _scales(config, dim), persistent=False)

    def residual(self, state: Tensor, action: Tensor) -> Tensor:
        """Return corrections [B,A] in [-1, 1], before `scale`."""
        return self.actor(torch.cat([state, action], -1)).tanh()

    def propose(self, state: Tensor, action: Tensor) -> Tensor:
        return (action + self.scale * self.residual(state, action)).clamp(-1, 1)


def _scales(config: ResidualConfig, dim: int) -> Tensor:
    """Return the bound of each entry's correction [A]; raises `ConfigError`."""
    if config.scales and len(config.scales) != dim:
        raise ConfigError("Every entry of the action needs a scale.", found=config.scales, expected=f"{dim} numbers")
    return torch.tensor(config.scales or (config.scale,) * dim)


class ChosenPolicy(_StepPolicy):
    """argmax over {a_chunk, f(s)} of Q."""

    ready: Tensor

    def __init__(self, config: ChosenConfig, base: Any):
        dim, size = base.spec.action.dim, state_size(base)
        super().__init__(base, mlp(size, config.width, config.depth, dim))
        self.critics = config.critics.build(size + dim)
        self.register_buffer("ready", torch.zeros(()))  # 0 until the critics have learned: the chunk's action is taken

    def own(self, state: Tensor) -> Tensor:
        """Return the actor's actions [B,A] in [-1, 1]."""
        return self.actor(state).tanh()

    def propose(self, state: Tensor, action: Tensor) -> Tensor:
        own = self.own(state)
        both = torch.cat([torch.cat([state, option], -1) for option in (action, own)])
        value = self.critics.value(both).mean(0)
        better = (value[len(state) :] > value[: len(state)]) & (self.ready > 0)
        return torch.where(better[:, None], own, action)
