"""Pictures: raw uint8 [B,T,H,W,C] to float [B,T,C,H,W] in [0, 1]."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch.nn.functional import interpolate

from robolearn.contracts import Batch
from robolearn.errors import DataError, SpecError, suggest
from robolearn.spec import Spec
from robolearn.stats import lookup

__all__ = ["ImageToFloat"]


@dataclass(frozen=True)
class ImageToFloat:
    """Turn the pictures `keys` (all of the spec when empty) into floats, resized to `size` (H, W).

    Resizing is bilinear with antialiasing, on the floats.
    """

    keys: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    name: str = "image_to_float"

    pixels: ClassVar[bool] = True
    on_device: ClassVar[bool] = True

    def bind(self, spec: Spec) -> "ImageToFloat":
        pictures = [key for key, feature in spec.observations.items() if feature.kind == "image"]
        for key in self.keys:
            if key not in pictures:
                raise SpecError(f"image_to_float has no picture '{key}'.", expected=suggest(key, pictures))
        return replace(self, keys=self.keys or tuple(pictures))

    def forward(self, batch: Batch) -> Batch:
        return batch | {key: self._convert(key, lookup(batch, key)) for key in self.keys}

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        return action

    def transform_spec(self, spec: Spec) -> Spec:
        observations = dict(spec.observations)
        for key in self.keys:
            height, width, channels = observations[key].shape
            shape = (channels, *(self.size or (height, width)))
            observations[key] = replace(observations[key], shape=shape, dtype="float32")
        return replace(spec, observations=observations)

    def _convert(self, key: str, value: torch.Tensor) -> torch.Tensor:
        if value.dtype != torch.uint8:
            raise DataError(f"'{key}' does not hold raw pictures.", found=value.dtype, expected="uint8 [B,T,H,W,C]")
        pictures = value.movedim(-1, -3).to(torch.float32).div_(255)
        if self.size is None or tuple(pictures.shape[-2:]) == self.size:
            return pictures.contiguous()
        flat = interpolate(pictures.flatten(0, 1), self.size, mode="bilinear", antialias=True)
        return flat.unflatten(0, pictures.shape[:2])
