"""Samplers against closed forms and against diffusers; objectives on a two-mode toy."""

from itertools import pairwise

import pytest
import torch

from robolearn.errors import ConfigError, SpecError
from robolearn.policies.flow import prefix_weights
from robolearn.policies.goals import GoalConfig
from robolearn.policies.samplers import alpha_bars, guided_velocity, integrate
from robolearn.spec import ActionSpec, Feature, Spec


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_solvers_converge_with_their_order(solver, order):
    start = torch.ones(1, 1, 1, dtype=torch.float64)
    exact = torch.e**0.5  # of dx/dt = t·x

    def velocity(x, t):
        return t[:, None, None] * x

    errors = [abs(integrate(velocity, start, steps, solver).item() - exact) for steps in (8, 16)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)


def test_guidance_reaches_the_known_actions():
    target = torch.full((2, 4, 1), 0.7)
    weights = torch.tensor([1.0, 1.0, 0.0, 0.0])

    def velocity(x, t):  # the flow towards zero
        return -x / (1 - t[:, None, None]).clamp(min=0.05)

    noise = torch.randn(2, 4, 1, generator=torch.Generator().manual_seed(0))
    plain = integrate(velocity, noise, 20)
    with torch.inference_mode():
        steered = integrate(guided_velocity(lambda x, t: velocity(x, t) + 0.1 * x, target, weights, 5.0), noise, 20)
    assert (steered[:, :2] - 0.7).abs().max() < (plain[:, :2] - 0.7).abs().min()


def test_prefix_weights_fall_from_frozen_to_free():
    weights = prefix_weights(2, 5, 8, torch.device("cpu"))
    assert weights[:2].tolist() == [1.0, 1.0]
    assert (weights[5:] == 0).all()
    assert (weights[1:5].diff() < 0).all()


def _diffusers(name, options, output, noise, steps):
    """Sample with a scheduler of diffusers, its random draws replaced by ours."""
    import diffusers

    kinds = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler", "dpm_solver": "DPMSolverMultistepScheduler"}
    scheduler = getattr(diffusers, kinds[name])(**options)
    scheduler.set_timesteps(steps)
    x = noise[:, 0]
    for i, level in enumerate(scheduler.timesteps):
        if name == "ddpm":
            mean_options = {**options, "variance_type": "fixed_small"}
            plain = diffusers.DDPMScheduler(**mean_options)
            plain.set_timesteps(steps)
            variance = plain._get_variance(level) ** 0.5 if level > 0 else 0.0
            plain._get_variance = lambda *_, **__: torch.zeros(())
            x = plain.step(output(x, level), level, x).prev_sample
            x = x + variance * noise[:, i + 1] if level > 0 else x
        else:
            x = scheduler.step(output(x, level), level, x).prev_sample
    return x


@pytest.mark.parametrize("betas", ["squaredcos", "linear"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 100), ("ddpm", 20), ("ddim", 10), ("dpm_solver", 8)])
def test_samplers_equal_those_of_diffusers(bench, sampler, steps, prediction, betas):
    clip = sampler != "dpm_solver"  # its clipping there is another one (dynamic thresholding)
    policy = bench.policy(
        "diffusion", sampler={"name": sampler, "steps": steps}, prediction=prediction, betas=betas, clip=clip
    ).eval()
    batch, noise = bench.batch(policy), bench.noise(policy)
    options = {
        "num_train_timesteps": 100,
        "beta_schedule": {"squaredcos": "squaredcos_cap_v2", "linear": "linear"}[betas],
        "prediction_type": {"epsilon": "epsilon", "sample": "sample", "v": "v_prediction"}[prediction],
    }
    options |= {"clip_sample": clip} if clip else {}
    condition = policy.encoder(batch)

    def output(x, level):
        return policy._network(x, torch.full((len(x),), int(level)), condition)

    with torch.no_grad():
        ours = policy.sample(batch, noise)
        theirs = _diffusers(sampler, options, output, noise, steps)
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


