"""Statistics computed from the data: exact while the values fit in memory, sketched quantiles beyond.

Nothing is averaged over episodes: count, mean and deviation merge exactly (Chan et al. 1979), minimum
and maximum are exact, and quantiles are exact up to `exact` rows per key. Beyond that they come from
a deterministic sketch of equal-weight centroids whose rank error is far below 1 %.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from robolearn.errors import DataError, suggest

__all__ = ["Accumulator", "Statistics", "describe", "lookup"]


@dataclass(frozen=True)
class Statistics:
    """Per dimension of one key, shaped like one row of it; `count` is the number of rows."""

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q99: np.ndarray
    count: int


class Accumulator:
    """Collects rows [n, *shape] of one key in any number of updates.

    Raises `DataError` for rows that are not finite and for a shape that changes.
    """

    def __init__(self, key: str, exact: int = 1 << 20):
        self.key, self._exact = key, exact
        self._shape: tuple[int, ...] | None = None
        self._count = 0
        self._rows: list[np.ndarray] = []  # values not yet in the sketch, [n,D] each
        self._held = 0
        self._sketch: _Sketch | None = None

    def update(self, values: np.ndarray) -> None:
        """Add rows [n, *shape]; no rows change nothing."""
        rows = np.asarray(values)
        if self._shape is None:
            self._shape = rows.shape[1:]
            size = int(np.prod(self._shape))
            self._mean, self._m2 = np.zeros(size), np.zeros(size)
            self._min, self._max = np.full(size, np.inf), np.full(size, -np.inf)
        if rows.shape[1:] != self._shape:
            raise DataError(f"'{self.key}' changes its shape.", found=rows.shape[1:], expected=self._shape)
        if len(rows) == 0:
            return
        rows = rows.reshape(len(rows), -1).astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad):
            raise DataError(
                f"'{self.key}' holds a value that is not finite.",
                found=f"{rows[bad[0]]} in row {self._count + int(bad[0])} of those read",
                expected="finite numbers",
                do="repair or drop the episode",
            )
        self._merge(rows)
        self._rows.append(rows.astype(np.float32))
        self._held += len(rows)
        if self._held > self._exact:
            self._sketch = (self._sketch or _Sketch()).add(np.concatenate(self._rows))
            self._rows, self._held = [], 0

    def result(self) -> Statistics:
        """Return the statistics of everything seen; raises `DataError` when that is nothing."""
        if self._shape is None or self._count == 0:
            raise DataError(f"'{self.key}' has no values to take statistics of.", expected="at least one frame")
        if self._sketch is None:
            low, high = np.quantile(np.concatenate(self._rows), [0.01, 0.99], axis=0)
        else:
            sketch = self._sketch.add(np.concatenate(self._rows)) if self._held else self._sketch
            low, high = sketch.quantile(0.01), sketch.quantile(0.99)
        std = np.sqrt(self._m2 / self._count)
        values = (self._min, self._max, self._mean, std, low, high)
        return Statistics(*(value.reshape(self._shape).astype(np.float32) for value in values), count=self._count)

    def _merge(self, rows: np.ndarray) -> None:
        n, total = len(rows), self._count + len(rows)
        mean = rows.mean(0)
        delta = mean - self._mean
        self._m2 += ((rows - mean) ** 2).sum(0) + delta**2 * self._count * n / total
        self._mean += delta * n / total
        self._min, self._max = np.minimum(self._min, rows.min(0)), np.maximum(self._max, rows.max(0))
        self._count = total


class _Sketch:
    """Sorted centroids with weights per dimension; merging keeps `size` of equal weight."""

    def __init__(self, size: int = 8192):
        self._size = size
        self._values: np.ndarray | None = None  # [m,D] sorted per column
        self._weights = np.zeros(0)  # [m], the same for every column: centroids have equal weight

    def add(self, rows: np.ndarray) -> "_Sketch":
        ordered = np.sort(rows, axis=0).astype(np.float64)
        weights = np.ones(len(rows))
        columns = ordered.shape[1]
        merged = np.empty((self._size, columns))
        for column in range(columns):
            values, weight = ordered[:, column], weights
            if self._values is not None:
                values = np.concatenate([self._values[:, column], values])
                weight = np.concatenate([self._weights, weights])
                order = np.argsort(values, kind="stable")
                values, weight = values[order], weight[order]
            merged[:, column] = _equal_weight(values, weight, self._size)
        sketch = _Sketch(self._size)
        sketch._values = merged
        sketch._weights = np.full(self._size, (self._weights.sum() + len(rows)) / self._size)
        return sketch

    def quantile(self, q: float) -> np.ndarray:
        values = self._values
        if values is None:
            raise DataError("A sketch without values has no quantiles.", expected="at least one row")
        position = np.clip(q * self._size - 0.5, 0, self._size - 1)
        below = int(position)
        above = min(below + 1, self._size - 1)
        return values[below] + (values[above] - values[below]) * (position - below)


def describe(batches: Iterable[Mapping[str, np.ndarray]], keys: Iterable[str] | None = None) -> dict[str, Statistics]:
    """Return the statistics of every key of `batches` (rows first), or of `keys`, which must all exist."""
    wanted = None if keys is None else tuple(keys)
    accumulators: dict[str, Accumulator] = {}
    for batch in batches:
        for key in batch if wanted is None else wanted:
            accumulators.setdefault(key, Accumulator(key)).update(lookup(batch, key))
    return {key: accumulator.result() for key, accumulator in accumulators.items()}


def lookup[T](table: Mapping[str, T], key: str) -> T:
    """Return `table[key]`; a missing key is an error that lists what exists."""
    if key not in table:
        raise DataError(f"No '{key}' in the data.", expected=suggest(key, table))
    return table[key]


def _equal_weight(values: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    """Return the means of `size` consecutive groups of equal weight of sorted `values`."""
    edges = np.concatenate([[0.0], np.cumsum(weight)])
    area = np.concatenate([[0.0], np.cumsum(values * weight)])
    cuts = np.linspace(0.0, edges[-1], size + 1)
    return np.diff(np.interp(cuts, edges, area)) / (edges[-1] / size)
