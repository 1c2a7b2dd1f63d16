"""A frozen policy whose initial noise is chosen, not drawn (DSRL, arXiv 2506.15799)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.around import AroundConfig, AroundPolicy
from robolearn.rl.networks import mlp, state_of, state_size
from robolearn.spec import Spec

__all__ = ["SteeredConfig", "SteeredPolicy"]

_LOG_STD = (-5.0, 2.0)


@dataclass(frozen=True)
class SteeredConfig(AroundConfig):
    """Noise stays within ±`bound`; `shared` chooses one noise vector [A] for all actions of a chunk."""

    name: Literal["steered"] = "steered"
    bound: float = 1.5
    shared: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.bound <= 0:
            raise ConfigError("policy.bound is too small.", found=self.bound, expected="above 0")

    def build(self, spec: Spec) -> "SteeredPolicy":
        """Return the policy for `spec`; raises `ConfigError` for a base that more than its first noise decides."""
        return SteeredPolicy(self, self.inner().build(spec))


class SteeredPolicy(AroundPolicy):
    """w = bound · tanh(mean f(s)); the frozen policy samples from w. Until `ready` it samples from what it is given."""

    ready: Tensor

    def __init__(self, config: SteeredConfig, base: Any):
        super().__init__(base)
        rows, dim = self.spec.chunk, self.spec.action.dim
        if tuple(base.noise_shape) not in ((rows, dim), (1, rows, dim)):
            raise ConfigError(
                "The first noise of this policy does not decide its sample.",
                found=f"{type(base).__name__} with noise {tuple(base.noise_shape)}",
                expected=f"noise [{rows}, {dim}]: flow, or diffusion with sampler ddim",
            )
        self.config = config
        self.size = dim if config.shared else rows * dim
        self.actor = mlp(state_size(base), config.width, config.depth, 2 * self.size)
        self.register_buffer("ready", torch.zeros(()))

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        mean, _ = self.gaussian(state_of(self.base, obs))
        chosen = self.config.bound * mean.tanh()
        return self.base.sample(obs, torch.where(self.ready > 0, self.whole(chosen), noise), prefix)

    def gaussian(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-deviation [B,W] of what is squashed to noise, for states [B,D]."""
        mean, log_std = self.actor(state).chunk(2, -1)
        return mean, log_std.clamp(*_LOG_STD)

    def whole(self, noise: Tensor) -> Tensor:
        """Return chosen noise [B,W] in the shape that the frozen policy takes."""
        rows = 1 if self.config.shared else self.spec.chunk
        chunk = noise.reshape(len(noise), rows, -1).expand(-1, self.spec.chunk, -1)
        return chunk.reshape(len(noise), *self.base.noise_shape)
