"""Samples with an exact likelihood: the denoising steps of a policy as a chain of Gaussians.

x_{k+1} = mean_k(x_k) + s_k z_k, with z_k ~ N(0, 1). Noise in every step explores and gives the whole chain a
density (DDPO, arXiv 2305.13301; DPPO, arXiv 2409.00588; ReinFlow, arXiv 2505.22094; Flow-Noise and Flow-SDE,
arXiv 2510.25889). A deployed policy samples as it always did.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.rl.networks import mlp, state_of, state_size
from robolearn.spec import Spec

__all__ = ["Chain", "ChainConfig", "Chained", "Steps", "gaussian_kl", "noise_basis"]

Transition = Callable[[Tensor, int], tuple[Tensor, float]]  # (x [B,K,A], step) → mean [B,K,A], deviation


@runtime_checkable
class Chained(Protocol):
    """A capability of policies: their samples come step by step, and the steps may be noisy."""

    spec: Spec

    @property
    def chain_steps(self) -> int:
        """How many steps lead from noise to a chunk."""

    def transitions(self, obs: Batch, count: int, eta: float) -> Transition:
        """Return the mean and the deviation of every step for `count` observations.

        `eta` 0 is the deterministic sampler; above, the share of the noise that keeps its distribution.
        """


@dataclass(frozen=True)
class ChainConfig:
    """The deviation of a step is the policy's own with `eta`, but at least `floor`, in normalised units.

    `learned` asks a network instead (ReinFlow): between `floor` and `ceiling`, by state and step. Noise is white
    over the rows of a chunk, or a sum of `cosines`: what is white averages out over a chunk and moves it nowhere, and
    a hundred numbers share what a reward says. Likelihoods are then of the cosines' coefficients alone: the rest of
    a chunk moves with the weights, unscored.
    """

    eta: float = 0.0
    floor: float = 0.1
    cosines: int = 0  # 0: white
    learned: bool = False
    ceiling: float = 0.2
    width: int = 64

    def __post_init__(self):
        if not (0 <= self.eta <= 1 and 0 < self.floor < self.ceiling and self.width > 0 and self.cosines >= 0):
            expected = "0 <= eta <= 1, 0 < floor < ceiling, cosines 0 or more"
            raise ConfigError("A chain of these deviations has no likelihood.", found=self, expected=expected)


@dataclass(frozen=True)
class Steps:
    """The Gaussians of the S steps of chains, whose noise has M numbers for every entry of the action."""

    mean: Tensor  # [B,S,K,A]
    deviation: Tensor  # [B,S,1,A] or what broadcasts to it
    basis: Tensor  # [K,M] with orthogonal columns

    def log_prob(self, chain: Tensor) -> Tensor:
        """Return log p(x_{k+1} | x_k) of chains [B,S+1,K,A], by number: [B,S,M], rows of the chunk if white."""
        z = self.coefficients(chain[:, 1:] - self.mean) / self.deviation
        density = -0.5 * z.square() - self.deviation.log() - 0.5 * math.log(2 * math.pi)
        return density.sum(-1)

    def coefficients(self, chunk: Tensor) -> Tensor:
        """Return how much of each column of the basis is in chunks […,K,A]: […,M,A]."""
        return (self.basis / self.basis.square().sum(0)).T @ chunk


class Chain(nn.Module):
    """A policy with noise in every step; `sample` is what an actor explores with.

    Raises `ConfigError` for a policy without `transitions`.
    """

    basis: Tensor

    def __init__(self, policy: nn.Module, config: ChainConfig):
        super().__init__()
        if not isinstance(policy, Chained):
            raise ConfigError(
                "The samples of this policy have no likelihood.",
                found=type(policy).__name__,
                expected="a policy that samples by noisy steps (`transitions`): flow, diffusion",
                do="clone one of these, or take another algorithm (algo=residual)",
            )
        self.policy: Any = policy
        self.config, self.spec, self.steps = config, policy.spec, policy.chain_steps
        self.register_buffer("basis", noise_basis(self.spec.chunk, config.cosines), persistent=False)
        self.deviations = None
        if config.learned:
            self.deviations = mlp(state_size(self.policy) + self.steps, config.width, 2, self.spec.action.dim)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Where sampling starts, then what its steps add."""
        return (1 + self.steps, self.spec.chunk, self.spec.action.dim)

    def run(self, obs: Batch, noise: Tensor) -> Tensor:
        """Return whole chains [B,S+1,K,A] from `noise` [B,S+1,K,A]."""
        move, learned = self._moves(obs, len(noise))
        chain, noise = [noise[:, 0]], self.basis @ noise[:, :, : self.basis.shape[1]]
        for step in range(self.steps):
            mean, own = move(chain[-1], step)
            chain.append(mean + self._deviation(own, learned, step, mean) * noise[:, step + 1])
        return torch.stack(chain, 1)

    def evaluate(self, obs: Batch, chain: Tensor) -> Steps:
        """Return the Gaussians that the steps of given chains [B,S+1,K,A] were drawn from."""
        move, learned = self._moves(obs, len(chain))
        found = [move(chain[:, step], step) for step in range(self.steps)]
        deviations = [self._deviation(own, learned, step, mean) for step, (mean, own) in enumerate(found)]
        return Steps(torch.stack([mean for mean, _ in found], 1), torch.stack(deviations, 1), self.basis)

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return chunks [B,K,A]; raises `ConfigError` for a prefix, whose likelihood is another one."""
        if prefix is not None:
            raise ConfigError("A noisy chain cannot keep to a prefix.", do="eval.continuity=none")
        return self.run(obs, noise)[:, -1]

    def _moves(self, obs: Batch, count: int) -> tuple[Transition, Tensor | None]:
        move = self.policy.transitions(obs, count, self.config.eta)
        if self.deviations is None:
            return move, None
        state = state_of(self.policy, obs)
        steps = torch.eye(self.steps)
        given = [self.deviations(torch.cat([state, one.expand(count, -1)], -1)) for one in steps]
        share = torch.stack(given, 1).sigmoid()
        return move, self.config.floor * (self.config.ceiling / self.config.floor) ** share  # [B,S,A]

    def _deviation(self, own: float, learned: Tensor | None, step: int, like: Tensor) -> Tensor:
        if learned is not None:
            return learned[:, step, None]
        return like.new_full((len(like), 1, 1), max(own, self.config.floor))


def noise_basis(rows: int, cosines: int) -> Tensor:
    """Return the columns [K,M] that noise over a chunk is a sum of: each row by itself, or cosines (DCT-II).

    Rows have a variance of 1 on average where coefficients have.
    """
    if not cosines:
        return torch.eye(rows)
    if cosines > rows:
        raise ConfigError("A chunk has fewer rows than cosines.", found=cosines, expected=f"{rows} at most")
    phase = math.pi * (torch.arange(rows) + 0.5) / rows
    basis = math.sqrt(2) * torch.cos(phase[:, None] * torch.arange(cosines))
    basis[:, 0] = 1.0
    return basis / math.sqrt(cosines)


def gaussian_kl(new: Steps, old: Steps) -> Tensor:
    """Return KL(new ‖ old) of every step [B,S], summed over its numbers: exact, both are Gaussian."""
    ratio = new.deviation / old.deviation
    distance = (old.coefficients(new.mean - old.mean) / old.deviation).square()
    return 0.5 * (ratio.square() + distance - 1 - 2 * ratio.log()).sum((-1, -2))
