"""Parallel decoding of a continuous chunk with an L1 loss (OpenVLA-OFT, arXiv 2502.19645, section IV)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.nets.backbones import Backbone, Memory, Tokens
from robolearn.policies.common import check_prefix, chunk_mean, pin_prefix
from robolearn.policies.vla.head import Head
from robolearn.spec import Spec

__all__ = ["L1Head", "L1HeadConfig"]


@dataclass(frozen=True)
class L1HeadConfig:
    """One query token for each action, or (`per_dimension`, as published) for each number of an action."""

    name: Literal["l1"] = "l1"
    per_dimension: bool = False
    action_tokens: ClassVar[int] = 0

    def build(self, backbone: Backbone, spec: Spec, state: int) -> "L1Head":
        """Return the head."""
        return L1Head(self, backbone, spec)


class L1Head(Head):
    """Query tokens through the backbone, and a residual MLP on their states."""

    def __init__(self, config: L1HeadConfig, backbone: Backbone, spec: Spec):
        super().__init__()
        self.spec, self.each = spec, spec.action.dim if config.per_dimension else 1
        self.queries = nn.Parameter(torch.randn(spec.chunk * self.each, backbone.width) * 0.02)
        width = backbone.width
        self.norms = nn.ModuleList([nn.LayerNorm(self.each * width), nn.LayerNorm(width)])
        self.inputs, self.outputs = nn.Linear(self.each * width, width), nn.Linear(width, spec.action.dim)
        self.residuals = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU()) for _ in range(2)
        )

    def extend(self, tokens: Tokens, batch: Batch) -> Tokens:
        """Return the prefix and the queries, which see all of it and each other."""
        return tokens.append(self.queries.expand(len(tokens.x), -1, -1), "next")

    def loss(self, memory: Memory, state: Tensor | None, batch: Batch) -> Tensor:
        """Return the absolute error [B]."""
        return chunk_mean((self._predict(memory) - batch["action"]).abs(), batch)

    def sample(self, memory: Memory, state: Tensor | None, noise: Tensor, prefix: Tensor | None) -> Tensor:
        """Return chunks [B,K,A]."""
        check_prefix(self.spec, prefix)
        return pin_prefix(self._predict(memory), prefix)

    def _predict(self, memory: Memory) -> Tensor:
        states = memory.states[:, -len(self.queries) :].unflatten(1, (self.spec.chunk, self.each)).flatten(2)
        x = F.relu(self.inputs(self.norms[0](states)))
        for block in self.residuals:
            x = x + block(x)
        return self.outputs(self.norms[1](x)).float()
