"""Two arms side by side: the left one picks a bar up and hands it to the right one."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, add_box, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View
from robolearn.robots import Arm

__all__ = ["handover"]

_HALF_M, _LENGTH_M, _GRIP_M = 0.012, 0.12, 0.08  # half thickness, half length, where each arm holds it
_SIDE_M = 0.32  # how far each arm stands to its side
_MEET_M = (0.0, 0.0, TABLE_M + 0.2)
_YAW_RAD = (-2.6, 1.0)
_NAMES = (
    *(f"bar_{part}" for part in ("x", "y", "z", "sin_yaw", "cos_yaw")),
    *(f"{side}_to_bar_{axis}" for side in ("left", "right") for axis in "xyz"),
)


def handover(arm: Arm) -> Task:
    """Return the task: the right arm alone holds the bar in the air for a quarter of a second."""
    left = Mount(arm, "robot0_", (-0.1, 0.25, 1.05), low_m=(-0.3, -0.15, TABLE_M), yaw_rad=_YAW_RAD)
    right = Mount(arm, "robot1_", (-0.1, -0.25, 1.05), low_m=(-0.3, -0.45, TABLE_M), yaw_rad=_YAW_RAD)
    return Task(
        name="handover",
        scene=lambda visual: _scene(arm, visual),
        mounts=(left, right),
        reset=_reset,
        observe=_observe,
        names=_NAMES,
        success=_success,
        reward=_reward,
        script=_script(),
        instructions=lambda view: np.full(len(view.qpos), "hand the bar from the left arm to the right arm"),
        hold_steps=5,
        max_steps=250,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop(half_m=(0.4, 0.6), impratio=5.0)
    for prefix, side in (("robot0_", 1), ("robot1_", -1)):
        add_arm(spec, arm, visual, prefix, (-0.56, side * _SIDE_M, 0.912))
    body = spec.worldbody.add_body(name="bar", pos=[0, 0, TABLE_M + _HALF_M])
    body.add_freejoint()
    add_box(body, "bar_geom", (0, 0, 0), (_HALF_M, _LENGTH_M, _HALF_M), (0.85, 0.55, 0.12, 1), mass_kg=0.05)
    for prefix in ("robot0_", "robot1_"):
        allow_contact(spec, gripper_geoms(spec, prefix), ["bar_geom", "table"], friction=2.0, torsion_m=0.02)
    allow_contact(spec, ["bar_geom"], ["table"])
    return spec


def _reset(row: Row) -> None:
    place = row.random.uniform((-0.08, 0.1), (0.1, 0.25))
    row.place("bar", (*place, TABLE_M + _HALF_M), row.random.uniform(-0.4, 0.4))


def _end(view: View, side: float) -> np.ndarray:
    """Return where the left (+1) or right (-1) arm holds the bar [E,3]."""
    return view.position("bar") + side * _GRIP_M * view.axis("bar", 1)


def _observe(view: View) -> np.ndarray:
    bar, yaw = view.position("bar"), view.yaw("bar")
    turn = np.stack([np.sin(2 * yaw), np.cos(2 * yaw)], 1)
    return np.concatenate([bar, turn, bar - view.tool_m[:, 0], bar - view.tool_m[:, 1]], 1)


def _success(view: View) -> np.ndarray:
    away = [np.linalg.norm(view.tool_m[:, index] - view.position("bar"), axis=1) for index in (0, 1)]
    released = (away[0] > 0.15) & (view.width_m[:, 0] > 0.06)
    held = (away[1] < 0.11) & (view.width_m[:, 1] < 0.05)
    return released & held & (view.position("bar")[:, 2] > TABLE_M + 0.1)


def _reward(view: View) -> np.ndarray:
    """Left arm reaches 0.2, lifts 0.2, right arm reaches 0.3, left arm lets go 0.2."""
    reach = [1 - np.tanh(6 * np.linalg.norm(view.tool_m[:, i] - _end(view, s), axis=1)) for i, s in ((0, 1), (1, -1))]
    lift = np.clip((view.position("bar")[:, 2] - TABLE_M - _HALF_M) / 0.15, 0, 1)
    free = np.clip(np.linalg.norm(view.tool_m[:, 0] - _end(view, 1), axis=1) / 0.1, 0, 1)
    return 0.2 * reach[0] + 0.2 * lift + lift * (0.3 * reach[1] + 0.2 * free * reach[1])


def _at(view: View, side: float, height_m: float) -> np.ndarray:
    return np.column_stack([_end(view, side) + np.array([0, 0, height_m]), view.yaw("bar") - np.pi / 2])


def _wait(view: View) -> np.ndarray:
    return np.tile([-0.1, -0.3, _MEET_M[2] + 0.1, -np.pi / 2], (len(view.qpos), 1))


def _pick(height_m: float):
    """The left arm at its end of the bar, the right one waiting."""
    return lambda view, last: np.stack([_at(view, 1, height_m), _wait(view)], 1)


def _meet(view: View, last: np.ndarray) -> np.ndarray:
    """The left arm brings the bar's middle to the meeting point, straight between the arms."""
    slip = view.tool_m[:, 0] - view.position("bar")
    turn = -view.yaw("bar")
    cos, sin = np.cos(turn), np.sin(turn)
    offset = np.stack([cos * slip[:, 0] - sin * slip[:, 1], sin * slip[:, 0] + cos * slip[:, 1], slip[:, 2]], 1)
    left = np.column_stack([np.array(_MEET_M) + offset, view.yaw_rad[:, 0] + turn])
    return np.stack([left, _wait(view)], 1)


def _take(height_m: float):
    """The left arm holds still, the right one goes to its end of the bar."""
    return lambda view, last: np.stack([last[:, 0], _at(view, -1, height_m)], 1)


def _leave(view: View, last: np.ndarray) -> np.ndarray:
    """The left arm goes up and to its side, the right one holds still."""
    away = np.tile([-0.1, 0.3, _MEET_M[2] + 0.15], (len(last), 1))
    return np.stack([np.column_stack([away, last[:, 0, 3]]), last[:, 1]], 1)


def _lift(view: View, last: np.ndarray) -> np.ndarray:
    left = last[:, 0].copy()
    left[:, 2] = _MEET_M[2]
    return np.stack([left, _wait(view)], 1)


def _script() -> tuple[Phase, ...]:
    return (
        Phase(_pick(0.1), reach_m=0.03, reach_rad=0.1),
        Phase(_pick(0.0), reach_m=0.01, reach_rad=0.1),
        Phase(lambda view, last: last, grip=(1, -1), steps=5),
        Phase(_lift, grip=(1, -1), reach_m=0.03),
        Phase(_meet, grip=(1, -1), reach_m=0.015, reach_rad=0.08),
        Phase(_take(0.1), grip=(1, -1), reach_m=0.02, reach_rad=0.08),
        Phase(_take(0.0), grip=(1, -1), reach_m=0.008),
        Phase(lambda view, last: last, grip=(1, 1), steps=6),
        Phase(lambda view, last: last, grip=(-1, 1), steps=4),
        Phase(_leave, grip=(-1, 1)),
    )
