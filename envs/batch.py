"""Many environments in one process: one model, E states, one thread per core.

`mj_step` releases the interpreter lock, so threads scale. Rows never influence each other: what an
episode does is a function of its seed and its actions, bit for bit, for any number of rows or threads.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Literal

import mujoco
import numpy as np

from robolearn.contracts import Observations
from robolearn.envs.base import COUNTERS, RowsEnv, ran_away
from robolearn.envs.expert import ScriptedExpert
from robolearn.envs.ik import home_joints, joint_targets, tool_yaw
from robolearn.envs.images import Cameras
from robolearn.envs.perturb import RAD_PER_M, Commands, Perturbations
from robolearn.envs.task import Row, Task, View
from robolearn.seeding import generator
from robolearn.spec import ActionSpec, Feature, Spec

__all__ = ["BatchEnv", "BatchOptions", "Snapshot"]

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class BatchOptions:
    """What is the same for every task."""

    reward: Literal["sparse", "dense"] = "sparse"
    cameras: tuple[str, ...] = ()
    image_px: int = 96
    renderer: str = "auto"
    perturb: Mapping[str, int] = field(default_factory=dict)  # axis → level 0 to 3, see `perturb.AXES`
    max_steps: int | None = None  # None: the task's
    threads: int = 0  # 0: one per core


@dataclass(frozen=True)
class Snapshot:
    """Everything that decides how one row goes on."""

    state: np.ndarray
    variables: dict[str, np.ndarray]
    counters: dict[str, Any]
    random: dict[str, Any]
    model: Any  # the row's own, where a perturbation changed it
    drawn: dict[str, float]


class BatchEnv(RowsEnv):
    """`contracts.VectorEnv` over a `Task`: absolute tool targets in, one control step out.

    Actions are [x, y, z, yaw, gripper] per mounted arm, m and rad in the world frame.
    """

    def __init__(self, task: Task, num_envs: int, options: BatchOptions | None = None):
        self.task, self.options = task, options or BatchOptions()
        super().__init__(num_envs, self.options.max_steps or task.max_steps)
        self.perturb = Perturbations(self.options.perturb, num_envs, task.sentences)
        self.declare(_spec(task, self.options))
        self.model = self._scene(False).compile()
        self._models = [copy(self.model) if self.perturb.physical else self.model for _ in range(num_envs)]
        self.data = [mujoco.MjData(self.model) for _ in range(num_envs)]
        self._arms = [_ArmIndex(self.model, mount) for mount in task.mounts]
        self._substeps = round(1.0 / (task.rate_hz * self.model.opt.timestep))
        self._threads = min(self.options.threads or len(os.sched_getaffinity(0)), num_envs)
        self._pool: ThreadPoolExecutor | None = None
        self._cameras = Cameras(
            lambda visual, look: self._scene(visual, look).compile(), self.options.renderer, self.options.threads
        )
        self._middle_rad = np.array([mount.middle_rad for mount in task.mounts])
        self._allocate()

    # ------------------------------------------------------------ what a row does

    def begin(self, rows: np.ndarray) -> None:
        for row in rows:
            self._reset_row(row)
        self._render_rows(rows)

    def advance(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self._command(rows, actions)
        self._parallel(self._advance, rows)
        runaway = ran_away(self._view.qpos, self._view.qvel)
        if self.task.advance is not None:
            self.task.advance(self._view)
        self._shake(rows)
        holds = self.task.success(self._view) & ~runaway
        self._held[rows] = np.where(holds, self._held + 1, 0)[rows]
        success = self._held >= self.task.hold_steps
        self._render_rows(rows)
        return self._reward(success), success, runaway

    def observe(self) -> Observations:
        view = self._view
        state = np.concatenate([view.tool_m, view.yaw_rad[..., None], view.width_m[..., None]], -1)
        obs: Observations = {
            "observation.state": _finite(state.reshape(self.num_envs, -1)),
            "observation.environment_state": _finite(self.task.observe(view)),
            "task": self._instructions(),
        }
        if self._jitter.size:
            size = obs["observation.state"].shape[1]
            obs["observation.state"] += self._jitter[:, :size]
            obs["observation.environment_state"] += self._jitter[:, size:]
        for camera, images in self._images.items():
            obs[f"observation.images.{camera}"] = images.copy()
            if self.perturb.size("blackout"):
                obs[f"observation.images.{camera}"][self.perturb.blind()] = 0
        return obs

    def info(self) -> dict[str, Any]:
        if not self.options.perturb:
            return super().info()
        return super().info() | {"perturbation": [dict(drawn) for drawn in self.perturb.drawn]}

    def render(  # ty: ignore[incompatible-method-override]  # one row, as `contracts.VectorEnv` has it
        self, row: int = 0, camera: str = "side", width: int = 480, height: int = 360
    ) -> np.ndarray:
        """Return a picture [height,width,3] uint8 of one row."""
        return self._cameras.picture(self.data[row], camera, (width, height), int(self._look[row]), fine=True)

    def close_extras(self, **kwargs: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._cameras.close()

    # ------------------------------------------------------------ beyond gymnasium

    def expert(self) -> ScriptedExpert:
        """Return the task's scripted demonstrator, bound to this environment."""
        return ScriptedExpert(self.task, self._view)

    @property
    def view(self) -> View:
        """The present state of all rows, for task functions and experts."""
        return self._view

    def picture(self, row: int, camera: str) -> np.ndarray:
        """Return the picture [px,px,3] uint8 that an observation of `camera` has now."""
        size = (self.options.image_px, self.options.image_px)
        return self._cameras.picture(self.data[row], camera, size, int(self._look[row]))

    def refresh(self, row: int) -> None:
        """Bring `view` up to date after somebody else stepped the physics of a row."""
        self._gather(row)

    def snapshot(self, row: int) -> Snapshot:
        """Return the full state of one row; `restore` resumes it bit for bit."""
        state = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data[row], state, _STATE)
        return Snapshot(
            state,
            {name: value[row].copy() for name, value in self._view.variables.items()},
            {name: getattr(self, name)[row].copy() for name in _COUNTERS},
            {name: dict(draw.bit_generator.state) for name, draw in self._generators(row).items()},
            copy(self._models[row]) if self.perturb.physical else None,
            dict(self.perturb.drawn[row]),
        )

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Bring a row back to where a snapshot was taken, of any row of any such environment."""
        mujoco.mj_setState(self.model, self.data[row], snapshot.state, _STATE)
        for name, value in snapshot.variables.items():
            self._view.variables[name][row] = value
        for name, value in snapshot.counters.items():
            getattr(self, name)[row] = value
        self._random[row], self.perturb.random[row] = generator(0), generator(0)
        for name, draw in self._generators(row).items():
            draw.bit_generator.state = snapshot.random[name]
        if snapshot.model is not None:
            self._models[row] = copy(snapshot.model)
        self.perturb.drawn[row] = dict(snapshot.drawn)
        self._gather(row)
        self._render_rows(np.array([row]))
        self._started = True

    # ------------------------------------------------------------ one step, in order

    def _command(self, rows: np.ndarray, actions: np.ndarray) -> None:
        """Turn tool targets into joint targets; `actions` are those of `rows`."""
        executed = self._commands.arriving(rows, actions)
        for index, arm in enumerate(self._arms):
            target = executed[:, 5 * index : 5 * index + 5]
            self._ctrl[rows, index, : arm.size] = joint_targets(
                self._view.qpos[rows[:, None], arm.qpos],
                arm.home,
                self._jacobian[index][rows][:, :, arm.dof],
                self._view.tool_m[rows, index],
                self._view.tool_mat[rows, index],
                target[:, :4],
                arm.middle_rad,
            )
            grip = np.where(target[:, 4:] > 0, arm.closed, arm.open_)
            self._ctrl[rows, index, arm.size : arm.size + grip.shape[1]] = grip

    def _shake(self, rows: np.ndarray) -> None:
        """Draw the observation noise of `rows`, once per step."""
        if self._jitter.size:
            for row in rows:
                self._jitter[row] = self.perturb.jitter(row, self._jitter.shape[1:])

    def _instructions(self) -> np.ndarray:
        texts = self.task.instructions(self._view)
        if not self.perturb.size("paraphrase") and not self.perturb.size("shuffled"):
            return texts
        return np.array([self.perturb.say(row, str(text)) for row, text in enumerate(texts)])

    def _advance(self, rows: np.ndarray) -> None:
        for row in rows:
            data = self.data[row]
            for index, arm in enumerate(self._arms):
                data.ctrl[arm.actuators] = self._ctrl[row, index, : len(arm.actuators)]
            mujoco.mj_step(self._models[row], data, self._substeps)
            self._gather(row)

    def _gather(self, row: int) -> None:
        """Copy what the tasks look at; positions are made to belong to the present joints."""
        data, view, model = self.data[row], self._view, self._models[row]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        view.qpos[row], view.qvel[row] = data.qpos, data.qvel
        view.xpos[row], view.xquat[row] = data.xpos, data.xquat
        for index, arm in enumerate(self._arms):
            jacobian = self._jacobian[index][row]
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], arm.site)
            view.tool_m[row, index] = data.site_xpos[arm.site]
            view.tool_mat[row, index] = data.site_xmat[arm.site].reshape(3, 3)
            view.width_m[row, index] = (data.qpos[arm.fingers] - arm.closed) @ arm.width_per_joint
        view.yaw_rad[row] = tool_yaw(view.tool_mat[row], self._middle_rad)

    def _reward(self, success: np.ndarray) -> np.ndarray:
        if self.options.reward == "sparse":
            return success.astype(np.float64)
        return np.where(success, 1.0, np.nan_to_num(self.task.reward(self._view), nan=0.0))

    # ------------------------------------------------------------ set-up

    def _scene(self, visual: bool, look: int = -1) -> mujoco.MjSpec:
        return self.perturb.paint(self.perturb.extend_scene(self.task.scene(visual)), look)

    def _generators(self, row: int) -> dict[str, np.random.Generator]:
        return {"task": self._random[row], "perturb": self.perturb.random[row]}

    def _allocate(self) -> None:
        count, model, arms = self.num_envs, self.model, len(self._arms)
        variables = {name: np.zeros((count, *shape), kind) for name, (shape, kind) in self.task.variables.items()}
        self._view = View(
            model,
            np.zeros((count, model.nq)),
            np.zeros((count, model.nv)),
            np.zeros((count, model.nbody, 3)),
            np.zeros((count, model.nbody, 4)),
            np.zeros((count, arms, 3)),
            np.tile(np.eye(3), (count, arms, 1, 1)),
            np.zeros((count, arms)),
            np.zeros((count, arms)),
            variables,
        )
        self._jacobian = np.zeros((arms, count, 6, model.nv))
        self._ctrl = np.zeros((count, arms, max(len(arm.actuators) for arm in self._arms)))
        scale = np.tile([1.0, 1.0, 1.0, RAD_PER_M, 0.0], arms)
        self._commands = Commands(self.perturb, count, scale)
        self._noise, self._queue = self._commands.noise, self._commands.queue
        self._held, self._look = np.zeros(count, np.int64), np.full(count, -1)
        seen = sum(feature.shape[0] for feature in self.spec.observations.values() if feature.kind == "signal")
        noisy = seen if self.perturb.size("observation_noise") else 0
        self._jitter = np.zeros((count, noisy), np.float32)
        shape = (count, self.options.image_px, self.options.image_px, 3)
        self._images = {camera: np.zeros(shape, np.uint8) for camera in self.options.cameras}

    def _reset_row(self, row: int) -> None:
        data, random = self.data[row], self._random[row]
        self.perturb.begin(row, self._seed[row])
        if self.perturb.physical:
            self.perturb.row_model(row, self.model, self._models[row])
        mujoco.mj_resetData(self._models[row], data)
        for index, arm in enumerate(self._arms):
            data.qpos[arm.qpos] = arm.home + random.normal(0.0, 0.03, arm.size)
            data.qpos[arm.fingers] = arm.open_
            data.ctrl[arm.actuators] = data.qpos[np.concatenate([arm.qpos, arm.fingers])]
            self._ctrl[row, index, : len(arm.actuators)] = data.ctrl[arm.actuators]
        for value in self._view.variables.values():
            value[row] = 0
        mine = {name: value[row : row + 1] for name, value in self._view.variables.items()}
        self.task.reset(Row(self.model, data, self.perturb.widen(random), mine))
        self.perturb.place_distractors(row, self.model, data)
        mujoco.mj_forward(self._models[row], data)
        self._held[row] = 0
        self._gather(row)
        view = self._view
        still = np.concatenate(
            [view.tool_m[row], view.yaw_rad[row, :, None], np.full_like(view.width_m[row, :, None], -1)], 1
        )
        self._commands.begin(row, still.ravel())
        self._look[row] = self.perturb.look(row)
        self._shake(np.array([row]))

    def _render_rows(self, rows: np.ndarray) -> None:
        if self._images and len(rows):
            self._cameras.fill(self._images, rows, [self.data[row] for row in rows], self._look[rows])

    def _parallel(self, work: Any, rows: np.ndarray) -> None:
        """Run `work` over `rows`, a share per thread."""
        if self._threads == 1 or len(rows) < 2:
            work(rows)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="batch-env")
        list(self._pool.map(work, np.array_split(rows, self._threads)))


_COUNTERS = (*COUNTERS, "_held", "_noise", "_queue", "_jitter", "_look")


class _ArmIndex:
    """Where one mounted arm lies in the model's arrays."""

    def __init__(self, model: mujoco.MjModel, mount: Any):
        arm, gripper = mount.arm, mount.arm.gripper
        joints = [model.joint(mount.prefix + name) for name in arm.joints]
        fingers = [model.joint(mount.prefix + name) for name in gripper.joints]
        self.size = len(joints)
        self.qpos = np.array([joint.qposadr[0] for joint in joints])
        self.dof = np.array([joint.dofadr[0] for joint in joints])
        self.fingers = np.array([joint.qposadr[0] for joint in fingers])
        names = [mount.prefix + name for name in (*arm.joints, *gripper.joints)]
        self.actuators = np.array([model.actuator(name).id for name in names])
        self.site = model.site(mount.prefix + "grip_site").id
        self.open_, self.closed = np.array(gripper.open_), np.array(gripper.closed)
        self.width_per_joint = gripper.width_m / (self.open_ - self.closed) / len(fingers)
        self.home, self.middle_rad = home_joints(model, mount), mount.middle_rad


