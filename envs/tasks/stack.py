"""Stack a small cube on a larger one: robosuite's Stack with wider resets."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View
from robolearn.envs.tasks.common import above, add_cube, apart, at_rest, body_features, over, stay, straight
from robolearn.robots import Arm

__all__ = ["stack"]

_UPPER_M, _LOWER_M = 0.02, 0.025  # half sizes, robosuite's


def stack(arm: Arm) -> Task:
    """Return the task: the red cube rests on the green one and the gripper has let go."""
    names, observe = body_features(["red_cube", "green_cube"], symmetry=4, pairs=[("red_cube", "green_cube")])
    return Task(
        name="stack",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm),),
        reset=_reset,
        observe=observe,
        names=names,
        success=_success,
        reward=_reward,
        script=_script(),
        instructions=lambda view: np.full(len(view.qpos), "stack the red cube on the green cube"),
        hold_steps=5,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    upper = add_cube(spec, "red_cube", (0.85, 0.16, 0.14, 1), _UPPER_M)
    lower = add_cube(spec, "green_cube", (0.2, 0.62, 0.25, 1), _LOWER_M)
    allow_contact(spec, gripper_geoms(spec), [upper, lower, "table"])
    allow_contact(spec, [upper, lower], ["table"])
    allow_contact(spec, [upper], [lower])
    return spec


def _reset(row: Row) -> None:
    places = apart(row.random, 2, (-0.1, -0.1), (0.1, 0.1), 0.09)  # robosuite: ±0.08
    for name, half, place in zip(("red_cube", "green_cube"), (_UPPER_M, _LOWER_M), places, strict=True):
        row.place(name, (*place, TABLE_M + half), row.random.uniform(0, 2 * np.pi))


def _away(view: View) -> np.ndarray:
    """Return where the red cube is relative to its place on the green one [E,3]."""
    return view.position("red_cube") - view.position("green_cube") - np.array([0, 0, _UPPER_M + _LOWER_M])


def _success(view: View) -> np.ndarray:
    away = np.abs(_away(view))
    return (
        (away[:, :2].max(1) < _LOWER_M) & (away[:, 2] < 0.005) & at_rest(view, "red_cube") & (view.width_m[:, 0] > 0.06)
    )


def _reward(view: View) -> np.ndarray:
    """Reach 0.3, lift 0.3, bring over 0.3."""
    cube = view.position("red_cube")
    reach = 1 - np.tanh(8 * np.linalg.norm(view.tool_m[:, 0] - cube, axis=1))
    lift = np.clip((cube[:, 2] - TABLE_M - _UPPER_M) / 0.05, 0, 1)
    align = 1 - np.tanh(8 * np.linalg.norm(_away(view), axis=1))
    return 0.3 * reach + 0.3 * lift + 0.3 * align * (lift > 0.3)


def _script() -> tuple[Phase, ...]:
    high = TABLE_M + 0.17
    placed = TABLE_M + 2 * _LOWER_M + _UPPER_M
    return (
        Phase(above("red_cube", 0.10), reach_m=0.02, reach_rad=0.08),
        Phase(above("red_cube", -0.003), reach_m=0.007),
        Phase(stay, grip=1, steps=5),
        Phase(straight(high), grip=1, reach_m=0.03),
        Phase(over("green_cube", high), grip=1, reach_xy_m=0.01),
        Phase(over("green_cube", placed), grip=1, reach_m=0.006),
        Phase(stay, steps=5),
        Phase(straight(high)),
    )
