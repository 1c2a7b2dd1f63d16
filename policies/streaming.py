"""Streaming diffusion: a rolling chunk whose later actions are noisier (arXiv 2406.04806).

The chunk has N = chunk / stride segments. After a decision segment j has reached time 1 - j/N; the first is
done and is executed. The next decision drops it, appends noise and moves every segment on by 1/N: it costs N
times less than sampling from noise. What `sample` returns is the whole rolling chunk, so the rest of the last
one, given back as the prefix, is all the state there is.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robolearn.contracts import Batch
from robolearn.errors import ConfigError, SpecError
from robolearn.policies.common import ChunkConfig, ChunkPolicy, check_prefix, chunk_mean
from robolearn.spec import Spec

__all__ = ["StreamingConfig", "StreamingPolicy"]


@dataclass(frozen=True)
class StreamingConfig(ChunkConfig):
    """`stride` actions are executed per decision (eval.execute), `steps` evaluations move a segment on.

    Evaluate with eval.continuity=rest. Actions must not be relative to the observation, because the
    unfinished part of a chunk is kept from decision to decision.
    """

    name: Literal["streaming"] = "streaming"
    stride: int = 4
    steps: int = 2

    def __post_init__(self):
        super().__post_init__()
        if self.stride < 1 or self.chunk % self.stride or self.steps < 1:
            raise ConfigError(
                "A rolling chunk is made of whole segments.",
                found=f"chunk {self.chunk}, stride {self.stride}, steps {self.steps}",
                expected="a chunk that is a multiple of stride, and steps >= 1",
            )
        if self.spline:
            raise ConfigError("Control points cannot roll.", found="spline", do="leave policy.spline out")

    @property
    def segments(self) -> int:
        """Segments of a chunk."""
        return self.chunk // self.stride

    def build(self, spec: Spec) -> "StreamingPolicy":
        """Return the policy for `spec`."""
        return StreamingPolicy(self, spec)


class StreamingPolicy(ChunkPolicy):
    """Velocity network that is told the time of every segment."""

    def __init__(self, config: StreamingConfig, spec: Spec):
        super().__init__(config, spec, times=config.segments)
        self.config = config

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the squared velocity error [B] along the ramp: half anywhere, half where it rolls."""
        action, count = batch["action"], len(batch["action"])
        noise = torch.randn_like(action)
        place = torch.rand(count, device=action.device)
        rolling = torch.arange(count, device=action.device) % 2 == 0
        time = self._times(torch.where(rolling, 1 - place / self.config.segments, place))
        each = time.repeat_interleave(self.config.stride, 1)[..., None]
        velocity = self.network(torch.lerp(noise, action, each), time, self.encoder(batch)).float()
        moving = ((each > 0) & (each < 1)).float()  # finished and untouched segments teach nothing
        weight = moving / moving.mean((1, 2), keepdim=True).clamp(min=1e-3)
        loss = chunk_mean((velocity - (action - noise)).square() * weight, batch)
        return loss, {"velocity_mse": loss.detach().mean()}

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return the rolling chunk [B,K,A] from `noise` [B,K,A] and the rest [B,K-stride,A] of the last one."""
        check_prefix(self.spec, prefix)
        condition, config = self.encoder(obs), self.config
        if prefix is None:
            x, start, steps = noise, 0.0, config.steps * config.segments
        else:
            kept = config.chunk - config.stride
            if prefix.shape[1] != kept:
                raise SpecError(
                    "A rolling chunk needs the rest of the last one.",
                    found=f"{prefix.shape[1]} actions",
                    expected=f"{kept}: chunk - stride",
                    do="set eval.execute to the stride and eval.continuity=rest",
                )
            x, start, steps = torch.cat([prefix, noise[:, kept:]], 1), 1 - 1 / config.segments, config.steps
        size = (1 - start) / steps
        for step in range(steps):
            before, after = (self._times(x.new_full((len(x),), start + (step + i) * size)) for i in (0, 1))
            move = (after - before).repeat_interleave(config.stride, 1)[..., None]
            x = x + move * self.network(x, before, condition).float()
        return x

    def _times(self, place: Tensor) -> Tensor:
        """Return the time of every segment [B,N] at `place` [B] on the ramp, 0 all noise, 1 first segment done."""
        lag = torch.arange(self.config.segments, device=place.device) / self.config.segments
        return (place[:, None] - lag).clamp(0, 1)
