"""One evaluation from noise to a chunk, learned beside a frozen policy (FQL, arXiv 2502.02538)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.around import AroundConfig, AroundPolicy
from robolearn.policies.common import check_prefix, pin_prefix
from robolearn.rl.networks import mlp, state_of, state_size
from robolearn.spec import Spec

__all__ = ["OneStepConfig", "OneStepPolicy"]


@dataclass(frozen=True)
class OneStepConfig(AroundConfig):
    """Options of the network; none but its size."""

    name: Literal["one_step"] = "one_step"
    width: int = 256
    depth: int = 3

    def build(self, spec: Spec) -> "OneStepPolicy":
        """Return the policy for `spec`; raises `ConfigError` for a base without noise."""
        return OneStepPolicy(self, self.inner().build(spec))


class OneStepPolicy(AroundPolicy):
    """a = f(s, z); until `ready` the frozen policy is sampled."""

    ready: Tensor

    def __init__(self, config: OneStepConfig, base: Any):
        super().__init__(base)
        size = torch.Size(base.noise_shape).numel()
        if not size:
            raise ConfigError("There is no noise to begin with.", found=type(base).__name__, do="clone a flow policy")
        outputs = self.spec.chunk * self.spec.action.dim
        self.actor = mlp(state_size(base) + size, config.width, config.depth, outputs)
        self.register_buffer("ready", torch.zeros(()))

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        if not self.ready:
            return self.base.sample(obs, noise, prefix)
        check_prefix(self.spec, prefix)
        return pin_prefix(self.act(state_of(self.base, obs), noise), prefix)

    def act(self, state: Tensor, noise: Tensor) -> Tensor:
        """Return chunks [B,K,A] for states [B,D] and noise [B,…]."""
        chunk = self.actor(torch.cat([state, noise.flatten(1)], -1))
        return chunk.unflatten(-1, (self.spec.chunk, self.spec.action.dim))
