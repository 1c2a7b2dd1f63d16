"""Past-token prediction: which actions are past, what does not count, which candidate is kept."""

import numpy as np
import pytest
import torch

import robolearn
from robolearn.config import parse
from robolearn.data.synthetic import record
from robolearn.errors import ConfigError, SpecError
from robolearn.past import PAST_ACTION, PastActions, with_past
from robolearn.plan import Execution
from robolearn.registry import resolve
from robolearn.rollout import PolicyController
from robolearn.run import parse_run
from robolearn.spec import ActionSpec, Feature, Spec

SPEC = Spec({"observation.state": Feature("signal", (1,))}, ActionSpec(2, names=("x", "y")), 10.0)


class _Source:
    spec = SPEC
    lengths = np.array([4])

    def read(self, episode, keys, start=0, stop=None):
        frames = {"observation.state": np.zeros((4, 1)), "action": np.arange(8.0).reshape(4, 2)}
        return {key: frames[key][start:stop] for key in keys}


def test_the_action_before_each_step_is_an_observation():
    source = PastActions(_Source())
    whole = source.read(0, ["observation.state", PAST_ACTION])[PAST_ACTION]
    assert whole.tolist() == [[0, 0, 0], [0, 1, 1], [2, 3, 1], [4, 5, 1]]
    assert source.read(0, [PAST_ACTION], 2, 4)[PAST_ACTION].tolist() == whole[2:4].tolist()
    assert source.spec.observations[PAST_ACTION].names == ("x", "y", "given")


def test_the_runner_tells_what_was_executed():
    seen = []

    class Actor:
        spec = with_past(Spec({}, ActionSpec(1), 10.0, history=3, chunk=2))
        noise_shape = (0,)

        def act(self, obs, noise, prefix=None):
            seen.append(obs[PAST_ACTION][0].tolist())
            return np.full((1, 2, 1), 7.0 + len(seen))

    controller = PolicyController(Actor(), 1, Execution(2), 0)
    for _ in range(2):  # a second episode knows nothing of the first
        controller.begin(np.array([0]), np.array([0]), {})
        for _ in range(4):
            controller.act({}, np.array([True]))
    assert seen[:2] == [[[0, 0]] * 3, [[0, 0], [8, 1], [8, 1]]]
    assert seen[2] == [[0, 0]] * 3


def test_actions_before_the_episode_do_not_count(bench):
    policy = bench.policy("ptp").eval()
    batch = bench.batch(policy)
    batch[PAST_ACTION][..., -1] = torch.tensor([-1.0, 1.0])  # of two past actions only the last was given
    losses = []
    for value in (0.0, 0.9):
        batch[PAST_ACTION][:, 0, :-1] = value
        network = policy.policy.network.forward
        policy.policy.network.forward = lambda actions, *rest: 0.0 * actions
        torch.manual_seed(3)
        losses.append(policy.loss(batch)[0])
        policy.policy.network.forward = network
    torch.testing.assert_close(losses[0], losses[1])


def test_the_candidate_that_remembers_the_past_is_kept(bench):
    policy = bench.policy("ptp").eval()
    batch, noise = bench.batch(policy), bench.noise(policy)
    batch[PAST_ACTION][..., -1] = 1.0
    with torch.no_grad():
        flat = policy.policy.sample(
            {"observation.state": batch["observation.state"].repeat_interleave(3, 0)}, noise.flatten(0, 1)
        )
        candidates = flat.unflatten(0, (4, 3))
        for wanted in range(3):
            batch[PAST_ACTION][..., :-1] = candidates[:, wanted, :2]
            torch.testing.assert_close(policy.sample(batch, noise), candidates[:, wanted, 2:])


def test_the_observed_past_does_not_reach_the_network(bench):
    policy = bench.policy("ptp").eval()
    batch, noise = bench.batch(policy), bench.noise(policy)[:, :1].expand(-1, 3, -1, -1)
    with torch.no_grad():
        first = policy.sample(batch, noise)
        batch[PAST_ACTION][..., :-1] *= -1
        assert torch.equal(first, policy.sample(batch, noise))


def test_ptp_refuses_what_has_no_past(bench):
    with pytest.raises(ConfigError, match="past <= history"):
        bench.config("ptp", history=1)
    for inner in ({"name": "act"}, {"name": "flow", "history": 16, "spline": {"points": 4}}):
        with pytest.raises(ConfigError, match="over actions"):
            parse(resolve("policy", "ptp"), {"policy": inner})
    with pytest.raises(SpecError, match="past_action"):
        bench.config("ptp").build(bench.state)


def test_a_trained_policy_acts_with_its_past(bench, tmp_path):
    """From a recording to a checkpoint to actions: each stage knows of the past."""
    record(tmp_path / "data", [12, 12])
    inner = {"name": "flow", "history": 4, "chunk": 4, "network": bench.networks["mlp"]}
    data = {"path": str(tmp_path / "data"), "keys": ["observation.state"]}
    policy = {"name": "ptp", "policy": inner, "past": 3, "samples": 2}
    run = parse_run({"policy": policy, "data": data, "train": {"steps": 2}, "out": str(tmp_path / "run")})
    actor = robolearn.load(robolearn.train(run).checkpoint)
    assert actor.spec.observations[PAST_ACTION].shape == (3,)
    controller = PolicyController(actor, 2, Execution(2), 0)
    controller.begin(np.array([0, 1]), np.array([0, 1]), {})
    for _ in range(5):
        action = controller.act({"observation.state": np.zeros((2, 3), np.float32)}, np.ones(2, bool))
        assert action.shape == (2, 2)
        assert np.isfinite(action).all()
    assert controller.window(np.array([0]))[PAST_ACTION][0, -1, -1] == 1
