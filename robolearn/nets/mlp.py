"""Residual MLP over a flattened chunk: the fastest network, and a strong one on state."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.layers import Shapes, TimeEmbedding, flat_condition, flat_size

__all__ = ["MLPConfig", "ResidualMLP"]


@dataclass(frozen=True)
class MLPConfig:
    """`depth` pre-norm residual blocks of `width`; the condition is concatenated to the input.

    With `film`, condition and time also gate the input and scale and shift every block (arXiv
    1709.07871): products of what is seen and what is asked, which an instruction needs to pick one
    object among several.
    """

    name: Literal["mlp"] = "mlp"
    width: int = 512
    depth: int = 2
    dropout: float = 0.0
    time_width: int = 16
    film: bool = False

    def __post_init__(self):
        even = self.time_width > 0 and self.time_width % 2 == 0
        if self.width < 1 or self.depth < 1 or not even or not 0 <= self.dropout < 1:
            raise ConfigError(
                "An MLP of this size cannot be built.", found=self, expected="positive sizes, an even time_width"
            )

    def build(self, chunk: int, dim: int, shapes: Shapes, times: int = 1) -> "ResidualMLP":
        """Return the network for actions [B,chunk,dim] and a condition of `shapes`."""
        return ResidualMLP(self, chunk, dim, shapes, times)


class ResidualMLP(nn.Module):
    """Maps (actions [B,K,A], time [B], condition) to [B,K,A]."""

    def __init__(self, config: MLPConfig, chunk: int, dim: int, shapes: Shapes, times: int = 1):
        super().__init__()
        self.time = TimeEmbedding(config.time_width, times, scale=50.0, max_period=128.0)
        given = flat_size(shapes) + self.time.dim
        self.gate = nn.Linear(given, given) if config.film else None
        self.inputs = nn.Linear(chunk * dim + given, config.width)
        self.blocks = nn.ModuleList(
            ResidualBlock(config.width, config.dropout, given if config.film else 0) for _ in range(config.depth)
        )
        self.outputs = nn.Linear(config.width, chunk * dim)

    def forward(self, actions: Tensor, time: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        """Return [B,K,A]."""
        given = torch.cat([flat_condition(condition), self.time(time)], -1)
        seen = given if self.gate is None else given * 2 * self.gate(given).sigmoid()
        x = self.inputs(torch.cat([actions.flatten(1), seen], -1))
        for block in self.blocks:
            x = block(x, given)
        return self.outputs(x).view_as(actions)


class ResidualBlock(nn.Module):
    """Layer norm, two linear layers, a skip connection; `film_size` > 0 modulates what the norm gives."""

    def __init__(self, width: int, dropout: float = 0.0, film_size: int = 0):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.film = nn.Linear(film_size, 2 * width) if film_size else None

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Map [B,D] to [B,D]; `given` [B,film_size] modulates."""
        y = self.norm(x)
        if self.film is not None:
            scale, shift = self.film(given).chunk(2, -1)
            y = y * (1 + scale) + shift
        return x + self.second(self.dropout(F.silu(self.first(y))))
