"""Conditional flow matching over action chunks (arXiv 2210.02747, optimal-transport path, eq. 20 to 23).

A straight path x_t = (1-t)·noise + t·action; the network learns its velocity action - noise.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.common import ChunkConfig, ChunkPolicy, check_prefix, chunk_mean, pin_prefix, prefix_path
from robolearn.policies.goals import Condition, GoalConfig, Goals
from robolearn.policies.samplers import Solver, Velocity, guided_velocity, integrate, sum_of
from robolearn.spec import Spec

__all__ = ["FlowConfig", "FlowPolicy", "PrefixConfig", "prefix_weights", "sample_guided", "sample_times"]

TimeSampling = Literal["uniform", "logit_normal", "beta"]


@dataclass(frozen=True)
class PrefixConfig:
    """How sampling respects actions that are already committed.

    `hard` overwrites them along the path; `guided` steers by gradients (arXiv 2506.07339): of a
    prefix of P actions the first `frozen` count fully (all without it), the rest ever less. `warm` takes
    the prefix for the rest of the last chunk and samples anew only from time `begin` on, with the
    steps that are left (warm start of the real-time iteration scheme, arXiv 2508.05396).
    """

    name: Literal["hard", "guided", "warm"] = "hard"
    frozen: int | None = None
    strength: float = 5.0
    begin: float = 0.5

    def __post_init__(self):
        if not 0 <= self.begin < 1 or self.strength <= 0 or (self.frozen is not None and self.frozen < 0):
            raise ConfigError(
                "Prefix options are out of range.", found=self, expected="0 <= begin < 1, strength > 0, frozen >= 0"
            )


@dataclass(frozen=True)
class FlowConfig(ChunkConfig):
    """Flow matching; `steps` solver steps (one evaluation each with euler, two with midpoint and heun).

    Training draws `repeat` noises for each observation, which is encoded once: cheap beside pictures.
    """

    name: Literal["flow"] = "flow"
    repeat: int = 1
    steps: int = 4
    solver: Solver = "euler"
    times: TimeSampling = "uniform"
    prefix: PrefixConfig = PrefixConfig()
    goals: GoalConfig = field(default_factory=GoalConfig)

    def __post_init__(self):
        super().__post_init__()
        for name in ("steps", "repeat"):
            if getattr(self, name) < 1:
                raise ConfigError(f"policy.{name} is too small.", found=getattr(self, name), expected="1 or more")

    def build(self, spec: Spec) -> "FlowPolicy":
        """Return the policy for `spec`."""
        return FlowPolicy(self, spec)


class FlowPolicy(ChunkPolicy):
    """Velocity network with its training loss and its ODE sampler."""

    def __init__(self, config: FlowConfig, spec: Spec):
        super().__init__(config, spec)
        self.config = config
        self.goals = Goals(config.goals, self.spec)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the squared velocity error [B]."""
        count, repeat = len(batch["action"]), self.config.repeat
        action = batch["action"].repeat(repeat, 1, 1)
        noise = torch.randn_like(action)
        time = sample_times(self.config.times, len(action), action.device)
        x = torch.lerp(noise, action, time[:, None, None])
        encoded = self.encoder(self.goals.augment(batch, count, action.device))
        condition = tuple(group.repeat(repeat, 1, 1) for group in encoded)
        error = (self.network(x, time, condition).float() - (action - noise)).square()
        loss = chunk_mean(error.unflatten(0, (repeat, count)).mean(0), batch)
        return loss, {"velocity_mse": loss.detach().mean()}

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return chunks [B,K,A] from `noise` [B,K,A]."""
        check_prefix(self.spec, prefix)
        config, conditions = self.config, self.goals.conditions(obs, self.encoder, len(noise))
        if prefix is not None and config.prefix.name == "guided":
            with torch.inference_mode(False):  # gradients need ordinary tensors
                conditions = [(weight, tuple(group.clone() for group in groups)) for weight, groups in conditions]
            return sample_guided(self.velocity(conditions), noise, prefix, config.prefix, config.steps, config.solver)
        if prefix is not None and config.prefix.name == "warm":
            return self._sample_warm(self.velocity(conditions), noise, prefix)
        return integrate(self.velocity(conditions), noise, config.steps, config.solver, prefix_path(noise, prefix))

    def _sample_warm(self, velocity: Velocity, noise: Tensor, prefix: Tensor) -> Tensor:
        begin = self.config.prefix.begin
        steps = max(1, round(self.config.steps * (1 - begin)))
        held = prefix[:, -1:].expand(-1, self.spec.chunk - prefix.shape[1], -1)
        start = torch.lerp(noise, torch.cat([prefix, held], 1), begin)
        return integrate(velocity, start, steps, self.config.solver, begin=begin)

    def flow_field(self, obs: Batch, count: int) -> Velocity:
        """Return the velocity of `count` observations, a function of (x [B,K,A], time [B])."""
        return self.velocity(self.goals.conditions(obs, self.encoder, count))

    def velocity(self, conditions: Sequence[tuple[float, Condition]]) -> Velocity:
        """Return the velocity field of weighted `conditions`, a function of (x [B,K,A], time [B])."""

        def evaluate(x: Tensor, time: Tensor) -> Tensor:
            return sum_of([(weight, self.network(x, time, condition).float()) for weight, condition in conditions])

        return evaluate

    @property
    def chain_steps(self) -> int:
        """Steps of the solver."""
        return self.config.steps

    def transitions(self, obs: Batch, count: int, eta: float) -> Callable[[Tensor, int], tuple[Tensor, float]]:
        """Return the mean and the deviation of every Euler step, a function of (x [B,K,A], step).

        With `eta` the steps are those of dx = [v + g²/2 ∇log p_t] dt + g dW, g = eta·√(1-t), which has the flow's
        marginals; the score is -(x - t v)/(1-t) (arXiv 2505.05470, section 4.1). Raises `ConfigError` with
        another solver.
        """
        if self.config.solver != "euler":
            raise ConfigError("Noisy steps are Euler's.", found=self.config.solver, do="clone with policy.solver=euler")
        velocity, size = self.flow_field(obs, count), 1.0 / self.config.steps

        def move(x: Tensor, step: int) -> tuple[Tensor, float]:
            time = step * size
            slope = velocity(x, x.new_full((len(x),), time))
            mean = x + size * (slope - eta**2 / 2 * (x - time * slope))
            return mean, eta * math.sqrt((1 - time) * size)

        return move


def sample_guided(
    velocity: Velocity, noise: Tensor, prefix: Tensor, options: PrefixConfig, steps: int, solver: Solver
) -> Tensor:
    """Return chunks [B,K,A] from `noise` [B,K,A], steered towards `prefix` [B,P,A] by gradients of `velocity`."""
    overlap = prefix.shape[1]
    frozen = overlap if options.frozen is None else min(options.frozen, overlap)
    weights = prefix_weights(frozen, overlap, noise.shape[1], noise.device)
    with torch.inference_mode(False):
        target = pin_prefix(torch.zeros_like(noise), prefix)
    guided = guided_velocity(velocity, target, weights, options.strength)
    return pin_prefix(integrate(guided, noise, steps, solver), prefix[:, :frozen])


def sample_times(kind: TimeSampling, count: int, device: torch.device) -> Tensor:
    """Draw training times [count]: uniform, logit-normal (arXiv 2403.03206, eq. 19), or towards the noise.

    `beta` is t = 1 - u^(2/3), whose complement is Beta(1.5, 1) distributed (arXiv 2410.24164, appendix B).
    """
    if kind == "logit_normal":
        return torch.randn(count, device=device).sigmoid()
    uniform = torch.rand(count, device=device)
    return uniform if kind == "uniform" else 1 - uniform ** (2 / 3)


def prefix_weights(frozen: int, overlap: int, chunk: int, device: torch.device) -> Tensor:
    """Return how much each of `chunk` actions counts in guidance (arXiv 2506.07339, eq. 5)."""
    index = torch.arange(chunk, device=device, dtype=torch.float32)
    fade = ((overlap - index) / (overlap - frozen + 1)).clamp(0, 1)
    weights = fade * torch.expm1(fade) / (torch.e - 1)
    return torch.where(index < frozen, 1.0, weights) * (index < overlap)
