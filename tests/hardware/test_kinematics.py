"""Kinematics from constants against MuJoCo and against the published Denavit-Hartenberg table."""

import numpy as np
import pytest

from robolearn.errors import HardwareError
from robolearn.hardware.kinematics import Kinematics
from robolearn.hardware.limits import SafetyConfig, limits_of
from robolearn.robots.kinova3 import KINOVA3
from robolearn.robots.panda import PANDA
from robolearn.robots.ur5e import UR5E


@pytest.fixture(scope="module")
def poses():
    return np.random.default_rng(0).uniform(PANDA.low_rad, PANDA.high_rad, (50, 7))


@pytest.mark.parametrize("arm", [PANDA, UR5E, KINOVA3], ids=lambda arm: arm.name)
def test_an_arm_is_mujocos(arm):
    mujoco = pytest.importorskip("mujoco")
    scene = pytest.importorskip("robolearn.envs.scene")
    spec = scene.tabletop()
    scene.add_arm(spec, arm, visual=False)
    model = spec.compile()
    data = mujoco.MjData(model)
    site = model.site("robot0_grip_site").id
    addresses = [model.joint("robot0_" + name).qposadr[0] for name in arm.joints]
    poses = np.random.default_rng(0).uniform(arm.low_rad, arm.high_rad, (50, len(arm.joints)))
    points, axes = Kinematics(arm).pose(poses)
    for q, point, mat in zip(poses, points, axes, strict=True):
        data.qpos[addresses] = q
        mujoco.mj_kinematics(model, data)
        assert data.site_xpos[site] - scene.BASE_M == pytest.approx(point, abs=2e-5)
        assert data.site_xmat[site].reshape(3, 3) == pytest.approx(mat, abs=2e-5)


def test_inverse_kinematics_comes_back(poses):
    kinematics = Kinematics(PANDA)
    draw = np.random.default_rng(1)
    for q in poses[:20]:
        q = np.clip(q, np.array(PANDA.low_rad) + 0.3, np.array(PANDA.high_rad) - 0.3)
        (point,), (axes,) = kinematics.pose(q[None])
        found, metres, radians = kinematics.solve(q + draw.normal(0, 0.05, 7), point, axes)
        assert metres < 1e-4
        assert radians < 1e-3
        assert kinematics.tool(found[None])[0] == pytest.approx(point, abs=1e-4)


def test_inverse_kinematics_says_what_it_cannot_reach(home):
    kinematics = Kinematics(PANDA)
    joints, metres, _ = kinematics.solve(home, np.array([3.0, 0, 0]), np.eye(3))
    assert metres > 1.0
    assert (joints >= PANDA.low_rad).all()
    assert (joints <= PANDA.high_rad).all()


def test_an_arm_without_links_or_limits_is_refused():
    from dataclasses import replace

    with pytest.raises(HardwareError, match="links"):
        Kinematics(replace(PANDA, links=()))
    with pytest.raises(HardwareError, match="does not state its limits"):
        limits_of(replace(PANDA, jerk_rad_s3=()), 250.0)


@pytest.mark.parametrize("options", [{"velocity": 0.0}, {"velocity": 1.1}, {"jerk": -1.0}, {"margin_rad": 2.0}])
def test_impossible_limits_are_refused(options):
    with pytest.raises(HardwareError):
        limits_of(PANDA, 250.0, SafetyConfig(**options))
    with pytest.raises(HardwareError, match="rate"):
        limits_of(PANDA, 0.0)
