"""Sample and rank: draw several chunks of any policy, keep the best by agreement or by a learned score.

Agreement with the actions already committed keeps one mode over time (bidirectional decoding, arXiv
2408.17355, backward coherence); without any, the chunk nearest to all others is kept.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.common import WrapperConfig, check_prefix, pin_prefix
from robolearn.registry import configure
from robolearn.spec import Spec

__all__ = ["RankedConfig", "RankedPolicy", "Scorer", "repeat_rows", "take_best"]


@runtime_checkable
class Scorer(Protocol):
    """A policy that can rate chunks, for example by an energy or a value."""

    def score(self, obs: Batch, actions: Tensor) -> Tensor:
        """Return how good chunks [B,K,A] are [B]; higher is better."""


@dataclass(frozen=True)
class RankedConfig(WrapperConfig):
    """`policy` holds the options of the policy that is sampled; `decay` discounts later actions of a prefix.

    Of a prefix the first `frozen` actions are kept (all without it); the others only rate.
    """

    name: Literal["ranked"] = "ranked"
    policy: dict[str, Any] = field(default_factory=lambda: {"name": "flow"})
    samples: int = 8
    by: Literal["agreement", "score"] = "agreement"
    decay: float = 0.8
    frozen: int | None = None

    def __post_init__(self):
        self.inner()
        if self.samples < 1 or not 0 < self.decay <= 1 or (self.frozen is not None and self.frozen < 0):
            raise ConfigError(
                "Ranking options are out of range.", found=self, expected="samples >= 1, 0 < decay <= 1, frozen >= 0"
            )

    def inner(self) -> Any:
        """Return the config of the policy that is sampled."""
        return configure("policy", self.policy, "policy.policy")

    def build(self, spec: Spec) -> "RankedPolicy":
        """Return the policy for `spec`."""
        return RankedPolicy(self, self.inner().build(spec))


class RankedPolicy(nn.Module):
    """Trains the inner policy as it is; samples it several times."""

    def __init__(self, config: RankedConfig, policy: Any):
        super().__init__()
        if config.by == "score" and not isinstance(policy, Scorer):
            raise ConfigError("This policy cannot score.", found=type(policy).__name__, expected="a `score` method")
        if policy.noise_shape == (0,):
            raise ConfigError(
                "Samples of a deterministic policy are all the same.", found=type(policy).__name__, do="rank another"
            )
        self.config, self.policy, self.spec = config, policy, policy.spec

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The noise of every sample."""
        return (self.config.samples, *self.policy.noise_shape)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the inner policy."""
        return self.policy.loss(batch)

    def load_pretrained(self) -> None:
        """Read the weights that the inner policy starts from, where it has some."""
        getattr(self.policy, "load_pretrained", lambda: None)()

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks of the inner policy."""
        return self.policy.blocks()

    def param_groups(self) -> Any:
        """Return the parameter groups of the inner policy."""
        return self.policy.param_groups()

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return the best of N chunks [B,K,A] from `noise` [B,N,…].

        With a prefix, the chunk that continues it best is kept.
        """
        check_prefix(self.spec, prefix)
        count, samples = noise.shape[:2]
        wide = repeat_rows(obs, samples)
        chunks = self.policy.sample(wide, noise.flatten(0, 1))
        sets = chunks.unflatten(0, (count, samples))
        if self.config.by == "score":
            rating = self.policy.score(wide, chunks).unflatten(0, (count, samples))
        else:
            rating = self._agreement(sets, prefix)
        return pin_prefix(take_best(sets, rating), None if prefix is None else prefix[:, : self.config.frozen])

    def _agreement(self, chunks: Tensor, prefix: Tensor | None) -> Tensor:
        """Rate chunks [B,N,K,A] by their distance to the prefix, or to each other; returns [B,N]."""
        if prefix is None:
            flat = chunks.flatten(2)
            return -torch.cdist(flat, flat).sum(-1)
        steps = torch.arange(prefix.shape[1], device=chunks.device)
        error = (chunks[:, :, : prefix.shape[1]] - prefix[:, None]).square().sum(-1)
        return -(error * self.config.decay**steps).sum(-1)


def repeat_rows(obs: Batch, count: int) -> Batch:
    """Return the tensors of `obs` with each row `count` times, one after the other."""
    return {key: value.repeat_interleave(count, 0) for key, value in obs.items() if isinstance(value, Tensor)}


def take_best(chunks: Tensor, rating: Tensor) -> Tensor:
    """Return of each set of chunks [B,N,K,A] the one with the highest rating [B,N]."""
    best = rating.argmax(1)
    return chunks[torch.arange(len(best), device=best.device), best]
