"""The compiled control loop: step1, controller, step2 for many rows, outside the interpreter lock.

Formulas follow Khatib, "A unified approach for motion and force control of robot manipulators" (1987),
with the constants and order of operations of robosuite 1.5, so that trajectories agree with it.
All compiled code is in this one file: the disk cache notices changes of a function's own file only.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import carray, njit

from robolearn.envs.exact.plan import GRIPPER, JOINTS, Kind, State
from robolearn.envs.exact.pointers import call, call_jacobian, doubles, ints, take, words_at

__all__ = ["FORWARD", "KINEMATICS", "run_rows", "run_rows_lean", "run_rows_mocap", "step_rows"]

# Order of layout.DATA_FIELDS and layout.FUNCTIONS.
QPOS, QVEL, CTRL, BIAS, MASS, XPOS, XQUAT, SITE_XPOS, SITE_XMAT, _, MOCAP_POS, MOCAP_QUAT = range(12)
STEP, STEP1, STEP2, JACOBIAN, FORWARD, KINEMATICS, CENTRES = range(7)
OSC, JOINT_POSITION, JOINT_VELOCITY = int(Kind.OSC), int(Kind.JOINT_POSITION), int(Kind.JOINT_VELOCITY)
HOME, GOAL_POSITION, GOAL_ROTATION, GOAL_JOINT = map(
    int, (State.HOME, State.GOAL_POSITION, State.GOAL_ROTATION, State.GOAL_JOINT)
)
STALE, MASS_AT_RESET, SITE_AT_RESET, JACOBIAN_AT_RESET = map(int, (State.STALE, State.MASS, State.SITE, State.JACOBIAN))
GRIP, ERROR, SUM, SATURATED, SLOT, COUNT, RING = map(
    int, (State.GRIP, State.ERROR, State.SUM, State.SATURATED, State.SLOT, State.COUNT, State.RING)
)
# Of the lean fidelity's inverse kinematics. An arm stretched out gets more damping until no joint goal is far away.
_DAMPING, _MOST_DAMPING, _FARTHEST_RAD = 1e-4, 1e2, 1.0
_RING = 5  # length of the averaging window of a joint-velocity controller
_NULL_KP, _NULL_KD = 10.0, 2.0 * math.sqrt(10.0)  # null-space stiffness [1/s²] and damping [1/s]
_compiled = njit(nogil=True, cache=True, error_model="numpy")
# Functions that own no arrays: no references to the plan's two dozen, which all threads share, are counted.
_inner = njit(nogil=True, cache=True, error_model="numpy", _nrt=False)


class Room(NamedTuple):
    """Memory of one thread for the controllers' intermediate results."""

    mass: np.ndarray  # [J,J] of the arm
    square: np.ndarray  # [J,J] a factor
    full: np.ndarray  # [6,nv] a Jacobian of the whole model
    jac: np.ndarray  # [6,J] of the arm
    weighted: np.ndarray  # [6,J] J M⁻¹
    inertia: np.ndarray  # [6,6] inverse of the task-space inertia
    answer: np.ndarray  # [1,6]
    vectors: np.ndarray  # [6,J]: twist, force, wrench, null, posture, torque


@_compiled
def _room(nv):
    return Room(
        np.zeros((JOINTS, JOINTS)), np.zeros((JOINTS, JOINTS)), np.zeros((6, nv)), np.zeros((6, JOINTS)),
        np.zeros((6, JOINTS)), np.zeros((6, 6)), np.zeros((1, 6)), np.zeros((6, JOINTS)),
    )  # fmt: skip


@_inner
def _solve(matrix, rows, size):
    """Solve matrix x = row for every row in place by Cholesky; False where it is not positive definite.

    The factor replaces the lower triangle; its diagonal holds reciprocals.
    """
    for j in range(size):
        total = matrix[j, j]
        least = 1e-12 * total
        for k in range(j):
            total -= matrix[j, k] * matrix[j, k]
        if not total > least:
            return False
        inverse = 1.0 / math.sqrt(total)
        matrix[j, j] = inverse
        for i in range(j + 1, size):
            value = matrix[i, j]
            for k in range(j):
                value -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = value * inverse
    for r in range(rows.shape[0]):
        for i in range(size):
            value = rows[r, i]
            for k in range(i):
                value -= matrix[i, k] * rows[r, k]
            rows[r, i] = value * matrix[i, i]
        for i in range(size - 1, -1, -1):
            value = rows[r, i]
            for k in range(i + 1, size):
                value -= matrix[k, i] * rows[r, k]
            rows[r, i] = value * matrix[i, i]
    return True


