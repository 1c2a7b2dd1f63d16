"""robosuite's own environment beside ours: the same state, the same actions, to compare."""

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from robolearn.envs.exact.engine import FULL, at_reset
from robolearn.envs.exact.env import ExactEnv
from robolearn.envs.exact.plan import State

__all__ = ["adopt", "observations", "reset_peer"]


def reset_peer(peer: Any, seed: int) -> Mapping[str, np.ndarray]:
    """Reset robosuite's environment by seed: its draws come from numpy's global generator."""
    np.random.seed(seed)  # noqa: NPY002
    return peer.reset()


def adopt(env: ExactEnv, row: int, peer: Any) -> None:
    """Bring a row to the state of robosuite's environment, controllers and object sizes included."""
    model, data = peer.sim.model._model, peer.sim.data._data
    mask = np.arange(env.num_envs) == row
    env.reset(seed=[0] * env.num_envs, options={"reset_mask": mask})
    for body, size in env.sizes.items():
        size[row] = model.geom_size[model.body(body).geomadr[0]]
    env.resize(row)
    state = np.empty(mujoco.mj_stateSize(model, FULL))
    mujoco.mj_getState(model, data, state, FULL)
    env.engine.set_state(row, state)
    env.engine.begin(row)
    env.engine.forward(row)
    env.engine.set_state(row, state)  # the forward pass changed the solver's warm start
    parts = [(robot, arm) for robot in peer.robots for arm in robot.arms]
    for controller, (robot, arm) in zip(env.engine.state[row], parts, strict=True):
        part = robot.part_controllers[arm]
        count = len(part.qpos_index)
        controller[State.HOME : State.HOME + count] = part.initial_joint
        site = np.concatenate([part.ref_pos, np.ravel(part.ref_ori_mat)])
        at_reset(controller, part.mass_matrix, site, part.J_full)
        controller[State.STALE] = not part.new_update
        grip = np.ravel(robot.gripper[arm].current_action) if robot.has_gripper[arm] else np.empty(0)
        commanded = controller[State.GRIP : State.GRIP + len(env.engine.plan.grip_ctrl[0])]
        if grip.any():
            commanded[: len(grip)] = grip
    env.engine.gather(np.array([row]))
    env.sense(np.array([row]))


def observations(env: ExactEnv, row: int, given: Mapping[str, Any]) -> dict[str, float]:
    """Return the largest difference of every one of robosuite's observations to ours."""
    ours = env.raw
    differences = {}
    for key, value in given.items():
        if key.endswith("-state"):
            continue
        differences[key] = float(np.abs(ours[key][row] - value).max()) if key in ours else np.inf
    return differences
