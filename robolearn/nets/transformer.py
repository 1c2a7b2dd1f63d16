"""Transformer over the actions of a chunk, conditioned by cross-attention or by adaptive layer norm.

Time enters through adaptive layer norm (DiT, arXiv 2212.09748, section 3.2); the condition through
cross-attention (Diffusion Policy, arXiv 2303.04137, section 3.1) or through the same modulation.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robolearn.nets.layers import Shapes, TimeEmbedding, attend, check_transformer, flat_condition, flat_size

__all__ = ["ActionTransformer", "Attention", "FeedForward", "TransformerConfig"]


@dataclass(frozen=True)
class TransformerConfig:
    """`depth` blocks of `width`; `causal` lets an action see only earlier ones."""

    name: Literal["transformer"] = "transformer"
    width: int = 256
    depth: int = 4
    heads: int = 4
    dropout: float = 0.0
    causal: bool = False
    conditioning: Literal["cross_attention", "adaln"] = "cross_attention"

    def __post_init__(self):
        check_transformer(self)

    def build(self, chunk: int, dim: int, shapes: Shapes, times: int = 1) -> "ActionTransformer":
        """Return the network for actions [B,chunk,dim] and a condition of `shapes`."""
        return ActionTransformer(self, chunk, dim, shapes, times)


class ActionTransformer(nn.Module):
    """Maps (actions [B,K,A], time [B], condition) to [B,K,A]."""

    def __init__(self, config: TransformerConfig, chunk: int, dim: int, shapes: Shapes, times: int = 1):
        super().__init__()
        width = config.width
        self.cross = config.conditioning == "cross_attention"
        self.time = TimeEmbedding(64, times)
        modulation = self.time.dim + (0 if self.cross else flat_size(shapes))
        self.modulation = nn.Sequential(nn.Linear(modulation, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.inputs = nn.Linear(dim, width)
        self.position = nn.Parameter(torch.randn(1, chunk, width) * 0.02)
        if self.cross:
            self.memory = nn.ModuleList(nn.Linear(size, width) for _, size in shapes)
            self.places = nn.ParameterList(torch.randn(1, tokens, width) * 0.02 for tokens, _ in shapes)
        self.blocks = nn.ModuleList(ModulatedBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.outputs = nn.Linear(width, dim)

    def forward(self, actions: Tensor, time: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        """Return [B,K,A]."""
        features, memory = self.time(time), None
        if self.cross:
            groups = zip(condition, self.memory, self.places, strict=True)
            memory = torch.cat([project(group) + place for group, project, place in groups], 1)
        else:
            features = torch.cat([features, flat_condition(condition)], -1)
        modulation = self.modulation(features)[:, None]
        x = self.inputs(actions) + self.position
        for block in self.blocks:
            x = block(x, modulation, memory)
        return self.outputs(self.norm(x))


class ModulatedBlock(nn.Module):
    """Self-attention, optional cross-attention and feed-forward, gated by the modulation (adaLN-zero)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width = config.width
        self.causal = config.causal
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attention = Attention(width, config.heads, config.dropout)
        self.cross_norm = nn.LayerNorm(width)
        cross = config.conditioning == "cross_attention"
        self.cross = Attention(width, config.heads, config.dropout) if cross else None
        self.feed = FeedForward(width, config.dropout)
        self.modulate = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, modulation: Tensor, memory: Tensor | None) -> Tensor:
        """Map tokens [B,K,D] given modulation [B,1,D] and memory [B,N,D]."""
        shift, scale, gate, shift_feed, scale_feed, gate_feed = self.modulate(modulation).chunk(6, -1)
        first, second = self.norms
        y = first(x) * (1 + scale) + shift
        x = x + gate * self.attention(y, y, causal=self.causal)
        if self.cross is not None and memory is not None:
            x = x + self.cross(self.cross_norm(x), memory)
        return x + gate_feed * self.feed(second(x) * (1 + scale_feed) + shift_feed)


class Attention(nn.Module):
    """Multi-head attention from queries to a memory."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.outputs = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, causal: bool = False) -> Tensor:
        """Map queries [B,N,D] and memory [B,M,D] to [B,N,D]."""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, dropout=dropout, causal=causal)
        return self.outputs(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, dropout: float = 0.0):
        super().__init__(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
