"""Encoder and decoder layers with positions added to queries and keys (DETR, arXiv 2005.12872, section A.3)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.layers import attend

__all__ = ["DecoderLayer", "EncoderLayer", "LayerConfig", "encode", "grid_positions", "line_positions"]


@dataclass(frozen=True)
class LayerConfig:
    """Sizes of every layer; norms come after the skip connections."""

    width: int = 256
    heads: int = 8
    feed_width: int = 1024
    dropout: float = 0.1

    def __post_init__(self):
        whole = self.width > 0 and self.heads > 0 and self.width % self.heads == self.width % 4 == 0
        if not whole or self.feed_width < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(
                "Layers of this size cannot be built.", found=self, expected="a width that heads and 4 divide"
            )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: LayerConfig):
        super().__init__()
        self.attention = _Attention(config.width, config.heads, config.dropout, batch_first=True)
        self.feed = _Feed(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, position: Tensor, pad: Tensor | None = None) -> Tensor:
        """Map tokens [B,N,D] at `position` [1,N,D]; tokens where `pad` [B,N] are not attended to."""
        first, second = self.norms
        query = x + position
        mixed = self.attention(query, query, x, pad)
        x = first(x + self.dropout(mixed))
        return second(x + self.dropout(self.feed(x)))


class DecoderLayer(nn.Module):
    """Self-attention, attention to a memory, feed-forward."""

    def __init__(self, config: LayerConfig):
        super().__init__()
        self.attention = _Attention(config.width, config.heads, config.dropout, batch_first=True)
        self.cross = _Attention(config.width, config.heads, config.dropout, batch_first=True)
        self.feed = _Feed(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, position: Tensor, memory: Tensor, memory_position: Tensor) -> Tensor:
        """Map queries [B,K,D] given `memory` [B,N,D]."""
        first, second, third = self.norms
        query = x + position
        mixed = self.attention(query, query, x)
        x = first(x + self.dropout(mixed))
        mixed = self.cross(x + position, memory + memory_position, memory)
        x = second(x + self.dropout(mixed))
        return third(x + self.dropout(self.feed(x)))


class _Attention(nn.MultiheadAttention):
    """PyTorch's module, and so the published names of its weights, without weights among its results."""

    def forward(  # ty: ignore[incompatible-method-override]  # no weights, no masks but one
        self, query: Tensor, key: Tensor, value: Tensor, pad: Tensor | None = None
    ) -> Tensor:
        """Map queries [B,N,D], keys and values [B,M,D]; keys where `pad` [B,M] are not attended to."""
        maps = zip((query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        heads = (F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)) for x, weight, bias in maps)
        mask = None if pad is None else ~pad[:, None, None]
        dropout = self.dropout if self.training else 0.0
        mixed = attend(*(head.transpose(1, 2) for head in heads), mask=mask, dropout=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class _Feed(nn.Module):
    def __init__(self, config: LayerConfig):
        super().__init__()
        self.first = nn.Linear(config.width, config.feed_width)
        self.second = nn.Linear(config.feed_width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(F.relu(self.first(x))))


def encode(layers: nn.ModuleList, x: Tensor, position: Tensor, pad: Tensor | None = None) -> Tensor:
    """Run encoder layers one after the other."""
    for layer in layers:
        x = layer(x, position, pad)
    return x


def line_positions(count: int, width: int) -> Tensor:
    """Return interleaved sine and cosine positions [1,count,width] (arXiv 1706.03762, section 3.5)."""
    frequency = 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(count, dtype=torch.float64)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).float()[None]


def grid_positions(rows: int, columns: int, width: int) -> Tensor:
    """Return positions [1, rows·columns, width] of a feature map: rows in the first half, columns in the second."""
    frequency = 10000 ** (-torch.arange(0, width // 2, 2, dtype=torch.float32) / (width // 2))

    def features(count: int) -> Tensor:
        place = torch.arange(1, count + 1, dtype=torch.float32)
        angle = (place / (count + 1e-6) * 2 * math.pi)[:, None] * frequency
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

    y, x = features(rows)[:, None].expand(-1, columns, -1), features(columns)[None].expand(rows, -1, -1)
    return torch.cat([y, x], -1).flatten(0, 1)[None]
