"""An action expert: a small transformer over action tokens that attends to each layer of a backbone's memory.

The structure of π0 (arXiv 2410.24164, appendix B) and, with `cross_every`, of SmolVLA (arXiv 2506.01844, section 3):
queries of the actions see the keys and values that the backbone's layer computed from pictures and text, and
those of the actions. What the backbone computed does not depend on the actions, so it is computed once.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.backbones.base import Backbone, Memory
from robolearn.nets.decoder import Layer, LayerSizes, Norm, rotary
from robolearn.nets.layers import TimeEmbedding

__all__ = ["ActionExpert", "ExpertConfig"]


@dataclass(frozen=True)
class ExpertConfig:
    """`width` and `feed` (0: four times the width); `depth` 0 is one layer for each of the backbone's.

    With `cross_every` n every n-th layer attends to itself and the memory, the others to the memory alone,
    through maps of their own; 0: all attend to both. `time` enters by concatenation (π0) or by adaptive
    norms (π0.5). `causal` lets an action see only earlier ones (SmolVLA).
    """

    width: int = 256
    feed: int = 0
    depth: int = 0
    cross_every: int = 0
    time: Literal["concat", "adaln"] = "concat"
    causal: bool = False
    activation: Literal["silu", "gelu"] = "silu"
    eps: float = 1e-6  # of the norms

    def __post_init__(self):
        if self.width < 2 or self.width % 2 or self.feed < 0 or self.depth < 0 or self.cross_every < 0:
            raise ConfigError("An expert of this size cannot be built.", found=self, expected="an even width")


class ActionExpert(nn.Module):
    """Maps (chunk [B,K,A], time [B], memory, extra tokens) to [B,K,A]; t=0 is noise."""

    def __init__(self, config: ExpertConfig, backbone: Backbone, chunk: int, dim: int):
        super().__init__()
        depth = config.depth or backbone.depth
        if backbone.depth % depth:
            raise ConfigError(
                "The layers of the expert do not divide those of the backbone.",
                found=f"{depth} of {backbone.depth}",
                expected=f"a divisor of {backbone.depth}",
            )
        width = config.width
        self.config, self.chunk, self.stride = config, chunk, backbone.depth // depth
        self.head_dim, self.theta = backbone.head_dim, backbone.rope_theta
        self.inputs, self.outputs = nn.Linear(dim, width), nn.Linear(width, dim)
        # Periods from 4 ms to 4 s of a flow's second, as in openpi.
        self.time = TimeEmbedding(width, scale=2 * torch.pi / 4e-3, max_period=1e3)
        given = width if config.time == "adaln" else 2 * width
        self.mix = nn.Sequential(nn.Linear(given, width), nn.SiLU(), nn.Linear(width, width))
        adaptive = config.time == "adaln"
        sizes = LayerSizes(
            *(width, backbone.heads, backbone.groups, backbone.head_dim, config.feed or 4 * width),
            activation=config.activation,
            adaptive=adaptive,
            eps=config.eps,
        )
        self.layers = nn.ModuleList(
            Layer(sizes, cross=bool(config.cross_every and number % config.cross_every)) for number in range(depth)
        )
        self.norm = Norm(width, adaptive, config.eps)
        # Without rotary positions the actions need places of their own.
        self.places = nn.Parameter(torch.randn(1, chunk, width) * 0.02) if self.theta is None else None

    def forward(self, chunk: Tensor, time: Tensor, memory: Memory, extra: Tensor | None = None) -> Tensor:
        """Return [B,K,A]; `extra` [B,M,W] are tokens before the actions that do not see them.

        Of a memory that stopped at an earlier layer only the layers that have one run.
        """
        x, signal = self._enter(chunk, time)
        before = 0 if extra is None else extra.shape[1]
        x = x if extra is None else torch.cat([extra.to(x.dtype), x], 1)
        steps = torch.arange(x.shape[1], device=x.device)
        turn = rotary(memory.next[:, None] + steps, self.head_dim, self.theta)
        local = rotary(steps[None], self.head_dim, self.theta)
        mask = self._visible(steps, before, memory)
        for number, layer in enumerate(self.layers[: -(-len(memory.keys) // self.stride)]):
            past = (memory.keys[number * self.stride], memory.values[number * self.stride])
            x = layer(x, past, mask, local if layer.cross else turn, signal)[0]
        return self.outputs(self.norm(x[:, before:], signal)[0])

    def _enter(self, chunk: Tensor, time: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the action tokens [B,K,W] and what modulates the norms [B,1,W]."""
        x = self.inputs(chunk)
        x = x if self.places is None else x + self.places
        when = self.time(1 - time)[:, None].to(x.dtype)
        if self.config.time == "adaln":
            return x, F.silu(self.mix(when))
        return self.mix(torch.cat([x, when.expand(-1, x.shape[1], -1)], -1)), None

    def _visible(self, steps: Tensor, before: int, memory: Memory) -> Tensor:
        """Return which token sees which of memory and tokens, bool [B,1,N,M+N]."""
        order = (steps - before + 1).clamp(min=0)
        order = order if self.config.causal else order.clamp(max=1)
        own = (order[:, None] >= order[None]).expand(len(memory.mask), -1, -1)
        seen = memory.mask[:, None].expand(-1, len(steps), -1)
        return torch.cat([seen, own], 2)[:, None]
