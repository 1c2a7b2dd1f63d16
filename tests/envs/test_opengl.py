"""MuJoCo's own pixels through worker processes, and the rasteriser against them."""

import os
import signal
from dataclasses import replace

import mujoco
import numpy as np
import pytest

from robolearn.envs.opengl import OpenGL, OpenGLOptions, choose_backend
from robolearn.envs.raster import Rasteriser, RasterOptions
from robolearn.errors import ConfigError, EnvError, MissingLibraryError

_XML = """
<mujoco>
  <visual><quality offsamples="4"/><map znear="0.01" zfar="30"/></visual>
  <statistic extent="1" center="0 0 0.2"/>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".4 .6 .9" rgb2=".9 .9 1" width="64" height="64"/>
    <texture name="check" type="2d" builtin="checker" rgb1=".8 .8 .7" rgb2=".3 .4 .3" width="128" height="128"/>
    <texture name="wood" type="cube" builtin="flat" mark="cross" rgb1=".7 .4 .2" width="64" height="64"/>
    <material name="floor" texture="check" texrepeat="4 4" texuniform="true"/>
    <material name="block" texture="wood" specular="0.3" shininess="0.2"/>
    <mesh name="tetra" vertex="-.2 -.2 0  .2 -.2 0  0 .2 0  0 0 .3"/>
  </asset>
  <worldbody>
    <light pos="0.5 -0.5 2" dir="-0.2 0.2 -1" diffuse=".6 .6 .6" castshadow="{shadow}"/>
    <light directional="true" pos="0 0 3" dir="0.3 0.4 -1" diffuse=".3 .3 .3" castshadow="false"/>
    <camera name="eye" pos="0 -1.6 0.9" xyaxes="1 0 0 0 0.45 1" fovy="50"/>
    <geom type="plane" size="1 1 .1" material="floor"/>
    <geom type="box" size=".1 .15 .2" pos="-.5 0 .2" euler="0 0 30" material="block"/>
    <body pos="0 0 .3"><freejoint/><geom type="sphere" size=".15" rgba=".9 .2 .2 1"/></body>
    <geom type="capsule" size=".08 .2" pos=".4 0 .3" euler="30 20 0" rgba=".2 .7 .3 1"/>
    <geom type="cylinder" size=".1 .12" pos=".1 .5 .12" rgba=".2 .3 .9 1"/>
    <geom type="ellipsoid" size=".1 .2 .1" pos="-.2 .5 .2" rgba=".9 .8 .2 1"/>
    <geom type="mesh" mesh="tetra" pos=".6 .4 .1" rgba=".6 .3 .8 1"/>
    <geom type="box" size=".1 .01 .2" pos="0 -.4 .2" rgba=".3 .8 .9 .4"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def backend() -> str:
    try:
        return choose_backend()
    except MissingLibraryError as problem:
        pytest.skip(str(problem))


def _psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def _state(shadow: bool) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(_XML.format(shadow=str(shadow).lower()))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.render
@pytest.mark.parametrize(("shadow", "least_db"), [(False, 30), (True, 26)])
def test_rasteriser_against_mujoco_s_own_pixels(backend, shadow, least_db):
    model, data = _state(shadow)
    reference = OpenGL(model, "eye", 160, 120)
    options = RasterOptions(samples=2, shadows=shadow, max_faces=None)
    pixels = reference.render(data)
    reference.close()
    assert _psnr_db(Rasteriser(model, "eye", 160, 120, options).render(data), pixels) > least_db


@pytest.mark.render
@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_is_replaced_and_draws_the_same(backend, caplog, harm):
    model, data = _state(False)
    picture = OpenGL(model, "eye", 64, 48, replace(OpenGLOptions.fast(), answer_s=1.0))
    first = picture.render(data)
    assert first.std() > 10
    process, _ = picture._worker
    os.kill(process.pid, harm)
    assert np.array_equal(picture.render(data), first)
    assert "starting another" in caplog.text
    data.qpos[0] += 0.3
    assert not np.array_equal(picture.render(data), first)
    picture.close()


def test_bad_input_is_refused():
    model, _data = _state(False)
    with pytest.raises(ConfigError, match="did you mean 'egl'"):
        choose_backend("eggl")
    with pytest.raises(EnvError, match="did you mean 'eye'"):
        OpenGL(model, "eyes", 64, 48)
    with pytest.raises(ConfigError, match="640x480"):
        OpenGL(model, "eye", 2000, 48)
    picture = OpenGL(model, "eye", 64, 48)
    with pytest.raises(EnvError, match="fit the model"):
        picture.render_batch(np.zeros((1, 3)))
    picture.close()
