"""MeanFlow: one evaluation per chunk (arXiv 2505.13447), with the dispersive loss of MP1 (arXiv 2507.10543).

The network learns the average velocity u(x, t, r) between the times t and r > t, so that
x_r = x_t + (r - t)·u and one step from t=0 to r=1 samples. With v = action - noise, differentiating
(r - t)·u = ∫ v ds by t gives the target u = v + (r - t)·du/dt, where du/dt is the derivative along (v, 1, 0)
(eq. 6 there, with time running from noise to data).
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.common import ChunkConfig, ChunkPolicy, check_prefix, chunk_mean, prefix_path
from robolearn.policies.goals import Condition, GoalConfig, Goals
from robolearn.policies.samplers import jump, sum_of
from robolearn.spec import Spec

__all__ = ["MeanFlowConfig", "MeanFlowPolicy"]


@dataclass(frozen=True)
class MeanFlowConfig(ChunkConfig):
    """`spans` is the part of a batch that learns t < r (the rest learns the velocity itself).

    `times` are drawn uniformly, or as in table 1d, which hardly visits the noise (t=0) where one step starts.
    `power` p weights a sample by 1/(error² + 1e-3)^p (eq. 22); `dispersive` scales the loss that spreads
    the features of the network's middle block.
    """

    name: Literal["meanflow"] = "meanflow"
    steps: int = 1
    spans: float = 0.75
    times: Literal["uniform", "logit_normal"] = "uniform"
    power: float = 0.5
    dispersive: float = 0.0
    goals: GoalConfig = field(default_factory=GoalConfig)

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1 or not 0 < self.spans <= 1 or not 0 <= self.power <= 1 or self.dispersive < 0:
            raise ConfigError(
                "MeanFlow options are out of range.",
                found=f"steps {self.steps}, spans {self.spans}, power {self.power}, dispersive {self.dispersive}",
                expected="steps >= 1, 0 < spans <= 1, 0 <= power <= 1, dispersive >= 0",
            )

    def build(self, spec: Spec) -> "MeanFlowPolicy":
        """Return the policy for `spec`."""
        return MeanFlowPolicy(self, spec)


class MeanFlowPolicy(ChunkPolicy):
    """Average-velocity network with its training loss and its one-step sampler."""

    def __init__(self, config: MeanFlowConfig, spec: Spec):
        super().__init__(config, spec, times=2)
        self.config = config
        self.goals = Goals(config.goals, self.spec)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted squared error of the average velocity [B]."""
        action = batch["action"]
        noise = torch.randn_like(action)
        velocity = action - noise
        start, stop = self._draw_times(len(action), action.device)
        x = torch.lerp(noise, action, start[:, None, None])
        condition = self.encoder(self.goals.augment(batch, len(action), action.device))
        with _Capture(self.blocks()[len(self.blocks()) // 2], bool(self.config.dispersive)) as captured:
            average = self._average(x, start, stop, condition)
        target = self._target(x, velocity, start, stop, condition)
        error = chunk_mean((average - target).square(), batch)
        loss = error / (error.detach() + 1e-3) ** self.config.power
        if self.config.dispersive:
            loss = loss + self.config.dispersive * _dispersion(captured.value.flatten(1))
        return loss, {"average_velocity_mse": error.detach().mean()}

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return chunks [B,K,A] from `noise` [B,K,A]."""
        check_prefix(self.spec, prefix)
        conditions = self.goals.conditions(obs, self.encoder, len(noise))

        def average(x: Tensor, start: Tensor, stop: Tensor) -> Tensor:
            return sum_of([(weight, self._average(x, start, stop, condition)) for weight, condition in conditions])

        return jump(average, noise, self.config.steps, prefix_path(noise, prefix))

    def _average(self, x: Tensor, start: Tensor, stop: Tensor, condition: Condition) -> Tensor:
        return self.network(x, _SLOW * torch.stack([start, stop - start], 1), condition).float()

    def _target(self, x: Tensor, velocity: Tensor, start: Tensor, stop: Tensor, condition: Condition) -> Tensor:
        """Return u = v + (r - t)·du/dt; only the first part of the batch has r > t and pays for du/dt."""
        count = self._span_count(len(x))
        part = tuple(group[:count].detach() for group in condition)
        # The derivative is small against its operands: full precision, and kernels that have one.
        full = torch.autocast(x.device.type, enabled=False)
        with torch.no_grad(), full, nn.attention.sdpa_kernel(_MATH), forward_ad.dual_level():
            state = forward_ad.make_dual(x[:count], velocity[:count])
            time = forward_ad.make_dual(start[:count], torch.ones_like(start[:count]))
            slope = forward_ad.unpack_dual(self._average(state, time, stop[:count], part)).tangent
        target = velocity.clone()
        target[:count] += (stop - start)[:count, None, None] * slope
        return target

    def _draw_times(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw t <= r [B], sorted from two draws; r = t beyond the first part."""
        if self.config.times == "uniform":
            draws = torch.rand(2, count, device=device)
        else:
            draws = (torch.randn(2, count, device=device) + 0.4).sigmoid()
        start, stop = draws.sort(0).values
        spans = torch.arange(count, device=device) < self._span_count(count)
        return start, torch.where(spans, stop, start)

    def _span_count(self, count: int) -> int:
        return max(1, round(count * self.config.spans))


_SLOW = 0.05  # of the time features: their fast ones make du/dt large and its training unstable
_MATH = [nn.attention.SDPBackend.MATH]


def _dispersion(features: Tensor) -> Tensor:
    """Return log mean exp(-|z_i - z_j|²/D) over the batch (arXiv 2506.09027, eq. 6, squared distances)."""
    distances = torch.cdist(features.float(), features.float()).square() / features.shape[1]
    return torch.logsumexp(-distances.flatten(), 0) - math.log(distances.numel())


class _Capture:
    """Keeps the output of a module while it is open."""

    def __init__(self, module: nn.Module, active: bool):
        self._module, self._active = module, active
        self.value: Tensor = torch.empty(0)

    def __enter__(self) -> "_Capture":
        if self._active:
            self._handle = self._module.register_forward_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        if self._active:
            self._handle.remove()

    def _keep(self, module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        self.value = output if isinstance(output, Tensor) else output[0]
