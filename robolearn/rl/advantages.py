"""Returns and advantages of one episode as pure functions over numpy arrays.

Steps are environment steps, or decisions that last several of them: `discount` is then the product
over the steps of a decision (`by_decision`). Nothing bootstraps past a termination; a truncated
episode goes on with the value of the observation it ended with.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

__all__ = ["Ahead", "by_decision", "gae", "group_advantage", "n_step"]


class Ahead(NamedTuple):
    """n-step returns: value[t] = reward[t] + discount[t] · V(observation number step[t])."""

    reward: np.ndarray  # [L]
    discount: np.ndarray  # [L], 0 where the episode terminated before
    step: np.ndarray  # [L], L is the observation that the episode ended with


def n_step(reward: np.ndarray, gamma: float, steps: int, terminated: bool) -> Ahead:
    """Return the n-step returns of `reward` [L] (Sutton and Barto 2018, eq. 7.1)."""
    length = len(reward)
    ahead = np.minimum(np.arange(length) + steps, length)
    padded = np.concatenate([reward, np.zeros(steps)])
    total = sum(gamma**k * padded[k : k + length] for k in range(steps))
    discount = gamma ** (ahead - np.arange(length))
    return Ahead(np.asarray(total), np.where((ahead == length) & terminated, 0.0, discount), ahead)


def by_decision(reward: np.ndarray, first: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what each decision earns and its discount, both [D].

    `first` [D] are the steps that the decisions begin with; `reward` is [L], one per step.
    """
    bounds = [*first.tolist(), len(reward)]
    spans = list(pairwise(bounds))
    earned = [float(np.sum(reward[a:b] * gamma ** np.arange(b - a))) for a, b in spans]
    return np.array(earned), np.array([gamma ** (b - a) for a, b in spans])


def gae(
    reward: np.ndarray,
    value: np.ndarray,
    final_value: float,
    discount: np.ndarray | float,
    lam: float,
    terminated: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return generalised advantages and value targets, both [L] (arXiv 1506.02438, eq. 16).

    `value` [L] belongs to the observations that were acted from, `final_value` to the one the
    episode ended with; a termination ignores it.
    """
    discounts = np.broadcast_to(discount, reward.shape)
    following = np.append(value[1:], 0.0 if terminated else final_value)
    surprise = reward + discounts * following - value
    advantage, carried = np.zeros(len(reward)), 0.0
    for step in range(len(reward) - 1, -1, -1):
        carried = surprise[step] + discounts[step] * lam * carried
        advantage[step] = carried
    return advantage, advantage + value


def group_advantage(score: np.ndarray, floor: float = 1e-6) -> np.ndarray:
    """Return scores [G,N] relative to their group's mean and deviation (GRPO, arXiv 2402.03300, section 4.1).

    A group whose members all score the same says nothing: its advantages are zero.
    """
    centred = score - score.mean(1, keepdims=True)
    deviation = score.std(1, keepdims=True)
    return np.where(deviation > floor, centred / np.maximum(deviation, floor), 0.0)