def _finite(values: np.ndarray) -> np.ndarray:
    """Return float32; what a diverged row shows is zero where it is no number."""
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)


def _bounds(task: Task) -> tuple[np.ndarray, np.ndarray]:
    low = [(*mount.low_m, mount.yaw_rad[0], -1.0) for mount in task.mounts]
    high = [(*mount.high_m, mount.yaw_rad[1], 1.0) for mount in task.mounts]
    return np.concatenate(low), np.concatenate(high)


def _spec(task: Task, options: BatchOptions) -> Spec:
    low, high = _bounds(task)
    sides = [""] if len(task.mounts) == 1 else [mount.prefix for mount in task.mounts]
    pose = ("x", "y", "z", "yaw")
    state = tuple(side + name for side in sides for name in (*pose, "width"))
    observations = {
        "observation.state": Feature(shape=(len(state),), unit="m, rad", frame="world", names=state),
        "observation.environment_state": Feature(shape=(len(task.names),), frame="world", names=task.names),
        "task": Feature(kind="text", dtype="str"),
    }
    for camera in options.cameras:
        shape = (options.image_px, options.image_px, 3)
        observations[f"observation.images.{camera}"] = Feature(kind="image", shape=shape, dtype="uint8")
    action = ActionSpec(
        dim=len(low),
        kind="ee_pose",
        names=tuple(side + name for side in sides for name in (*pose, "gripper")),
        unit="m, rad",
        frame="world",
        rotation="yaw",
        gripper="positive_closes",
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )
    metadata = {"env": task.name} | ({"perturb": dict(options.perturb)} if options.perturb else {})
    robot = "+".join(mount.arm.name for mount in task.mounts)
    return Spec(observations, action, rate_hz=task.rate_hz, robot=robot, metadata=metadata)
