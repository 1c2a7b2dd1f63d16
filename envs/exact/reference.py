"""The control loop in plain numpy over MuJoCo's Python bindings: slow, readable, the compiled one's check."""

import ctypes
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from robolearn.envs.exact.layout import address_of
from robolearn.envs.exact.plan import GRIPPER, JOINTS, Kind, Plan, State
from robolearn.envs.exact.quaternions import quat_to_mat

__all__ = ["call", "run_row"]

_NULL_KP = 10.0


def call(function: str, model: int, data: int) -> None:
    """Call a MuJoCo function of (model, data) by address: rows may have a model struct of their own."""
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address_of(function))(model, data)


def run_row(engine: Any, row: int, substeps: int) -> None:
    """Take one control step of `substeps` physics steps on a row of an `Engine`, as `loop.run_rows` does."""
    model, data = int(engine.models[row]), engine.data[row]
    for substep in range(substeps):
        call("mj_step1", model, data._address)
        for arm in range(len(engine.plan.kind)):
            if substep == 0:
                _set_goal(engine.plan, arm, engine.actions[row], engine.state[row, arm], data)
            _control(engine.plan, arm, engine.state[row, arm], engine.model, data)
        call("mj_step2", model, data._address)
    _record(engine, row)


def _scaled(plan: Plan, arm: int, action: np.ndarray) -> np.ndarray:
    first, size = plan.action[arm, :2]
    part = np.clip(action[first : first + size], plan.low[arm, :size], plan.high[arm, :size])
    return (part - plan.in_mid[arm, :size]) * plan.scale[arm, :size] + plan.out_mid[arm, :size]


def _set_goal(plan: Plan, arm: int, action: np.ndarray, state: np.ndarray, data: mujoco.MjData) -> None:
    first, size, grip = plan.action[arm]
    count, given = plan.joints[arm], action[first : first + size]
    joint = slice(State.GOAL_JOINT, State.GOAL_JOINT + count)
    if plan.kind[arm] == Kind.JOINT_VELOCITY:
        state[joint] = _scaled(plan, arm, action)
    elif plan.kind[arm] == Kind.JOINT_POSITION:
        angles = data.qpos[plan.qpos[arm, :count]]
        state[joint] = given if plan.absolute[arm] else angles + _scaled(plan, arm, action)
    else:
        _set_pose_goal(plan, arm, given, action, state, data)
    if grip >= 0:
        value = np.sign(action[grip]) if plan.grip_sign[arm] else action[grip]
        held = slice(State.GRIP, State.GRIP + GRIPPER)
        state[held] = np.clip(state[held] + plan.grip_step[arm] * value, -1.0, 1.0)


