"""The exact fidelity: the same numbers as robosuite, for any rows and threads, from any moment."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robolearn.api import make_env
from robolearn.envs.exact.engine import FULL, load_model
from robolearn.envs.exact.experts import EXPERTS
from robolearn.envs.exact.export import export_task, open_peer
from robolearn.envs.exact.layout import DATA_FIELDS, RowModel, layout
from robolearn.envs.exact.peer import adopt, observations, reset_peer
from robolearn.envs.exact.reference import call
from robolearn.envs.exact.script import ExactExpert
from robolearn.envs.opengl import choose_backend
from robolearn.errors import ConfigError, EnvError, MissingLibraryError
from robolearn.rollout import ExpertController, rollout
from robolearn.seeding import generator

TASKS = ("Lift", "PickPlaceCan", "NutAssemblySquare")
CONTROLLERS = (
    ("OSC_POSITION", {}),
    ("JOINT_POSITION", {}),
    ("JOINT_VELOCITY", {}),
    ("OSC_POSE", {"input_ref_frame": "world"}),
    ("OSC_POSE", {"uncouple_pos_ori": False}),
)


def build(task, rows, **options):
    return make_env(f"robosuite/{task}", rows, {"raw": True, "stop_on_success": False, **options})


def compare(env, peer, seed, steps):
    """Step both under the same actions; return what differs until the robot first touches anything.

    That may be the pedestal it stands on: random actions lead there, and a hard contact amplifies last bits.
    """
    differences = observations(env, 0, reset_peer_into(env, peer, seed))
    draw, worst = generator(seed, "actions"), {"free": 0.0, "observation": max(differences.values())}
    judged, free_steps, touched = [], 0, watch(peer)
    for _ in range(steps):
        action = draw.uniform(-1, 1, env.export.action_dim)
        given, reward, _, _ = peer.step(action)
        _, ours, _, _, _ = env.step(action[None])
        judged.append(abs(ours[0] - reward) < 1e-6 and bool(env.terms.success(env.view)[0]) == peer._check_success())
        if not touched:
            free_steps += 1
            worst["free"] = max(worst["free"], np.abs(env.view.qpos[0] - peer.sim.data.qpos).max())
            worst["observation"] = max(worst["observation"], *observations(env, 0, given).values())
    del peer.sim.step1  # what `watch` put there
    return worst, judged, free_steps


def watch(peer):
    """Return a list that grows when the robot is in contact with anything but itself, at any physics step."""
    model, data, step1 = peer.sim.model._model, peer.sim.data._data, peer.sim.step1
    names = [model.body(body).name for body in model.geom_bodyid]
    robot, touched = np.array([name.startswith(("robot", "gripper")) for name in names]), []

    def watched():
        step1()
        one, other = data.contact.geom.T
        if (robot[one] != robot[other]).any():
            touched.append(data.time)

    peer.sim.step1 = watched
    return touched


def reset_peer_into(env, peer, seed):
    given = reset_peer(peer, seed)
    adopt(env, 0, peer)
    return given


def check_parity(task, runs, steps):
    env, peer = build(task, 1, reward="dense", max_steps=steps + 1), open_peer(task, "Panda")
    results = [compare(env, peer, seed, steps) for seed in range(runs)]
    assert max(worst["free"] for worst, _, _ in results) < 1e-6
    assert max(worst["observation"] for worst, _, _ in results) < 1e-6
    assert np.mean([same for _, judged, _ in results for same in judged]) >= 0.99
    assert np.mean([free >= 20 for _, _, free in results]) >= 0.5


@pytest.mark.parametrize("task", [*TASKS, "ToolHang"])
def test_the_same_numbers_as_robosuite(task):
    check_parity(task, runs=2, steps=25)


@pytest.mark.long
@pytest.mark.parametrize("task", [*TASKS, "ToolHang"])
def test_the_same_numbers_as_robosuite_from_a_hundred_states(task):
    check_parity(task, runs=100, steps=60)


@pytest.mark.long
@pytest.mark.parametrize("task", EXPERTS)
def test_success_is_robosuites_own_wherever_an_expert_leads(task):
    env, peer = build(task, 1, max_steps=EXPERTS[task].max_steps), open_peer(task, "Panda")
    given, judged = [reset_peer_into(env, peer, 0)], []
    expert = ExactExpert(EXPERTS[task], lambda: {key: np.asarray(value)[None] for key, value in given[0].items()}, 1)
    for step in range(EXPERTS[task].max_steps):
        given[0], _, _, _ = peer.step(expert.act()[0])
        if step % 10 == 0 or peer._check_success():
            adopt(env, 0, peer)
            judged.append((bool(env.terms.success(env.view)[0]), bool(peer._check_success())))
        if sum(theirs for _, theirs in judged) > 10:
            break
    assert all(ours == theirs for ours, theirs in judged)
    assert any(theirs for _, theirs in judged)


@pytest.mark.parametrize(("controller", "options"), CONTROLLERS)
def test_every_controller_gives_robosuites_motion(controller, options):
    env = build("Lift", 1, controller=controller, controller_options=options)
    peer = open_peer("Lift", "Panda", {"type": controller, **options})
    worst, _, free = compare(env, peer, 1, steps=6)
    assert free == 6
    assert worst["free"] < 1e-9


@pytest.mark.parametrize("robot", ["UR5e", "IIWA", "Kinova3", "Jaco", "Sawyer"])
def test_every_arm_moves_as_in_robosuite(robot):
    env, peer = build("Lift", 1, robots=(robot,)), open_peer("Lift", robot)
    reset_peer_into(env, peer, 0)
    joints = list(env.export.arms[0].qpos)
    for step in range(4):
        action = generator(step).uniform(-1, 1, env.export.action_dim)
        peer.step(action)
        env.step(action[None])
    assert np.abs(env.view.qpos[0, joints] - peer.sim.data.qpos[joints]).max() < 1e-6


def trajectory(env, seeds, steps=8):
    env.reset(seed=seeds)
    draws = [generator(seed, "actions") for seed in seeds]
    seen = []
    for _ in range(steps):
        env.step(np.stack([draw.uniform(-1, 1, env.export.action_dim) for draw in draws]))
        seen.append(np.concatenate([env.view.qpos, env.view.qvel], 1))
    return np.stack(seen)


@pytest.mark.parametrize("task", ["Lift", "PickPlaceCan"])
def test_bit_identical_for_any_number_of_threads_and_rows(task):
    seeds = list(range(6))
    reference = trajectory(build(task, 6, threads=1), seeds)
    assert np.ptp(reference) > 0.1
    for threads in (2, 4):
        assert np.array_equal(trajectory(build(task, 6, threads=threads), seeds), reference)
    assert np.array_equal(trajectory(build(task, 1), [4])[:, 0], reference[:, 4])
    assert np.array_equal(trajectory(build(task, 6), seeds[::-1])[:, ::-1], reference)


@pytest.mark.parametrize("controller", ["OSC_POSE", "JOINT_POSITION", "JOINT_VELOCITY"])
def test_the_numpy_loop_agrees_with_the_compiled_one(controller):
    seeds = [3, 4]
    # One control step: later on contacts amplify the last bits of either loop.
    fast = trajectory(build("Lift", 2, controller=controller), seeds, steps=1)
    slow = trajectory(build("Lift", 2, controller=controller, compiled=False), seeds, steps=1)
    assert np.abs(fast - slow)[..., :7].max() < 1e-9


@pytest.mark.parametrize("task", ["Lift", "NutAssemblySquare", "ToolHang"])
def test_snapshot_resumes_in_another_row_bit_for_bit(task):
    env = build(task, 2)
    env.reset(seed=[3, 4])
    for step in range(5):
        env.step(generator(step).uniform(-1, 1, (2, 7)))
    saved = env.snapshot(0)
    actions = [generator(step).uniform(-1, 1, 7) for step in range(5, 10)]
    first = [env.step(np.tile(action, (2, 1)))[0]["observation.environment_state"][0] for action in actions]
    other = build(task, 3)
    other.reset(seed=[7, 8, 9])
    other.restore(2, saved)
    second = [other.step(np.tile(action, (3, 1)))[0]["observation.environment_state"][2] for action in actions]
    assert np.array_equal(first, second)


def test_resets_are_as_wide_as_robosuites():
    ours, peer = build("Lift", 100), open_peer("Lift", "Panda")
    ours.reset(seed=list(range(100)))
    theirs = [reset_peer(peer, seed) for seed in range(8)]
    here = ours.raw["cube_pos"]
    for axis, half in ((0, 0.03), (1, 0.03)):
        assert np.abs(here[:, axis]).max() <= half
        assert np.ptp(here[:, axis]) > np.ptp([given["cube_pos"][axis] for given in theirs])
    sizes = ours.sizes["cube_main"]
    assert sizes.min() >= 0.020
    assert sizes.max() <= 0.022
    assert np.ptp(sizes) > 0.0018


def test_a_resized_box_is_what_the_compiler_makes_of_it():
    env = build("Lift", 1)
    env.reset(seed=[5])
    size = env.sizes["cube_main"][0]
    spec = mujoco.MjSpec.from_string(env.export.xml)
    for geom in spec.body("cube_main").geoms:
        geom.size = size
    compiled, row = spec.compile(), env.engine.rows[0]
    for name in ("geom_size", "geom_rbound", "body_mass", "body_inertia", "body_invweight0", "dof_invweight0"):
        assert np.allclose(row.own(name), getattr(compiled, name), rtol=1e-12, atol=0), name


def test_bad_actions_never_reach_the_physics():
    env = build("Lift", 3)
    env.reset(seed=[1, 2, 3])
    before = env.engine.get_state(0)
    actions = np.zeros((3, 7))
    actions[0, 2], actions[1, 0] = np.nan, 1e30
    _, reward, terminated, _, info = env.step(actions)
    assert info["diverged"].tolist() == [True, False, False]
    assert terminated.tolist() == [True, False, False]
    assert reward[0] == 0.0
    assert np.array_equal(env.engine.get_state(0), before)
    assert np.isfinite(env.view.qpos).all()


def test_physics_that_runs_away_ends_as_diverged():
    env = build("Lift", 2)
    env.reset(seed=[1, 2])
    env.engine.data[0].qvel[:] = np.nan
    _, reward, terminated, _, info = env.step(np.zeros((2, 7)))
    assert terminated.tolist() == [True, False]
    assert info["diverged"].tolist() == [True, False]
    assert not info["success"].any()
    assert reward[0] == 0.0


def test_offsets_belong_to_the_installed_mujoco():
    model = mujoco.MjModel.from_xml_string(export_task("Lift").xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    words = (ctypes.c_int64 * (int(layout().data.max()) + 1)).from_address(data._address)
    for name, word in zip(DATA_FIELDS, layout().data, strict=True):
        assert words[int(word)] == getattr(data, name).ctypes.data, name


def test_a_row_model_changes_nothing_but_its_own_arrays():
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><freejoint/><geom size='.1'/></body></worldbody></mujoco>"
    )
    row = RowModel(model)
    row.own("body_mass")[1] = 7.0
    assert model.body_mass[1] != 7.0
    assert row.address != model._address


def test_a_row_model_steps_as_the_model_and_clears_no_marks():
    model, data = load_model(export_task("Lift")), []
    row = RowModel(model)
    for address in (model._address, row.address):
        data.append(mujoco.MjData(model))
        data[-1].bvh_active[:] = 1
        call("mj_step", address, data[-1]._address)
    state = [np.empty(mujoco.mj_stateSize(model, FULL)) for _ in data]
    for one, out in zip(data, state, strict=True):
        mujoco.mj_getState(model, one, out, FULL)
    np.testing.assert_array_equal(*state)
    assert not data[0].bvh_active.all()
    assert data[1].bvh_active.all()
    row.count(True)
    call("mj_step", row.address, data[1]._address)
    assert not data[1].bvh_active.all()


def test_state_rows_are_small():
    env = build("Lift", 2)
    data = env.engine.data[0]
    assert data.nbuffer + data.narena < 2e6


@pytest.mark.parametrize("task", EXPERTS)
def test_experts_succeed(task):
    check_expert(build(task, 16, stop_on_success=True, max_steps=EXPERTS[task].max_steps), least=0.9)


@pytest.mark.long
@pytest.mark.parametrize("task", EXPERTS)
def test_experts_succeed_in_two_hundred_episodes(task):
    check_expert(build(task, 200, stop_on_success=True, max_steps=EXPERTS[task].max_steps), least=0.95)


def check_expert(env, least):
    rows = np.arange(env.num_envs)
    env.reset(seed=rows.tolist())
    expert = env.expert()
    expert.reset(rows, rows.tolist())
    done = np.zeros(env.num_envs, bool)
    while not done.all():
        _, _, terminated, truncated, info = env.step(expert.act())
        done = terminated | truncated
    assert info["success"].mean() >= least


def test_unknown_names_have_suggestions():
    with pytest.raises(ConfigError, match="did you mean 'PickPlaceCan'"):
        make_env("robosuite/PickPlaceCann", 1)
    with pytest.raises(EnvError, match="did you mean 'Panda'"):
        make_env("robosuite/Lift", 1, {"robots": ("Pandda",)})
    with pytest.raises(EnvError, match="Unknown controller"):
        make_env("robosuite/Lift", 1, {"controller": "OSC_POSSE"})
    with pytest.raises(ConfigError, match="controller's name"):
        make_env("robosuite/Lift", 1, {"controller_options": {"kp": 10}})


@pytest.mark.parametrize("task", TASKS)
def test_experts_succeed_as_often_on_the_lean_model(task):
    check_agreement(task, episodes=24, points=0.13)


@pytest.mark.long
@pytest.mark.parametrize("task", TASKS)
def test_lean_and_exact_agree_within_five_points_over_two_hundred_episodes(task):
    check_agreement(task, episodes=200, points=0.05)


def check_agreement(task, episodes, points):
    rates = []
    for fidelity in ("exact", "lean"):
        env = build(task, 24, stop_on_success=True, fidelity=fidelity)
        outcomes = rollout(env, ExpertController(env.expert(), 7), range(episodes), 7)
        rates.append(sum(outcome.success for outcome in outcomes) / episodes)
        env.close()
    assert abs(rates[0] - rates[1]) <= points, rates


def test_a_picture_shows_each_row():
    for fidelity in ("exact", "lean"):
        env = build("Lift", 2, fidelity=fidelity)
        env.reset(seed=[1, 2])
        pictures = [env.render(row, width=96, height=72).astype(int) for row in (0, 1)]
        red = [(picture[..., 0] > picture[..., 1] + 60) for picture in pictures]
        assert min(mask.sum() for mask in red) > 5
        assert (red[0] != red[1]).any()


CAMERAS = ("agentview", "robot0_eye_in_hand")


@pytest.mark.parametrize("fidelity", ["exact", "lean"])
def test_camera_observations(fidelity):
    env = build("Lift", 2, fidelity=fidelity, cameras=CAMERAS, image_px=40)
    obs, _ = env.reset(seed=[1, 2])
    for camera in CAMERAS:
        upright, peers = obs[f"observation.images.{camera}"], obs[f"{camera}_image"]
        assert upright.shape == (2, 40, 40, 3)
        assert upright.dtype == np.uint8
        assert np.array_equal(peers, upright[:, ::-1])  # robosuite counts a picture's rows from the bottom
        assert not np.array_equal(upright[0], upright[1])
        assert env.spec.observations[f"observation.images.{camera}"].camera.up == "up"
        assert env.spec.observations[f"{camera}_image"].camera.up == "down"
    saved, action = env.snapshot(0), np.full((2, 7), 0.5)
    first = env.step(action)[0]["observation.images.agentview"][0]
    env.restore(1, saved)
    assert np.array_equal(env.observe()["observation.images.agentview"][1], obs["observation.images.agentview"][0])
    assert np.array_equal(env.step(action)[0]["observation.images.agentview"][1], first)
    with pytest.raises(EnvError, match="did you mean 'agentview'"):
        build("Lift", 1, cameras=("agentvew",)).reset(seed=[0])


def likeness_db(*renderers):
    """Return how much our pictures look like robosuite's own: key → renderer → PSNR [dB]."""
    try:
        backend = choose_backend()
    except MissingLibraryError as problem:
        pytest.skip(str(problem))
    command = [sys.executable, str(Path(__file__).with_name("peer_pictures.py")), *renderers]
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=600)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.render
def test_pictures_look_as_robosuites_own():
    found = likeness_db("raster")
    assert found["agentview_image"]["raster"] > 26
    assert found["robot0_eye_in_hand_image"]["raster"] > 22


@pytest.mark.long
@pytest.mark.render
def test_pictures_by_opengl_are_robosuites_own():
    found = likeness_db("opengl", "opengl_fast")
    for key, least_db in (("agentview_image", 26), ("robot0_eye_in_hand_image", 22)):
        assert found[key]["opengl"] > 35
        assert found[key]["opengl_fast"] > least_db
