"""Any chunk policy on cognition tokens: learned queries whose states are all that it sees.

With a diffusion transformer this is CogACT's structure (arXiv 2411.19650, section 3.3), which TinyVLA and
DiffusionVLA share; with another policy of `robolearn.policies` it is that policy's objective.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.nets.backbones import Backbone, Memory, Tokens
from robolearn.policies.vla.head import Head
from robolearn.registry import configure
from robolearn.spec import Feature, Spec

__all__ = ["CognitionHead", "CognitionHeadConfig"]

_DIFFUSION = {
    "name": "diffusion",
    "network": {"name": "transformer", "width": 256, "depth": 6, "heads": 4, "conditioning": "adaln"},
}


@dataclass(frozen=True)
class CognitionHeadConfig:
    """`policy` holds the options of the chunk policy; `queries` tokens; `repeat` noises for each in training."""

    name: Literal["diffusion"] = "diffusion"
    policy: Mapping[str, Any] = field(default_factory=lambda: dict(_DIFFUSION))
    queries: int = 1
    repeat: int = 4
    action_tokens: ClassVar[int] = 0

    def __post_init__(self):
        if self.queries < 1 or self.repeat < 1 or "name" not in self.policy:
            raise ConfigError("Cognition head options are out of range.", found=self, expected="queries, repeat >= 1")

    def build(self, backbone: Backbone, spec: Spec, state: int) -> "CognitionHead":
        """Return the head."""
        return CognitionHead(self, backbone, spec)


class CognitionHead(Head):
    """Learned queries at the end of the prefix, and a chunk policy whose only observation are their states."""

    def __init__(self, config: CognitionHeadConfig, backbone: Backbone, spec: Spec):
        super().__init__()
        self.config = config
        self.queries = nn.Parameter(torch.randn(config.queries, backbone.width) * 0.02)
        sizes = {"history": config.queries, "chunk": spec.chunk}
        options = configure("policy", {**config.policy, **sizes}, "policy.head.policy")
        condition = {"cognition": Feature("signal", (backbone.width,))}
        self.policy = options.build(replace(spec, observations=condition))
        self.spec = spec

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """That of the policy."""
        return self.policy.noise_shape

    def extend(self, tokens: Tokens, batch: Batch) -> Tokens:
        """Return the prefix and the queries, which see all of it."""
        return tokens.append(self.queries.expand(len(tokens.x), -1, -1), "next")

    def loss(self, memory: Memory, state: Tensor | None, batch: Batch) -> Tensor:
        """Return the policy's loss [B], the mean over `repeat` noises."""
        count = self.config.repeat
        given = {key: batch[key] for key in ("action", "action_is_pad") if key in batch}
        given = {key: value.repeat_interleave(count, 0) for key, value in (given | self._see(memory)).items()}
        return self.policy.loss(given)[0].unflatten(0, (-1, count)).mean(1)

    def sample(self, memory: Memory, state: Tensor | None, noise: Tensor, prefix: Tensor | None) -> Tensor:
        """Return chunks [B,K,A]."""
        return self.policy.sample(self._see(memory), noise, prefix)

    def blocks(self) -> list[nn.Module]:
        """Return the policy's blocks."""
        return self.policy.blocks()

    def _see(self, memory: Memory) -> Batch:
        return {"cognition": memory.states[:, -len(self.queries) :].float()}
