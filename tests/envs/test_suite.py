"""Every own task: its expert solves it, random actions do not, every arm can lift."""

import numpy as np
import pytest

from robolearn.api import make_env
from robolearn.envs.suite import TASKS
from robolearn.envs.tasks import language, pick_place_language
from robolearn.errors import EnvError
from robolearn.registry import names, resolve
from robolearn.rollout import ExpertController, RandomController, rollout


def success(controller, env, episodes):
    return np.mean([outcome.success for outcome in rollout(env, controller, range(episodes), seed=7)])


def full_name(task):
    return task if task.startswith("pick_place") else f"robolearn/{task}"


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_expert_solves_it(task):
    env = make_env(full_name(task), 16)
    assert success(ExpertController(env.expert(), 7), env, 16) >= 15 / 16


@pytest.mark.long
@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_expert_solves_95_of_100_and_chance_2(task):
    env = make_env(full_name(task), 32)
    assert success(ExpertController(env.expert(), 7), env, 100) >= 0.95
    assert success(RandomController(env, 7), env, 100) <= 0.02


@pytest.mark.parametrize("robot", [name for name in names("robot") if resolve("robot", name).asset])
def test_every_arm_lifts(robot):
    env = make_env("robolearn/lift", 8, {"robot": robot})
    assert env.spec.robot == robot
    assert success(ExpertController(env.expert(), 7), env, 8) == 1.0


@pytest.mark.parametrize("robot", names("robot"))
def test_home_lies_within_the_limits_of_an_arm(robot):
    arm = resolve("robot", robot)
    assert (np.array(arm.low_rad) < np.array(arm.home_rad)).all()
    assert (np.array(arm.home_rad) < np.array(arm.high_rad)).all()
    assert min(*arm.velocity_rad_s, *arm.acceleration_rad_s2, *arm.effort_nm) > 0


def test_an_arm_without_a_model_is_not_simulated():
    with pytest.raises(EnvError, match="no model"):
        make_env("robolearn/lift", 1, {"robot": "fr3"})


@pytest.mark.parametrize("words", [pick_place_language.VOCABULARY, language.VOCABULARY])
def test_ignoring_the_instruction_cannot_pay(words):
    sentences = words.sentences.reshape(-1)
    assert len(set(sentences)) == len(sentences)
    assert len(words.objects) * len(words.targets) >= 4
    assert words.chance <= 0.25


def test_the_language_suite_has_ten_instructions_and_hides_which_is_asked():
    assert len(language.VOCABULARY.objects) * len(language.VOCABULARY.targets) >= 10
    env = make_env("robolearn/language", 8)
    obs, _ = env.reset(seed=list(range(8)))
    assert len(set(obs["task"])) > 1
    before = obs["observation.environment_state"].copy()
    env.view.variables["instruction"][:] = (env.view.variables["instruction"] + 1) % (4, 3, 4)
    assert np.array_equal(env.observe()["observation.environment_state"], before)


def test_moving_another_object_spoils_a_success():
    env = make_env("pick_place_language", 2)
    env.reset(seed=[1, 1])
    view = env.view
    cube, bin_, _ = view.variables["instruction"][0]
    named = list(pick_place_language.VOCABULARY.objects)[cube]
    target = list(pick_place_language.VOCABULARY.targets)[bin_]
    other = next(name for name in pick_place_language.VOCABULARY.objects if name != named)
    body, goal = env.model.body(named).id, env.model.body(target).id
    view.xpos[:, body] = view.xpos[:, goal] + np.array([0, 0, 0.024])
    view.qvel[:] = 0
    view.xpos[1, env.model.body(other).id, 0] += 0.05
    assert env.task.success(view).tolist() == [True, False]
