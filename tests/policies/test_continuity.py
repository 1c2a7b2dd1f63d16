"""What a chunk knows of the one before: committed actions, their rest, blends, rolling noise."""

import numpy as np
import pytest
import torch

from robolearn.errors import ConfigError, SpecError
from robolearn.plan import BlendedPlan, Execution
from robolearn.rollout import PolicyController
from robolearn.spec import ActionSpec, Feature, Spec

SPEC = Spec({"observation.state": Feature("signal", (1,))}, ActionSpec(1), 10.0, history=1, chunk=6)


class _Recorder:
    """An actor whose action says when it was decided and for which step; keeps its prefixes."""

    spec, noise_shape = SPEC, (0,)

    def __init__(self):
        self.prefixes = []

    def act(self, obs, noise, prefix=None):
        self.prefixes += [None] * len(noise) if prefix is None else list(prefix[..., 0])
        return obs["observation.state"][:, -1:, :] * 100 + np.arange(6)[None, :, None]


def _drive(controller, steps):
    controller.begin(np.array([0]), np.array([0]), {})
    observations = ({"observation.state": np.full((1, 1), float(step))} for step in range(steps))
    return [float(controller.act(obs, np.array([True]))[0, 0]) for obs in observations]


def test_the_rest_of_a_chunk_is_what_was_not_executed():
    actor = _Recorder()
    _drive(PolicyController(actor, 1, Execution(2, continuity="rest"), 0), 5)
    assert actor.prefixes[0] is None
    np.testing.assert_array_equal(actor.prefixes[1], [2, 3, 4, 5])
    np.testing.assert_array_equal(actor.prefixes[2], [202, 203, 204, 205])


def test_committed_actions_are_those_of_the_delay():
    actor = _Recorder()
    _drive(PolicyController(actor, 1, Execution(2, 1, continuity="committed"), 0), 5)
    assert actor.prefixes[0] is None
    assert [list(prefix) for prefix in actor.prefixes[1:]] == [[2], [202]]


def test_a_blend_weighs_older_predictions_more():
    decay = 0.5
    plan = BlendedPlan(1, 4, 1, 1.0, decay)
    row = np.array([0])
    for step in range(3):
        plan.splice(row, np.array([float(step)]), np.full((1, 4, 1), float(step)))
    weights = np.exp(-decay * np.arange(3))
    assert plan.action(np.array([2.0]))[0, 0] == pytest.approx(weights @ [0, 1, 2] / weights.sum())
    assert plan.action(np.array([5.0]))[0, 0] == pytest.approx(2.0)
    plan.restart(row)
    plan.splice(row, np.array([9.0]), np.full((1, 4, 1), 7.0))
    assert plan.action(np.array([9.0]))[0, 0] == 7.0


def test_a_warm_start_stays_near_the_last_chunk(bench):
    policy = bench.policy("flow", steps=8, prefix={"name": "warm", "begin": 0.9}).eval()
    batch, noise = bench.batch(policy), bench.noise(policy)
    with torch.no_grad():
        chunk = policy.sample(batch, noise, torch.full((4, 6, 2), 3.0))
    assert (chunk - 3.0).abs().mean() < 1.0
    with pytest.raises(ConfigError, match="begin"):
        bench.policy("flow", prefix={"name": "warm", "begin": 1.0})


def test_a_rolling_chunk_tracks_a_target(bench):
    """Each chunk is the observed constant; decisions after the first cost a segment's steps only."""
    policy = bench.policy("streaming", history=1, chunk=8, stride=2, network={"name": "mlp", "width": 64})

    def make_batch(size=128):
        state = torch.rand(size, 1, 3) * 2 - 1
        return {"observation.state": state, "action": state[..., :2].expand(-1, 8, -1)}

    torch.manual_seed(0)
    bench.train(policy, make_batch, 400)
    calls, network = [], policy.network.forward
    policy.network.forward = lambda *inputs: calls.append(1) or network(*inputs)
    batch = make_batch(50)
    target, rest = batch["observation.state"][..., :2], None
    with torch.no_grad():
        for decision in range(4):
            chunk = policy.sample(batch, bench.noise(policy, 50, seed=decision), rest)
            rest = chunk[:, 2:]
            assert (chunk[:, :2] - target).abs().mean() < 0.12
    assert len(calls) == 2 * 4 + 3 * 2
    with pytest.raises(SpecError, match="stride"):
        policy.sample(batch, bench.noise(policy, 50), rest[:, :3])
    with pytest.raises(ConfigError, match="multiple of stride"):
        bench.policy("streaming", chunk=8, stride=3)
