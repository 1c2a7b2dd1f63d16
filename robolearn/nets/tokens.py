"""Transformer over discrete action tokens, conditioned by cross-attention."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robolearn.nets.layers import Shapes, check_transformer
from robolearn.nets.transformer import Attention, FeedForward

__all__ = ["TokenNetConfig", "TokenTransformer"]


@dataclass(frozen=True)
class TokenNetConfig:
    """`depth` pre-norm blocks of `width`."""

    width: int = 256
    depth: int = 4
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self):
        check_transformer(self)


class TokenTransformer(nn.Module):
    """Predicts token n of L from the tokens before it (causal), or all tokens at once."""

    def __init__(self, config: TokenNetConfig, vocabulary: int, length: int, shapes: Shapes, causal: bool):
        super().__init__()
        width, self.causal = config.width, causal
        if causal:
            self.embedding = nn.Embedding(vocabulary, width)
            nn.init.normal_(self.embedding.weight, std=0.02)
        self.position = nn.Parameter(torch.randn(1, length, width) * 0.02)
        self.memory = nn.ModuleList(nn.Linear(size, width) for _, size in shapes)
        self.places = nn.ParameterList(torch.randn(1, tokens, width) * 0.02 for tokens, _ in shapes)
        self.blocks = nn.ModuleList(_Block(config, causal) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.outputs = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        """Return logits [B,L,V] for token numbers [B,L]; without causality these only say how many."""
        x = self.position[:, : tokens.shape[1]].expand(len(tokens), -1, -1)
        if self.causal:  # position n sees tokens before n
            embedded = self.embedding(tokens[:, :-1])
            x = x + torch.cat([embedded.new_zeros(len(tokens), 1, embedded.shape[-1]), embedded], 1)
        groups = zip(condition, self.memory, self.places, strict=True)
        memory = torch.cat([project(group) + place for group, project, place in groups], 1)
        for block in self.blocks:
            x = block(x, memory)
        return self.outputs(self.norm(x))


class _Block(nn.Module):
    def __init__(self, config: TokenNetConfig, causal: bool):
        super().__init__()
        self.causal = causal
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(3))
        self.attention = Attention(config.width, config.heads, config.dropout)
        self.cross = Attention(config.width, config.heads, config.dropout)
        self.feed = FeedForward(config.width, config.dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Map [B,N,D] given memory [B,M,D]."""
        first, second, third = self.norms
        y = first(x)
        x = x + self.attention(y, y, causal=self.causal)
        x = x + self.cross(second(x), memory)
        return x + self.feed(third(x))
