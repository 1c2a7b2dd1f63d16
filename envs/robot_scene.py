"""Scenes for a twin: joint targets in, joint states and pictures out."""

import mujoco
import numpy as np

from robolearn.contracts import RobotState
from robolearn.envs.batch import BatchEnv
from robolearn.envs.scene import BASE_M
from robolearn.envs.suite import TaskConfig
from robolearn.errors import EnvError
from robolearn.robots import Arm

__all__ = ["ArmScene", "TaskScene", "open_scene"]


def open_scene(name: str, arm: Arm, image_px: int = 96) -> "TaskScene":
    """Return the scene of the registered task `name` with `arm` at its table; raises `EnvError` for two arms."""
    env = TaskConfig(name=name, robot=arm.name, image_px=image_px, threads=1).build(1)
    if len(env.task.mounts) > 1:
        raise EnvError("A twin has one arm.", found=f"{len(env.task.mounts)} in {name}", do="pick another scene")
    return TaskScene(env, arm)


class ArmScene:
    """Drives and reads the arm of a model that `scene.add_arm` mounted under `prefix`."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, arm: Arm, prefix: str):
        self.model, self.data, self.arm = model, data, arm
        self.joint_names = arm.joints
        self.dt_s = float(model.opt.timestep)
        joints = [model.joint(prefix + name) for name in arm.joints]
        fingers = [model.joint(prefix + name) for name in arm.gripper.joints]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._fingers = np.array([joint.qposadr[0] for joint in fingers])
        self._actuators = [model.actuator(prefix + name).id for name in (*arm.joints, *arm.gripper.joints)]
        self._open, self._closed = np.array(arm.gripper.open_), np.array(arm.gripper.closed)

    def step(self, target_rad: np.ndarray, gripper_m: float) -> None:
        """Advance `dt_s` towards joint targets [rad] and a finger opening [m]."""
        share = np.clip(gripper_m / self.arm.gripper.width_m, 0.0, 1.0)
        fingers = self._closed + share * (self._open - self._closed)
        self.data.ctrl[self._actuators] = np.concatenate([target_rad, fingers])
        mujoco.mj_step(self.model, self.data)

    def state(self) -> RobotState:
        """Return the joints and the fingers' opening now."""
        per_joint = self.arm.gripper.width_m / (self._open - self._closed) / len(self._fingers)
        width_m = float((self.data.qpos[self._fingers] - self._closed) @ per_joint)
        position_rad, speed_rad_s = self.data.qpos[self._qpos].copy(), self.data.qvel[self._dof].copy()
        return RobotState(round(1e9 * self.data.time), self.joint_names, position_rad, speed_rad_s, width_m)


class TaskScene(ArmScene):
    """`contracts.Scene` over one row of a task's environment; starts as that environment starts for a seed."""

    base_m = BASE_M

    def __init__(self, env: BatchEnv, arm: Arm):
        super().__init__(env.model, env.data[0], arm, env.task.mounts[0].prefix)
        self._env = env
        self._hold_s = (env.task.hold_steps - 1) / env.task.rate_hz
        self._held_from_s = np.inf

    def reset(self, seed: int) -> None:
        """Start the episode of `seed`, as the environment does."""
        self._env.reset(seed=[seed])
        self._held_from_s = np.inf

    def image(self, camera: str) -> np.ndarray:
        """Return (H, W, 3) uint8 of a named camera, as the task's observations have it."""
        return self._env.picture(0, camera)

    def environment_state(self) -> np.ndarray:
        """Return what the task lets a policy know about its objects [S]."""
        self._env.refresh(0)
        return self._env.task.observe(self._env.view)[0].astype(np.float32)

    def success(self) -> bool:
        """Say whether the task's condition has held for as long as the task asks, at every call since then."""
        self._env.refresh(0)
        now_s = float(self.data.time)
        self._held_from_s = min(self._held_from_s, now_s) if self._env.task.success(self._env.view)[0] else np.inf
        return now_s - self._held_from_s >= self._hold_s - 1e-6

    def instruction(self) -> str:
        """Return the task in words."""
        return str(self._env.task.instructions(self._env.view)[0])
