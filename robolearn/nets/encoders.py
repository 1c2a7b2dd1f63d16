"""Observations of a spec to the condition of a network: token groups [B,N,D], one per modality."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError, SpecError, suggest
from robolearn.nets.layers import Shapes
from robolearn.nets.points import PointEncoder
from robolearn.nets.vision import ConvConfig, ResNetConfig
from robolearn.spec import Spec

__all__ = ["EncoderConfig", "ObservationEncoder", "read"]


@dataclass(frozen=True)
class EncoderConfig:
    """How each kind of observation is encoded; a width of 0 passes it on as it is."""

    signal_width: int = 0
    text_width: int = 64
    image: ResNetConfig | ConvConfig = field(default_factory=ResNetConfig)
    points_width: int = 64

    def __post_init__(self):
        if self.signal_width < 0 or self.text_width < 0 or self.points_width < 1:
            raise ConfigError(
                "Encoder widths are out of range.",
                found=(self.signal_width, self.text_width, self.points_width),
                expected="signal_width and text_width >= 0, points_width >= 1",
            )


class ObservationEncoder(nn.Module):
    """Encodes a batch by the kinds of its spec.

    Signals [B,T,S] are joined into one group of T tokens, images [B,T,C,H,W] give T tokens per camera,
    points [B,T,N,C] T tokens per cloud, text [B,D] one token.
    """

    def __init__(self, config: EncoderConfig, spec: Spec):
        super().__init__()
        kinds = {feature.kind for feature in spec.observations.values()}
        unknown = kinds - {"signal", "image", "points", "text"}
        if unknown or not kinds:
            raise SpecError(
                "The encoder cannot read these observations.",
                found=", ".join(sorted(unknown)) or "no observations",
                expected="signal, image, points and text features",
            )
        self._keys = {kind: [key for key, f in spec.observations.items() if f.kind == kind] for kind in kinds}
        shapes: list[tuple[int, int]] = []
        if "signal" in kinds:
            size = sum(spec.observations[key].size for key in self._keys["signal"])
            self.signal = _projection(size, config.signal_width)
            shapes.append((spec.history, config.signal_width or size))
        if "image" in kinds:
            self.image = _image_encoders(config.image, spec, self._keys["image"])
            shapes += [(spec.history, config.image.width)] * len(self._keys["image"])
        if "points" in kinds:
            channels = [spec.observations[key].shape[-1] for key in self._keys["points"]]
            self.points = nn.ModuleList(PointEncoder(count, config.points_width) for count in channels)
            shapes += [(spec.history, config.points_width)] * len(channels)
        if "text" in kinds:
            sizes = [spec.observations[key].size for key in self._keys["text"]]
            self.text = nn.ModuleList(
                nn.Linear(size, config.text_width) if config.text_width else nn.Identity() for size in sizes
            )
            shapes += [(1, config.text_width or size) for size in sizes]
        self.shapes: Shapes = tuple(shapes)

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return the token groups, of `self.shapes`."""
        groups: list[Tensor] = []
        if "signal" in self._keys:
            signals = [read(batch, key).flatten(2) for key in self._keys["signal"]]
            groups.append(self.signal(torch.cat(signals, -1)))
        for i, key in enumerate(self._keys.get("image", ())):
            images = read(batch, key)
            encoder = self.image[i % len(self.image)]
            groups.append(encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2]))
        for encoder, key in zip(getattr(self, "points", ()), self._keys.get("points", ()), strict=True):
            groups.append(encoder(read(batch, key)))
        for project, key in zip(getattr(self, "text", ()), self._keys.get("text", ()), strict=True):
            vector = read(batch, key)
            groups.append(project(F.layer_norm(vector, vector.shape[-1:]))[:, None])
        return tuple(groups)


def read(batch: Batch, key: str) -> Tensor:
    """Return an observation of a batch; raises `SpecError` naming what there is."""
    if key not in batch:
        raise SpecError(f"The batch lacks '{key}'.", expected=suggest(key, batch))
    return batch[key]


def _projection(size: int, width: int) -> nn.Module:
    if not width:
        return nn.Identity()
    return nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width))


def _image_encoders(config: ResNetConfig | ConvConfig, spec: Spec, keys: list[str]) -> nn.ModuleList:
    shapes = {spec.observations[key].shape for key in keys}
    if not config.share:
        return nn.ModuleList(config.build(spec.observations[key].shape) for key in keys)
    if len(shapes) > 1:
        raise SpecError(
            "One shared image encoder needs images of one shape.",
            found=sorted(shapes),
            expected="one shape",
            do="set encoder.image.share=false, or resize the images",
        )
    return nn.ModuleList([config.build(shapes.pop())])
