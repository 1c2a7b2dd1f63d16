"""Denoising diffusion over action chunks (Diffusion Policy, arXiv 2303.04137; DDPM, arXiv 2006.11239).

x_k = √ᾱ_k·action + √(1-ᾱ_k)·ε for levels k = 0 … train_steps-1; the network predicts ε, the action, or
v = √ᾱ·ε - √(1-ᾱ)·action (arXiv 2202.00512, eq. 10).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.common import ChunkConfig, ChunkPolicy, Norm, check_prefix, chunk_mean, pin_prefix
from robolearn.policies.samplers import Betas, Velocity, alpha_bars, diffusion_steps
from robolearn.spec import Spec

__all__ = ["DiffusionConfig", "DiffusionPolicy", "SamplerConfig"]

Prediction = Literal["epsilon", "sample", "v"]


@dataclass(frozen=True)
class SamplerConfig:
    """`unipc` is diffusers' own scheduler; the others give the numbers of diffusers' schedulers of their name."""

    name: Literal["ddpm", "ddim", "dpm_solver", "unipc"] = "ddim"
    steps: int = 10


@dataclass(frozen=True)
class DiffusionConfig(ChunkConfig):
    """Diffusion; `clip` bounds the predicted action, which needs actions scaled to [-1, 1]."""

    name: Literal["diffusion"] = "diffusion"
    action_norm: Norm = "min_max"
    train_steps: int = 100
    betas: Betas = "squaredcos"
    prediction: Prediction = "epsilon"
    clip: bool = True
    sampler: SamplerConfig = SamplerConfig()

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.sampler.steps <= self.train_steps:
            raise ConfigError(
                "A sampler cannot take more steps than training had.",
                found=f"sampler.steps {self.sampler.steps}, train_steps {self.train_steps}",
                expected="1 <= sampler.steps <= train_steps",
            )
        if self.sampler.name in ("ddpm", "ddim") and self.sampler.steps == 1 < self.train_steps:
            raise ConfigError(
                "A single step of this sampler would begin at the lowest level, from pure noise.",
                found=f"sampler {self.sampler.name} with 1 step",
                expected="2 steps or more, or sampler dpm_solver",
            )
        if self.clip and (self.action_norm not in ("min_max", "quantile") or self.spline):
            raise ConfigError(
                "Clipping predictions to [-1, 1] needs actions scaled to it.",
                found=f"clip with action_norm '{self.action_norm}'" + (" of control points" if self.spline else ""),
                expected="action_norm min_max or quantile, and no spline, whose control points lie beyond",
                do="set policy.clip=false or policy.action_norm=min_max",
            )

    def build(self, spec: Spec) -> "DiffusionPolicy":
        """Return the policy for `spec`."""
        return DiffusionPolicy(self, spec)


class DiffusionPolicy(ChunkPolicy):
    """Denoising network with its training loss and its samplers."""

    levels: Tensor

    def __init__(self, config: DiffusionConfig, spec: Spec):
        super().__init__(config, spec)
        self.config = config
        self.register_buffer("levels", torch.tensor(alpha_bars(config.betas, config.train_steps), dtype=torch.float32))

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The first chunk and one more for every step that adds noise."""
        fresh = self.config.sampler.steps - 1 if self.config.sampler.name == "ddpm" else 0
        return (1 + fresh, self.spec.chunk, self.spec.action.dim)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the squared error [B] of the prediction."""
        action = batch["action"]
        noise = torch.randn_like(action)
        level = torch.randint(self.config.train_steps, (len(action),), device=action.device)
        bar = self.levels[level][:, None, None]
        signal, spread = bar.sqrt(), (1 - bar).sqrt()
        output = self._network(signal * action + spread * noise, level, self.encoder(batch))
        target = {"epsilon": noise, "sample": action, "v": signal * noise - spread * action}[self.config.prediction]
        loss = chunk_mean((output - target).square(), batch)
        return loss, {f"{self.config.prediction}_mse": loss.detach().mean()}

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return chunks [B,K,A] from `noise` [B,N,K,A]: where sampling starts, then what its steps add."""
        check_prefix(self.spec, prefix)
        condition = self.encoder(obs)
        if self.config.sampler.name == "unipc":
            return self._sample_unipc(condition, noise[:, 0], prefix)
        config, x = self.config, noise[:, 0]
        before = torch.zeros_like(x)
        for i, step in enumerate(
            diffusion_steps(config.sampler.name, config.betas, config.train_steps, config.sampler.steps)
        ):
            x = self._pin(x, noise[:, 0], prefix, step.alpha_bar)
            level = torch.full((len(x),), step.level, device=x.device)
            clean, epsilon = self._clean(x, self._network(x, level, condition), step.alpha_bar)
            x = step.x * x + step.clean * clean + step.noise * epsilon + step.before * before
            if step.fresh:
                x = x + step.fresh * noise[:, i + 1]
            before = clean
        return pin_prefix(x, prefix)

    def flow_field(self, obs: Batch, count: int) -> Velocity:
        """Return the velocity of the straight path t·action + (1-t)·noise, from the level of the same noise."""
        condition = self.encoder(obs)
        times = self.levels.sqrt() / (self.levels.sqrt() + (1 - self.levels).sqrt())  # falls with the level

        def evaluate(x: Tensor, time: Tensor) -> Tensor:
            level = (time[:, None] - times).abs().argmin(1)
            bar = self.levels[level][:, None, None]
            path = (time**2 + (1 - time) ** 2).sqrt()[:, None, None]
            noisy = x / path
            clean, epsilon = self._clean(noisy, self._network(noisy, level, condition), bar)
            return clean - epsilon

        return evaluate

    @property
    def chain_steps(self) -> int:
        """Steps of the sampler."""
        return self.config.sampler.steps

    def transitions(self, obs: Batch, count: int, eta: float) -> Callable[[Tensor, int], tuple[Tensor, float]]:
        """Return the mean and the deviation of every step, a function of (x [B,K,A], step).

        `eta` is DDIM's σ as a share of DDPM's (arXiv 2010.02502, eq. 16); DDPM has its own noise, whatever
        `eta`. Raises `ConfigError` for samplers whose steps look back further.
        """
        config = self.config
        if config.sampler.name not in ("ddpm", "ddim"):
            raise ConfigError("Noisy steps need another sampler.", found=config.sampler.name, expected="ddim or ddpm")
        condition = self.encoder(obs)
        plan = diffusion_steps(config.sampler.name, config.betas, config.train_steps, config.sampler.steps, eta)

        def move(x: Tensor, step: int) -> tuple[Tensor, float]:
            at = plan[step]
            level = torch.full((len(x),), at.level, device=x.device)
            clean, epsilon = self._clean(x, self._network(x, level, condition), at.alpha_bar)
            return at.x * x + at.clean * clean + at.noise * epsilon, at.fresh

        return move

    def _network(self, x: Tensor, level: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        return self.network(x, level / self.config.train_steps, condition).float()

    def _clean(self, x: Tensor, output: Tensor, bar: float | Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted action and noise at ᾱ = `bar`."""
        signal, spread = bar**0.5, (1 - bar) ** 0.5
        if self.config.prediction == "epsilon":
            clean, epsilon = (x - spread * output) / signal, output
        elif self.config.prediction == "sample":
            clean, epsilon = output, (x - signal * output) / spread
        else:
            clean, epsilon = signal * x - spread * output, signal * output + spread * x
        return (clean.clamp(-1, 1) if self.config.clip else clean), epsilon

    def _pin(self, x: Tensor, noise: Tensor, prefix: Tensor | None, bar: float) -> Tensor:
        if prefix is None:
            return x
        noisy = math.sqrt(bar) * prefix + math.sqrt(1 - bar) * noise[:, : prefix.shape[1]]
        return pin_prefix(x, noisy)

    def _sample_unipc(self, condition: tuple[Tensor, ...], x: Tensor, prefix: Tensor | None) -> Tensor:
        # Seconds to import, and only this sampler needs it.
        from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

        scheduler = UniPCMultistepScheduler(
            num_train_timesteps=self.config.train_steps,
            beta_schedule={"squaredcos": "squaredcos_cap_v2", "linear": "linear"}[self.config.betas],
            prediction_type="sample",
        )
        scheduler.set_timesteps(self.config.sampler.steps)
        noise, bars = x, alpha_bars(self.config.betas, self.config.train_steps)
        for level in scheduler.timesteps.tolist():
            x = self._pin(x, noise, prefix, bars[level])
            index = torch.full((len(x),), level, device=x.device)
            clean, _ = self._clean(x, self._network(x, index, condition), bars[level])
            (x,) = scheduler.step(clean, level, x, return_dict=False)
        return pin_prefix(x, prefix)
