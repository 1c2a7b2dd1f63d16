"""Pictures: raw uint8 [B,T,H,W,C] to vectors [B,T,D] of a frozen encoder, by its registered name."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, ClassVar

import torch

from robolearn.contracts import Batch
from robolearn.errors import SpecError, suggest
from robolearn.registry import resolve
from robolearn.spec import Feature, Spec
from robolearn.stats import lookup

__all__ = ["EmbedImages"]


@dataclass(frozen=True)
class EmbedImages:
    """Turn the pictures `keys` (all of the spec when empty) into vectors that stay under their names.

    The last `memory` distinct pictures are remembered: a history of T pictures costs one evaluation of the
    encoder for each that is new (PTP, arXiv 2505.09561, section 4.2). `dim` is D, found by `bind`.
    """

    encoder: str
    keys: tuple[str, ...] = ()
    memory: int = 4096
    dim: int | None = None
    name: str = "embed_images"
    _cache: OrderedDict[bytes, Any] = field(default_factory=OrderedDict, init=False, compare=False, repr=False)

    pixels: ClassVar[bool] = True

    def __getstate__(self) -> dict[str, Any]:  # a loader worker fills its own memory
        return {**self.__dict__, "_cache": OrderedDict()}

    def bind(self, spec: Spec) -> "EmbedImages":
        pictures = [key for key, feature in spec.observations.items() if feature.kind == "image"]
        for key in self.keys:
            if key not in pictures:
                raise SpecError(f"embed_images has no picture '{key}'.", expected=suggest(key, pictures))
        return replace(self, keys=self.keys or tuple(pictures), dim=self.dim or _open(self.encoder).dim)

    def forward(self, batch: Batch) -> Batch:
        return batch | {key: self._embed(lookup(batch, key)) for key in self.keys}

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        return action

    def transform_spec(self, spec: Spec) -> Spec:
        vector = Feature("signal", (self.dim or _open(self.encoder).dim,))
        return replace(spec, observations={**spec.observations, **dict.fromkeys(self.keys, vector)})

    def _embed(self, pictures: torch.Tensor) -> torch.Tensor:
        flat = pictures.flatten(0, 1)
        return torch.stack([self._vector(picture) for picture in flat]).unflatten(0, pictures.shape[:2])

    def _vector(self, picture: torch.Tensor) -> torch.Tensor:
        # One by one: a picture's vector must not depend on what else is in the batch.
        digest = blake2b(picture.contiguous().numpy(), digest_size=16).digest()
        if digest not in self._cache:
            self._cache[digest] = _open(self.encoder).encode(picture)
            if len(self._cache) > self.memory:
                self._cache.popitem(last=False)
        self._cache.move_to_end(digest)
        return self._cache[digest]


def _open(name: str) -> Any:
    return resolve("image_encoder", name)(name)
