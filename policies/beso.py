"""BESO: score-based policies with few steps and guidance over goals (arXiv 2304.02532).

The denoiser D(x, σ) = c_skip·x + c_out·F(c_in·x, c_noise) is preconditioned as in EDM (arXiv 2206.00364,
table 1 and eq. 7); noise levels run from `sigma_max` down to `sigma_min`, then to zero.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.common import ChunkConfig, ChunkPolicy, check_prefix, chunk_mean, pin_prefix
from robolearn.policies.goals import Condition, GoalConfig, Goals
from robolearn.policies.samplers import Denoiser, Velocity, denoise, noise_levels, sum_of
from robolearn.spec import Spec

__all__ = ["BESOConfig", "BESOPolicy", "NoiseConfig"]


@dataclass(frozen=True)
class NoiseConfig:
    """Noise levels relative to normalised actions, whose deviation is `sigma_data`.

    Training draws log-logistic levels around `sigma_data` with `spread`, within the bounds.
    """

    sigma_min: float = 0.005
    sigma_max: float = 10.0
    sigma_data: float = 1.0
    spread: float = 0.5

    def __post_init__(self):
        if not 0 < self.sigma_min < self.sigma_max or self.sigma_data <= 0 or self.spread <= 0:
            raise ConfigError(
                "Noise levels are out of order.", found=self, expected="0 < sigma_min < sigma_max, positive sizes"
            )


@dataclass(frozen=True)
class BESOConfig(ChunkConfig):
    """Score-based policy; `solver` heun evaluates the network twice a step, except in the last."""

    name: Literal["beso"] = "beso"
    steps: int = 3
    solver: Literal["euler", "heun", "dpm_solver"] = "euler"
    schedule: Literal["exponential", "karras"] = "exponential"
    noise: NoiseConfig = NoiseConfig()
    goals: GoalConfig = field(default_factory=GoalConfig)

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1:
            raise ConfigError("A sampler needs at least one step.", found=self.steps, expected="1 or more")

    def build(self, spec: Spec) -> "BESOPolicy":
        """Return the policy for `spec`."""
        return BESOPolicy(self, spec)


class BESOPolicy(ChunkPolicy):
    """Preconditioned denoiser with its training loss and its samplers."""

    def __init__(self, config: BESOConfig, spec: Spec):
        super().__init__(config, spec)
        self.config = config
        self.goals = Goals(config.goals, self.spec)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted squared error of the denoiser [B] (EDM, eq. 2 with λ = 1/c_out²)."""
        action, noise = batch["action"], self.config.noise
        low, high = (
            1 / (1 + (noise.sigma_data / sigma) ** (1 / noise.spread)) for sigma in (noise.sigma_min, noise.sigma_max)
        )
        quantile = low + (high - low) * torch.rand(len(action), device=action.device)
        sigma = noise.sigma_data * (quantile / (1 - quantile)) ** noise.spread
        noisy = action + sigma[:, None, None] * torch.randn_like(action)
        condition = self.encoder(self.goals.augment(batch, len(action), action.device))
        error = (self._denoise(noisy, sigma, condition) - action).square()
        weight = (sigma**2 + noise.sigma_data**2) / (sigma * noise.sigma_data) ** 2
        loss = chunk_mean(error, batch) * weight
        return loss, {"denoising_loss": loss.detach().mean()}

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return chunks [B,K,A] from `noise` [B,K,A]."""
        check_prefix(self.spec, prefix)
        options = self.config.noise
        levels = noise_levels(self.config.schedule, options.sigma_min, options.sigma_max, self.config.steps)
        denoiser = self.denoiser(self.goals.conditions(obs, self.encoder, len(noise)))

        def pin(x: Tensor, sigma: float) -> Tensor:
            return x if prefix is None else pin_prefix(x, prefix + sigma * noise[:, : prefix.shape[1]])

        return pin_prefix(denoise(denoiser, noise * levels[0], levels, self.config.solver, pin), prefix)

    def flow_field(self, obs: Batch, count: int) -> Velocity:
        """Return the velocity of the straight path t·action + (1-t)·noise, where σ = (1-t)/t."""
        conditions, options = self.goals.conditions(obs, self.encoder, count), self.config.noise

        def evaluate(x: Tensor, time: Tensor) -> Tensor:
            time = time.clamp(1 / (1 + options.sigma_max), 1 / (1 + options.sigma_min))
            sigma, noisy = (1 - time) / time, x / time[:, None, None]
            clean = sum_of([(weight, self._denoise(noisy, sigma, condition)) for weight, condition in conditions])
            return clean - (noisy - clean) / sigma[:, None, None]

        return evaluate

    def denoiser(self, conditions: list[tuple[float, Condition]]) -> Denoiser:
        """Return D for weighted `conditions`, a function of (x [B,K,A], σ)."""

        def evaluate(x: Tensor, sigma: float) -> Tensor:
            level = x.new_full((len(x),), sigma)
            return sum_of([(weight, self._denoise(x, level, condition)) for weight, condition in conditions])

        return evaluate

    def _denoise(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        data = self.config.noise.sigma_data
        total = (sigma**2 + data**2)[:, None, None]
        level = (sigma / data).log() / math.log(self.config.noise.sigma_max / self.config.noise.sigma_min)
        output = self.network(x / total.sqrt(), level, condition).float()
        return data**2 / total * x + sigma[:, None, None] * data / total.sqrt() * output
