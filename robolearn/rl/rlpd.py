"""Off-policy learning with demonstrations beside a frozen clone (RLPD, arXiv 2302.02948; IBRL, arXiv 2311.02198).

The actor proposes a whole action in every step beside the clone's; the one that the critics value more is
taken: in collection, in the targets and when deployed. Half of every batch are demonstrations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robolearn.config import to_dict
from robolearn.rl.algorithm import Problem
from robolearn.rl.offpolicy import OffPolicy, OffPolicyConfig

__all__ = ["RLPD", "RLPDConfig"]


@dataclass(frozen=True)
class RLPDConfig(OffPolicyConfig):
    """Options of the method; none of its own."""

    name: Literal["rlpd"] = "rlpd"

    def build(self, problem: Problem) -> "RLPD":
        """Return the algorithm; raises `EnvError` without action bounds."""
        return RLPD(self, problem)


class RLPD(OffPolicy):
    """a = argmax of Q over {a_chunk, f(s)}."""

    def __init__(self, config: RLPDConfig, problem: Problem):
        options = {"width": config.width, "depth": config.depth, "critics": to_dict(config.critics)}
        super().__init__(config, problem, {"name": "chosen", "base": problem.clone.config["policy"], **options})
        self.net.critics, self.slow.critics = self.critics.online, self.critics.target

    def update(self, steps: int, round_over: bool) -> Mapping[str, float]:
        metrics = super().update(steps, round_over)
        self._ready()
        return metrics

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        super().restore(tensors, counters)
        self._ready()

    def _ready(self) -> None:
        for net in (self.net, self.slow):  # before the first update, what critics say means nothing
            net.ready.fill_(float(self.updates > 0))

    def following(self, state: Tensor, base: Tensor, noise: Tensor) -> Tensor:
        own = (self.slow.own(state) + noise).clamp(-1, 1)
        heads = self.critics.draw()
        values = [self.critics.target.value(torch.cat([state, a], -1), heads).amin(0) for a in (own, base)]
        return torch.maximum(*values)

    def learned(self, state: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        own = self.net.own(state)
        return own, self.deviation(own, base)

    def deviation(self, action: Tensor, base: Tensor) -> Tensor:
        return action - base
