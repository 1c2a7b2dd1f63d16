"""Bring the tool to a marker in the air."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View
from robolearn.envs.tasks.common import over_point
from robolearn.robots import Arm

__all__ = ["reach"]

_NEAR_M = 0.02


def reach(arm: Arm) -> Task:
    """Return the task: the tool within 2 cm of the marker for a quarter of a second."""
    return Task(
        name="reach",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm),),
        reset=_reset,
        observe=lambda view: np.concatenate([view.position("marker"), _away(view)], 1),
        names=tuple(f"{part}_{axis}" for part in ("marker", "tool_to_marker") for axis in "xyz"),
        success=lambda view: np.linalg.norm(_away(view), axis=1) < _NEAR_M,
        reward=lambda view: 1 - np.tanh(5 * np.linalg.norm(_away(view), axis=1)),
        script=(Phase(over_point(lambda view: view.position("marker"))),),
        instructions=lambda view: np.full(len(view.qpos), "reach the marker"),
        hold_steps=5,
        max_steps=100,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    body = spec.worldbody.add_body(name="marker", mocap=True, pos=[0, 0, 1])
    sphere = body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[_NEAR_M, 0, 0], rgba=[0.9, 0.2, 0.2, 0.6], group=1)
    sphere.contype = sphere.conaffinity = 0
    allow_contact(spec, gripper_geoms(spec), ["table"])
    return spec


def _reset(row: Row) -> None:
    row.place("marker", row.random.uniform((-0.2, -0.3, TABLE_M + 0.04), (0.2, 0.3, TABLE_M + 0.35)))


def _away(view: View) -> np.ndarray:
    return view.position("marker") - view.tool_m[:, 0]
