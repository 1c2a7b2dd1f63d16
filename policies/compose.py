"""Composition of several trained policies by a convex mixture of their velocities (GPC, arXiv 2510.01068, eq. 9).

Flow, diffusion and score policies all give the velocity of the same straight path, so their mixtures can be
integrated like one flow. They must share history, chunk and normalisation.
"""

from collections.abc import Callable, Sequence
from itertools import product

from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.common import check_prefix, prefix_path
from robolearn.policies.consistency import Teacher
from robolearn.policies.samplers import Solver, integrate, sum_of

__all__ = ["Composition", "search_weights", "weight_grid"]


class Composition(nn.Module):
    """Samples from a mixture of `policies`; `weights` are not negative and sum to one."""

    def __init__(self, policies: Sequence[Teacher], weights: Sequence[float], steps: int = 8, solver: Solver = "euler"):
        super().__init__()
        if not policies or len(policies) != len(weights) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
            raise ConfigError(
                "A composition needs one weight per policy.",
                found=f"{len(policies)} policies, weights {tuple(weights)}",
                expected="weights that are not negative and sum to one",
            )
        for policy in policies:
            if not hasattr(policy, "flow_field"):
                raise ConfigError(
                    "A policy without a velocity cannot be composed.",
                    found=type(policy).__name__,
                    expected="flow, diffusion or beso",
                )
        sizes = {(p.spec.history, p.spec.chunk, p.spec.action.dim) for p in policies}
        if len(sizes) > 1:
            raise ConfigError("Policies of different sizes cannot be composed.", found=sorted(sizes), expected="one")
        self.policies = nn.ModuleList(policies)  # ty: ignore[invalid-argument-type]
        self._parts = tuple(zip(weights, policies, strict=True))
        self.steps, self.solver = steps, solver
        self.spec = policies[0].spec

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one decision: one chunk."""
        return (self.spec.chunk, self.spec.action.dim)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Raise `ConfigError`: the parts are trained, not the mixture."""
        raise ConfigError("A composition is not trained.", do="train its policies, then compose them")

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return chunks [B,K,A] from `noise` [B,K,A]."""
        check_prefix(self.spec, prefix)
        parts = [(w, p.flow_field(obs, len(noise))) for w, p in self._parts if w > 0]

        def velocity(x: Tensor, time: Tensor) -> Tensor:
            return sum_of([(weight, part(x, time)) for weight, part in parts])

        return integrate(velocity, noise, self.steps, self.solver, prefix_path(noise, prefix))


def weight_grid(count: int, divisions: int = 10) -> list[tuple[float, ...]]:
    """Return all convex weights of `count` policies in steps of 1/divisions."""
    grid = product(range(divisions + 1), repeat=count)
    return [tuple(part / divisions for part in weights) for weights in grid if sum(weights) == divisions]


def search_weights(
    policies: Sequence[Teacher], score: Callable[[Composition], float], divisions: int = 10, steps: int = 8
) -> tuple[tuple[float, ...], float]:
    """Return the weights with the highest `score` (e.g. success over search seeds) and that score."""
    scored = [
        (score(Composition(policies, weights, steps)), weights) for weights in weight_grid(len(policies), divisions)
    ]
    best, weights = max(scored)
    return weights, best
