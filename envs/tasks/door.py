"""Pull a door open: robosuite's Door (without the latch) from its primitives."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, add_box, add_joint, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View, fold_angle
from robolearn.envs.tasks.common import body_features
from robolearn.robots import Arm

__all__ = ["door"]

_OPEN_RAD, _LIMIT_RAD = 0.3, 0.4  # robosuite's success and limit
_WOOD, _FRAME, _METAL = (0.45, 0.3, 0.2, 1), (0.9, 0.9, 0.9, 1), (0.75, 0.76, 0.78, 1)
_HINGE_M, _BAR_Y_M = 0.255, -0.1  # in the door's frame: x along the panel, -y out of it
_GAP_Y_M = -0.053  # middle between the panel and the bar


def door(arm: Arm) -> Task:
    """Return the task: the hinge held past 0.3 rad for half a second."""
    names, observe = body_features(["handle"], joints=["hinge"])
    return Task(
        name="door",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm, home_m=(-0.2, 0.0, 1.2), low_m=(-0.4, -0.4, TABLE_M), high_m=(0.3, 0.45, 1.4)),),
        reset=_reset,
        observe=observe,
        names=names,
        success=lambda view: view.joint("hinge") > _OPEN_RAD,
        reward=_reward,
        script=(
            Phase(_behind_bar(0.09), grip=1, reach_m=0.02, reach_rad=0.1),
            Phase(_behind_bar(0.005), grip=1, reach_m=0.012),
            Phase(_behind_bar(0.005, pull_m=0.08), grip=1, speed_m=0.04),
        ),
        instructions=lambda view: np.full(len(view.qpos), "open the door"),
        hold_steps=10,
        max_steps=200,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    body = spec.worldbody.add_body(name="frame", mocap=True, pos=[0.08, 0, TABLE_M + 0.3])
    for name, x in (("frame_left", -0.255), ("frame_right", 0.255)):
        post = body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.03, 0.3, 0], pos=[x, 0, 0])
        post.contype, post.conaffinity, post.group, post.rgba = 0, 0, 1, _FRAME
    panel = body.add_body(name="door", pos=[0, 0, 0])
    hinge = (_HINGE_M, 0, 0)
    joint = add_joint(panel, "hinge", "hinge", (0, 0, 1), (0.0, _LIMIT_RAD), damping=1.0, frictionloss=1.0, at_m=hinge)
    joint.stiffness[0] = 8.0  # a closer: a door that was only bumped falls shut
    add_box(panel, "panel", (0, 0, 0), (0.22, 0.02, 0.29), _WOOD, mass_kg=2.4)
    handle = panel.add_body(name="handle", pos=[-0.1, _BAR_Y_M, -0.025])
    add_box(handle, "bar", (0, 0, 0), (0.075, 0.015, 0.02), _METAL, mass_kg=0.1)
    add_box(handle, "handle_base", (-0.075, 0.05, 0), (0.02, 0.06, 0.02), _METAL, mass_kg=0.1)
    allow_contact(spec, gripper_geoms(spec), ["bar", "handle_base", "table"])
    fingers = [name for name in gripper_geoms(spec) if "finger" in name]
    allow_contact(spec, fingers, ["panel"])
    return spec


def _reset(row: Row) -> None:
    x, y = row.random.uniform((0.05, -0.03), (0.11, 0.03))  # robosuite: 0.07 to 0.09, ±0.01
    row.place("frame", (x, y, TABLE_M + 0.3), row.random.uniform(-np.pi / 2 - 0.25, -np.pi / 2))


def _behind_bar(height_m: float, pull_m: float = 0.0):
    """A goal between panel and bar, fingers side by side along the bar, `pull_m` further out."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        yaw = view.yaw("frame") + view.joint("hinge")
        out = np.stack([np.sin(yaw), -np.cos(yaw)], 1)  # -y of the panel
        handle = view.position("handle")
        point = handle[:, :2] + out * (_BAR_Y_M - _GAP_Y_M + pull_m)
        return np.column_stack([point, handle[:, 2] + height_m, fold_angle(yaw + np.pi / 2, np.pi)])

    return goal


def _reward(view: View) -> np.ndarray:
    """Reach 0.3, open 0.6."""
    reach = 1 - np.tanh(5 * np.linalg.norm(view.tool_m[:, 0] - view.position("handle"), axis=1))
    return 0.3 * reach + 0.6 * np.clip(view.joint("hinge") / _OPEN_RAD, 0, 1)
