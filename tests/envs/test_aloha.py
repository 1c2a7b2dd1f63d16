"""The ALOHA tasks equal gym-aloha's, and their expert solves them."""

import mujoco
import numpy as np
import pytest

from robolearn.api import make_env
from robolearn.envs.aloha import KINDS
from robolearn.errors import RegistryError
from robolearn.rollout import ExpertController, rollout
from robolearn.seeding import generator


@pytest.fixture
def peer(monkeypatch):
    """Return a maker of gym-aloha's own environment that takes no pictures."""
    from gym_aloha.env import AlohaEnv
    from gym_aloha.tasks.sim import BimanualViperXTask

    def look(task, physics):
        return {"qpos": task.get_qpos(physics), "images": {"top": np.zeros((1, 1, 3), np.uint8)}}

    monkeypatch.setattr(BimanualViperXTask, "get_observation", look)
    return lambda task: AlohaEnv(task=task, obs_type="pixels_agent_pos")


@pytest.mark.parametrize("task", sorted(KINDS))
def test_trajectories_and_rewards_equal_gym_aloha(task, peer):
    ours, theirs = make_env(f"aloha/{task}", 2), peer(task)
    obs, _ = ours.reset(seed=[8, 3])
    expected, _ = theirs.reset(seed=3)
    assert np.array_equal(obs["observation.state"][1], np.float32(expected["agent_pos"]))
    draw, hold = generator(task), ours.observe()["observation.state"][1].astype(float)
    for step in range(80):
        action = hold + np.where(step % 20 < 10, 0.15, -0.15) * draw.uniform(-1, 1, 14)
        action = np.clip(action, ours.spec.action.low, ours.spec.action.high)
        expected, reward, _, _, _ = theirs.step(action)
        obs, earned, *_ = ours.step(np.tile(action, (2, 1)))
        assert np.array_equal(ours.data[1].qpos, theirs._env.physics.data.qpos)
        assert np.array_equal(obs["observation.state"][1], np.float32(expected["agent_pos"]))
        assert earned[1] == reward


@pytest.mark.parametrize("task", sorted(KINDS))
def test_the_expert_solves_it_through_every_stage(task):
    env = make_env(f"aloha/{task}", 8)
    stages = set()
    outcomes = rollout(env, ExpertController(env.expert(), 3), range(8), 3, lambda record: stages.update(record.reward))
    assert np.mean([outcome.success for outcome in outcomes]) >= 7 / 8
    assert {0.0, 2.0, 4.0} <= stages


def test_actions_are_bounded_by_the_actuators():
    env = make_env("aloha/insertion", 1)
    low, high = np.array(env.spec.action.low), np.array(env.spec.action.high)
    assert high[2] == pytest.approx(1.6057)  # an elbow reaches beyond gym-aloha's ±1
    assert low[[6, 13]].tolist() == [0.0, 0.0]
    assert high[[6, 13]].tolist() == [1.0, 1.0]


def test_pictures_come_without_opengl():
    env = make_env("aloha/transfer_cube", 1, {"cameras": ["top"], "image_px": [64, 48], "renderer": "drawing"})
    obs, _ = env.reset(seed=[1])
    assert obs["observation.images.top"].shape == (1, 48, 64, 3)
    assert env.spec.observations["observation.images.top"].shape == (48, 64, 3)


def test_an_unknown_task_is_suggested():
    with pytest.raises(RegistryError, match="did you mean 'aloha/insertion'"):
        make_env("aloha/insert", 1)


def test_the_model_is_gym_aloha_s():
    env = make_env("aloha/transfer_cube", 1)
    assert env.model.opt.timestep * 10 == pytest.approx(1 / env.spec.rate_hz)
    assert env.model.nu == 16
    assert mujoco.mj_name2id(env.model, mujoco.mjtObj.mjOBJ_GEOM, "red_box") >= 0
