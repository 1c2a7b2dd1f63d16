"""Residual off-policy learning on a frozen chunk policy of any kind (ResFiT, arXiv 2509.19301).

The chunk policy is a black box; an actor adds a correction in every step. Critics value the state and
the executed action. Deterministic policy gradient with smoothed targets (TD3, arXiv 1802.09477).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robolearn.errors import ConfigError
from robolearn.rl.algorithm import Problem
from robolearn.rl.offpolicy import OffPolicy, OffPolicyConfig

__all__ = ["Residual", "ResidualRLConfig"]


@dataclass(frozen=True)
class ResidualRLConfig(OffPolicyConfig):
    """`scale` bounds the correction: a share of half the action range.

    Only `entries` of the action are corrected and explored, or all: some disturb a clone more than others (under
    noise of 0.05 one of Square succeeds in 6 % of 32 episodes, without noise in tilt and gripper in 34 %).
    """

    name: Literal["residual"] = "residual"
    scale: float = 0.3
    entries: tuple[int, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.scale <= 2:
            raise ConfigError("algo.scale is out of range.", found=self.scale, expected="above 0, at most 2")

    def build(self, problem: Problem) -> "Residual":
        """Return the algorithm; raises `EnvError` without action bounds."""
        return Residual(self, problem)


class Residual(OffPolicy):
    """a = a_chunk + scale · f(s, a_chunk)."""

    def __init__(self, config: ResidualRLConfig, problem: Problem):
        names = ("scale", "entries", "width", "depth")
        options = {name: getattr(config, name) for name in names}
        super().__init__(config, problem, {"name": "residual", "base": problem.clone.config["policy"], **options})
        self.explored = (self.net.scale > 0).numpy()

    def following(self, state: Tensor, base: Tensor, noise: Tensor) -> Tensor:
        action = (self.slow.propose(state, base) + noise).clamp(-1, 1)
        return self.critics.least(torch.cat([state, action], -1))

    def learned(self, state: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        away = self.net.residual(state, base)
        return (base + self.net.scale * away).clamp(-1, 1), away
