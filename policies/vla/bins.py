"""Actions as one token for each number (RT-2, arXiv 2307.15818; OpenVLA's order, arXiv 2406.09246)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.spec import ActionSpec, Spec

__all__ = ["BinTokens"]


@dataclass(frozen=True)
class BinTokens:
    """Numbers in [-1, 1] to `bins` tokens, cut at `bins` equally spaced edges; token 0 is the highest.

    What lies outside is clipped. A token stands for the middle of its interval, as OpenVLA decodes it.
    """

    bins: int = 256
    chunk: int | None = None
    dim: int | None = None
    name: str = "bin_tokens"

    def bind(self, spec: Spec) -> "BinTokens":
        """Return the codec for chunks of `spec`."""
        if self.bins < 3:
            raise ConfigError("Bins are too few.", found=self.bins, expected="3 or more")
        return replace(self, chunk=spec.chunk, dim=spec.action.dim)

    def forward(self, batch: Batch) -> Batch:
        """Replace the chunk by token numbers [B, K·A, 1], action by action."""
        if "action" not in batch:
            return batch
        edges = torch.linspace(-1, 1, self.bins)
        level = torch.bucketize(batch["action"].clamp(-1, 1).contiguous(), edges, right=True)
        result = batch | {"action": (self.bins - level).flatten(1)[..., None].float()}
        if "action_is_pad" in batch:
            result["action_is_pad"] = batch["action_is_pad"].repeat_interleave(batch["action"].shape[-1], 1)
        return result

    def inverse(self, action: Tensor, batch: Batch) -> Tensor:
        """Return the chunk [B,K,A] of token numbers [B, K·A, 1]."""
        if self.chunk is None or self.dim is None:
            raise ConfigError("bin_tokens does not know the chunk.", do="bind the pipeline to a spec")
        edges = torch.linspace(-1, 1, self.bins, device=action.device)
        middles = (edges[1:] + edges[:-1]) / 2
        level = (self.bins - action[..., 0].round().long() - 1).clamp(0, self.bins - 2)
        return middles[level].unflatten(1, (self.chunk, self.dim))

    def transform_spec(self, spec: Spec) -> Spec:
        """Return the spec of token chunks."""
        action = ActionSpec(1, low=(0.0,), high=(self.bins - 1.0,))
        return replace(spec, action=action, chunk=spec.chunk * spec.action.dim)
