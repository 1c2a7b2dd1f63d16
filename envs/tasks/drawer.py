"""Pull a drawer open by its bar."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, add_box, add_joint, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View
from robolearn.envs.tasks.common import body_features
from robolearn.robots import Arm

__all__ = ["drawer"]

_TRAVEL_M, _OPEN_M = 0.2, 0.15
_WOOD, _LIGHT, _METAL = (0.5, 0.36, 0.24, 1), (0.7, 0.55, 0.38, 1), (0.75, 0.76, 0.78, 1)
_BAR_X_M, _GAP_X_M = -0.22, 0.04  # of the closed drawer's bar in the cabinet's frame; of the gap behind the bar


def drawer(arm: Arm) -> Task:
    """Return the task: the drawer open by 15 cm."""
    names, observe = body_features(["drawer_bar"], joints=["drawer"])
    return Task(
        name="drawer",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm, home_m=(-0.2, 0.0, 1.01), low_m=(-0.35, -0.4, TABLE_M)),),
        reset=_reset,
        observe=observe,
        names=names,
        success=lambda view: view.joint("drawer") > _OPEN_M,
        reward=_reward,
        script=(
            Phase(_behind_bar(0.12), grip=1, reach_m=0.015, reach_rad=0.08),
            Phase(_behind_bar(-0.005), grip=1, reach_m=0.01),
            Phase(_behind_bar(-0.005, pull_m=0.09), grip=1, speed_m=0.04),
        ),
        instructions=lambda view: np.full(len(view.qpos), "open the drawer"),
        max_steps=150,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    body = spec.worldbody.add_body(name="cabinet", mocap=True, pos=[0.28, 0, TABLE_M])
    for name, position, half in (
        ("bottom", (0, 0, 0.01), (0.12, 0.13, 0.01)),
        ("top", (0, 0, 0.19), (0.12, 0.13, 0.01)),
        ("back", (0.11, 0, 0.1), (0.01, 0.13, 0.08)),
        ("left", (0, 0.12, 0.1), (0.12, 0.01, 0.08)),
        ("right", (0, -0.12, 0.1), (0.12, 0.01, 0.08)),
    ):
        add_box(body, f"cabinet_{name}", position, half, _WOOD)
    box = body.add_body(name="drawer_box", pos=[0, 0, 0.1])
    add_joint(box, "drawer", "slide", (-1, 0, 0), (0.0, _TRAVEL_M), damping=5.0, frictionloss=1.0)
    for name, position, half in (
        ("front", (-0.13, 0, 0), (0.01, 0.125, 0.08)),
        ("floor", (-0.01, 0, -0.07), (0.11, 0.105, 0.005)),
        ("west", (-0.01, 0.1, -0.03), (0.11, 0.005, 0.04)),
        ("east", (-0.01, -0.1, -0.03), (0.11, 0.005, 0.04)),
    ):
        add_box(box, f"drawer_{name}", position, half, _LIGHT, mass_kg=0.2)
    bar = box.add_body(name="drawer_bar", pos=[_BAR_X_M, 0, 0])
    add_box(bar, "bar", (0, 0, 0), (0.008, 0.06, 0.008), _METAL, mass_kg=0.05)
    for name, y in (("post_left", 0.054), ("post_right", -0.054)):
        add_box(bar, name, (0.044, y, 0), (0.036, 0.006, 0.006), _METAL, mass_kg=0.01)
    allow_contact(spec, gripper_geoms(spec), ["bar", "drawer_front", "cabinet_top", "table"])
    return spec


def _reset(row: Row) -> None:
    row.place("cabinet", (*row.random.uniform((0.24, -0.15), (0.3, 0.15)), TABLE_M), row.random.uniform(-0.25, 0.25))


def _behind_bar(height_m: float, pull_m: float = 0.0):
    """A goal between the drawer's front and its bar, fingers side by side along the bar, `pull_m` further out."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        yaw = view.yaw("cabinet")
        inwards = np.stack([np.cos(yaw), np.sin(yaw)], 1)
        bar = view.position("drawer_bar")
        point = bar[:, :2] + inwards * (_GAP_X_M - pull_m)
        return np.column_stack([point, bar[:, 2] + height_m, yaw])

    return goal


def _reward(view: View) -> np.ndarray:
    """Reach 0.3, open 0.6."""
    reach = 1 - np.tanh(5 * np.linalg.norm(view.tool_m[:, 0] - view.position("drawer_bar"), axis=1))
    return 0.3 * reach + 0.6 * np.clip(view.joint("drawer") / _OPEN_M, 0, 1)
