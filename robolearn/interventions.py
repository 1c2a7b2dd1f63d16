"""Weighted cloning of a policy's own rollouts that a human corrected (Sirius, arXiv 2211.08416).

Recorded steps say who acted: 0 the policy, 1 the human, 2 the human rewinding what the policy had done (the
recoveries of RaC, arXiv 2509.07953). An episode in which the policy never acts is a demonstration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.contracts import EpisodeSource
from robolearn.errors import ConfigError

__all__ = ["HUMAN", "POLICY", "REWIND", "InterventionWeights", "intervention_weights"]

POLICY, HUMAN, REWIND = 0, 1, 2


@dataclass(frozen=True)
class InterventionWeights:
    """How steps count: the human's in rollouts make up `share` of the loss, what led to them counts for nothing.

    `before_s` is how long before a human took over the policy was going wrong. `policy` weighs what it did by itself
    otherwise, against demonstrations, and `rewind` the way back, against other steps of the human: 0 where the policy
    is too poor to be an example.
    """

    share: float = 0.5
    before_s: float = 1.0
    policy: float = 1.0
    rewind: float = 1.0
    key: str = "intervention"

    def __post_init__(self):
        if not (0 < self.share < 1 and min(self.before_s, self.policy, self.rewind) >= 0):
            raise ConfigError(
                "Weights of interventions are out of range.", found=self, expected="0 < share < 1, others >= 0"
            )


def intervention_weights(source: EpisodeSource, episodes: Sequence[int], options: InterventionWeights) -> np.ndarray:
    """Return the weight of every step of `episodes`, one after the other, with mean 1.

    Demonstrations and the policy's own steps share what the human leaves in proportion to their number.
    """
    parts, human = [], []
    before = round(options.before_s * source.spec.rate_hz)
    for episode in episodes:
        who = np.asarray(source.read(episode, [options.key])[options.key]).reshape(-1)
        acted = who != POLICY
        takeovers = np.flatnonzero(acted[1:] & ~acted[:-1]) + 1
        weight = np.select([who == POLICY, who == REWIND], [options.policy, options.rewind], 1.0)
        for step in takeovers:
            weight[max(step - before, 0) : step] *= acted[max(step - before, 0) : step]
        parts.append(weight)
        human.append(acted & ~acted.all())
    weights, corrections = np.concatenate(parts), np.concatenate(human)
    rest = float(weights[~corrections].sum())
    theirs = float(weights[corrections].sum())
    if theirs > 0 and rest > 0:
        weights[corrections] *= options.share / (1 - options.share) * rest / theirs
    return (weights / weights.mean()).astype(np.float32)