@_compiled
def _solve_part(matrix, first, size, vector, factor, answer):
    """Write pinv(block) vector into `answer`, for the symmetric block of `size` rows from `first` on."""
    for i in range(size):
        answer[0, i] = vector[first + i]
        for j in range(i + 1):
            factor[i, j] = matrix[first + i, first + j]
    if _solve(factor, answer, size):
        return
    block = matrix[first : first + size, first : first + size].copy()
    if np.isfinite(block).all():
        answer[0, :size] = np.dot(np.linalg.pinv(block), vector[first : first + size].copy())
    else:
        answer[0, :size] = np.nan  # diverged: seen by the environment


@_compiled
def _rotation(vector):
    """Return the matrix of a rotation vector; single precision where robosuite's is."""
    angle = math.sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2])
    quat = np.zeros(4, np.float32)
    quat[0] = 1.0
    if angle > 0.0:
        quat[0] = math.cos(angle / 2.0)
        for i in range(3):
            quat[1 + i] = vector[i] / angle * math.sin(angle / 2.0)
    quat *= math.sqrt(2.0 / np.dot(quat, quat))
    p = np.outer(quat, quat)
    out = np.empty((3, 3))
    out[0, 0], out[1, 1], out[2, 2] = 1.0 - p[2, 2] - p[3, 3], 1.0 - p[1, 1] - p[3, 3], 1.0 - p[1, 1] - p[2, 2]
    out[0, 1], out[0, 2], out[1, 0] = p[1, 2] - p[3, 0], p[1, 3] + p[2, 0], p[1, 2] + p[3, 0]
    out[1, 2], out[2, 0], out[2, 1] = p[2, 3] - p[1, 0], p[1, 3] - p[2, 0], p[2, 3] + p[1, 0]
    return out


@_compiled
def _exact_rotation(vector):
    """Return the matrix of a rotation vector in double precision (Rodrigues)."""
    angle = math.sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2])
    out = np.eye(3)
    if angle > 0.0:
        x, y, z = vector[0] / angle, vector[1] / angle, vector[2] / angle
        skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        out = out + math.sin(angle) * skew + (1.0 - math.cos(angle)) * np.dot(skew, skew)
    return out


@_compiled
def _scaled(plan, arm, action):
    first, size = plan.action[arm, 0], plan.action[arm, 1]
    out = np.zeros(JOINTS)
    for i in range(size):
        value = min(max(action[first + i], plan.low[arm, i]), plan.high[arm, i])
        out[i] = (value - plan.in_mid[arm, i]) * plan.scale[arm, i] + plan.out_mid[arm, i]
    return out


@_compiled
def _set_goal(plan, arm, action, state, words):
    """Turn the new action into the controller's goal; positions are those of this instant."""
    first, count = plan.action[arm, 0], plan.joints[arm]
    q = doubles(words[QPOS])
    kind = plan.kind[arm]
    if kind in (JOINT_POSITION, JOINT_VELOCITY):
        scaled = _scaled(plan, arm, action)
        for i in range(count):
            if kind == JOINT_VELOCITY:
                state[GOAL_JOINT + i] = scaled[i]
            elif plan.absolute[arm]:
                state[GOAL_JOINT + i] = action[first + i]
            else:
                state[GOAL_JOINT + i] = q[plan.qpos[arm, i]] + scaled[i]
    else:
        _set_pose_goal(plan, arm, action, state, words)
    _move_gripper(plan, arm, action, state)


@_compiled
def _move_gripper(plan, arm, action, state):
    """Integrate the gripper's action, as robosuite's grippers do."""
    grip = plan.action[arm, 2]
    if grip >= 0:
        value = action[grip]
        if plan.grip_sign[arm]:
            value = 1.0 if value > 0 else (-1.0 if value < 0 else 0.0)
        for i in range(GRIPPER):
            moved = state[GRIP + i] + plan.grip_step[arm, i] * value
            state[GRIP + i] = min(max(moved, -1.0), 1.0)


@_inner
def _set_gripper(plan, arm, state, ctrl):
    for i in range(GRIPPER):
        if plan.grip_ctrl[arm, i] >= 0:
            command = plan.grip_mid[arm, i] + plan.grip_half[arm, i] * state[GRIP + i]
            ctrl[plan.grip_ctrl[arm, i]] = command


