"""Returns, advantages, rings and critics against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from robolearn.errors import CheckpointError, ConfigError, DataError, SpecError
from robolearn.registry import configure
from robolearn.rl.advantages import by_decision, gae, group_advantage, n_step
from robolearn.rl.collect import Trajectories, Trajectory, demonstrations
from robolearn.rl.critics import CriticConfig, hl_gauss
from robolearn.rl.learning import Critics, Trained
from robolearn.rl.networks import familiar, mlp, standardise, state_of, state_size
from robolearn.rl.replay import Replay, symmetric, transitions
from robolearn.rollout import Outcome, StepRecord
from robolearn.seeding import generator
from robolearn.spec import ActionSpec, Feature, Spec


def _episode(reward, terminated, success=False):
    steps = len(reward)
    return Trajectory(
        notes={"state": np.arange(steps, dtype=float)[:, None]},
        final={"state": np.array([float(steps)])},
        action=np.zeros((steps, 1)),
        reward=np.array(reward, float),
        terminated=terminated,
        success=success,
    )


def test_n_step_returns_by_hand():
    ahead = n_step(np.array([1.0, 2.0, 4.0]), 0.5, 2, terminated=False)
    assert ahead.reward.tolist() == [2.0, 4.0, 4.0]  # 1 + 2/2, 2 + 4/2, 4
    assert ahead.discount.tolist() == [0.25, 0.25, 0.5]
    assert ahead.step.tolist() == [2, 3, 3]
    ended = n_step(np.array([1.0, 2.0, 4.0]), 0.5, 2, terminated=True)
    assert ended.discount.tolist() == [0.25, 0.0, 0.0]


def test_gae_by_hand():
    reward, value = np.array([0.0, 1.0]), np.array([0.5, 0.25])
    # δ1 = 1 + 0.5·0.8 - 0.25 = 1.15; δ0 = 0.5·0.25 - 0.5 = -0.375; A0 = δ0 + 0.5·0.5·δ1
    advantage, target = gae(reward, value, 0.8, 0.5, 0.5, terminated=False)
    np.testing.assert_allclose(advantage, [-0.375 + 0.25 * 1.15, 1.15])
    np.testing.assert_allclose(target, advantage + value)
    ended, _ = gae(reward, value, 0.8, 0.5, 0.5, terminated=True)
    np.testing.assert_allclose(ended[1], 0.75)


def test_decisions_discount_by_environment_step():
    earned, discount = by_decision(np.array([1.0, 1.0, 1.0, 2.0, 2.0]), np.array([0, 3]), 0.5)
    np.testing.assert_allclose(earned, [1.75, 3.0])
    np.testing.assert_allclose(discount, [0.125, 0.25])
    steps, _ = gae(np.array([0.0, 0.0, 1.0]), np.zeros(3), 0.0, 0.5, 1.0, terminated=True)
    chunk, _ = gae(np.array([0.25]), np.zeros(1), 0.0, np.array([0.125]), 1.0, terminated=True)
    assert steps[0] == chunk[0]


def test_groups_are_compared_with_themselves():
    found = group_advantage(np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    assert found.tolist() == [[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]]


def test_a_truncated_episode_bootstraps_from_its_last_observation():
    rows = transitions(_episode([0, 0, 0], terminated=False), 0.9, 2)
    assert rows["next_state"][:, 0].tolist() == [2.0, 3.0, 3.0]
    np.testing.assert_allclose(rows["discount"], [0.81, 0.81, 0.9])
    rows = transitions(_episode([0, 0, 1], terminated=True), 0.9, 2)
    np.testing.assert_allclose(rows["reward"], [0.0, 0.9, 1.0])
    np.testing.assert_allclose(rows["discount"], [0.81, 0.0, 0.0])


def test_the_ring_forgets_the_oldest_and_restores_exactly():
    ring = Replay(5)
    for start in (0, 3, 6):
        ring.add({"x": np.arange(start, start + 3)[:, None], "r": np.arange(start, start + 3)})
    assert sorted(ring.gather(np.arange(5))["r"].tolist()) == [4, 5, 6, 7, 8]
    other = Replay(5)
    other.restore(ring.state("ring"), "ring")
    for one in (ring, other):
        one.add({"x": np.full((1, 1), 9.0), "r": np.array([9.0])})
    assert torch.equal(ring.gather(np.arange(5))["x"], other.gather(np.arange(5))["x"])
    with pytest.raises(CheckpointError, match="too small"):
        Replay(3).restore(ring.state("ring"), "ring")


def test_every_ring_that_is_not_empty_has_an_equal_share():
    rings = [Replay(9), Replay(9), Replay(9)]
    rings[0].add({"r": np.zeros(9)})
    rings[1].add({"r": np.ones(2)})
    batch = symmetric(rings, 8, generator(0, "x"))
    assert batch["r"].tolist() == [0.0] * 4 + [1.0] * 4


def test_histograms_have_their_value_as_mean():
    centres = torch.linspace(0, 1, 51)
    values = torch.tensor([0.3, 0.5, 0.777])
    mass = hl_gauss(values, centres)
    torch.testing.assert_close(mass.sum(1), torch.ones(3))
    torch.testing.assert_close(mass @ centres, values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", ["scalar", "hl_gauss"])
def test_critics_learn_a_discounted_return(value):
    """Two states in a row, reward 1 at the end: Q = 1 and gamma."""
    torch.manual_seed(0)
    config = CriticConfig(heads=3, width=32, depth=1, value=value)
    critics = Critics(config, 2, rate=3e-3, tau=0.1, bounds=(0.0, 1.0))
    x = torch.eye(2)
    for _ in range(300):
        following = torch.stack([critics.least(x)[1], torch.tensor(0.0)])
        critics.update(x, torch.tensor([0.0, 1.0]), torch.tensor([0.8, 0.0]), following.detach())
    torch.testing.assert_close(critics.online.value(x).mean(0), torch.tensor([0.8, 1.0]), atol=0.05, rtol=0)


def test_heads_are_independent_and_picked_heads_are_constants():
    torch.manual_seed(0)
    net = CriticConfig(heads=4, width=8, depth=2).build(3)
    x = torch.randn(5, 3, requires_grad=True)
    whole = net.value(x)
    picked = net.value(x, torch.tensor([2, 0]))
    torch.testing.assert_close(picked, whole[[2, 0]])
    picked.sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in net.parameters())


def test_training_goes_on_exactly():
    def make():
        torch.manual_seed(0)
        return Trained("net", torch.nn.Linear(2, 1), 1e-2)

    def learn(trained, steps):
        for _ in range(steps):
            trained.step(trained.module(torch.ones(3, 2)).square().mean())

    first, second = make(), make()
    learn(first, 4)
    second.restore({name: value.clone() for name, value in first.state().items()})
    learn(first, 3)
    learn(second, 3)
    assert all(torch.equal(value, second.state()[name]) for name, value in first.state().items())


def test_bad_sizes_are_refused():
    with pytest.raises(ConfigError, match="subset"):
        CriticConfig(heads=2, subset=3)


class _Noted:
    def begin(self, rows, episodes, obs): ...

    def act(self, obs, active): ...

    def notes(self):
        return {"seen": np.array([[1.0], [2.0]])}

    def outlook(self, rows, obs):
        return {"seen": obs["x"][rows]}


def _record(success, truncated=(False, False), finished=(), x=0.0):
    two = np.zeros((2, 1))
    return StepRecord(
        episode=np.array([0, 1]),
        active=np.ones(2, bool),
        obs={"x": two},
        action=two,
        executed=two,
        reward=np.zeros(2),
        terminated=np.zeros(2, bool),
        truncated=np.array(truncated),
        success=np.array(success),
        next_obs={"x": two + x},
        finished=finished,
    )


def test_an_episode_is_over_with_its_first_success():
    take = Trajectories(_Noted(), lambda record: record.success.astype(float))
    assert take(_record([False, False])) == []
    (first,) = take(_record([True, False], x=7.0))
    assert first.success
    assert first.terminated
    assert first.reward.tolist() == [0.0, 1.0]
    assert first.notes["seen"][:, 0].tolist() == [1.0, 1.0]
    assert first.final["seen"].tolist() == [7.0]
    assert take(_record([True, False])) == []  # an environment that goes on after its success
    gone = (Outcome(1, 0, False, 0.0, 0.0, 4, diverged=True),)
    assert take(_record([True, False], truncated=(True, True), finished=gone)) == []


def test_a_clock_does_not_terminate():
    take = Trajectories(_Noted(), lambda record: record.success.astype(float))
    first, second = take(_record([False, False], truncated=(True, True)))
    assert not first.terminated
    assert len(second) == 1


class _Recorded:
    """Two episodes of three steps; the second says that it succeeded in its middle."""

    spec = Spec({"x": Feature(shape=(1,))}, ActionSpec(1), 10.0)
    lengths = np.array([3, 3])

    def read(self, episode, keys, start=0, stop=None):
        frames = {"x": np.arange(3.0)[:, None] + 10 * episode, "action": np.full((3, 1), 0.5)}
        if episode == 1:
            frames |= {"next.success": np.array([False, True, True]), "next.reward": np.array([0.1, 0.2, 0.3])}
        missing = [key for key in keys if key not in frames]
        if missing:
            raise DataError(f"no {missing}")
        return {key: frames[key] for key in keys}


class _Watches:
    """Notes what it saw; its own actions are not the recorded ones."""

    def begin(self, rows, episodes, obs):
        self.began = int(episodes[0])

    def act(self, obs, active):
        self.seen = obs["x"].copy()
        return np.full((1, 1), -9.0)

    def notes(self):
        return {"seen": self.seen}


def test_demonstrations_are_trajectories_of_an_explorer_that_watched():
    source = _Recorded()
    first, second = demonstrations(source, _Watches(), source.spec, range(2))
    assert first.notes["seen"][:, 0].tolist() == [0.0, 1.0, 2.0]
    assert first.reward.tolist() == [0.0, 0.0, 1.0]  # kept, so it worked
    assert first.terminated
    assert first.action[:, 0].tolist() == [0.5] * 3
    assert second.reward.tolist() == [0.0, 1.0]
    (dense,) = demonstrations(source, _Watches(), source.spec, [1], dense=True)
    assert dense.reward.tolist() == [0.1, 0.2]
    with pytest.raises(DataError, match="no reward"):
        list(demonstrations(source, _Watches(), source.spec, [0], dense=True))


def test_networks_tell_apart_what_the_demonstrations_did_not_vary():
    state = torch.tensor([[20.0, 3.0], [30.0, 3.0], [40.0, 3.0]])  # deviations of the demonstrations; one constant
    network, critic = mlp(3, 8, 1, 1), CriticConfig(heads=2).build(3)
    wide = torch.cat([state, torch.tensor([[0.5], [0.5], [-0.5]])], 1)
    before = [inputs(wide)[:, 0] for inputs in (network[0], critic.inputs)]
    assert all(len(column.unique()) == 1 for column in before)  # all cut at 5: what differs looks the same
    standardise(state, network, critic)
    for seen in (network[0](wide), critic.inputs(wide)):
        assert seen[:, 0].tolist() == [-1.0, 0.0, 1.0]
        assert seen[:, 1].tolist() == [0.0, 0.0, 0.0]
        assert seen[:, 2].tolist() == [0.5, 0.5, -0.5]  # actions keep their scale


def test_what_is_far_from_the_demonstrations_and_from_most_states_is_not_familiar():
    state = torch.tensor([[1.0, 0.0], [0.0, -2.0], [2.0, 0.5], [5.0, 0.0], [0.1, -1290.0]])
    assert familiar(state).tolist() == [True, True, True, True, False]
    assert familiar(state[-1:]).tolist() == [True]  # where all is far, all there is


def test_the_slow_copy_follows_and_comes_back():
    trained = Trained("net", torch.nn.Linear(1, 1, bias=False), 0.1, tau=0.5)
    start = trained.slow.weight.item()
    trained.step(trained.module(torch.ones(1, 1)).sum())
    assert trained.slow.weight.item() == pytest.approx((start + trained.module.weight.item()) / 2)
    again = Trained("net", torch.nn.Linear(1, 1, bias=False), 0.1, tau=0.5)
    again.restore(trained.state())
    assert again.slow.weight.item() == trained.slow.weight.item()
    assert again.module.weight.item() == trained.module.weight.item()


def _policy(observations, history=2):
    network = {"name": "mlp", "width": 16, "depth": 1}
    encoder = {"image": {"name": "conv", "stages": [4, 8]}}
    options = {"name": "flow", "history": history, "chunk": 3, "network": network, "encoder": encoder}
    torch.manual_seed(0)
    return configure("policy", options, "policy").build(Spec(observations, ActionSpec(2), rate_hz=10.0)).eval()


def test_what_is_learned_from_holds_what_pictures_say():
    signal, picture = Feature("signal", (5,)), Feature("image", (3, 16, 16))
    plain, seeing = _policy({"state": signal}), _policy({"state": signal, "camera": picture})
    obs = {"state": torch.randn(4, 2, 5), "camera": torch.rand(4, 2, 3, 16, 16)}
    assert torch.equal(state_of(plain, obs), obs["state"][:, -1])
    state = state_of(seeing, obs)
    assert (state_size(plain), state_size(seeing)) == (5, 5 + 3 * 2) == (5, state.shape[1])
    other = state_of(seeing, {**obs, "camera": torch.rand(4, 2, 3, 16, 16)})
    assert torch.equal(state[:, :5], other[:, :5])
    assert not torch.isclose(state[:, 5:], other[:, 5:]).all(1).any()
    with pytest.raises(SpecError, match="no signal"):
        state_size(_policy({"camera": picture}))
