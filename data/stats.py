"""Statistics computed from the data: moments, and quantiles that are exact or from a fine histogram."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.data.video import depth_levels

__all__ = [
    "QUANTILES",
    "Sketch",
    "column_stats",
    "histogram_stats",
    "image_histogram",
    "merge_moments",
    "moments",
    "signal_stats",
]

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, np.ndarray]
_BLOCK_ROWS = 1_000_000


def signal_stats(values: np.ndarray) -> Stats:
    """Return min, max, mean, std, count and exact quantiles over time of `values` [T,…,D].

    Arrays of two or more dimensions per frame are pooled over all but the last axis.
    """
    values = values if values.ndim > 1 else values[:, None]
    flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1]).astype(np.float64)  # not -1: D may be 0
    quantiles = np.quantile(flat, list(QUANTILES.values()), axis=0)
    return moments(flat) | {"count": np.array([len(values)])} | dict(zip(QUANTILES, quantiles, strict=True))


def column_stats(values: np.ndarray, exact_values: int = 20_000_000) -> Stats:
    """Return `signal_stats`; quantiles of more than `exact_values` numbers come from a histogram, in blocks."""
    if values.size <= exact_values:
        return signal_stats(values)
    flat = values.reshape(len(values), -1) if values.ndim < 3 else values.reshape(-1, values.shape[-1])
    blocks = np.array_split(flat, max(len(flat) // _BLOCK_ROWS, 1))
    stats = merge_moments([moments(block) for block in blocks])
    sketch = Sketch(stats["min"], stats["max"])
    for block in blocks:
        sketch.add(block)
    quantiles = sketch.quantiles(list(QUANTILES.values()))
    return stats | {"count": np.array([len(values)])} | dict(zip(QUANTILES, quantiles, strict=True))


def moments(flat: np.ndarray) -> Stats:
    """Return min, max, mean, std and count of `flat` [N,D]."""
    flat = flat.astype(np.float64)
    return {
        "min": flat.min(0),
        "max": flat.max(0),
        "mean": flat.mean(0),
        "std": flat.std(0),
        "count": np.array([len(flat)]),
    }


def image_histogram(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Return the counts [C,256] of uint8 `frames` (H, W, C), or [1,4096] of depth levels (H, W) uint16."""
    counts = np.zeros((0, 256), np.int64)
    for frame in frames:
        if frame.ndim == 2:
            depths = np.bincount(frame.ravel(), minlength=4096)[None]
            counts = depths if not len(counts) else counts + depths
            continue
        if not len(counts):
            counts = np.zeros((frame.shape[-1], 256), np.int64)
        for channel in range(frame.shape[-1]):
            counts[channel] += np.bincount(frame[..., channel].ravel(), minlength=256)
    return counts


def histogram_stats(counts: np.ndarray, frames: int) -> Stats:
    """Return exact statistics, shaped (C,1,1): in [0, 1] of pictures with histogram `counts` [C,256], in metres
    of depth with counts [1,4096]."""
    levels = np.arange(256) / 255.0 if counts.shape[1] == 256 else depth_levels().astype(np.float64)
    total = counts.sum(1, keepdims=True)
    mean = (counts * levels).sum(1, keepdims=True) / total
    std = np.sqrt((counts * (levels - mean) ** 2).sum(1, keepdims=True) / total)
    seen = counts > 0
    cumulative = np.cumsum(counts, axis=1)
    stats = {
        "min": levels[seen.argmax(1)],
        "max": levels[len(levels) - 1 - seen[:, ::-1].argmax(1)],
        "mean": mean[:, 0],
        "std": std[:, 0],
    } | {name: levels[(cumulative >= q * total).argmax(1)] for name, q in QUANTILES.items()}
    return {name: value.reshape(-1, 1, 1) for name, value in stats.items()} | {"count": np.array([frames])}


@dataclass
class Sketch:
    """Quantiles of a stream whose range is known: histograms [D,bins] read back by interpolation.

    The error of a quantile is at most (high − low) / bins.
    """

    low: np.ndarray
    high: np.ndarray
    bins: int = 16384

    def __post_init__(self):
        self._counts = np.zeros((len(self.low), self.bins), np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count `values` [N,D]."""
        width = np.maximum(self.high - self.low, 1e-300)
        slots = np.clip((values - self.low) / width * self.bins, 0, self.bins - 1).astype(np.int64)
        for column in range(slots.shape[1]):
            self._counts[column] += np.bincount(slots[:, column], minlength=self.bins)

    def quantiles(self, levels: Sequence[float]) -> np.ndarray:
        """Return the quantiles [len(levels), D]."""
        result = np.empty((len(levels), len(self.low)))
        for column, counts in enumerate(self._counts):
            cumulative = np.concatenate([[0], np.cumsum(counts)])
            edges = np.linspace(self.low[column], self.high[column], self.bins + 1)
            result[:, column] = np.interp(np.asarray(levels) * cumulative[-1], cumulative, edges)
        return result


def merge_moments(parts: Sequence[Mapping[str, np.ndarray]]) -> Stats:
    """Return min, max, mean, std and count of the union of `parts` (exact)."""
    counts = np.array([float(part["count"][0]) for part in parts])
    weights = (counts / counts.sum()).reshape(-1, *[1] * parts[0]["mean"].ndim)
    means = np.stack([part["mean"] for part in parts])
    deviations = np.stack([part["std"] for part in parts])
    mean = (weights * means).sum(0)
    variance = (weights * (deviations**2 + (means - mean) ** 2)).sum(0)
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(counts.sum())]),
    }
