"""Carry a can from one tray to a quarter of the other: robosuite's PickPlaceCan."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, add_box, add_camera, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View
from robolearn.envs.tasks.common import add_can, body_features, over_point, stay, straight
from robolearn.robots import Arm

__all__ = ["can"]

_RADIUS_M, _HALF_M = 0.027, 0.05
_FIRST_M, _SECOND_M = (0.1, -0.25), (0.1, 0.28)  # centres of the trays, as in robosuite
_TRAY_M = (0.195, 0.245)  # half sizes
_RANGE_M = (0.12, 0.17)  # of the can around the first tray's centre; robosuite's, its radius taken off
_GOAL_M = np.array([_SECOND_M[0] + _TRAY_M[0] / 2, _SECOND_M[1] + _TRAY_M[1] / 2])  # robosuite's quarter for cans
_PLACE_M = np.array([0.14, 0.32])  # where in its quarter the expert leaves it: the corner that the arm reaches upright
_BASE_M = (-0.5, -0.1, 0.912)


def can(arm: Arm) -> Task:
    """Return the task: the can in its quarter of the second tray and the gripper away from it."""
    names, observe = body_features(["can"])
    low, high = (-0.2, -0.5, TABLE_M), (0.35, 0.55, 1.3)
    return Task(
        name="can",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm, home_m=(0.0, -0.1, 1.05), low_m=low, high_m=high),),
        reset=_reset,
        observe=observe,
        names=names,
        success=_success,
        reward=_reward,
        script=_script(),
        instructions=lambda view: np.full(len(view.qpos), "put the can in the far corner of the other tray"),
        max_steps=250,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop(half_m=(0.45, 0.6))
    add_arm(spec, arm, visual, base_m=_BASE_M)
    item = add_can(spec, "can", (0.8, 0.12, 0.12, 1), _RADIUS_M, _HALF_M)
    walls = [*_add_tray(spec, "first", _FIRST_M), *_add_tray(spec, "second", _SECOND_M)]
    allow_contact(spec, gripper_geoms(spec), [item, "table", *walls])
    allow_contact(spec, [item], ["table", *walls])
    spec.camera("side").name = "near_side"
    add_camera(spec.worldbody, "side", (1.0, 0.95, 1.7), (-0.05, 0.02, 0.92), fovy_deg=50)
    return spec


def _add_tray(spec: mujoco.MjSpec, name: str, centre_m: tuple[float, float]) -> list[str]:
    (x, y), (half_x, half_y), rgba = centre_m, _TRAY_M, (0.55, 0.57, 0.6, 1)
    parts = {
        f"{name}_far": ((x + half_x, y), (0.005, half_y + 0.005)),
        f"{name}_near": ((x - half_x, y), (0.005, half_y + 0.005)),
        f"{name}_left": ((x, y + half_y), (half_x, 0.005)),
        f"{name}_right": ((x, y - half_y), (half_x, 0.005)),
    }
    for part, (place, half) in parts.items():
        add_box(spec.worldbody, part, (*place, TABLE_M + 0.05), (*half, 0.05), rgba)
    return list(parts)


def _reset(row: Row) -> None:
    place = row.random.uniform(np.subtract(_FIRST_M, _RANGE_M), np.add(_FIRST_M, _RANGE_M))
    row.place("can", (*place, TABLE_M + _HALF_M), row.random.uniform(0, 2 * np.pi))


def _success(view: View) -> np.ndarray:
    place = view.position("can")
    there = (np.abs(place[:, :2] - _GOAL_M) < np.divide(_TRAY_M, 2)).all(1) & (place[:, 2] < TABLE_M + 0.1)
    return there & (np.linalg.norm(view.tool_m[:, 0] - place, axis=1) > 0.05)


def _reward(view: View) -> np.ndarray:
    """Reach 0.3, lift 0.3, carry 0.3."""
    place = view.position("can")
    reach = 1 - np.tanh(8 * np.linalg.norm(view.tool_m[:, 0] - place, axis=1))
    lift = np.clip((place[:, 2] - TABLE_M - _HALF_M) / 0.1, 0, 1)
    carry = 1 - np.tanh(3 * np.linalg.norm(place[:, :2] - _GOAL_M, axis=1))
    return 0.3 * reach + 0.3 * lift + 0.3 * carry * (lift > 0.3)


def _over_can(height_m: float):
    return over_point(lambda view: view.position("can") + np.array([0, 0, height_m]))


def _over_goal(height_m: float):
    return over_point(lambda view: np.tile([*_PLACE_M, TABLE_M + height_m], (len(view.qpos), 1)))


def _script() -> tuple[Phase, ...]:
    return (
        Phase(_over_can(0.13), reach_m=0.02),
        Phase(_over_can(0.015), reach_m=0.008),
        Phase(stay, grip=1, steps=5),
        Phase(straight(TABLE_M + 0.3), grip=1, ready=lambda view: view.position("can")[:, 2] > TABLE_M + 0.18),
        Phase(_over_goal(0.3), grip=1, reach_xy_m=0.03),
        Phase(_over_goal(_HALF_M + 0.03), grip=1, reach_m=0.015),
        Phase(stay, steps=5),
        Phase(straight(TABLE_M + 0.3)),
    )
