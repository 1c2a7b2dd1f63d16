"""Statistics are those of the data, however it is cut."""

import numpy as np
import pytest

from robolearn.errors import DataError
from robolearn.stats import Accumulator, describe


def _accumulate(rows: np.ndarray, pieces: int, exact: int = 1 << 20):
    accumulator = Accumulator("x", exact)
    for piece in np.array_split(rows, pieces):
        accumulator.update(piece)
    return accumulator.result()


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_exact_whatever_the_pieces(pieces):
    rows = np.random.default_rng(0).normal(3.0, 2.0, (1000, 2, 3)).astype(np.float32)
    stats = _accumulate(rows, pieces)
    wide = rows.astype(np.float64)
    assert stats.count == 1000
    assert np.array_equal(stats.min, rows.min(0))
    assert np.array_equal(stats.max, rows.max(0))
    np.testing.assert_allclose(stats.mean, wide.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats.std, wide.std(0), rtol=1e-6)
    np.testing.assert_allclose(stats.q01, np.quantile(wide, 0.01, axis=0), rtol=1e-6)
    np.testing.assert_allclose(stats.q99, np.quantile(wide, 0.99, axis=0), rtol=1e-6)


def test_quantiles_are_of_the_data_and_not_of_the_episodes():
    episodes = [np.full((50, 1), float(i)) for i in range(36)]
    stats = describe({"x": rows} for rows in episodes)["x"]
    assert stats.q01.item() == 0.0
    assert stats.q99.item() == 35.0


@pytest.mark.parametrize("kind", ["normal", "sorted", "heavy", "steps"])
def test_the_sketch_keeps_the_rank_within_a_thousandth(kind):
    draw = np.random.default_rng(1)
    rows = {
        "normal": draw.normal(size=200_000),
        "sorted": np.sort(draw.normal(size=200_000)),
        "heavy": draw.standard_cauchy(200_000),
        "steps": draw.integers(0, 3, 200_000),
    }[kind].astype(np.float32)[:, None]
    stats = _accumulate(rows, 40, exact=20_000)
    for q, value in ((0.01, stats.q01.item()), (0.99, stats.q99.item())):
        below, upto = (rows < value).mean() - 1e-3, (rows <= value).mean() + 1e-3
        assert below <= q <= upto
    assert _accumulate(rows, 40, exact=20_000).q99 == stats.q99


def test_bad_rows_are_refused():
    accumulator = Accumulator("action")
    accumulator.update(np.zeros((3, 2)))
    with pytest.raises(DataError, match="in row 4 of those read"):
        accumulator.update(np.array([[0.0, 0.0], [np.inf, 0.0]]))
    with pytest.raises(DataError, match="shape"):
        accumulator.update(np.zeros((3, 3)))
    with pytest.raises(DataError, match="no values"):
        Accumulator("action").result()
    with pytest.raises(DataError, match="No 'state' in the data"):
        describe([{"action": np.zeros((2, 1))}], ["state"])
