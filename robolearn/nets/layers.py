"""Small pieces that several networks share."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError

__all__ = ["LevelEmbedding", "Shapes", "TimeEmbedding", "attend", "check_transformer", "flat_condition", "flat_size"]

# The condition of a network is a tuple of token groups [B,N,D]; its shapes are ((N, D), …).
Shapes = tuple[tuple[int, int], ...]

_SHORT = 1 << 16  # queries times keys up to which all weights are kept for the gradient


class TimeEmbedding(nn.Module):
    """Sine and cosine features of one or several times.

    Frequencies [rad] fall geometrically from `scale` to `scale / max_period`. Times lie in [0, 1], or
    are a log noise level of the same magnitude.
    """

    frequencies: Tensor

    def __init__(self, dim: int, times: int = 1, scale: float = 100.0, max_period: float = 1e4):
        super().__init__()
        self.dim = dim * times
        half = dim // 2
        steps = torch.arange(half, dtype=torch.float32) / max(half - 1, 1)
        # Persistent, so that a network built on the meta device gets it from the checkpoint.
        self.register_buffer("frequencies", scale * torch.exp(-math.log(max_period) * steps))

    def forward(self, time: Tensor) -> Tensor:
        """Embed times [B] or [B,n] as [B, n·dim]."""
        angle = time.float().reshape(time.shape[0], -1, 1) * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1).flatten(1)


class LevelEmbedding(nn.Module):
    """Sine and cosine features of a noise level: `TimeEmbedding` with the last bits of Diffusion Policy's.

    Times are scaled to levels 0 … `scale` first, and whole levels are made exact.
    """

    ratios: Tensor

    def __init__(self, dim: int, times: int = 1, scale: float = 100.0):
        super().__init__()
        self.dim, self.scale = dim * times, scale
        step = math.log(1e4) / max(dim // 2 - 1, 1)
        self.register_buffer("ratios", torch.exp(torch.arange(dim // 2) * -step))

    def forward(self, time: Tensor) -> Tensor:
        """Embed times [B] or [B,n] as [B, n·dim]."""
        level = time.float().reshape(time.shape[0], -1, 1) * self.scale
        whole = level.round()
        angle = torch.where((level - whole).abs() < 1e-4, whole, level) * self.ratios
        return torch.cat([angle.sin(), angle.cos()], -1).flatten(1)


def check_transformer(config: Any) -> None:
    """Raise `ConfigError` unless `width`, `depth`, `heads` and `dropout` of `config` make a transformer."""
    sizes = config.width, config.depth, config.heads
    if min(sizes) < 1 or config.width % config.heads or not 0 <= config.dropout < 1:
        raise ConfigError(
            "A transformer of this size cannot be built.", found=config, expected="a width that is a multiple of heads"
        )


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
) -> Tensor:
    """Return what queries [B,H,N,D] gather from keys and values [B,G,M,D]; `mask` says (bool) where they may look.

    In bfloat16 on the CPU two products are three times as fast as the fused kernel and its gradient.
    """
    half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    short = query.shape[2] * key.shape[2] <= _SHORT
    groups = query.shape[1] // key.shape[1]
    if query.device.type != "cpu" or half != torch.bfloat16 or not short:
        return F.scaled_dot_product_attention(query, key, value, mask, dropout, causal, enable_gqa=groups > 1)
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ (key * query.shape[-1] ** -0.5).transpose(-1, -2)
    if causal:
        mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return F.dropout(scores.softmax(-1, dtype=torch.float32).to(value.dtype), dropout) @ value


def flat_condition(condition: tuple[Tensor, ...]) -> Tensor:
    """Concatenate token groups [B,N,D] into one vector [B, ΣND]."""
    return torch.cat([group.flatten(1) for group in condition], -1)


def flat_size(shapes: Shapes) -> int:
    """Return the width of `flat_condition`."""
    return sum(tokens * width for tokens, width in shapes)