@_inner
def _site_pose(plan, arm, state, words):
    """Return position and row-major rotation matrix of the controlled site, as pointers."""
    if state[STALE] == 1.0:
        address = state.ctypes.data + 8 * SITE_AT_RESET
        return doubles(address), doubles(address + 24)
    site = plan.site[arm]
    return doubles(words[SITE_XPOS] + 24 * site), doubles(words[SITE_XMAT] + 72 * site)


@_inner
def _base_pose(plan, arm, words):
    """Return position and row-major rotation matrix of the base frame in the world, as pointers."""
    site = plan.base_site[arm]
    if site < 0:
        return doubles(plan.base_m.ctypes.data + 24 * arm), doubles(plan.base_rot.ctypes.data + 72 * arm)
    return doubles(words[SITE_XPOS] + 24 * site), doubles(words[SITE_XMAT] + 72 * site)


@_compiled
def _set_pose_goal(plan, arm, action, state, words):
    first = plan.action[arm, 0]
    x, rot = _site_pose(plan, arm, state, words)
    offset, base = _base_pose(plan, arm, words)
    delta = np.zeros(6) if plan.absolute[arm] else _scaled(plan, arm, action)
    if plan.absolute[arm]:
        for i in range(3):
            state[GOAL_POSITION + i] = action[first + i]
    elif plan.world[arm]:
        for i in range(3):
            state[GOAL_POSITION + i] = x[i] + delta[i]
    else:
        for i in range(3):
            total = 0.0
            for k in range(3):
                total += base[3 * k + i] * (x[k] - offset[k])
            state[GOAL_POSITION + i] = total + delta[i]
    turn = delta[3:6] if plan.rotate[arm] else np.zeros(3)
    if plan.absolute[arm] and plan.rotate[arm]:
        goal = _exact_rotation(action[first + 3 : first + 6])
    elif plan.world[arm]:
        goal = np.dot(_rotation(turn), carray(rot, (3, 3)).copy())
    else:
        goal = np.dot(_rotation(turn), np.dot(carray(base, (3, 3)).T.copy(), carray(rot, (3, 3)).copy()))
    for i in range(9):
        state[GOAL_ROTATION + i] = goal.flat[i]


@_inner
def _wrench_error(plan, arm, state, words, error, want):
    """Write the position and orientation error [6] of the site in the world frame; `want` [3,3] is scratch."""
    x, rot = _site_pose(plan, arm, state, words)
    offset, base = _base_pose(plan, arm, words)
    error[:6] = 0.0
    for i in range(3):
        if plan.world[arm]:
            error[i] = state[GOAL_POSITION + i] - x[i]
            for k in range(3):
                want[i, k] = state[GOAL_ROTATION + 3 * i + k]
            continue
        total = offset[i]
        for k in range(3):
            total += base[3 * i + k] * state[GOAL_POSITION + k]
            value = 0.0
            for j in range(3):
                value += base[3 * i + j] * state[GOAL_ROTATION + 3 * j + k]
            want[i, k] = value
        error[i] = total - x[i]
    for k in range(3):
        a0, a1, a2 = rot[k], rot[3 + k], rot[6 + k]
        b0, b1, b2 = want[0, k], want[1, k], want[2, k]
        error[3] += 0.5 * (a1 * b2 - a2 * b1)
        error[4] += 0.5 * (a2 * b0 - a0 * b2)
        error[5] += 0.5 * (a0 * b1 - a1 * b0)


@_inner
def _arm_mass(plan, arm, state, words, mass):
    """Fill `mass` with the arm's mass matrix."""
    count = plan.joints[arm]
    sparse = doubles(words[MASS])
    stale = state[STALE] == 1.0
    for i in range(count):
        for j in range(i + 1):
            if stale:
                value = state[MASS_AT_RESET + i * JOINTS + j]
            else:
                place = plan.mass[arm, i, j]
                value = sparse[place] if place >= 0 else 0.0
            mass[i, j] = mass[j, i] = value


