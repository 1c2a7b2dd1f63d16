"""A frozen policy with a learned value of its chunks, for `ranked` with by=score (V-GPS, arXiv 2410.13816)."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.around import AroundConfig, AroundPolicy
from robolearn.rl.critics import CriticConfig
from robolearn.rl.networks import state_of, state_size
from robolearn.spec import Spec

__all__ = ["ValuedConfig", "ValuedPolicy"]


@dataclass(frozen=True)
class ValuedConfig(AroundConfig):
    """The first `rows` rows of a chunk are valued: those that are executed."""

    name: Literal["valued"] = "valued"
    critics: CriticConfig = field(default_factory=CriticConfig)
    rows: int = 8

    def __post_init__(self):
        super().__post_init__()
        if self.rows < 1:
            raise ConfigError("policy.rows is too small.", found=self.rows, expected="1 or more")

    def build(self, spec: Spec) -> "ValuedPolicy":
        """Return the policy for `spec`."""
        return ValuedPolicy(self, self.inner().build(spec))


class ValuedPolicy(AroundPolicy):
    """Samples as the frozen policy does; `score` is the mean of the critics, 0 until they are `ready`."""

    ready: Tensor

    def __init__(self, config: ValuedConfig, base: Any):
        super().__init__(base)
        self.rows = config.rows
        self.critics = config.critics.build(state_size(base) + config.rows * self.spec.action.dim)
        self.register_buffer("ready", torch.zeros(()))

    def score(self, obs: Batch, actions: Tensor) -> Tensor:
        """Return how good chunks [B,K,A] are [B]."""
        x = torch.cat([state_of(self.base, obs), actions[:, : self.rows].flatten(1)], -1)
        return self.ready * self.critics.value(x).mean(0)
