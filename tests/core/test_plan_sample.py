"""The smooth path through a chunk."""

import numpy as np
import pytest

from robolearn.plan import ChunkPlan

ROWS = np.arange(2)


@pytest.fixture
def plan():
    plan = ChunkPlan(2, 5, 1, 0.1)
    plan.splice(ROWS, np.array([1.0, 2.0]), np.array([[[0.0], [1.0], [4.0], [9.0], [16.0]]] * 2))
    return plan


def test_sample_meets_the_actions_at_their_times(plan):
    for i, value in enumerate([0.0, 1.0, 4.0, 9.0, 16.0]):
        motion, left = plan.sample(np.array([1.0 + 0.1 * i, 2.0 + 0.1 * i]))
        assert motion[:, 0, 0] == pytest.approx([value, value])
        assert left == pytest.approx([0.1 * (4 - i)] * 2, abs=1e-9)


def test_rate_and_acceleration_are_slopes(plan):
    for now in np.arange(1.015, 1.39, 0.01):
        both = np.array([now, now + 1.0])
        forward, backward = plan.sample(both + 1e-6)[0], plan.sample(both - 1e-6)[0]
        assert plan.sample(both)[0][:, 1:] == pytest.approx((forward - backward)[:, :2] / 2e-6, rel=1e-3)


def test_a_parabola_is_followed_to_both_ends(plan):
    for now in np.arange(1.0, 1.4, 0.01):
        place = (now - 1.0) / 0.1
        (motion, _), _ = plan.sample(np.array([now, 2.0]))
        assert motion[:, 0] == pytest.approx([place**2, 2 * place / 0.1, 2 / 0.01], abs=1e-6)


def test_nothing_is_left_outside_a_chunk(plan):
    motion, left = plan.sample(np.array([0.9, 2.5]))
    assert (motion[:, :, 0].tolist(), left.tolist()) == ([[0.0, 0.0, 0.0], [16.0, 0.0, 0.0]], [0.0, 0.0])
    plan.restart(ROWS)
    assert plan.sample(np.array([1.2, 2.2]))[1].tolist() == [0.0, 0.0]
