"""Wipe a trail of dirt off the table with the closed gripper."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View
from robolearn.robots import Arm

__all__ = ["wipe"]

_SPOTS, _SPACING_M = 12, 0.03
_NEAR_M, _LOW_M = 0.02, 0.015  # how close and how low the tool wipes
_NAMES = (
    *(f"spot{index}_{part}" for index in range(_SPOTS) for part in ("x", "y", "dirty")),
    *(f"tool_to_nearest_{axis}" for axis in "xyz"),
    "share_dirty",
)


def wipe(arm: Arm) -> Task:
    """Return the task: every spot wiped."""
    return Task(
        name="wipe",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm),),
        reset=_reset,
        observe=_observe,
        names=_NAMES,
        success=lambda view: ~np.any(view.variables["dirty"], 1),
        reward=_reward,
        script=(
            Phase(_to_nearest(0.06), grip=1, reach_m=0.015),
            Phase(_to_nearest(0.002), grip=1, speed_m=0.04),
        ),
        instructions=lambda view: np.full(len(view.qpos), "wipe the table"),
        max_steps=200,
        variables={"dirty": ((_SPOTS,), "bool")},
        advance=_advance,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    for index in range(_SPOTS):
        body = spec.worldbody.add_body(name=f"spot{index}", mocap=True, pos=[0, 0, TABLE_M])
        geom = body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.014, 0.0008, 0], rgba=[0.25, 0.16, 0.1, 1], group=1
        )
        geom.contype = geom.conaffinity = 0
    allow_contact(spec, gripper_geoms(spec), ["table"], friction=0.1)
    return spec


def _reset(row: Row) -> None:
    """Lay the spots along a path that turns at random, kept on the table's middle."""
    place, heading = row.random.uniform((-0.12, -0.2), (0.12, 0.2)), row.random.uniform(0, 2 * np.pi)
    for index in range(_SPOTS):
        row.place(f"spot{index}", (*place, TABLE_M))
        heading += row.random.normal(0, 0.5)
        step = _SPACING_M * np.array([np.cos(heading), np.sin(heading)])
        if (np.abs(place + step) > (0.15, 0.25)).any():
            heading, step = heading + np.pi / 2, _SPACING_M * np.array([-np.sin(heading), np.cos(heading)])
        place = np.clip(place + step, (-0.15, -0.25), (0.15, 0.25))
    row.variables["dirty"][:] = True


def _spots(view: View) -> np.ndarray:
    """Return the places of the spots [E,S,3]."""
    return np.stack([view.position(f"spot{index}") for index in range(_SPOTS)], 1)


def _advance(view: View) -> None:
    away = _spots(view) - view.tool_m[:, :1]
    wiped = (np.linalg.norm(away[..., :2], axis=-1) < _NEAR_M) & (-away[..., 2] < _LOW_M)
    view.variables["dirty"] &= ~wiped


def _nearest(view: View) -> np.ndarray:
    """Return the place of the nearest dirty spot [E,3]; the tool's own when all is clean."""
    spots, dirty = _spots(view), view.variables["dirty"]
    away = np.where(dirty, np.linalg.norm(spots[..., :2] - view.tool_m[:, :1, :2], axis=-1), np.inf)
    chosen = spots[np.arange(len(spots)), away.argmin(1)]
    return np.where(np.any(dirty, 1)[:, None], chosen, view.tool_m[:, 0])


def _observe(view: View) -> np.ndarray:
    spots, dirty = _spots(view), view.variables["dirty"]
    table = np.concatenate([spots[..., :2], dirty[..., None]], -1).reshape(len(spots), -1)
    return np.concatenate([table, _nearest(view) - view.tool_m[:, 0], dirty.mean(1, keepdims=True)], 1)


def _reward(view: View) -> np.ndarray:
    """Reach 0.2, wipe 0.7."""
    reach = 1 - np.tanh(5 * np.linalg.norm(_nearest(view) - view.tool_m[:, 0], axis=1))
    return 0.2 * reach + 0.7 * (1 - view.variables["dirty"].mean(1))


def _to_nearest(height_m: float):
    def goal(view: View, last: np.ndarray) -> np.ndarray:
        return np.column_stack([_nearest(view) + np.array([0, 0, height_m]), last[:, 0, 3]])

    return goal
