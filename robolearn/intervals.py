"""Intervals and paired tests for success rates."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from robolearn.seeding import generator

__all__ = ["Interval", "bootstrap_mean", "mcnemar", "paired_difference", "wilson"]

_Z95 = 1.959963984540054  # two-sided 95 % quantile of the standard normal


class Interval(NamedTuple):
    """A point estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int, z: float = _Z95) -> Interval:
    """Return the success rate with its Wilson score interval (Wilson 1927, eq. 4)."""
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials; expected 0 <= successes <= trials, trials >= 1")
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(rate, 0.0 if successes == 0 else low, 1.0 if successes == trials else high)


def bootstrap_mean(values: Sequence[float], draws: int = 2000, seed: int = 0) -> Interval:
    """Return the mean with its 95 % percentile bootstrap interval."""
    data = np.asarray(values, float)
    index = generator(seed, "bootstrap", len(data)).integers(0, len(data), (draws, len(data)))
    low, high = np.quantile(data[index].mean(1), [0.025, 0.975])
    return Interval(float(data.mean()), float(low), float(high))


def paired_difference(first: Sequence[float], second: Sequence[float], draws: int = 2000, seed: int = 0) -> Interval:
    """Return mean(second - first) over the same episodes with its 95 % bootstrap interval."""
    if len(first) != len(second):
        raise ValueError(f"paired lists of {len(first)} and {len(second)} episodes; expected the same episodes in both")
    return bootstrap_mean(np.subtract(second, first, dtype=float).tolist(), draws, seed)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the two-sided exact p-value of McNemar's test on paired outcomes."""
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    discordant, extreme = gained + lost, min(gained, lost)
    tail = sum(math.comb(discordant, k) for k in range(extreme + 1)) / 2**discordant
    return min(1.0, 2 * tail)
