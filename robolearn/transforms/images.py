"""Pictures: raw uint8 [B,T,H,W,C] to float [B,T,C,H,W] in [0, 1]."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch.nn.functional import interpolate, pad

from robolearn.contracts import Batch
from robolearn.errors import DataError, SpecError, suggest
from robolearn.spec import Spec
from robolearn.stats import lookup

__all__ = ["ImageToFloat"]


@dataclass(frozen=True)
class ImageToFloat:
    """Turn the pictures `keys` (all of the spec when empty) into floats, resized to `size` (H, W).

    Resizing is bilinear with antialiasing, on the floats; with `pad` it keeps the proportions, the picture in
    the middle and black beside it.
    """

    keys: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    name: str = "image_to_float"
    pad: bool = False

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
        (height, width), (rows, columns) = self.size, pictures.shape[-2:]
        if self.pad:
            scale = min(height / rows, width / columns)
            rows, columns = max(1, round(rows * scale)), max(1, round(columns * scale))
        else:
            rows, columns = height, width
        flat = interpolate(pictures.flatten(0, 1), (rows, columns), mode="bilinear", antialias=True)
        top, left = (height - rows) // 2, (width - columns) // 2
        flat = pad(flat, (left, width - columns - left, top, height - rows - top))
        return flat.unflatten(0, pictures.shape[:2])
