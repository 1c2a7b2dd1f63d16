"""Decisions, steering, values and offline learning over chunks: numbers by hand, and small runs to their ends."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from robolearn import checkpoint
from robolearn.actor import load
from robolearn.config import parse
from robolearn.errors import ConfigError
from robolearn.policies.diffusion import DiffusionConfig
from robolearn.policies.steered import SteeredConfig
from robolearn.policies.valued import ValuedConfig
from robolearn.rl.chunks import action_chunks, chunk_transitions, cloning_batch, decisions, window_of
from robolearn.rl.collect import GroupedStarts, Trajectory
from robolearn.rl.offline import OfflineConfig, exponential_weights
from robolearn.rl.steering import SteeringConfig, squashed_log_prob
from robolearn.rl.training import finetune, parse_rl
from robolearn.rl.value_guided import ValueGuidedConfig, conservative_gap
from robolearn.rl.values import expectile_loss
from robolearn.rollout import episode_seed

SMALL = {"critics": {"heads": 2, "width": 32, "depth": 1}, "batch_size": 32, "warmup": 150, "updates": 0.3}
RUNS = [
    ("steering", {}),
    ("value_guided", {"value": "iql"}),
    ("value_guided", {"value": "cal_ql", "critics": {"heads": 2, "width": 32, "depth": 1, "value": "hl_gauss"}}),
    ("offline", {"method": "advantage"}),
    ("offline", {"method": "trajectory"}),
    ("offline", {"method": "fql", "width": 32}),
]


def _trajectory(problem, length=7, terminated=True):
    """Return an episode of `length` steps; decisions fall every four, success is in the last step."""
    random = np.random.default_rng(0)
    spec = problem.actor.spec
    shapes = {f"window/{key}": (spec.history, *f.shape) for key, f in spec.observations.items()}
    notes = {key: random.normal(size=(length, *shape)).astype(np.float32) for key, shape in shapes.items()}
    notes["noise"] = random.normal(size=(length, *problem.actor.noise_shape)).astype(np.float32)
    notes["decided"] = np.arange(length) % 4 == 0
    final = {key: value[-1] + 1 for key, value in notes.items()}
    reward = np.zeros(length)
    reward[-1] = terminated
    action = random.normal(size=(length, spec.action.dim))
    return Trajectory(notes, final, action, reward, terminated, terminated, 0)


def test_decisions_by_hand(problem):
    found = decisions(_trajectory(problem), 0.9)
    assert found.step.tolist() == [0, 4]
    assert found.reward == pytest.approx([0, 0.9**2])
    assert found.discount == pytest.approx([0.9**4, 0])
    assert decisions(_trajectory(problem, terminated=False), 0.9).discount == pytest.approx([0.9**4, 0.9**3])


def test_chunks_by_hand():
    chunks, pad = action_chunks(np.arange(3.0)[:, None], 2)
    assert chunks[..., 0].tolist() == [[0, 1], [1, 2], [2, 2]]
    assert pad.tolist() == [[False, False], [False, False], [False, True]]


def test_rows_of_an_episode_are_training_windows(problem):
    trajectory = _trajectory(problem)
    rows = chunk_transitions(problem, trajectory, 0.9)
    assert rows["return"] == pytest.approx(0.9 ** np.arange(6, -1, -1))
    assert rows["reward"] == pytest.approx([0, 0, 0, 0.9**3, 0.9**2, 0.9, 1])  # four steps are executed
    assert rows["discount"] == pytest.approx([0.9**4] * 3 + [0] * 4)
    assert rows["next_state"][0] == pytest.approx(rows["state"][4])
    ends = problem.encode({key: trajectory.final[f"window/{key}"][None] for key in problem.actor.spec.observations})
    assert rows["next_state"][-1] == pytest.approx(ends[0])
    batch = cloning_batch({key: torch.as_tensor(np.asarray(value, np.float32)) for key, value in rows.items()})
    assert torch.isfinite(problem.actor.policy.loss(batch)[0]).all()
    raw, pad = action_chunks(trajectory.action, 8)
    window = {key: torch.from_numpy(value) for key, value in window_of(trajectory, np.arange(7)).items()}
    decoded = problem.actor.pipeline.decode(batch["action"], problem.actor.pipeline.encode(window)[1])
    assert decoded[~torch.from_numpy(pad)].numpy() == pytest.approx(raw[~pad], abs=1e-4)


def test_groups_start_alike():
    class Env:
        spec, num_envs, max_episode_steps = None, 3, 1

        def reset(self, seed, options):
            return seed, options["episode"].tolist()

    told = {"reset_mask": np.array([True, False, True]), "episode": np.array([5, 6, 8])}
    seeds, numbers = GroupedStarts(Env(), 4, 7).reset(seed=[1, None, 3], options=told)  # ty: ignore[invalid-argument-type]
    assert seeds == [episode_seed(7, 1), None, episode_seed(7, 2)]
    assert numbers == [1, 1, 2]


def test_squashed_densities_integrate_to_one():
    x = torch.linspace(-0.99999, 0.99999, 200_001)
    mean, log_std = torch.tensor([[0.4]]), torch.tensor([[-0.3]])
    density = squashed_log_prob(x.atanh()[:, None], mean, log_std).exp()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=2e-3)


def test_expectiles_weights_and_gaps_by_hand():
    assert float(expectile_loss(torch.tensor([1.0, -2.0]), 0.8)) == pytest.approx((0.8 * 1 + 0.2 * 4) / 2)
    weights = exponential_weights(torch.tensor([0.0, -0.1, 9.0]), 0.1, 20.0)
    assert weights.tolist() == pytest.approx([1, math.exp(-1), 20])
    # One head, one state, two proposals: the lower one is lifted to the return.
    gap = conservative_gap(torch.tensor([[[0.1, 0.9]]]), torch.tensor([[0.5]]), torch.tensor([0.4]))
    assert float(gap) == pytest.approx(math.log((math.exp(0.4) + math.exp(0.9)) / 2) - 0.5)


@pytest.mark.parametrize("method", ["trajectory", "fql"])
def test_a_clone_learns_nothing_where_it_knows_nothing(problem, method):
    """How far away a far state is changes nothing of the actor."""
    found = []
    for far in (1e3, 1e5):
        algorithm = parse(OfflineConfig, {"name": "offline", "method": method, **SMALL}).build(problem)
        rows = algorithm.rows(_trajectory(problem))
        batch = {key: torch.tensor(value, dtype=torch.float32) for key, value in rows.items()}
        for key in [key for key in rows if key.startswith("obs/") or key == "state"]:
            batch[key][-1] = far
        torch.manual_seed(0)
        algorithm.learn(batch)
        found.append([value.clone() for value in algorithm.actor.module.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_policies_refuse_what_does_not_fit(problem):
    spec = problem.inner
    noisy = {"name": "diffusion", "history": 2, "chunk": 8, "sampler": {"name": "ddpm", "steps": 5}}
    with pytest.raises(ConfigError, match="first noise"):
        SteeredConfig(base=noisy).build(spec)
    assert DiffusionConfig(chunk=8).build(spec).noise_shape == (1, 8, spec.action.dim)
    assert SteeredConfig(base={**noisy, "sampler": {"name": "ddim", "steps": 5}}).build(spec).noise_shape[0] == 1
    with pytest.raises(ConfigError, match="no noise"):
        OfflineConfig(method="fql").build(_with(problem, "regression"))
    with pytest.raises(ConfigError, match="deterministic"):
        ValueGuidedConfig().build(_with(problem, "regression"))
    with pytest.raises(ConfigError, match="not cloned"):
        ValuedConfig(base={"name": "flow", "history": 2, "chunk": 8}).build(spec).loss({})


def _with(problem, name):
    options = {key: value for key, value in problem.clone.config["policy"].items() if key in ("history", "chunk")}
    clone = dataclasses.replace(problem.clone, config={**problem.clone.config, "policy": {"name": name, **options}})
    return dataclasses.replace(problem, clone=clone)


def test_a_scored_sample_is_the_best_one(problem):
    algorithm = ValueGuidedConfig(samples=4).build(problem)
    net = algorithm.net.eval()
    obs = {key: torch.randn(3, 2, *f.shape) for key, f in problem.inner.observations.items()}
    noise = torch.randn(3, *net.noise_shape)
    with torch.no_grad():
        first = net.policy.sample(obs, noise[:, 0])
        assert torch.allclose(net.sample(obs, noise), first, atol=1e-5)  # nothing was learned yet
        net.policy.ready.fill_(1)
        chunks = torch.stack([net.policy.sample(obs, noise[:, i]) for i in range(4)], 1)
        scores = torch.stack([net.policy.score(obs, chunks[:, i]) for i in range(4)], 1)
        best = chunks[torch.arange(3), scores.argmax(1)]
        assert torch.allclose(net.sample(obs, noise), best, atol=1e-5)


def test_steering_finds_the_noise_that_pays(problem):
    """One decision; it pays as much as the first number of its noise."""
    small = dataclasses.replace(SteeringConfig().critics, heads=2, width=64, depth=1)
    config = SteeringConfig(critics=small, warmup=0, rate=3e-3, batch_size=64, updates=1.0)
    algorithm = config.build(dataclasses.replace(problem, sparse=False))
    for seed in range(64):
        one = _trajectory(problem, length=1)
        noise = np.random.default_rng(seed).normal(size=one.notes["noise"].shape).astype(np.float32)
        noise[:] = noise[:, :1]
        algorithm.observe(dataclasses.replace(one, notes={**one.notes, "noise": noise}, reward=noise[0, 0, :1] / 3))
    algorithm.update(150, False)
    mean, _ = algorithm.net.gaussian(torch.from_numpy(problem.encode(_window(problem, one))))
    assert float(mean.detach()[0, 0].tanh()) > 0.5


def _window(problem, trajectory):
    return {key: trajectory.notes[f"window/{key}"] for key in problem.actor.spec.observations}


@pytest.mark.parametrize(("algo", "options"), RUNS, ids=[f"{a}-{'-'.join(map(str, o.values()))[:9]}" for a, o in RUNS])
def test_a_run_deploys_and_resumes_bit_for_bit(plain, resumed, tmp_path, algo, options):
    whole, part = resumed(plain, algo, {**SMALL, **options})
    assert whole.counters["algorithm"]["updates"] > 20
    assert whole.weights.keys() == part.weights.keys()
    assert all(torch.equal(value, part.weights[name]) for name, value in whole.weights.items())
    actor = load(tmp_path / "whole")
    obs = {key: np.zeros((2, 2, *f.shape), np.float32) for key, f in actor.spec.observations.items()}
    chunks = actor.act(obs, np.random.default_rng(0).normal(size=(2, *actor.noise_shape)))
    assert chunks.shape == (2, 8, actor.spec.action.dim)
    assert np.isfinite(chunks).all()
    assert checkpoint.load(tmp_path / "whole").config["policy"]["name"] in ("flow", "steered", "ranked", "one_step")


def test_unknown_options_are_refused(plain):
    with pytest.raises(ConfigError, match="cal_ql"):
        parse_rl(plain(algo="value_guided", options={"value": "calql"}))
    with pytest.raises(ConfigError, match="whole groups"):
        parse_rl(plain(algo="policy_gradient", group=3))
    with pytest.raises(ConfigError, match="group of one"):
        finetune(parse_rl(plain(algo="policy_gradient", options={"advantage": "group"})))