@_compiled
def _osc(plan, arm, functions, model, data, state, words, room):
    """Operational-space torques: decoupled task forces, bias compensation, null-space posture."""
    count, nv = plan.joints[arm], room.full.shape[1]
    q, v = doubles(words[QPOS]), doubles(words[QVEL])
    bias = doubles(words[BIAS])
    twist, force, wrench, null, posture, torque = room.vectors
    _arm_mass(plan, arm, state, words, room.mass)
    _task_inertia(plan, arm, functions, model, data, state, words, room)
    for i in range(6):
        twist[i] = null[i] = 0.0
        for k in range(count):
            twist[i] += room.jac[i, k] * v[plan.qvel[arm, k]]
    if plan.base_site[arm] >= 0:  # velocities count relative to the base
        address = room.full.ctypes.data
        call_jacobian(functions[JACOBIAN], model, data, address, address + 24 * nv, plan.base_site[arm])
        for i in range(6):
            for k in range(nv):
                twist[i] -= room.full[i, k] * v[k]
    _wrench_error(plan, arm, state, words, force, room.square)
    for i in range(6):
        force[i] = force[i] * plan.kp[arm, i] - twist[i] * plan.kd[arm, i]
    for k in range(count):
        posture[k] = _NULL_KP * (state[HOME + k] - q[plan.qpos[arm, k]]) - _NULL_KD * v[plan.qvel[arm, k]]
        for i in range(6):
            null[i] += room.jac[i, k] * posture[k]
    half = 3 if plan.uncoupled[arm] else 6
    for first in range(0, 6, half):
        _solve_part(room.inertia, first, half, force, room.square, room.answer)
        for i in range(half):
            wrench[first + i] = room.answer[0, i]
    _solve_part(room.inertia, 0, 6, null, room.square, room.answer)
    for i in range(6):
        wrench[i] -= room.answer[0, i]
    for k in range(count):
        total = bias[plan.qvel[arm, k]]
        for j in range(count):
            total += room.mass[k, j] * posture[j]
        for i in range(6):
            total += room.jac[i, k] * wrench[i]
        torque[k] = total


@_inner
def _task_inertia(plan, arm, functions, model, data, state, words, room):
    """Fill the arm's Jacobian J and J M⁻¹ Jᵀ, the inverse of the task-space inertia."""
    count, nv, stale = plan.joints[arm], room.full.shape[1], state[STALE] == 1.0
    address = room.full.ctypes.data
    call_jacobian(functions[JACOBIAN], model, data, address, address + 24 * nv, plan.site[arm])
    for i in range(6):
        for k in range(count):
            value = room.full[i, plan.qvel[arm, k]]
            if stale:
                value = state[JACOBIAN_AT_RESET + i * JOINTS + k]
            room.jac[i, k] = room.weighted[i, k] = value
    for i in range(count):
        for j in range(i + 1):
            room.square[i, j] = room.mass[i, j]
    _solve(room.square, room.weighted, count)
    for i in range(6):
        for j in range(i + 1):
            total = 0.0
            for k in range(count):
                total += room.weighted[i, k] * room.jac[j, k]
            room.inertia[i, j] = room.inertia[j, i] = total


@_inner
def _joint_position(plan, arm, state, words, room):
    count = plan.joints[arm]
    q, v = doubles(words[QPOS]), doubles(words[QVEL])
    bias = doubles(words[BIAS])
    want, torque = room.vectors[0], room.vectors[5]
    _arm_mass(plan, arm, state, words, room.mass)
    for k in range(count):
        error = state[GOAL_JOINT + k] - q[plan.qpos[arm, k]]
        want[k] = error * plan.kp[arm, k] - v[plan.qvel[arm, k]] * plan.kd[arm, k]
    for k in range(count):
        total = bias[plan.qvel[arm, k]]
        for j in range(count):
            total += room.mass[k, j] * want[j]
        torque[k] = total


@_inner
def _joint_velocity(plan, arm, state, words, room):
    """PID on joint velocities; the integral rests while a torque is at its limit."""
    count, torque = plan.joints[arm], room.vectors[5]
    v, bias = doubles(words[QVEL]), doubles(words[BIAS])
    slot, filled = int(state[SLOT]), min(int(state[COUNT]) + 1, _RING)
    clipped = 0.0
    for k in range(count):
        error = state[GOAL_JOINT + k] - v[plan.qvel[arm, k]]
        state[RING + slot * JOINTS + k] = error - state[ERROR + k]
        state[ERROR + k] = error
        if state[SATURATED] == 0.0:
            state[SUM + k] += error
        mean = 0.0
        for i in range(filled):
            mean += state[RING + i * JOINTS + k]
        gain = plan.kp[arm, k]
        total = gain * error + gain * 0.005 * state[SUM + k] + gain * 0.001 * (mean / filled)
        total += bias[plan.qvel[arm, k]]
        torque[k] = min(max(total, plan.torque_low[arm, k]), plan.torque_high[arm, k])
        clipped += abs(torque[k] - total)
    state[SATURATED] = 0.0 if clipped == 0.0 else 1.0
    state[SLOT], state[COUNT] = (slot + 1) % _RING, filled


