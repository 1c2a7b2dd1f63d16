"""Temporal U-Net with FiLM conditioning (Diffusion Policy, arXiv 2303.04137, appendix A)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.layers import LevelEmbedding, Shapes, flat_condition, flat_size

__all__ = ["ConditionalUNet1d", "UNetConfig"]


@dataclass(frozen=True)
class UNetConfig:
    """Channel counts per level, each half as long as the one before; `film_scale` modulates scale and bias."""

    name: Literal["unet"] = "unet"
    channels: tuple[int, ...] = (256, 512, 1024)
    kernel: int = 5
    groups: int = 8
    time_width: int = 128
    film_scale: bool = True

    def __post_init__(self):
        bad = self.groups < 1 or [size for size in self.channels if size < 1 or size % self.groups]
        even = self.time_width > 0 and self.time_width % 2 == 0
        if not self.channels or bad or self.kernel < 1 or self.kernel % 2 == 0 or not even:
            raise ConfigError(
                "A U-Net of this size cannot be built.",
                found=self,
                expected="channels that are multiples of groups, an odd kernel and an even time_width",
            )

    def build(self, chunk: int, dim: int, shapes: Shapes, times: int = 1) -> "ConditionalUNet1d":
        """Return the network for actions [B,chunk,dim] and a condition of `shapes`."""
        factor = 2 ** (len(self.channels) - 1)
        if chunk % factor:
            raise ConfigError(
                "The chunk does not fit the levels of the U-Net.",
                found=f"chunk {chunk} and {len(self.channels)} levels",
                expected=f"a chunk that is a multiple of {factor}",
                do="change the chunk or use fewer channels",
            )
        return ConditionalUNet1d(self, dim, shapes, times)


class ConditionalUNet1d(nn.Module):
    """Maps (actions [B,K,A], time [B], condition) to [B,K,A]."""

    def __init__(self, config: UNetConfig, dim: int, shapes: Shapes, times: int = 1):
        super().__init__()
        width, channels = config.time_width, config.channels
        embedding = LevelEmbedding(width, times)
        self.time = nn.Sequential(
            embedding, nn.Linear(embedding.dim, 4 * width), nn.Mish(), nn.Linear(4 * width, width)
        )

        def block(inputs: int, outputs: int) -> FilmBlock:
            return FilmBlock(config, inputs, outputs, width + flat_size(shapes))

        levels = list(pairwise((dim, *channels)))
        shorten: list[nn.Module] = [nn.Conv1d(size, size, 3, 2, 1) for size in channels[:-1]]
        self.down = nn.ModuleList(
            Level(block(a, b), block(b, b), shorter)
            for (a, b), shorter in zip(levels, [*shorten, nn.Identity()], strict=True)
        )
        self.middle = nn.ModuleList([block(channels[-1], channels[-1]), block(channels[-1], channels[-1])])
        self.up = nn.ModuleList(
            Level(block(2 * b, a), block(a, a), nn.ConvTranspose1d(a, a, 4, 2, 1)) for a, b in reversed(levels[1:])
        )
        self.outputs = nn.Sequential(
            ConvBlock(channels[0], channels[0], config.kernel, config.groups), nn.Conv1d(channels[0], dim, 1)
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """The levels in order, for sharding, compilation and checkpointing."""
        return [*self.down, *self.middle, *self.up]

    def forward(self, actions: Tensor, time: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        """Return [B,K,A]."""
        film = torch.cat([self.time(time), flat_condition(condition)], -1)
        x, skips = actions.transpose(1, 2), []
        for level in self.down:
            skip, x = level(x, film)
            skips.append(skip)
        for block in self.middle:
            x = block(x, film)
        for level in self.up:
            _, x = level(torch.cat([x, skips.pop()], 1), film)
        return self.outputs(x).transpose(1, 2)


class Level(nn.Module):
    """Two FiLM blocks, then a change of length."""

    def __init__(self, first: "FilmBlock", second: "FilmBlock", resample: nn.Module):
        super().__init__()
        self.first, self.second, self.resample = first, second, resample

    def forward(self, x: Tensor, film: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B,C,K] to [B,C',K] before and [B,C',K'] after the change of length."""
        y = self.second(self.first(x, film), film)
        return y, self.resample(y)


class ConvBlock(nn.Sequential):
    """Convolution, group norm, Mish over [B,C,K]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int):
        super().__init__(
            nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2), nn.GroupNorm(groups, outputs), nn.Mish()
        )


class FilmBlock(nn.Module):
    """Two convolutions with a skip; FiLM (arXiv 1709.07871) after the first."""

    def __init__(self, config: UNetConfig, inputs: int, outputs: int, film: int):
        super().__init__()
        self.scale = config.film_scale
        self.first = ConvBlock(inputs, outputs, config.kernel, config.groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(film, outputs * (2 if self.scale else 1)))
        self.second = ConvBlock(outputs, outputs, config.kernel, config.groups)
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """Map [B,C,K] and the condition [B,D] to [B,C',K]."""
        modulation = self.film(film)[..., None]
        y = self.first(x)
        if self.scale:
            scale, bias = modulation.chunk(2, 1)
            y = scale * y + bias
        else:
            y = y + modulation
        return self.second(y) + self.skip(x)
