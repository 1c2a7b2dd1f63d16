"""One pre-norm decoder layer with rotary positions, grouped keys and a gated feed-forward, as in Llama and Gemma.

It attends to its tokens and to remembered keys and values alike, which is all that an action expert and a
prefix cache need.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.nets.layers import attend

__all__ = ["Layer", "LayerSizes", "Norm", "rotary"]


@dataclass(frozen=True)
class LayerSizes:
    """`heads` queries share the keys and values of `groups`; each is `head_dim` wide."""

    width: int
    heads: int
    groups: int
    head_dim: int
    feed: int
    activation: Literal["silu", "gelu"] = "silu"
    adaptive: bool = False
    eps: float = 1e-6  # of the norms


class Layer(nn.Module):
    """Attention to memory and tokens, then a feed-forward; `cross` attends to the memory alone, through own maps."""

    def __init__(self, sizes: LayerSizes, cross: bool = False):
        super().__init__()
        width, queries, keys = sizes.width, sizes.heads * sizes.head_dim, sizes.groups * sizes.head_dim
        self.cross, self.head_dim = cross, sizes.head_dim
        self.activation: Callable[[Tensor], Tensor] = F.silu if sizes.activation == "silu" else _gelu
        self.norm, self.feed_norm = (Norm(width, sizes.adaptive, sizes.eps) for _ in range(2))
        source = keys if cross else width
        self.query = nn.Linear(width, queries, bias=False)
        self.key, self.value = nn.Linear(source, keys, bias=False), nn.Linear(source, keys, bias=False)
        self.output = nn.Linear(queries, width, bias=False)
        self.gate, self.up = nn.Linear(width, sizes.feed, bias=False), nn.Linear(width, sizes.feed, bias=False)
        self.down = nn.Linear(sizes.feed, width, bias=False)

    def forward(
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor] | None,
        mask: Tensor,
        turn: Sequence[Tensor] | None,
        signal: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map [B,N,W] given remembered keys and values [B,G,M,d] and mask [B,1,N,M+N].

        Returns the states and the keys and values of memory and tokens.
        """
        y, gate = self.norm(x, signal)
        query = _rotate(self._split(self.query(y)), turn)
        if self.cross and memory is not None:
            key, value = (
                self._split(part(past.transpose(1, 2).flatten(2)))
                for part, past in ((self.key, memory[0]), (self.value, memory[1]))
            )
            mask = mask[..., : key.shape[2]]
        else:
            key, value = _rotate(self._split(self.key(y)), turn), self._split(self.value(y))
            if memory is not None:
                key, value = (
                    torch.cat([past.to(own.dtype), own], 2) for past, own in zip(memory, (key, value), strict=True)
                )
        mixed = attend(query, key, value, mask)
        x = x + gate * self.output(mixed.transpose(1, 2).flatten(2))
        y, gate = self.feed_norm(x, signal)
        return x + gate * self.down(self.activation(self.gate(y)) * self.up(y)), key, value

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class Norm(nn.Module):
    """RMS norm; adaptive, a signal scales and shifts what it gives and gates what is added (π0.5)."""

    def __init__(self, width: int, adaptive: bool = False, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(width)) if not adaptive else None
        self.modulate = nn.Linear(width, 3 * width) if adaptive else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            with torch.no_grad():  # open gates: a network from scratch learns slowly through closed ones
                self.modulate.bias.copy_(torch.cat([torch.zeros(2 * width), torch.ones(width)]))

    def forward(self, x: Tensor, signal: Tensor | None = None) -> tuple[Tensor, Tensor | float]:
        """Return the normed x [B,N,W] and the gate [B,1,W] of what is added."""
        y = F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype)
        if self.modulate is None or signal is None:
            return y if self.scale is None else y * self.scale, 1.0
        scale, shift, gate = self.modulate(signal).chunk(3, -1)
        return y * (1 + scale) + shift, gate


def rotary(positions: Tensor, head_dim: int, theta: float | None) -> tuple[Tensor, Tensor] | None:
    """Return cosines and sines [B,1,N,d] of positions [B,N]; none without a base `theta`."""
    if theta is None:
        return None
    half = torch.arange(0, head_dim, 2, device=positions.device) / head_dim
    angle = positions[..., None].float() / theta**half
    angle = torch.cat([angle, angle], -1)[:, None]
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, turn: Sequence[Tensor] | None) -> Tensor:
    """Turn x [B,H,N,d] by its positions, halves paired as in Llama."""
    if turn is None:
        return x
    cosine, sine = turn
    first, second = x.chunk(2, -1)
    return (x * cosine + torch.cat([-second, first], -1) * sine).to(x.dtype)


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")
