"""A user's MJCF file as a twin's scene, and files that are refused."""

import numpy as np
import pytest

from robolearn.contracts import Scene
from robolearn.envs.file_scene import open_scene
from robolearn.errors import EnvError
from robolearn.robots.panda import PANDA
from robolearn.robots.ur5e import UR5E

HEAD = '<mujoco><option timestep="0.004"/>'
BODY = """
<worldbody>
  <light pos="0 0 3"/>
  <site name="base" pos="-0.5 0 0.4"/>
  <camera name="front" pos="1.3 0 1.2" xyaxes="0 1 0 -0.5 0 0.85"/>
  <geom type="box" size="0.3 0.4 0.2" pos="0.1 0 0.2"/>
  <body name="brick" pos="0.05 0 0.43"><freejoint/><geom type="box" size="0.02 0.02 0.03" rgba="1 0 0 1"/></body>
</worldbody>
"""


def write(tmp_path, text):
    path = tmp_path / "cell.xml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("arm", [PANDA, UR5E])
def test_an_arm_stands_in_the_file_and_follows(tmp_path, arm):
    scene = open_scene(write(tmp_path, f"{HEAD}{BODY}</mujoco>"), arm, 48)
    assert isinstance(scene, Scene)
    assert scene.dt_s == 0.004
    target = np.array(arm.home_rad) + 0.05
    for _ in range(500):
        scene.step(target, 0.5 * arm.gripper.width_m)
    assert scene.state().position_rad == pytest.approx(target, abs=0.02)
    assert scene.state().gripper_m == pytest.approx(0.5 * arm.gripper.width_m, abs=0.005)
    assert scene.data.body("brick").xpos[2] == pytest.approx(0.43, abs=0.002)  # it lies on the box
    scene.reset(0)
    assert scene.state().position_rad == pytest.approx(arm.home_rad)


def test_fingers_meet_the_file_s_objects(tmp_path):
    scene = open_scene(write(tmp_path, f"{HEAD}{BODY}</mujoco>"), PANDA)
    between = scene.data.site("robot0_grip_site").xpos.copy()
    scene.data.body("brick").xpos[:] = between
    brick = scene.model.body("brick").jntadr[0]
    at = scene.model.jnt_qposadr[brick]
    for _ in range(200):
        scene.data.qpos[at : at + 3] = between
        scene.data.qvel[scene.model.jnt_dofadr[brick] :][:6] = 0.0
        scene.step(np.array(PANDA.home_rad), 0.0)
    assert scene.state().gripper_m > 0.03  # as wide as the brick


def test_pictures_are_of_its_cameras(tmp_path):
    scene = open_scene(write(tmp_path, f"{HEAD}{BODY}</mujoco>"), PANDA, 48)
    assert scene.image("front").shape == (48, 48, 3)
    assert not np.array_equal(scene.image("front"), scene.image("wrist"))
    with pytest.raises(EnvError, match="did you mean 'front'"):
        scene.image("frnt")


REFUSED = {
    "include": (f'{HEAD}<include file="/etc/passwd"/>{BODY}</mujoco>', "outside"),
    "mesh file": (f'{HEAD}<asset><mesh name="m" file="../arm.stl"/></asset>{BODY}</mujoco>', "outside"),
    "texture file": (f'{HEAD}<asset><texture type="cube" fileup="a.png"/></asset>{BODY}</mujoco>', "outside"),
    "model file": (f'{HEAD}<asset><model name="m" file="a.xml"/></asset>{BODY}</mujoco>', "outside"),
    "plugin": (f'{HEAD}<extension><plugin plugin="mujoco.pid"/></extension>{BODY}</mujoco>', "outside"),
    "entity": (f'<!DOCTYPE a [<!ENTITY b SYSTEM "/etc/passwd">]>{HEAD}{BODY}</mujoco>', "entities"),
    "nan step": (f'<mujoco><option timestep="nan"/>{BODY}</mujoco>', "impossible number"),
    "negative step": (f'<mujoco><option timestep="-0.002"/>{BODY}</mujoco>', "time step"),
    "long step": (f'<mujoco><option timestep="1"/>{BODY}</mujoco>', "time step"),
    "infinite place": (HEAD + BODY.replace('pos="0 0 3"', 'pos="inf 0 0"') + "</mujoco>", "impossible number"),
    "memory": (f'{HEAD}<size memory="1000G"/>{BODY}</mujoco>', "memory"),
    "memory in words": (f'{HEAD}<size memory="a lot"/>{BODY}</mujoco>', "memory"),
    "user data": (f'{HEAD}<size nuserdata="2000000000"/>{BODY}</mujoco>', "impossible number"),
    "texture size": (
        f'{HEAD}<asset><texture name="t" type="2d" builtin="flat" width="1000000" height="9"/></asset>{BODY}</mujoco>',
        "impossible number",
    ),
    "copies": (
        HEAD + BODY.replace("</worldbody>", '<replicate count="1000000"><geom size="1"/></replicate></worldbody>')
        + "</mujoco>",
        "impossible number",
    ),
    "cut": (f"{HEAD}{BODY}", "no XML"),
    "no base": (HEAD + BODY.replace('name="base"', 'name="bas"') + "</mujoco>", "where the arm stands"),
    "base on a body": (
        HEAD + BODY.replace('<site name="base" pos="-0.5 0 0.4"/>', '<body name="b"><site name="base"/></body>')
        + "</mujoco>",
        "where the arm stands",
    ),
    "unknown element": (f"{HEAD}<wheel/>{BODY}</mujoco>", "cannot compile"),
    "a binary": ("\x00\x01", "no XML"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_no_harmless_scene_is_refused(tmp_path, case):
    text, reason = REFUSED[case]
    with pytest.raises(EnvError, match=reason):
        open_scene(write(tmp_path, text), PANDA)


def test_a_file_that_is_absent_or_large_is_refused(tmp_path):
    with pytest.raises(EnvError, match="no such scene file"):
        open_scene(str(tmp_path / "none.xml"), PANDA)
    with pytest.raises(EnvError, match="too large"):
        open_scene(write(tmp_path, f"{HEAD}<!--{'x' * 2**22}-->{BODY}</mujoco>"), PANDA)
