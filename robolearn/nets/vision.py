"""Image backbones: ResNet with group norm, spatial softmax, crop augmentation; a small one for small pictures."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError, SpecError

__all__ = ["ConvConfig", "ConvEncoder", "ImageEncoder", "ResNetConfig", "SpatialSoftmax", "crop", "feature_map"]


@dataclass(frozen=True)
class ResNetConfig:
    """ResNet with group norm, trained from scratch (Diffusion Policy, arXiv 2303.04137, section 3.2).

    `crop` is the part of each side that is kept: at random places in training, the centre otherwise.
    """

    name: Literal["resnet"] = "resnet"
    layers: Literal[18, 34] = 18
    pool: Literal["spatial_softmax", "average"] = "spatial_softmax"
    keypoints: int = 32
    width: int = 64
    crop: float = 0.875
    share: bool = False  # one backbone for all cameras

    def __post_init__(self):
        if not 0 < self.crop <= 1 or self.keypoints < 1 or self.width < 1:
            raise ConfigError("An image encoder like this cannot be built.", found=self, expected="0 < crop <= 1")

    def build(self, shape: tuple[int, ...]) -> "ImageEncoder":
        """Return the encoder for images of `shape` (C,H,W)."""
        return ImageEncoder(self, shape)


@dataclass(frozen=True)
class ConvConfig:
    """Convolutions that halve a picture and refine it, then a linear layer over what is left: quick on small pictures.

    `stages` are the channels after each halving, `kept` those of the last map that the linear layer reads;
    where a thing is stays in the order of its inputs. `crop` is as in `ResNetConfig`.
    """

    name: Literal["conv"] = "conv"
    stages: tuple[int, ...] = (16, 32, 64)
    kept: int = 16
    width: int = 64
    crop: float = 1.0
    share: bool = False

    def __post_init__(self):
        if not self.stages or min(*self.stages, self.kept, self.width) < 1 or not 0 < self.crop <= 1:
            raise ConfigError("An image encoder like this cannot be built.", found=self, expected="0 < crop <= 1")

    def build(self, shape: tuple[int, ...]) -> "ConvEncoder":
        """Return the encoder for images of `shape` (C,H,W)."""
        return ConvEncoder(self, shape)


class ImageEncoder(nn.Module):
    """Maps images [N,C,H,W] in [0, 1] to features [N,width]."""

    def __init__(self, config: ResNetConfig, shape: tuple[int, ...]):
        super().__init__()
        channels, height, width = shape
        self.size = (max(1, round(height * config.crop)), max(1, round(width * config.crop)))
        self.backbone = feature_map({18: "resnet18", 34: "resnet34"}[config.layers], "group", channels)
        if config.pool == "spatial_softmax":
            rows, columns = (-(-side // 32) for side in self.size)
            if rows == columns == 1:  # one cell has one place: whatever is seen, the keypoints are the same
                raise SpecError(
                    "Pictures are too small for keypoints.",
                    found=f"{self.size[0]} x {self.size[1]} px after the crop",
                    expected="a side of more than 32 px",
                    do="set policy.encoder.image.pool=average, or name=conv",
                )
            self.pool, features = SpatialSoftmax(512, config.keypoints, rows, columns), 2 * config.keypoints
        else:
            self.pool, features = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 512
        self.outputs = nn.Sequential(nn.Linear(features, config.width), nn.ReLU())
        self.width = config.width

    def forward(self, images: Tensor) -> Tensor:
        """Return [N,width]."""
        images = crop(images, self.size, random=self.training)
        return self.outputs(self.pool(self.backbone(images)))


class ConvEncoder(nn.Module):
    """Maps images [N,C,H,W] in [0, 1] to features [N,width]."""

    def __init__(self, config: ConvConfig, shape: tuple[int, ...]):
        super().__init__()
        channels, height, width = shape
        self.size = (max(1, round(height * config.crop)), max(1, round(width * config.crop)))
        self.stages = nn.ModuleList(_ConvStage(*pair) for pair in pairwise((channels, *config.stages)))
        rows, columns = (-(-side // 2 ** len(config.stages)) for side in self.size)
        self.squeeze = nn.Conv2d(config.stages[-1], config.kept, 1)
        self.outputs = nn.Sequential(nn.Linear(config.kept * rows * columns, config.width), nn.ReLU())
        self.width = config.width

    def forward(self, images: Tensor) -> Tensor:
        """Return [N,width]."""
        x = crop(images, self.size, random=self.training) * 2 - 1
        for stage in self.stages:
            x = stage(x)
        return self.outputs(self.squeeze(x).flatten(1))


class _ConvStage(nn.Module):
    """Maps [N,C,H,W] to [N,C',H/2,W/2]; all but the first stage, whose map is large, refine what they found."""

    def __init__(self, before: int, after: int):
        super().__init__()
        large = before <= 4
        self.halve = nn.Conv2d(before, after, 5 if large else 3, 2, 2 if large else 1)
        self.norm = _group_norm(after)
        self.refine = None if large else nn.Sequential(nn.Conv2d(after, after, 3, 1, 1), _group_norm(after), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.halve(x)))
        return x if self.refine is None else x + self.refine(x)


class SpatialSoftmax(nn.Module):
    """Expected image coordinates in [-1, 1] of each feature (arXiv 1504.00702, section 5.1)."""

    grid: Tensor

    def __init__(self, channels: int, keypoints: int, rows: int, columns: int):
        super().__init__()
        self.features = nn.Conv2d(channels, keypoints, 1)
        y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
        self.register_buffer("grid", torch.stack([x.flatten(), y.flatten()], -1))

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N,C,h,w] to keypoints [N, 2·keypoints] as x, y pairs."""
        attention = self.features(maps).flatten(2).softmax(-1)
        return (attention @ self.grid.to(attention.dtype)).flatten(1)


def feature_map(name: str, norm: Literal["group", "frozen_batch"], channels: int = 3) -> nn.Sequential:
    """Return the convolutions of a ResNet: images [N,C,H,W] to maps [N,512,H/32,W/32]."""
    from torchvision.models import resnet  # slow to import, and only image policies need it
    from torchvision.ops import FrozenBatchNorm2d

    make = {"resnet18": resnet.resnet18, "resnet34": resnet.resnet34}[name]
    model = make(weights=None, norm_layer=_group_norm if norm == "group" else FrozenBatchNorm2d)
    if channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    return nn.Sequential(*list(model.children())[:-2])


def crop(images: Tensor, size: tuple[int, int], random: bool) -> Tensor:
    """Cut `size` (rows, columns) out of images [N,C,H,W]: one random place per image, or the centre."""
    (rows, columns), (height, width) = size, images.shape[-2:]
    if (rows, columns) == (height, width):
        return images
    if not random:
        top, left = round((height - rows) / 2), round((width - columns) / 2)
        return images[..., top : top + rows, left : left + columns]
    count, device = len(images), images.device
    top = torch.randint(height - rows + 1, (count, 1), device=device) + torch.arange(rows, device=device)
    left = torch.randint(width - columns + 1, (count, 1), device=device) + torch.arange(columns, device=device)
    row = top[:, None, :, None].expand(-1, images.shape[1], -1, width)
    column = left[:, None, None, :].expand(-1, images.shape[1], rows, -1)
    return images.gather(2, row).gather(3, column)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 16), channels)