@_compiled
def _control(plan, functions, model, data, state, words, room):
    """Write the controls of all arms and grippers."""
    ctrl, torque = doubles(words[CTRL]), room.vectors[5]
    for arm in range(plan.kind.shape[0]):
        kind = plan.kind[arm]
        if kind == JOINT_POSITION:
            _joint_position(plan, arm, state[arm], words, room)
        elif kind == JOINT_VELOCITY:
            _joint_velocity(plan, arm, state[arm], words, room)
        else:
            _osc(plan, arm, functions, model, data, state[arm], words, room)
        state[arm, STALE] = 0.0
        for k in range(plan.joints[arm]):
            ctrl[plan.ctrl[arm, k]] = min(max(torque[k], plan.torque_low[arm, k]), plan.torque_high[arm, k])
        _set_gripper(plan, arm, state[arm], ctrl)


@_compiled
def _field_words(data, offsets):
    words = carray(words_at(data), (1 << 20,))
    out = np.empty(offsets.shape[0], np.int64)
    for i in range(offsets.shape[0]):
        out[i] = words[offsets[i]]
    return out


@_compiled
def _copy(source, target):
    values = carray(doubles(source), target.shape)
    target[:] = values


@_compiled
def _record(record, data, words, contact, qpos, qvel, bodies, sites, touch):
    """Copy positions, the recorded bodies [nb,7] and sites [ns,12], and which pairs touch [np]."""
    _copy(words[QPOS], qpos)
    _copy(words[QVEL], qvel)
    for i in range(record.bodies.shape[0]):
        _copy(words[XPOS] + 24 * record.bodies[i], bodies[i, :3])
        _copy(words[XQUAT] + 32 * record.bodies[i], bodies[i, 3:])
    for i in range(record.sites.shape[0]):
        _copy(words[SITE_XPOS] + 24 * record.sites[i], sites[i, :3])
        _copy(words[SITE_XMAT] + 72 * record.sites[i], sites[i, 3:])
    touch[:] = False
    start = carray(words_at(data), (1 << 20,))[contact[0]]
    number = carray(ints(data), (1 << 20,))[contact[1]]
    for i in range(number):
        geoms = carray(ints(start + i * contact[2] + contact[3]), (2,))
        if geoms[0] < 0 or geoms[1] < 0:
            continue
        one, other = record.groups[geoms[0]], record.groups[geoms[1]]
        if one == 0 or other == 0:
            continue
        for p in range(record.pairs.shape[0]):
            a, b = record.pairs[p, 0], record.pairs[p, 1]
            if (one & a and other & b) or (one & b and other & a):
                touch[p] = True


@_compiled
def run_rows(layout, plan, record, rows, models, datas, substeps, actions, states, out, taken):
    """Take one control step of `substeps` physics steps on those of `rows` that `taken` gives this thread.

    `models` and `datas` [E] are addresses, `actions` [E,A], `states` [E,arms,STATE] the controllers'
    state, changed in place. `out` = (qpos, qvel, bodies, sites, touch), each with leading [E]; with
    `substeps` 0 they are only read.
    """
    functions, room = layout.functions, _room(out[1].shape[1])
    r = take(taken.ctypes.data)
    while r < rows.shape[0]:
        row = rows[r]
        model, data, state = models[row], datas[row], states[row]
        words = _field_words(data, layout.data)
        for k in range(substeps):
            call(functions[STEP1], model, data)
            if k == 0:
                for arm in range(plan.kind.shape[0]):
                    _set_goal(plan, arm, actions[row], state[arm], words)
            _control(plan, functions, model, data, state, words, room)
            call(functions[STEP2], model, data)
        _record(record, data, words, layout.contact, out[0][row], out[1][row], out[2][row], out[3][row], out[4][row])
        r = take(taken.ctypes.data)


