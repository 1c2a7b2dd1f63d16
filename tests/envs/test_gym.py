"""gymnasium environments by id keep the contract, also where they were broken."""

# ruff: noqa: NPY002 - the global generator is what is tested

import gymnasium
import numpy as np
import pytest

from robolearn.api import make_env
from robolearn.errors import EnvError
from robolearn.rollout import ExpertController, rollout
from robolearn.testing import check_env


class Careless(gymnasium.Env):
    """Draws from numpy's global generator, ignores its seed and names success its own way."""

    observation_space = gymnasium.spaces.Dict(
        {"agent_pos": gymnasium.spaces.Box(-9, 9, (2,)), "goal": gymnasium.spaces.Box(-9, 9, (1,), np.float64)}
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,))
    metadata = {"render_fps": 5, "render_modes": []}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        self.place, self.goal = np.random.uniform(-1, 1, 2), np.random.uniform(1, 2, 1)
        return self._look(), {}

    def step(self, action):
        self.place = self.place + action + np.random.normal(0, 0.1, 2)
        near = bool(self.place[0] > self.goal[0])
        return self._look(), float(near), abs(self.place[1]) > 3, False, {"is_success": near}

    def _look(self):
        return {"agent_pos": self.place.astype(np.float32), "goal": self.goal}


@pytest.fixture(autouse=True)
def careless():
    gymnasium.register("Careless-v0", entry_point=Careless, max_episode_steps=40)
    yield
    del gymnasium.registry["Careless-v0"]


@pytest.mark.parametrize("name", ["gym/Pusher-v5", "gym/Careless-v0", "gym/gym_hil/PandaPickCubeBase-v0"])
def test_it_keeps_the_contract(name):
    check_env(lambda num_envs: make_env(name, num_envs))


def test_global_random_state_is_left_alone():
    env = make_env("gym/Careless-v0", 2)
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    env.reset(seed=[1, 2])
    env.step(np.zeros((2, 2)))
    assert np.array_equal(np.random.get_state()[1], before)


def test_success_failure_and_horizon_are_told_apart():
    env = make_env("gym/Careless-v0", 3)
    assert env.spec.rate_hz == 5.0
    assert env.max_episode_steps == 40
    env.reset(seed=[1, 2, 3])
    actions = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    succeeded, ended = np.zeros(3, bool), np.zeros(3, bool)
    for _ in range(6):
        _, _, terminated, truncated, info = env.step(actions)
        succeeded, ended = succeeded | info["success"], ended | terminated
    assert succeeded.tolist() == [True, False, False]
    assert ended.tolist() == [True, True, False]
    assert not truncated.any()


def test_what_cannot_be_driven_is_refused():
    with pytest.raises(EnvError, match="no bounded continuous actions"):
        make_env("gym/CartPole-v1", 1)
    with pytest.raises(EnvError, match="did you mean 'Pendulum-v1'"):
        make_env("gym/Pendulam-v1", 1)


def test_the_cube_of_gym_hil_is_lifted():
    check_expert(episodes=6, least=0.8)


@pytest.mark.long
def test_the_cube_of_gym_hil_is_lifted_in_a_hundred_episodes():
    check_expert(episodes=100, least=0.95)


def check_expert(episodes, least):
    env = make_env("gym/gym_hil/PandaPickCubeBase-v0", 6)
    outcomes = rollout(env, ExpertController(env.expert(), 3), range(episodes), 3)
    assert sum(outcome.success for outcome in outcomes) / episodes >= least
    with pytest.raises(EnvError, match="No scripted expert"):
        make_env("gym/Pusher-v5", 1).expert()
