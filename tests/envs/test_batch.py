"""The batched engine: determinism over rows and threads, snapshots, bad actions, noise."""

import numpy as np
import pytest

from robolearn.api import make_env
from robolearn.errors import ConfigError, EnvError
from robolearn.rollout import ExpertController, RandomController, rollout
from robolearn.seeding import generator


def trajectory(env, seeds, steps=25):
    obs, _ = env.reset(seed=seeds)
    low, high = np.array(env.spec.action.low), np.array(env.spec.action.high)
    draws = [generator(seed, "actions") for seed in seeds]
    seen = [obs]
    for _ in range(steps):
        actions = np.stack([draw.uniform(low, high) for draw in draws])
        seen.append(env.step(actions)[0])
    keys = ("observation.state", "observation.environment_state")
    return np.stack([np.concatenate([obs[key] for key in keys], 1) for obs in seen])


def test_bit_identical_for_any_number_of_threads_and_rows():
    seeds = list(range(7))
    reference = trajectory(make_env("pick_place", 7, {"threads": 1}), seeds)
    assert np.ptp(reference) > 0.1
    for threads in (2, 4):
        assert np.array_equal(trajectory(make_env("pick_place", 7, {"threads": threads}), seeds), reference)
    alone = trajectory(make_env("pick_place", 1), [5])
    assert np.array_equal(alone[:, 0], reference[:, 5])
    backwards = trajectory(make_env("pick_place", 7), seeds[::-1])
    assert np.array_equal(backwards[:, ::-1], reference)


def test_snapshot_resumes_in_another_row_bit_for_bit():
    env = make_env("pick_place", 2, {"perturb": {"control_noise": 2}})
    env.reset(seed=[3, 4])
    expert = ExpertController(env.expert(), 0)
    expert.begin(np.arange(2), np.arange(2), {})
    for _ in range(30):
        env.step(expert.act({}, np.ones(2, bool)))
    saved, low = env.snapshot(0), np.array(env.spec.action.low)
    actions = [generator(step).uniform(low, env.spec.action.high) for step in range(10)]
    first = [env.step(np.stack([action, action]))[0]["observation.environment_state"][0] for action in actions]
    other = make_env("pick_place", 3, {"perturb": {"control_noise": 2}})
    other.reset(seed=[7, 8, 9])
    other.restore(2, saved)
    second = [other.step(np.tile(action, (3, 1)))[0]["observation.environment_state"][2] for action in actions]
    assert np.array_equal(first, second)


def test_physics_that_runs_away_ends_as_diverged():
    env = make_env("pick_place", 2)
    env.reset(seed=[1, 2])
    env.data[0].qvel[:] = np.nan
    hold = np.tile([0.0, 0.0, 1.0, 0.0, -1.0], (2, 1))
    _, reward, terminated, truncated, info = env.step(hold)
    assert terminated.tolist() == [True, False]
    assert info["diverged"].tolist() == [True, False]
    assert not truncated.any()
    assert not info["success"].any()
    assert np.isfinite(reward).all()


def test_control_noise_moves_the_arm_but_not_the_action():
    clean, noisy = (make_env("pick_place", 1, {"perturb": {"control_noise": level}}) for level in (0, 3))
    hold = np.array([[0.0, 0.0, 1.0, 0.0, -1.0]])
    states = []
    for env in (clean, noisy):
        env.reset(seed=[1])
        states.append(np.stack([env.step(hold)[0]["observation.state"][0] for _ in range(40)]))
    away = np.linalg.norm(states[0][20:, :3] - states[1][20:, :3], axis=1)
    assert 0.001 < away.mean() < 0.03


def test_it_needs_a_reset_first_and_a_mask_of_the_right_kind():
    env = make_env("pick_place", 2)
    with pytest.raises(EnvError, match="never reset"):
        env.step(np.zeros((2, 5)))
    with pytest.raises(EnvError, match="reset mask"):
        env.reset(seed=[1, 2], options={"reset_mask": np.array([1, 0])})
    with pytest.raises(EnvError, match="One seed per row"):
        env.reset(seed=[1])
    with pytest.raises(EnvError, match="did you mean 'drawing'"):
        make_env("pick_place", 1, {"renderer": "drawin"})
    with pytest.raises(EnvError, match="did you mean 'wrist'"):
        make_env("pick_place", 1, {"cameras": ["wirst"], "renderer": "drawing"}).reset(seed=[1])
    with pytest.raises(ConfigError, match="did you mean 'max_steps'"):
        make_env("pick_place", 1, {"max_step": 3})


def test_image_observations_show_the_row():
    env = make_env("pick_place", 2, {"cameras": ["front"], "image_px": 64, "renderer": "drawing"})
    obs, _ = env.reset(seed=[1, 2])
    images = obs["observation.images.front"]
    assert images.shape == (2, 64, 64, 3)
    assert images.dtype == np.uint8
    assert not np.array_equal(images[0], images[1])
    assert images.std() > 10


def test_the_expert_solves_and_chance_does_not():
    env = make_env("pick_place", 32)
    outcomes = rollout(env, ExpertController(env.expert(), 0), range(64), 0)
    assert np.mean([outcome.success for outcome in outcomes]) >= 0.95
    outcomes = rollout(env, RandomController(env, 0), range(32), 0)
    assert np.mean([outcome.success for outcome in outcomes]) == 0.0
