"""An action expert: a small transformer over action tokens that attends to each layer of a backbone's memory.

The structure of π0 (arXiv 2410.24164, appendix B) and, with `cross_every`, of SmolVLA (arXiv 2506.01844, section 3):
queries of the actions see the keys and values that the backbone's layer computed from pictures and text, and
those of the actions. What the backbone computed does not depend on the actions, so it is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.backbones.base import Backbone, Memory
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
        self.layers = nn.ModuleList(
            _Layer(config, backbone, cross=bool(config.cross_every and number % config.cross_every))
            for number in range(depth)
        )
        self.norm = _Norm(width, config.time == "adaln")
        # Without rotary positions the actions need places of their own.
        self.places = nn.Parameter(torch.randn(1, chunk, width) * 0.02) if self.theta is None else None

    def forward(self, chunk: Tensor, time: Tensor, memory: Memory, extra: Tensor | None = None) -> Tensor:
        """Return [B,K,A]; `extra` [B,M,W] are tokens before the actions that do not see them."""
        x, signal = self._enter(chunk, time)
        before = 0 if extra is None else extra.shape[1]
        x = x if extra is None else torch.cat([extra.to(x.dtype), x], 1)
        steps = torch.arange(x.shape[1], device=x.device)
        rotary = self._rotary(memory.next[:, None] + steps)
        local = self._rotary(steps[None])
        mask = self._visible(steps, before, memory)
        for number, layer in enumerate(self.layers):
            keys, values = memory.keys[number * self.stride], memory.values[number * self.stride]
            x = layer(x, keys, values, mask, local if layer.cross else rotary, signal)
        return self.outputs(self.norm(x[:, before:], signal)[0])

    def _enter(self, chunk: Tensor, time: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the action tokens [B,K,W] and what modulates the norms [B,1,W]."""
        x = self.inputs(chunk)
        x = x if self.places is None else x + self.places
        when = self.time(1 - time)[:, None].to(x.dtype)
        if self.config.time == "adaln":
            return x, F.silu(self.mix(when))
        return self.mix(torch.cat([x, when.expand(-1, x.shape[1], -1)], -1)), None

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return cosines and sines [B,1,N,d] of rotary positions, as the backbone rotates its keys."""
        if self.theta is None:
            return None
        half = torch.arange(0, self.head_dim, 2, device=positions.device) / self.head_dim
        angle = positions[..., None].float() / self.theta**half
        angle = torch.cat([angle, angle], -1)[:, None]
        return angle.cos(), angle.sin()

    def _visible(self, steps: Tensor, before: int, memory: Memory) -> Tensor:
        """Return which token sees which of memory and tokens, bool [B,1,N,M+N]."""
        order = (steps - before + 1).clamp(min=0)
        order = order if self.config.causal else order.clamp(max=1)
        own = (order[:, None] >= order[None]).expand(len(memory.mask), -1, -1)
        seen = memory.mask[:, None].expand(-1, len(steps), -1)
        return torch.cat([seen, own], 2)[:, None]


class _Layer(nn.Module):
    """Pre-norm attention to memory and tokens (or, `cross`, to the memory alone), and a gated feed-forward."""

    def __init__(self, config: ExpertConfig, backbone: Backbone, cross: bool):
        super().__init__()
        width, dim = config.width, backbone.head_dim
        queries, keys = backbone.heads * dim, backbone.groups * dim
        feed, adaptive = config.feed or 4 * width, config.time == "adaln"
        self.cross, self.head_dim = cross, dim
        self.activation = F.silu if config.activation == "silu" else _gelu
        self.norm, self.feed_norm = _Norm(width, adaptive), _Norm(width, adaptive)
        source = keys if cross else width
        self.query = nn.Linear(width, queries, bias=False)
        self.key, self.value = nn.Linear(source, keys, bias=False), nn.Linear(source, keys, bias=False)
        self.output = nn.Linear(queries, width, bias=False)
        self.gate, self.up = nn.Linear(width, feed, bias=False), nn.Linear(width, feed, bias=False)
        self.down = nn.Linear(feed, width, bias=False)

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        signal: Tensor | None,
    ) -> Tensor:
        """Map [B,N,W] given the memory's keys and values [B,G,M,d] and mask [B,1,N,M+N]."""
        y, gate = self.norm(x, signal)
        query = _rotate(self._split(self.query(y)), rotary)
        if self.cross:
            key, value = (
                self._split(part(past.transpose(1, 2).flatten(2)))
                for part, past in ((self.key, keys), (self.value, values))
            )
            mask = mask[..., : key.shape[2]]
        else:
            key = torch.cat([keys.to(y.dtype), _rotate(self._split(self.key(y)), rotary)], 2)
            value = torch.cat([values.to(y.dtype), self._split(self.value(y))], 2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
        x = x + gate * self.output(mixed.transpose(1, 2).flatten(2))
        y, gate = self.feed_norm(x, signal)
        return x + gate * self.down(self.activation(self.gate(y)) * self.up(y))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class _Norm(nn.Module):
    """RMS norm; adaptive, a signal scales and shifts what it gives and gates what is added (π0.5, adaRMS)."""

    def __init__(self, width: int, adaptive: bool):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width)) if not adaptive else None
        self.modulate = nn.Linear(width, 3 * width) if adaptive else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            with torch.no_grad():  # open gates: a network from scratch learns slowly through closed ones
                self.modulate.bias.copy_(torch.cat([torch.zeros(2 * width), torch.ones(width)]))

    def forward(self, x: Tensor, signal: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """Return the normed x [B,N,W] and the gate [B,1,W] of what is added."""
        y = F.rms_norm(x.float(), (x.shape[-1],), eps=1e-6).to(x.dtype)
        if self.modulate is None or signal is None:
            return y if self.scale is None else y * self.scale, 1.0
        scale, shift, gate = self.modulate(signal).chunk(3, -1)
        return y * (1 + scale) + shift, gate


def _rotate(x: Tensor, rotary: Sequence[Tensor] | None) -> Tensor:
    """Turn x [B,H,N,d] by its positions, halves paired as in Llama."""
    if rotary is None:
        return x
    cosine, sine = rotary
    first, second = x.chunk(2, -1)
    return (x * cosine + torch.cat([-second, first], -1) * sine).to(x.dtype)


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")
