"""Lift a cube off the table: robosuite's Lift with wider resets."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View
from robolearn.envs.tasks.common import above, add_cube, body_features, stay, straight
from robolearn.robots import Arm

__all__ = ["lift"]

_HALF_M = 0.021  # robosuite draws 0.020 to 0.022
_LIFTED_M = 0.04


def lift(arm: Arm) -> Task:
    """Return the task: the cube's centre more than 4 cm above the table, as robosuite counts it."""
    names, observe = body_features(["cube"], symmetry=4)
    return Task(
        name="lift",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm),),
        reset=_reset,
        observe=observe,
        names=names,
        success=lambda view: view.position("cube")[:, 2] > TABLE_M + _LIFTED_M,
        reward=_reward,
        script=(
            Phase(above("cube", 0.10), reach_m=0.02, reach_rad=0.08),
            Phase(above("cube", -0.003), reach_m=0.007),
            Phase(stay, grip=1, steps=5),
            Phase(straight(TABLE_M + 0.2), grip=1),
        ),
        instructions=lambda view: np.full(len(view.qpos), "lift the cube"),
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    cube = add_cube(spec, "cube", (0.85, 0.16, 0.14, 1), _HALF_M)
    allow_contact(spec, gripper_geoms(spec), [cube, "table"])
    allow_contact(spec, [cube], ["table"])
    return spec


def _reset(row: Row) -> None:
    place = row.random.uniform((-0.1, -0.1), (0.1, 0.1))  # robosuite: ±0.03
    row.place("cube", (*place, TABLE_M + _HALF_M), row.random.uniform(0, 2 * np.pi))


def _reward(view: View) -> np.ndarray:
    """Reach 0.5, lift 0.5."""
    away = np.linalg.norm(view.tool_m[:, 0] - view.position("cube"), axis=1)
    height = (view.position("cube")[:, 2] - TABLE_M - _HALF_M) / (_LIFTED_M - _HALF_M)
    return 0.5 * (1 - np.tanh(8 * away)) + 0.5 * np.clip(height, 0, 1)