@_compiled
def _joint_goal(plan, arm, functions, model, data, action, state, words, jacobian, ctrl):
    """Write the joint goal of a pose delta: damped least squares (Wampler 1986), posture in the null space."""
    count, nv = plan.joints[arm], jacobian.shape[1]
    q = doubles(words[QPOS])
    address = jacobian.ctypes.data
    call_jacobian(functions[JACOBIAN], model, data, address, address + 24 * nv, plan.site[arm])
    delta, base = _scaled(plan, arm, action), _base_pose(plan, arm, words)[1]
    jac, want, square = np.empty((6, count)), np.zeros((1, 6)), np.zeros((6, 6))
    posture = np.empty(count)
    for k in range(count):
        posture[k] = (state[HOME + k] - q[plan.qpos[arm, k]]) * (_NULL_KP / plan.kp[arm, 0])
    for i in range(6):
        if i < 3 or plan.rotate[arm]:
            for k in range(3):
                want[0, i] += base[3 * (i % 3) + k] * delta[k + 3 * (i // 3)]
        for k in range(count):
            jac[i, k] = jacobian[i, plan.qvel[arm, k]]
            want[0, i] -= jac[i, k] * posture[k]
    for i in range(6):
        for j in range(6):
            for k in range(count):
                square[i, j] += jac[i, k] * jac[j, k]
    damping, farthest = _DAMPING, np.inf
    while farthest > _FARTHEST_RAD and damping < _MOST_DAMPING:
        left, right, farthest = square.copy(), want.copy(), 0.0
        for i in range(6):
            left[i, i] += damping
        _solve(left, right, 6)
        for k in range(count):
            step = 0.0
            for i in range(6):
                step += jac[i, k] * right[0, i]
            ctrl[plan.ctrl[arm, k]] = q[plan.qpos[arm, k]] + posture[k] + step
            farthest = max(farthest, abs(step))
        damping *= 10.0


@_compiled
def run_rows_lean(layout, plan, record, rows, models, datas, substeps, actions, states, out, taken):
    """Take one control step on position actuators: see `run_rows` for the arguments."""
    functions, nv = layout.functions, out[1].shape[1]
    jacobian = np.zeros((6, nv))
    r = take(taken.ctypes.data)
    while r < rows.shape[0]:
        row = rows[r]
        model, data = models[row], datas[row]
        words = _field_words(data, layout.data)
        ctrl = doubles(words[CTRL])
        if substeps > 0:
            call(functions[KINEMATICS], model, data)
            call(functions[CENTRES], model, data)
            for arm in range(plan.kind.shape[0]):
                state = states[row, arm]
                _joint_goal(plan, arm, functions, model, data, actions[row], state, words, jacobian, ctrl)
                _move_gripper(plan, arm, actions[row], state)
                _set_gripper(plan, arm, state, ctrl)
        for _k in range(substeps):
            call(functions[STEP], model, data)
        _record(record, data, words, layout.contact, out[0][row], out[1][row], out[2][row], out[3][row], out[4][row])
        r = take(taken.ctypes.data)


@_compiled
def step_rows(layout, rows, models, datas, substeps, taken):
    """Take `substeps` plain physics steps on `rows`: the limit that the control loop is measured against."""
    r = take(taken.ctypes.data)
    while r < rows.shape[0]:
        for _ in range(substeps):
            call(layout.functions[STEP], models[rows[r]], datas[rows[r]])
        r = take(taken.ctypes.data)


@_compiled
def run_rows_mocap(layout, record, rows, models, datas, substeps, finish, moves, bounds, quat, controls, out, taken):
    """Take one control step of a hand that is welded to the first mocap body: see `run_rows` for what is not here.

    `moves` [n,3] m shift the mocap body of each row within `bounds` [2,3], `quat` [4] is its orientation and
    `controls` [n,nu] are the actuators'; `finish` is the function that brings up to date what is recorded.
    """
    functions = layout.functions
    r = take(taken.ctypes.data)
    while r < rows.shape[0]:
        row = rows[r]
        model, data = models[row], datas[row]
        words = _field_words(data, layout.data)
        position, ctrl = carray(doubles(words[MOCAP_POS]), (3,)), carray(doubles(words[CTRL]), (controls.shape[1],))
        for i in range(3):
            position[i] = min(max(position[i] + moves[r, i], bounds[0, i]), bounds[1, i])
        carray(doubles(words[MOCAP_QUAT]), (4,))[:] = quat
        ctrl[:] = controls[r]
        for _k in range(substeps):
            call(functions[STEP], model, data)
        call(functions[finish], model, data)
        _record(record, data, words, layout.contact, out[0][row], out[1][row], out[2][row], out[3][row], out[4][row])
        r = take(taken.ctypes.data)
