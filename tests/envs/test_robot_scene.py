"""A task's environment as a scene for the twin."""

import numpy as np
import pytest

from robolearn.contracts import Scene
from robolearn.envs.robot_scene import open_scene
from robolearn.envs.suite import TaskConfig
from robolearn.errors import EnvError
from robolearn.registry import resolve
from robolearn.robots.panda import PANDA


@pytest.fixture(scope="module")
def scene():
    return open_scene("reach", PANDA)


def test_it_is_a_scene_and_registered(scene):
    assert isinstance(scene, Scene)
    assert resolve("scene", "reach") is open_scene
    assert scene.joint_names == PANDA.joints


def test_it_starts_as_the_environment_starts(scene):
    env = TaskConfig(name="reach").build(1)
    obs, _ = env.reset(seed=[5])
    scene.reset(5)
    assert scene.environment_state() == pytest.approx(obs["observation.environment_state"][0])
    scene.reset(6)
    assert not np.allclose(scene.environment_state(), obs["observation.environment_state"][0])


def test_joints_and_fingers_follow(scene):
    scene.reset(1)
    start = scene.state()
    target = start.position_rad + 0.05
    for _ in range(400):
        scene.step(target, 0.03)
    state = scene.state()
    assert state.position_rad == pytest.approx(target, abs=0.01)
    assert state.gripper_m == pytest.approx(0.03, abs=0.005)
    assert np.abs(state.velocity_rad_s).max() < 0.02
    assert state.stamp_ns - start.stamp_ns == pytest.approx(1e9 * 400 * scene.dt_s)
    assert scene.success() in (True, False)


def test_a_camera_sees_what_the_environment_observes():
    options = TaskConfig(name="reach", cameras=("wrist",), image_px=48)
    obs, _ = options.build(1).reset(seed=[5])
    scene = open_scene("reach", PANDA, 48)
    scene.reset(5)
    assert np.array_equal(scene.image("wrist"), obs["observation.images.wrist"][0])
    scene.reset(6)
    assert not np.array_equal(scene.image("wrist"), obs["observation.images.wrist"][0])


def test_other_tasks_are_scenes_if_they_have_one_arm():
    assert resolve("scene", "robolearn/stack")("robolearn/stack", PANDA).joint_names == PANDA.joints
    with pytest.raises(EnvError, match="one arm"):
        open_scene("robolearn/handover", PANDA)
