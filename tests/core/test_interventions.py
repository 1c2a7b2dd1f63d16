"""Weights of corrected rollouts, and that they reach the loss."""

import numpy as np
import pytest
import torch

from robolearn.errors import ConfigError
from robolearn.interventions import InterventionWeights, intervention_weights
from robolearn.learner import Learner
from robolearn.loading import _Weighted
from robolearn.run import TrainConfig
from robolearn.spec import ActionSpec, Spec


class Source:
    def __init__(self, *episodes):
        self.spec, self._episodes = Spec({}, ActionSpec(1), rate_hz=10.0), episodes

    def read(self, episode, keys, start=0, stop=None):
        return {"intervention": np.array(self._episodes[episode], np.float32)[:, None]}


def weights(*episodes, **options):
    return intervention_weights(Source(*episodes), range(len(episodes)), InterventionWeights(**options))


def test_corrections_make_up_their_share_and_what_led_to_them_nothing():
    demonstration, rollout = [1] * 6, [0, 0, 0, 0, 2, 2, 1, 0, 0]
    found = weights(demonstration, rollout, share=0.5, before_s=0.2)
    assert found.mean() == pytest.approx(1)
    corrections, before = found[10:13], found[8:10]
    assert before.tolist() == [0, 0]
    assert corrections.sum() == pytest.approx(0.5 * found.sum())
    others = np.concatenate([found[:8], found[13:]])
    assert others == pytest.approx(np.full(10, others[0]))


def test_what_a_human_did_before_another_takeover_still_counts():
    found = weights([0, 0, 1, 1, 0, 1, 0], share=0.4, before_s=0.3)
    assert np.flatnonzero(found == 0).tolist() == [0, 1, 4]
    assert found[[2, 3, 5]].sum() == pytest.approx(0.4 * found.sum())


def test_a_poor_policy_and_the_way_back_may_count_for_nothing():
    demonstration, rollout = [1] * 6, [0, 0, 0, 0, 2, 2, 1, 1, 0]
    found = weights(demonstration, rollout, share=0.25, before_s=0.2, policy=0.0, rewind=0.0)
    assert np.flatnonzero(found).tolist() == [*range(6), 12, 13]
    assert found[[12, 13]].sum() == pytest.approx(0.25 * found.sum())
    half = weights(demonstration, rollout, share=0.5, before_s=0.2, policy=0.5, rewind=0.5)
    assert half[6] == pytest.approx(0.5 * half[0])
    assert half[10] == pytest.approx(0.5 * half[12])


def test_demonstrations_alone_count_alike():
    assert weights([1, 1, 1], [1, 1]).tolist() == [1] * 5
    assert weights([0, 0, 0]).tolist() == [1] * 3


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="out of range"):
        InterventionWeights(share=1.0)
    with pytest.raises(ConfigError, match="out of range"):
        InterventionWeights(before_s=-1.0)
    with pytest.raises(ConfigError, match="out of range"):
        InterventionWeights(policy=-0.1)


def test_weights_reach_the_gradient():
    class Windows:
        spec = None

        def __len__(self):
            return 4

        def gather(self, index):
            return {"x": torch.as_tensor(index, dtype=torch.float32)[:, None]}

    class Policy(torch.nn.Linear):
        def loss(self, batch):
            return self(batch["x"]).squeeze(-1), {}

    windows = _Weighted(Windows(), np.array([0.0, 2.0, 0.5, 1.5], np.float32))
    batch = windows.gather(np.array([3, 0, 1]))
    assert batch["weight"].tolist() == [1.5, 0.0, 2.0]
    policy = Policy(1, 1)
    learner = Learner(policy, TrainConfig(steps=1, precision="fp32"), 0, torch.device("cpu"))
    loss, _ = learner.losses(batch)
    expected = (policy.loss(batch)[0].detach() * batch["weight"]).mean()
    assert float(loss.detach()) == pytest.approx(float(expected))
    del batch["weight"]
    assert float(learner.losses(batch)[0].detach()) == pytest.approx(float(policy.loss(batch)[0].mean().detach()))