def test_the_scheduler_of_diffusers_reaches_a_known_action(bench):
    policy = bench.policy("diffusion", sampler={"name": "unipc", "steps": 10}, prediction="sample").eval()
    policy.network.forward = lambda actions, *rest: torch.full_like(actions, 0.5)
    with torch.no_grad():
        chunk = policy.sample(bench.batch(policy), bench.noise(policy))
    torch.testing.assert_close(chunk, torch.full_like(chunk, 0.5), rtol=0, atol=0.02)


def test_alpha_bars_fall_from_one_to_zero():
    bars = alpha_bars("squaredcos", 100)
    assert bars[0] > 0.999
    assert bars[-1] < 1e-3
    assert all(a > b for a, b in pairwise(bars))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flow", {"steps": 8}),
        ("diffusion", {"sampler": {"name": "ddim", "steps": 20}, "prediction": "epsilon"}),
        ("diffusion", {"sampler": {"name": "ddpm", "steps": 100}, "prediction": "v"}),
        ("diffusion", {"sampler": {"name": "dpm_solver", "steps": 10}, "prediction": "sample"}),
        ("beso", {"steps": 8, "solver": "euler"}),
        ("beso", {"steps": 6, "solver": "heun", "schedule": "karras"}),
        ("beso", {"steps": 8, "solver": "dpm_solver"}),
        ("meanflow", {}),
    ],
)
def test_generative_policies_learn_both_modes(bench, name, options):
    """The action is +m or -m for the observed m; a mean would be zero."""
    policy = bench.policy(name, chunk=4, history=1, network={"name": "mlp", "width": 64, "depth": 2}, **options)

    def make_batch(size=256):
        state = torch.rand(size, 1, 3) * 0.5 + 0.5
        sign = torch.randint(0, 2, (size, 1, 1)) * 2.0 - 1
        action = (sign * state[..., :2]).expand(-1, 4, -1)
        return {"observation.state": state, "action": action, "action_is_pad": torch.zeros(size, 4, dtype=torch.bool)}

    torch.manual_seed(0)
    bench.train(policy, make_batch, 600)
    batch = make_batch(400)
    with torch.no_grad():
        chunk = policy.sample(batch, bench.noise(policy, 400))
    positive = (chunk.mean((1, 2)) > 0).float().mean()
    assert 0.35 < positive < 0.65
    error = (chunk.abs() - batch["observation.state"][..., :2]).abs().median()
    assert error < 0.1


def test_guidance_mixes_goal_and_no_goal(bench):
    """With goal the action is the goal; without, it is either side."""
    spec = Spec({"observation.state": Feature("signal", (1,)), "goal": Feature("signal", (1,))}, ActionSpec(1), 20.0)
    goals = {"keys": ["goal"], "drop": 0.5}
    policy = bench.policy("flow", spec, chunk=1, history=1, steps=8, goals=goals)

    def make_batch(size=256):
        goal = torch.randint(0, 2, (size, 1, 1)) * 2.0 - 1
        return {"observation.state": torch.zeros(size, 1, 1), "goal": goal, "action": goal}

    torch.manual_seed(0)
    bench.train(policy, make_batch, 400)
    batch, noise = make_batch(300), bench.noise(policy, 300)
    with torch.no_grad():
        followed = policy.sample(batch, noise).sign() == batch["goal"]
        policy.goals.config = GoalConfig(("goal",), 0.5, guidance=0.0)
        free = policy.sample({"observation.state": batch["observation.state"]}, noise)
        policy.goals.config = GoalConfig(("goal",), 0.5, guidance=2.0)
        strong = policy.sample(batch, noise).sign() == batch["goal"]
    assert followed.float().mean() > 0.97
    assert strong.float().mean() > 0.99
    assert 0.3 < (free > 0).float().mean() < 0.7


@pytest.mark.parametrize("name", ["flow", "beso", "meanflow"])
def test_goals_must_exist_and_be_given(bench, name):
    with pytest.raises(SpecError, match="goal"):
        bench.policy(name, goals={"keys": ["observation.gaol"]})
    with pytest.raises(ConfigError, match="goals"):
        bench.policy(name, goals={"guidance": 2.0})
    policy = bench.policy(name, bench.everything, goals={"keys": ["observation.language"]})
    batch = bench.batch(policy)
    del batch["observation.language"]
    with pytest.raises(SpecError, match="goal"):
        policy.loss(batch)
