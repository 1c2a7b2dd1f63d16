"""Perturbations: every axis does what it says, is recorded, and leaves the episode's own draws alone."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from robolearn.api import make_env
from robolearn.envs.exact.env import PERTURBED
from robolearn.envs.perturb import _FRAMES, _SYNONYMS, AXES
from robolearn.errors import ConfigError
from robolearn.testing import check_env

HOLD = np.array([[0.0, 0.0, 1.0, 0.0, -1.0]])


def test_training_never_hears_what_paraphrases_say():
    config = yaml.safe_load((Path(__file__).parents[2] / "configs/experiment/language_flow.yaml").read_text())
    (reword,) = [item for item in config["data"]["transforms"] if item["name"] == "reword"]
    assert not set(reword["frames"]) & set(_FRAMES)
    assert not {word for group in reword["synonyms"] for word in group} & {said for _, said in _SYNONYMS}


def perturbed(levels, rows=2, task="pick_place", **options):
    return make_env(task, rows, {"perturb": levels, **options})


def test_all_axes_at_once_keep_the_contract():
    check_env(lambda num_envs: perturbed(dict.fromkeys(AXES, 2), num_envs, "pick_place_language"))


@pytest.mark.parametrize("axis", sorted(set(AXES) - {"object_pose", "shuffled"}))
def test_the_task_starts_as_without_it(axis):
    plain, other = make_env("pick_place", 2), perturbed({axis: 3})
    for env in (plain, other):
        env.reset(seed=[5, 6])
    assert np.allclose(plain.view.position("cube"), other.view.position("cube"))
    assert np.allclose(plain.view.tool_m, other.view.tool_m)


def test_physical_axes_change_the_row_and_are_recorded():
    env = perturbed({"friction": 2, "object_mass": 2, "object_size": 2})
    _, info = env.reset(seed=[5, 6])
    body, geom = env.model.body("cube").id, env.model.geom("cube_geom").id
    for row, drawn in enumerate(info["perturbation"]):
        own = env._models[row]
        assert own.body_mass[body] == pytest.approx(env.model.body_mass[body] * drawn["object_mass"])
        assert own.geom_size[geom] == pytest.approx(env.model.geom_size[geom] * drawn["object_size"])
        assert own.pair_friction[0, 0] == pytest.approx(env.model.pair_friction[0, 0] * drawn["friction"])
    assert info["perturbation"][0] != info["perturbation"][1]
    _, again = env.reset(seed=[5, 6])
    assert again["perturbation"] == info["perturbation"]


def test_wider_ranges_start_outside_the_usual_ones():
    env = perturbed({"object_pose": 3}, rows=64)
    env.reset(seed=list(range(64)))
    assert np.abs(env.view.position("cube")[:, 0]).max() > 0.105


def test_latency_delays_the_first_motion():
    env = perturbed({"latency": 3})
    env.reset(seed=[5, 5])
    start = env.view.tool_m[:, 0].copy()
    far = np.tile([0.2, 0.2, 1.1, 0.0, -1.0], (2, 1))
    moved = []
    for _ in range(6):
        env.step(far)
        moved.append(np.linalg.norm(env.view.tool_m[0, 0] - start[0]))
    assert max(moved[:3]) < 0.01 < moved[5]


def test_observation_noise_is_on_the_observation_only():
    plain, noisy = make_env("pick_place", 1), perturbed({"observation_noise": 3}, rows=1)
    for env in (plain, noisy):
        env.reset(seed=[5])
    for _ in range(3):
        clean, other = plain.step(HOLD)[0], noisy.step(HOLD)[0]
    assert np.array_equal(plain.view.tool_m, noisy.view.tool_m)
    away = np.abs(clean["observation.state"] - other["observation.state"])
    assert 0 < away.max() < 0.1


def test_distractors_keep_clear_of_the_task():
    env = perturbed({"distractors": 3}, rows=8)
    env.reset(seed=list(range(8)))
    for index in range(4):
        place = env.view.position(f"distractor{index}")[:, :2]
        for body in ("cube", "bin"):
            assert np.linalg.norm(place - env.view.position(body)[:, :2], axis=1).min() > 0.06


def test_words_change_but_not_within_an_episode():
    env = perturbed({"paraphrase": 3}, rows=8, task="pick_place_language")
    obs, _ = env.reset(seed=list(range(8)))
    plain, _ = make_env("pick_place_language", 8).reset(seed=list(range(8)))
    assert not set(obs["task"]) & set(plain["task"])
    hold = np.tile(HOLD, (8, 1))
    assert env.step(hold)[0]["task"].tolist() == obs["task"].tolist()


def test_an_episode_is_told_another_instruction_all_through():
    env = perturbed({"shuffled": 3}, rows=24, task="pick_place_language")
    obs, info = env.reset(seed=list(range(24)))
    plain, _ = make_env("pick_place_language", 24).reset(seed=list(range(24)))
    assert np.mean(obs["task"] == plain["task"]) < 0.3
    assert obs["task"].tolist() == [env.task.sentences[drawn["shuffled"]] for drawn in info["perturbation"]]
    assert env.step(np.tile(HOLD, (24, 1)))[0]["task"].tolist() == obs["task"].tolist()
    with pytest.raises(ConfigError, match="does not exist for this task"):
        perturbed({"shuffled": 1})


def test_some_episodes_see_nothing():
    options = {"cameras": ["front"], "image_px": 32, "renderer": "drawing"}
    env, plain = perturbed({"blackout": 2}, rows=16, **options), make_env("pick_place", 16, options)
    obs, info = env.reset(seed=list(range(16)))
    blind = np.array(["blackout" in drawn for drawn in info["perturbation"]])
    assert 0 < blind.sum() < 16
    image = "observation.images.front"
    assert not obs[image][blind].any()
    assert np.array_equal(obs[image][~blind], plain.reset(seed=list(range(16)))[0][image][~blind])


@pytest.mark.parametrize("axis", ["camera_pose", "colours", "field_of_view"])
def test_looks_change_the_picture_and_come_back(axis):
    options = {"cameras": ["front"], "image_px": 48, "renderer": "drawing"}
    env, plain = perturbed({axis: 3}, rows=1, **options), make_env("pick_place", 1, options)
    one = env.reset(seed=[5])[0]["observation.images.front"]
    assert not np.array_equal(one, plain.reset(seed=[5])[0]["observation.images.front"])
    env.reset(seed=[6])
    assert np.array_equal(env.reset(seed=[5])[0]["observation.images.front"], one)


def test_snapshots_carry_the_row_s_own_physics():
    env = perturbed({"friction": 3, "object_mass": 3, "control_noise": 1, "latency": 2, "observation_noise": 1})
    env.reset(seed=[5, 6])
    for _ in range(5):
        env.step(np.tile(HOLD, (2, 1)))
    saved = env.snapshot(0)
    first = [env.step(np.tile(HOLD, (2, 1)))[0]["observation.state"][0] for _ in range(8)]
    env.restore(1, saved)
    second = [env.step(np.tile(HOLD, (2, 1)))[0]["observation.state"][1] for _ in range(8)]
    assert np.array_equal(first, second)


def test_unknown_axes_and_levels_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'friction'"):
        perturbed({"frictions": 1})
    with pytest.raises(ConfigError, match="no such level"):
        perturbed({"friction": 4})


# ---------------------------------------------------------------- robosuite's tasks


def robosuite(levels, rows=2, task="Lift", **options):
    return make_env(f"robosuite/{task}", rows, {"perturb": levels, **options})


def test_robosuites_tasks_keep_the_contract_under_all_their_axes():
    check_env(lambda num_envs: robosuite(dict.fromkeys(PERTURBED, 2), num_envs, max_steps=15), steps=4)


@pytest.mark.parametrize("axis", sorted(set(PERTURBED) - {"object_pose", "observation_noise"}))
def test_robosuites_episodes_start_as_without_it(axis):
    starts = [
        env.reset(seed=[5, 6])[0]["observation.environment_state"] for env in (robosuite({}), robosuite({axis: 3}))
    ]
    assert np.array_equal(*starts)


@pytest.mark.parametrize("task", ["Lift", "PickPlaceCan"])
def test_robosuites_objects_get_heavier_and_smoother(task):
    plain, env = robosuite({}, task=task), robosuite({"friction": 2, "object_mass": 2}, task=task)
    plain.reset(seed=[5, 6])
    _, info = env.reset(seed=[5, 6])
    body = env._objects[-1]
    for row, drawn in enumerate(info["perturbation"]):
        own, usual = env.engine.rows[row], plain.engine.rows[row]
        mass = usual.own("body_mass")[body] if usual else plain.model.body_mass[body]
        assert mass > 0
        assert own.own("body_mass")[body] == pytest.approx(mass * drawn["object_mass"])
        assert own.own("geom_friction") == pytest.approx(plain.model.geom_friction * drawn["friction"])
    assert info["perturbation"][0] != info["perturbation"][1]


def test_robosuites_ranges_widen_and_noise_reaches_what_is_seen():
    wide = robosuite({"object_pose": 3}, rows=64)
    wide.reset(seed=list(range(64)))
    assert 0.03 < np.abs(wide.raw["cube_pos"][:, 0]).max() <= 0.03 * 1.35
    noisy, plain = robosuite({"observation_noise": 3}), robosuite({})
    seen, true = (env.reset(seed=[1, 2])[0]["observation.state"] for env in (noisy, plain))
    assert 0.005 < np.std(seen - true) < 0.02


def test_robosuites_actions_arrive_late_and_shaken():
    late, plain, shaken = robosuite({"latency": 2}), robosuite({}), robosuite({"control_noise": 3})
    push = np.zeros((2, 7))
    push[:, 0] = 1.0
    for env in (late, plain, shaken):
        env.reset(seed=[3, 3])
        env.step(push)
    start = late.raw["robot0_eef_pos"][0, 0]
    assert plain.raw["robot0_eef_pos"][0, 0] > start + 0.001
    assert not np.array_equal(shaken.raw["robot0_eef_pos"], plain.raw["robot0_eef_pos"])
    for _ in range(2):
        late.step(push)
    assert late.raw["robot0_eef_pos"][0, 0] > start + 0.001


def test_a_perturbed_robosuite_row_resumes_bit_for_bit():
    env = robosuite(dict.fromkeys(PERTURBED, 2))
    env.reset(seed=[3, 4])
    draw = np.random.default_rng(0).uniform(-1, 1, (8, 2, 7))
    for action in draw[:4]:
        env.step(action)
    saved = env.snapshot(0)
    first = [env.step(action)[0]["observation.environment_state"][0] for action in draw[4:]]
    other = robosuite(dict.fromkeys(PERTURBED, 2), rows=2)
    other.reset(seed=[7, 8])
    other.restore(1, saved)
    second = [other.step(action[::-1])[0]["observation.environment_state"][1] for action in draw[4:]]
    assert np.array_equal(first, second)


def test_axes_that_need_pictures_are_refused_there():
    with pytest.raises(ConfigError, match="does not exist for this task"):
        robosuite({"colours": 1})
