"""Denoising chains and their likelihood; policy gradients through them."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from robolearn.config import parse
from robolearn.errors import ConfigError
from robolearn.policies.diffusion import DiffusionConfig
from robolearn.policies.flow import FlowConfig
from robolearn.policies.regression import RegressionConfig
from robolearn.policies.samplers import diffusion_steps
from robolearn.rl.chains import Chain, ChainConfig, Steps, gaussian_kl, noise_basis
from robolearn.rl.collect import Trajectory
from robolearn.rl.policy_gradient import PolicyGradientConfig, clipped_surrogate, whole_groups
from robolearn.spec import ActionSpec, Feature, Spec

LINE = Spec({"x": Feature(shape=(1,))}, ActionSpec(1), 10.0)
OBS = {"x": torch.full((1, 1, 1), 0.3)}
TINY = {"name": "mlp", "width": 16, "depth": 1}


def _policy(config, **options):
    torch.manual_seed(0)
    return parse(config, {"history": 1, "chunk": 1, "network": TINY, **options}).build(LINE).eval()


def _rows(count):
    return {"x": OBS["x"].expand(count, 1, 1)}


def _density(chain, start, grid):
    """Return p(x_2 | x_0) on `grid` [N] of a chain of two steps, by summing over x_1 on the same grid."""
    size, width = len(grid), float(grid[1] - grid[0])
    middle, end = torch.meshgrid(grid, grid, indexing="ij")
    chains = torch.stack([torch.full_like(end, start), middle, end], -1).reshape(size * size, 3, 1, 1)
    log_prob = chain.evaluate(_rows(size * size), chains).log_prob(chains).sum((1, 2))
    return log_prob.exp().reshape(size, size).sum(0) * width


@pytest.mark.parametrize(
    ("config", "options", "noise"),
    [
        (FlowConfig, {"steps": 2}, ChainConfig(floor=0.2, ceiling=0.4)),
        (FlowConfig, {"steps": 2}, ChainConfig(eta=0.8, floor=0.1)),
        (FlowConfig, {"steps": 2}, ChainConfig(floor=0.1, ceiling=0.6, learned=True)),
        (DiffusionConfig, {"clip": False, "sampler": {"name": "ddim", "steps": 2}}, ChainConfig(eta=1.0, floor=0.15)),
        (DiffusionConfig, {"clip": False, "sampler": {"name": "ddpm", "steps": 2}}, ChainConfig(floor=0.15)),
    ],
    ids=["flow", "flow-sde", "flow-learned", "ddim", "ddpm"],
)
@torch.no_grad()
def test_likelihoods_are_those_of_numerical_integration(config, options, noise):
    chain, start = Chain(_policy(config, **options), noise), 0.5
    draws = torch.randn(40_000, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    draws[:, 0] = start
    samples = chain.sample(_rows(len(draws)), draws).flatten()
    spread = float(samples.std())
    grid = torch.linspace(float(samples.mean()) - 6 * spread - 2, float(samples.mean()) + 6 * spread + 2, 501)
    density, width = _density(chain, start, grid), float(grid[1] - grid[0])
    assert float(density.sum()) * width == pytest.approx(1, abs=2e-3)
    quantiles = samples.quantile(torch.tensor([0.2, 0.5, 0.8])).numpy()
    below = np.interp(quantiles, (grid + width / 2).numpy(), (density.cumsum(0) * width).numpy())
    assert below == pytest.approx([0.2, 0.5, 0.8], abs=0.01)


@torch.no_grad()
def test_a_chain_without_noise_is_the_policy():
    policy = _policy(FlowConfig, steps=3)
    noise = torch.randn(5, 4, 1, 1)
    noise[:, 1:] = 0
    assert torch.allclose(Chain(policy, ChainConfig()).sample(_rows(5), noise), policy.sample(_rows(5), noise[:, 0]))


@torch.no_grad()
def test_noise_is_a_sum_of_cosines_and_likelihoods_are_of_their_coefficients():
    torch.manual_seed(0)
    spec = Spec({"x": Feature(shape=(1,))}, ActionSpec(2), 10.0)
    policy = parse(FlowConfig, {"history": 1, "chunk": 8, "network": TINY, "steps": 2}).build(spec).eval()
    chain, draws = Chain(policy, ChainConfig(floor=0.3, ceiling=0.4, cosines=3)), torch.randn(500, 3, 8, 2)
    run = chain.run(_rows(500), draws)
    steps = chain.evaluate(_rows(500), run)
    added = (run[:, 1:] - steps.mean) / 0.3
    assert float(torch.linalg.matrix_rank(added[..., 0].flatten(0, 1), atol=1e-3)) == 3
    assert float(added.square().mean()) == pytest.approx(1, abs=0.05)
    normal = torch.distributions.Normal(0.0, 0.3)
    assert torch.allclose(
        steps.log_prob(run).sum((1, 2)), normal.log_prob(0.3 * draws[:, 1:, :3]).sum((1, 2, 3)), atol=1e-3
    )
    with pytest.raises(ConfigError, match="fewer rows"):
        Chain(policy, ChainConfig(cosines=9))


@torch.no_grad()
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_noise_keeps_the_flow_s_distribution(eta, monkeypatch):
    """Data N(2, 0.5²) has a velocity field in closed form; any eta must arrive there."""
    policy, mean, spread = _policy(FlowConfig, steps=200), 2.0, 0.5

    def velocity(x, time):
        t = time[:, None, None]
        variance = t**2 * spread**2 + (1 - t) ** 2
        return mean + (t * spread**2 - (1 - t)) / variance * (x - t * mean)

    monkeypatch.setattr(policy, "flow_field", lambda obs, count: velocity)
    move = policy.transitions(_rows(20_000), 20_000, eta)
    torch.manual_seed(2)
    x = torch.randn(20_000, 1, 1)
    for step in range(200):
        centre, deviation = move(x, step)
        x = centre + deviation * torch.randn_like(x)
    assert float(x.mean()) == pytest.approx(mean, abs=0.02)
    assert float(x.std()) == pytest.approx(spread, abs=0.02)


def test_ddim_with_all_its_noise_is_ddpm():
    clean, x = 0.4, -0.9
    for one, other in zip(
        diffusion_steps("ddim", "squaredcos", 50, 5, 1.0), diffusion_steps("ddpm", "squaredcos", 50, 5), strict=True
    ):
        epsilon = (x - math.sqrt(one.alpha_bar) * clean) / math.sqrt(1 - one.alpha_bar)
        assert one.clean * clean + one.noise * epsilon == pytest.approx(other.clean * clean + other.x * x)
        assert one.fresh == pytest.approx(other.fresh, abs=1e-9)


def test_divergences_by_hand():
    white = noise_basis(1, 0)
    old = Steps(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2), white)
    new = Steps(torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2), torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2), white)
    assert float(gaussian_kl(new, old)) == pytest.approx(0.5 + (4 - 1 - 2 * math.log(2)) / 2)


def test_the_surrogate_by_hand():
    change = torch.log(torch.tensor([[1.5], [0.5], [1.5], [0.5]]))
    gain = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert float(clipped_surrogate(change, gain, 0.2)) == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)
    far = torch.tensor([[50.0]], requires_grad=True)
    loss = clipped_surrogate(far, torch.tensor([-2.0]), 0.2)
    loss.backward()
    assert (float(loss.detach()), float(far.grad)) == (6.0, 0.0)


def test_what_has_no_likelihood_is_refused(problem):
    with pytest.raises(ConfigError, match="RegressionPolicy"):
        Chain(_policy(RegressionConfig), ChainConfig())
    with pytest.raises(ConfigError, match="euler"):
        Chain(_policy(FlowConfig, solver="heun"), ChainConfig()).run(OBS, torch.zeros(1, 5, 1, 1))
    chain = Chain(_policy(DiffusionConfig, sampler={"name": "unipc", "steps": 2}), ChainConfig())
    with pytest.raises(ConfigError, match="unipc"):
        chain.run(OBS, torch.zeros(1, 3, 1, 1))
    with pytest.raises(ConfigError, match="group of one"):
        PolicyGradientConfig(advantage="group").build(problem)
    with pytest.raises(ConfigError, match="nothing to clone"):
        PolicyGradientConfig(regulariser="cloning").build(dataclasses.replace(problem, demonstrated=False))


def _bandit(algorithm, problem, number, good):
    """Let `algorithm` take one-step episodes from one observation; returns how many are `good`."""
    rows = 64
    explorer = algorithm.explorer(rows, 0)
    obs = {key: np.zeros((rows, *f.shape), np.float32) for key, f in problem.actor.spec.observations.items()}
    explorer.begin(np.arange(rows), np.arange(number * rows, (number + 1) * rows), obs)
    action = explorer.act(obs, np.ones(rows, bool))
    notes, won = explorer.notes(), good(action)
    for row in range(rows):
        noted = {key: value[row : row + 1].copy() for key, value in notes.items()}
        final = {key: value[0] for key, value in noted.items()}
        episode = number * rows + row
        algorithm.observe(Trajectory(noted, final, action[row : row + 1], won[row : row + 1], True, True, episode))
    algorithm.update(0, True)
    return float(won.mean()), action


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": "step"},
        {"ratio": "mean", "clip": 0.02},
        {"advantage": "group"},
        {"regulariser": "kl", "strength": 1e-3, "chain": ChainConfig(floor=0.3, ceiling=0.4, cosines=2)},
    ],
)
def test_a_bandit_is_learned(problem, options):
    """The reward is the first number of the action, in deviations of where it began."""
    problem = dataclasses.replace(problem, group=8, sparse=False)
    common = {"chain": ChainConfig(floor=0.3, ceiling=0.4), "actor_rate": 3e-4, "critic_rounds": 0, "target_kl": 0.2}
    config = PolicyGradientConfig(**{**common, **options})
    algorithm = config.build(problem)
    _, first = _bandit(algorithm, problem, 0, lambda action: np.zeros(len(action)))
    begin, spread = first[:, 0].mean(), first[:, 0].std()
    found = [_bandit(algorithm, problem, n, lambda action: (action[:, 0] - begin) / spread)[0] for n in range(1, 16)]
    assert np.mean(found[-3:]) > np.mean(found[:3]) + 0.5


def _episode(number):
    return Trajectory({}, {}, np.zeros((1, 1)), np.zeros(1), True, False, number)


def test_only_whole_groups_count():
    seen = [_episode(number) for number in (5, 0, 1, 2, 4)]
    assert [one.episode for one in whole_groups(seen, 2)] == [0, 1, 4, 5]


@pytest.mark.parametrize(
    "options", [{"advantage": "gae", "regulariser": "cloning"}, {"advantage": "group", "regulariser": "kl"}]
)
def test_a_run_resumes_bit_for_bit(plain, options, resumed):
    whole, part = resumed(plain, "policy_gradient", options, group=2, steps=600)
    assert whole.weights.keys() == part.weights.keys()
    assert all(torch.equal(value, part.weights[name]) for name, value in whole.weights.items())
    assert any(key.startswith("actor/exp_avg") for key in whole.weights)
