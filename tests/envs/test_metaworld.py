"""Meta-World's tasks: the same trajectories and rewards as its own environments, decided by the seed alone."""

import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from robolearn.api import make_env
from robolearn.envs.metaworld_terms import NATIVE
from robolearn.errors import ConfigError
from robolearn.rollout import ExpertController, rollout
from robolearn.seeding import generator

OTHERS = ("assembly-v3", "basketball-v3", "stick-pull-v3")


def plain(task, seed):
    """Return Meta-World's own environment and its first observation for our seed."""
    env = ALL_V3_ENVIRONMENTS[task]()
    env._freeze_rand_vec, env.seeded_rand_vec, env._set_task_called = False, True, True
    env._partially_observable = False
    vars(env).pop("sawyer_observation_space", None)
    env._np_random = generator(seed, "episode")
    return env, env.reset()[0]


def check_equal(task, steps):
    env = make_env(f"metaworld/{task}", 2, {"stop_on_success": False})
    obs, _ = env.reset(seed=[9, 5])
    other, expected = plain(task, 5)
    assert np.array_equal(obs["observation.state"][1], expected.astype(np.float32))
    for action in generator("actions").uniform(-1, 1, (steps, 4)).astype(np.float32):
        expected, reward, _, _, info = other.step(action)
        _, ours, _, _, mine = env.step(np.tile(action, (2, 1)))
        assert np.array_equal(env.data[1].qpos, other.data.qpos)
        assert np.allclose(env.latest[1], expected, rtol=0, atol=1e-9)
        assert ours[1] == pytest.approx(float(reward), rel=1e-6, abs=1e-9)  # single precision in places there
    assert bool(info["success"]) <= bool(mine["success"][1])


@pytest.mark.parametrize("task", [*NATIVE, *OTHERS])
def test_trajectories_and_rewards_equal_meta_worlds(task):
    check_equal(task, steps=12)


@pytest.mark.long
@pytest.mark.parametrize("task", sorted(ALL_V3_ENVIRONMENTS))
def test_every_task_equals_meta_worlds(task):
    check_equal(task, steps=200)


@pytest.mark.parametrize("task", ["push-v3", "assembly-v3"])
def test_rows_threads_and_snapshots_change_nothing(task):
    actions = generator("actions").uniform(-1, 1, (8, 4))
    env = make_env(f"metaworld/{task}", 3, {"threads": 2, "stop_on_success": False})
    env.reset(seed=[1, 2, 3])
    single = make_env(f"metaworld/{task}", 1, {"stop_on_success": False})
    single.reset(seed=[2])
    for action in actions[:4]:
        env.step(np.tile(action, (3, 1)))
        single.step(action[None])
    assert np.array_equal(env.data[1].qpos, single.data[0].qpos)
    saved = env.snapshot(1)
    expected = [env.step(np.tile(action, (3, 1)))[0]["observation.state"][1] for action in actions[4:]]
    single.restore(0, saved)
    assert np.array_equal([single.step(action[None])[0]["observation.state"][0] for action in actions[4:]], expected)


def test_an_unknown_task_has_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'assembly-v3'"):
        make_env("metaworld/asembly-v3", 1)


def test_a_picture_shows_each_row_with_what_its_reset_moved():
    env = make_env("metaworld/drawer-open", 2)
    env.reset(seed=[1, 2])
    one, other = (env.render(row, width=96, height=72).astype(int) for row in (0, 1))
    assert one.std() > 20
    assert np.abs(one - other).max() > 60
    assert np.array_equal(env.render(0, width=96, height=72), one)


@pytest.mark.parametrize("task", ["reach-v3", "assembly-v3"])
def test_scripts_reach_goals_that_only_the_observation_tells(task):
    env = make_env(f"metaworld/{task}", 3)
    outcomes = rollout(env, ExpertController(env.expert(), 0), range(3), 0)
    assert all(outcome.success for outcome in outcomes)
