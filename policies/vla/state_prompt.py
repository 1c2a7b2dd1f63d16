"""Proprioception as words of the prompt, as π0.5 reads it (arXiv 2504.16054, section IV-C)."""

from dataclasses import dataclass, replace

import torch

from robolearn.contracts import Batch
from robolearn.errors import SpecError, suggest
from robolearn.spec import Spec
from robolearn.stats import lookup

__all__ = ["StatePrompt"]


@dataclass(frozen=True)
class StatePrompt:
    """Write the newest numbers of `signal` [B,T,S], normalised to [-1, 1], into the instructions `key`.

    Each becomes the number of one of 256 equal bins, -1 below all of them. The signal itself is dropped.
    """

    key: str = "task"
    signal: str = "observation.state"
    name: str = "state_prompt"

    def bind(self, spec: Spec) -> "StatePrompt":
        for key in (self.key, self.signal):
            if key not in spec.observations:
                raise SpecError(f"state_prompt has no '{key}'.", expected=suggest(key, spec.observations))
        return self

    def forward(self, batch: Batch) -> Batch:
        edges = torch.linspace(-1, 1, 257, dtype=torch.float64)[:-1]
        bins = torch.bucketize(lookup(batch, self.signal)[:, -1].double().contiguous(), edges, right=True) - 1
        texts = [
            f"Task: {text.strip().replace('_', ' ').replace(chr(10), ' ')}, State: {' '.join(map(str, row))};\nAction: "
            for text, row in zip(lookup(batch, self.key), bins.tolist(), strict=True)
        ]
        return {key: value for key, value in batch.items() if key != self.signal} | {self.key: texts}

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        return action

    def transform_spec(self, spec: Spec) -> Spec:
        return replace(
            spec, observations={key: feature for key, feature in spec.observations.items() if key != self.signal}
        )
