"""Value functions: ensembles of Q heads with layer norm in one batched product, scalar or as classification."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.rl.networks import Standardised

__all__ = ["CriticConfig", "Ensemble", "EnsembleLinear", "hl_gauss"]


@dataclass(frozen=True)
class CriticConfig:
    """An ensemble of `heads` MLPs; targets take the least of a random `subset` (REDQ, arXiv 2101.05982).

    `value` "hl_gauss" predicts a distribution over `bins` of [`low`, `high`] (arXiv 2403.03950).
    """

    heads: int = 5
    subset: int = 2
    width: int = 128
    depth: int = 2
    value: Literal["scalar", "hl_gauss"] = "scalar"
    bins: int = 51
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        if not 1 <= self.subset <= self.heads or self.width < 1 or self.depth < 1 or self.bins < 2:
            raise ConfigError("A critic of this size cannot be built.", found=self, expected="1 <= subset <= heads")
        if not self.low < self.high:
            raise ConfigError("The range of values is empty.", found=(self.low, self.high), expected="low < high")

    def build(self, inputs: int) -> "Ensemble":
        """Return the critics of vectors [B,inputs]."""
        return Ensemble(self, inputs)


class EnsembleLinear(nn.Module):
    """E linear layers as one batched product: [E,B,I] → [E,B,O]."""

    def __init__(self, heads: int, inputs: int, outputs: int):
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor, heads: Tensor | None = None) -> Tensor:
        """Map the inputs of all heads, or of the numbers `heads`, whose weights are then constants."""
        if heads is None:
            return torch.baddbmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias.detach()[heads], x, self.weight.detach()[heads])


class Ensemble(nn.Module):
    """Q(x) of E heads on standardised inputs: linear, layer norm, ReLU, …, one value or `bins` logits."""

    centres: Tensor

    def __init__(self, config: CriticConfig, inputs: int):
        super().__init__()
        self.config = config
        self.inputs = Standardised(inputs)
        sizes = [inputs, *[config.width] * config.depth]
        self.hidden = nn.ModuleList(EnsembleLinear(config.heads, a, b) for a, b in pairwise(sizes))
        self.outputs = EnsembleLinear(config.heads, config.width, config.bins if config.value == "hl_gauss" else 1)
        centres = torch.linspace(config.low, config.high, config.bins)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, x: Tensor, heads: Tensor | None = None) -> Tensor:
        """Return the outputs [E,B,·] for vectors [B,I]; `heads` picks some."""
        count = self.config.heads if heads is None else len(heads)
        y = self.inputs(x).expand(count, *x.shape)
        for layer in self.hidden:
            y = layer(y, heads)
            y = F.relu(F.layer_norm(y, y.shape[-1:]))  # no scale and shift: the next layer has them
        return self.outputs(y, heads)

    def value(self, x: Tensor, heads: Tensor | None = None) -> Tensor:
        """Return the values [E,B]."""
        outputs = self(x, heads)
        return outputs.softmax(-1) @ self.centres if self.config.value == "hl_gauss" else outputs.squeeze(-1)

    def loss(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss against `target` [B], summed over heads, and the detached mean value."""
        outputs = self(x)
        if self.config.value == "scalar":
            values = outputs.squeeze(-1)
            return (values - target).square().mean(1).sum(), values.detach().mean()
        wanted = hl_gauss(target, self.centres)
        loss = -(wanted * outputs.log_softmax(-1)).sum(-1).mean(1).sum()
        return loss, (outputs.detach().softmax(-1) @ self.centres).mean()


def hl_gauss(target: Tensor, centres: Tensor, sigma: float = 0.75) -> Tensor:
    """Return values [B] as histograms [B,N] around `centres`: a Gaussian of `sigma` bins, cut at the ends.

    arXiv 2403.03950, eq. 6; its recommended sigma is 0.75 of a bin.
    """
    width = centres[1] - centres[0]
    edges = torch.cat([centres - width / 2, centres[-1:] + width / 2])
    target = target.clamp(centres[0], centres[-1])
    below = torch.special.ndtr((edges - target[:, None]) / (sigma * width))
    mass = below[:, 1:] - below[:, :-1]
    return mass / mass.sum(-1, keepdim=True)
