"""One environment as a scene for a twin: joint targets in, joint states and pictures out."""

import mujoco
import numpy as np

from robolearn.contracts import RobotState
from robolearn.envs.batch import BatchEnv, BatchOptions
from robolearn.envs.scene import BASE_M
from robolearn.envs.suite import TaskConfig
from robolearn.robots import Arm

__all__ = ["TaskScene", "open_scene"]


def open_scene(name: str, arm: Arm, image_px: int = 96) -> "TaskScene":
    """Return the scene of the registered task `name` with `arm` at its table."""
    env = TaskConfig(name=name, robot=arm.name, image_px=image_px, threads=1).build(1)
    return TaskScene(env, arm)


class TaskScene:
    """`contracts.Scene` over one row of a task's environment; starts as that environment starts for a seed."""

    base_m = BASE_M

    def __init__(self, env: BatchEnv, arm: Arm):
        self._env, self._arm = env, arm
        self.joint_names = arm.joints
        self.dt_s = float(env.model.opt.timestep)
        prefix = env.task.mounts[0].prefix
        joints = [env.model.joint(prefix + name) for name in arm.joints]
        fingers = [env.model.joint(prefix + name) for name in arm.gripper.joints]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._fingers = np.array([joint.qposadr[0] for joint in fingers])
        self._actuators = [env.model.actuator(prefix + name).id for name in (*arm.joints, *arm.gripper.joints)]
        self._open, self._closed = np.array(arm.gripper.open_), np.array(arm.gripper.closed)
        self._options: BatchOptions = env.options
        self._hold_s = (env.task.hold_steps - 1) / env.task.rate_hz
        self._held_from_s = np.inf

    def reset(self, seed: int) -> None:
        """Start the episode of `seed`, as the environment does."""
        self._env.reset(seed=[seed])
        self._held_from_s = np.inf

    def step(self, target_rad: np.ndarray, gripper_m: float) -> None:
        data = self._env.data[0]
        share = np.clip(gripper_m / self._arm.gripper.width_m, 0.0, 1.0)
        fingers = self._closed + share * (self._open - self._closed)
        data.ctrl[self._actuators] = np.concatenate([target_rad, fingers])
        mujoco.mj_step(self._env.model, data)

    def state(self) -> RobotState:
        data = self._env.data[0]
        per_joint = self._arm.gripper.width_m / (self._open - self._closed) / len(self._fingers)
        width_m = float((data.qpos[self._fingers] - self._closed) @ per_joint)
        stamp_ns = round(1e9 * data.time)
        return RobotState(
            stamp_ns, self.joint_names, data.qpos[self._qpos].copy(), data.qvel[self._dof].copy(), width_m
        )

    def image(self, camera: str) -> np.ndarray:
        return self._env.render(0, camera, self._options.image_px, self._options.image_px)

    def environment_state(self) -> np.ndarray:
        """Return what the task lets a policy know about its objects [S]."""
        self._env.refresh(0)
        return self._env.task.observe(self._env.view)[0].astype(np.float32)

    def success(self) -> bool:
        """Say whether the task's condition has held for as long as the task asks, at every call since then."""
        self._env.refresh(0)
        now_s = float(self._env.data[0].time)
        self._held_from_s = min(self._held_from_s, now_s) if self._env.task.success(self._env.view)[0] else np.inf
        return now_s - self._held_from_s >= self._hold_s - 1e-6

    def instruction(self) -> str:
        """Return the task in words."""
        return str(self._env.task.instructions(self._env.view)[0])
