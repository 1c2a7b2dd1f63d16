"""What describes a task: a scene, a reset and a few functions over batched state.

Every function but `reset` sees all rows at once through a `View`; rows are independent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import mujoco
import numpy as np

from robolearn.robots import Arm

__all__ = ["Mount", "Phase", "Row", "Task", "View", "fold_angle", "wrap_angle"]


@dataclass(frozen=True)
class Mount:
    """One arm of a scene: its name prefix, its home and the box its tool may be commanded to."""

    arm: Arm
    prefix: str = "robot0_"
    home_m: tuple[float, float, float] = (-0.1, 0.0, 1.01)
    home_yaw_rad: float = 0.0
    low_m: tuple[float, float, float] = (-0.3, -0.4, 0.8)
    high_m: tuple[float, float, float] = (0.3, 0.45, 1.3)
    yaw_rad: tuple[float, float] = (-np.pi / 2, np.pi / 2)

    @property
    def middle_rad(self) -> float:
        """The yaw that angles of this arm are counted around: they lie within half a turn of it."""
        return sum(self.yaw_rad) / 2


@dataclass
class View:
    """The present state of E rows. Tool arrays have one entry per mounted arm (letter M)."""

    model: mujoco.MjModel
    qpos: np.ndarray  # [E,nq]
    qvel: np.ndarray  # [E,nv]
    xpos: np.ndarray  # [E,bodies,3]
    xquat: np.ndarray  # [E,bodies,4] wxyz
    tool_m: np.ndarray  # [E,M,3]
    tool_mat: np.ndarray  # [E,M,3,3]
    yaw_rad: np.ndarray  # [E,M]
    width_m: np.ndarray  # [E,M]
    variables: dict[str, np.ndarray]  # what the task remembers of its episode, [E,…]

    def position(self, body: str) -> np.ndarray:
        """Return the position of a body [E,3], m."""
        return self.xpos[:, self.model.body(body).id]

    def quat(self, body: str) -> np.ndarray:
        """Return the orientation of a body [E,4], wxyz."""
        return self.xquat[:, self.model.body(body).id]

    def yaw(self, body: str) -> np.ndarray:
        """Return the turn of a body about z [E], rad."""
        w, x, y, z = np.moveaxis(self.quat(body), -1, 0)
        return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))

    def tilt(self, body: str) -> np.ndarray:
        """Return the angle between a body's z axis and the vertical [E], rad."""
        _, x, y, _ = np.moveaxis(self.quat(body), -1, 0)
        return np.arccos(np.clip(1 - 2 * (x * x + y * y), -1.0, 1.0))

    def axis(self, body: str, index: int) -> np.ndarray:
        """Return one axis (0: x, 1: y, 2: z) of a body in the world [E,3]."""
        w, x, y, z = np.moveaxis(self.quat(body), -1, 0)
        rows = (
            (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
            (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
            (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
        )
        return np.stack(rows[index], 1)

    def velocity(self, body: str) -> np.ndarray:
        """Return the linear velocity of a free body [E,3], m/s."""
        start = self.model.jnt_dofadr[self.model.body(body).jntadr[0]]
        return self.qvel[:, start : start + 3]

    def joint(self, name: str) -> np.ndarray:
        """Return the position of a hinge or slide joint [E], rad or m."""
        return self.qpos[:, self.model.joint(name).qposadr[0]]


@dataclass
class Row:
    """One row while it is reset."""

    model: mujoco.MjModel
    data: mujoco.MjData
    random: np.random.Generator
    variables: dict[str, np.ndarray]  # this row's entries, written in place

    def place(self, body: str, position_m: np.ndarray | tuple, yaw_rad: float = 0.0) -> None:
        """Put a free or mocap body somewhere, upright."""
        quat = (np.cos(yaw_rad / 2), 0.0, 0.0, np.sin(yaw_rad / 2))
        handle = self.model.body(body)
        if handle.mocapid[0] >= 0:
            self.data.mocap_pos[handle.mocapid[0]] = position_m
            self.data.mocap_quat[handle.mocapid[0]] = quat
        else:
            start = self.model.jnt_qposadr[handle.jntadr[0]]
            self.data.qpos[start : start + 7] = (*position_m, *quat)


@dataclass(frozen=True)
class Phase:
    """One leg of a scripted demonstration.

    `goal(view, last)` gives tool targets [E,4] or [E,M,4] (x, y, z, yaw); `last` [E,M,4] is the goal
    of the leg before. The leg ends when every tool is within `reach_m` (horizontally `reach_xy_m`)
    and `reach_rad` of its goal, `steps` have passed and `ready(view)` [E] holds.
    """

    goal: Callable[[View, np.ndarray], np.ndarray]
    grip: tuple[float, ...] | float = -1.0  # positive closes
    reach_m: float = np.inf
    reach_xy_m: float = np.inf
    reach_rad: float = np.inf
    steps: int = 0
    speed_m: float = 0.05  # per control step
    gain: float = 1.0  # share of the way that is asked for at once; less is calmer
    ready: Callable[[View], np.ndarray] | None = None
    name: str = ""  # what it does, in a word


@dataclass(frozen=True)
class Task:
    """A task over one scene; see `robolearn.envs.tasks` for examples."""

    name: str
    scene: Callable[[bool], mujoco.MjSpec]  # with visual meshes or without; same bodies and joints
    mounts: tuple[Mount, ...]
    reset: Callable[[Row], None]
    observe: Callable[[View], np.ndarray]  # observation.environment_state [E,S]
    names: tuple[str, ...]  # of its S entries
    success: Callable[[View], np.ndarray]  # bool [E], at this instant
    reward: Callable[[View], np.ndarray]  # dense, in [0, 1], [E]
    script: tuple[Phase, ...]
    instructions: Callable[[View], np.ndarray]  # str [E]
    sentences: tuple[str, ...] = ()  # all of them, where there is a choice
    hold_steps: int = 1  # how long success must last
    max_steps: int = 200
    rate_hz: float = 20.0
    variables: Mapping[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)  # name → shape, dtype
    say: Callable[[View, np.ndarray], np.ndarray] | None = None  # names of the legs [E] → what there is to say, str [E]
    advance: Callable[[View], None] | None = None  # updates variables after each step; a second call changes nothing


def wrap_angle(angle_rad: np.ndarray) -> np.ndarray:
    """Return the same angle in [-π, π)."""
    return (angle_rad + np.pi) % (2 * np.pi) - np.pi


def fold_angle(angle_rad: np.ndarray, period_rad: float) -> np.ndarray:
    """Return the smallest turn that equals `angle_rad` up to multiples of `period_rad`."""
    return (angle_rad + period_rad / 2) % period_rad - period_rad / 2
