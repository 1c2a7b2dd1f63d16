"""Every own task loads in mujoco_warp, and one step there is MuJoCo's; the first one compiles for a minute."""

import warnings
from importlib.util import find_spec

import mujoco
import numpy as np
import pytest

from robolearn.api import make_env
from robolearn.envs.suite import TASKS
from robolearn.envs.warp import WarpRows
from robolearn.errors import EnvError

if find_spec("mujoco_warp") is None or find_spec("warp") is None:
    warnings.warn("mujoco_warp is not installed: no own task was checked on it", stacklevel=1)
    pytest.skip("needs mujoco-warp==3.8.1 and warp-lang>=1.13,<1.16", allow_module_level=True)

ROUND = ("can", "button")  # cylinders, which touch a box at one point there and at several in MuJoCo


@pytest.mark.long
@pytest.mark.parametrize("task", sorted(TASKS))
def test_one_step_agrees_with_mujoco(task):
    env = make_env(task if task.startswith("pick_place") else f"robolearn/{task}", 1, {"threads": 1})
    env.reset(seed=[3])
    expert = env.expert()
    expert.reset(np.arange(1), [3])
    for _ in range(12):
        env.step(expert.act())
    model, data = env.model, env.data[0]
    batch = WarpRows(model, data, 2)
    contacts = data.ncon
    batch.step()
    mujoco.mj_step(model, data)
    assert contacts > 0 or task in ("reach", "door", "drawer")
    tolerance = 1.0 if task in ROUND else 1e-4
    for row in range(2):
        assert np.abs(batch.qpos[row] - data.qpos).max() < 0.01 * tolerance
        assert np.abs(batch.qvel[row] - data.qvel).max() < tolerance


def test_what_it_does_not_have_is_told():
    ball = "<body><freejoint/><geom size='1'/></body>"
    model = mujoco.MjModel.from_xml_string(
        f"<mujoco><option noslip_iterations='3'/><worldbody>{ball}</worldbody></mujoco>"
    )
    with pytest.raises(EnvError, match="does not have what this scene uses"):
        WarpRows(model, mujoco.MjData(model), 1)