def _site_pose(plan: Plan, arm: int, state: np.ndarray, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
    if state[State.STALE] == 1.0:
        site = state[State.SITE : State.JACOBIAN]
        return site[:3], site[3:].reshape(3, 3)
    return data.site_xpos[plan.site[arm]], data.site_xmat[plan.site[arm]].reshape(3, 3)


def _base_pose(plan: Plan, arm: int, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
    site = plan.base_site[arm]
    if site < 0:
        return plan.base_m[arm], plan.base_rot[arm]
    return data.site_xpos[site], data.site_xmat[site].reshape(3, 3)


def _set_pose_goal(
    plan: Plan, arm: int, given: np.ndarray, action: np.ndarray, state: np.ndarray, data: mujoco.MjData
) -> None:
    x, rot = _site_pose(plan, arm, state, data)
    if not plan.world[arm]:
        offset, base = _base_pose(plan, arm, data)
        x, rot = base.T @ (x - offset), base.T @ rot
    if plan.absolute[arm]:
        goal = given[:3]
        turned = Rotation.from_rotvec(given[3:6]).as_matrix() if plan.rotate[arm] else rot
    else:
        delta = _scaled(plan, arm, action)
        goal = x + delta[:3]
        quat = Rotation.from_rotvec(delta[3:6] if plan.rotate[arm] else np.zeros(3)).as_quat()
        turned = quat_to_mat(quat[None])[0] @ rot
    state[State.GOAL_POSITION : State.GOAL_POSITION + 3] = goal
    state[State.GOAL_ROTATION : State.GOAL_ROTATION + 9] = turned.ravel()


def _control(plan: Plan, arm: int, state: np.ndarray, model: mujoco.MjModel, data: mujoco.MjData) -> None:
    count = plan.joints[arm]
    dof = plan.qvel[arm, :count]
    if state[State.STALE] == 1.0:
        block = state[State.MASS : State.SITE].reshape(JOINTS, JOINTS)[:count, :count]
    else:
        mass = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, mass, data.qM)
        block = mass[np.ix_(dof, dof)]
    if plan.kind[arm] == Kind.JOINT_POSITION:
        error = state[State.GOAL_JOINT : State.GOAL_JOINT + count] - data.qpos[plan.qpos[arm, :count]]
        torque = block @ (error * plan.kp[arm, :count] - data.qvel[dof] * plan.kd[arm, :count])
        torque += data.qfrc_bias[dof]
    elif plan.kind[arm] == Kind.JOINT_VELOCITY:
        torque = _joint_velocity(plan, arm, state, data)
    else:
        torque = _osc(plan, arm, state, model, data, block)
    state[State.STALE] = 0.0
    data.ctrl[plan.ctrl[arm, :count]] = np.clip(torque, plan.torque_low[arm, :count], plan.torque_high[arm, :count])
    present = plan.grip_ctrl[arm] >= 0
    command = plan.grip_mid[arm] + plan.grip_half[arm] * state[State.GRIP : State.GRIP + GRIPPER]
    data.ctrl[plan.grip_ctrl[arm, present]] = command[present]


def _osc(
    plan: Plan, arm: int, state: np.ndarray, model: mujoco.MjModel, data: mujoco.MjData, mass: np.ndarray
) -> np.ndarray:
    count, site = plan.joints[arm], plan.site[arm]
    dof = plan.qvel[arm, :count]
    jacobian = np.zeros((6, model.nv))
    mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site)
    jacobian = jacobian[:, dof]
    if state[State.STALE] == 1.0:
        jacobian = state[State.JACOBIAN :].reshape(6, JOINTS)[:, :count]
    goal = state[State.GOAL_POSITION : State.GOAL_POSITION + 3]
    turned = state[State.GOAL_ROTATION : State.GOAL_ROTATION + 9].reshape(3, 3)
    if not plan.world[arm]:
        offset, base = _base_pose(plan, arm, data)
        goal, turned = offset + base @ goal, base @ turned
    x, rot = _site_pose(plan, arm, state, data)
    error = np.concatenate([goal - x, 0.5 * np.cross(rot.T, turned.T).sum(0)])
    twist = jacobian @ data.qvel[dof]
    if plan.base_site[arm] >= 0:
        moving = np.zeros((6, model.nv))
        mujoco.mj_jacSite(model, data, moving[:3], moving[3:], plan.base_site[arm])
        twist = twist - moving @ data.qvel
    force = plan.kp[arm, :6] * error - plan.kd[arm, :6] * twist
    inverse = jacobian @ np.linalg.solve(mass, jacobian.T)
    whole = np.linalg.pinv(inverse)
    if plan.uncoupled[arm]:
        wrench = np.concatenate(
            [np.linalg.pinv(inverse[:3, :3]) @ force[:3], np.linalg.pinv(inverse[3:, 3:]) @ force[3:]]
        )
    else:
        wrench = whole @ force
    away = state[State.HOME : State.HOME + count] - data.qpos[plan.qpos[arm, :count]]
    posture = _NULL_KP * away - 2.0 * np.sqrt(_NULL_KP) * data.qvel[dof]
    wrench = wrench - whole @ (jacobian @ posture)
    return jacobian.T @ wrench + mass @ posture + data.qfrc_bias[dof]


def _joint_velocity(plan: Plan, arm: int, state: np.ndarray, data: mujoco.MjData) -> np.ndarray:
    count = plan.joints[arm]
    dof, gain = plan.qvel[arm, :count], plan.kp[arm, :count]
    last, total = state[State.ERROR : State.ERROR + count], state[State.SUM : State.SUM + count]
    ring = state[State.RING : State.RING + 5 * JOINTS].reshape(5, JOINTS)
    slot, filled = int(state[State.SLOT]), min(int(state[State.COUNT]) + 1, 5)
    error = state[State.GOAL_JOINT : State.GOAL_JOINT + count] - data.qvel[dof]
    ring[slot, :count] = error - last
    last[:] = error
    if state[State.SATURATED] == 0.0:
        total += error
    wanted = gain * error + gain * 0.005 * total + gain * 0.001 * ring[:filled, :count].mean(0) + data.qfrc_bias[dof]
    torque = np.clip(wanted, plan.torque_low[arm, :count], plan.torque_high[arm, :count])
    state[State.SATURATED] = float(np.abs(torque - wanted).sum() != 0.0)
    state[State.SLOT], state[State.COUNT] = (slot + 1) % 5, filled
    return torque


def _record(engine: Any, row: int) -> None:
    data, record = engine.data[row], engine.record
    engine.qpos[row], engine.qvel[row] = data.qpos, data.qvel
    engine.bodies[row] = np.concatenate([data.xpos[record.bodies], data.xquat[record.bodies]], 1)
    engine.sites[row] = np.concatenate([data.site_xpos[record.sites], data.site_xmat[record.sites]], 1)
    engine.touch[row] = False
    if data.ncon:
        one, other = record.groups[data.contact.geom.T]
        for index, (a, b) in enumerate(record.pairs):
            engine.touch[row, index] = bool((((one & a) * (other & b)) | ((one & b) * (other & a))).any())
