"""Press a button on the table."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, add_box, add_joint, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Task, View
from robolearn.envs.tasks.common import body_features, over
from robolearn.robots import Arm

__all__ = ["button"]

_TRAVEL_M, _PRESSED_M = 0.02, 0.015
_TOP_M = 0.06  # of the released cap above the table


def button(arm: Arm) -> Task:
    """Return the task: the cap pushed down by 15 mm."""
    names, observe = body_features(["button"], joints=["cap"])
    return Task(
        name="button",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm),),
        reset=lambda row: row.place("button", (*row.random.uniform((-0.15, -0.25), (0.15, 0.25)), TABLE_M)),
        observe=observe,
        names=names,
        success=lambda view: view.joint("cap") < -_PRESSED_M,
        reward=_reward,
        script=(
            Phase(over("button", TABLE_M + _TOP_M + 0.06), grip=1, reach_m=0.015),
            Phase(over("button", TABLE_M + _TOP_M - 0.03), grip=1, speed_m=0.03),
        ),
        instructions=lambda view: np.full(len(view.qpos), "press the button"),
        max_steps=100,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    body = spec.worldbody.add_body(name="button", mocap=True, pos=[0, 0, TABLE_M])
    add_box(body, "button_base", (0, 0, 0.015), (0.05, 0.05, 0.015), (0.3, 0.31, 0.33, 1))
    cap = body.add_body(name="button_cap", pos=[0, 0, 0.045])
    joint = add_joint(cap, "cap", "slide", (0, 0, 1), (-_TRAVEL_M, 0.0), damping=10.0)
    joint.stiffness[0], joint.springref = 150.0, 0.02
    geom = cap.add_geom(
        name="cap_geom",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[0.03, _TOP_M - 0.045, 0],
        rgba=[0.85, 0.16, 0.14, 1],
        group=1,
        mass=0.05,
    )
    geom.contype = geom.conaffinity = 0
    allow_contact(spec, gripper_geoms(spec), ["cap_geom", "button_base", "table"])
    return spec


def _reward(view: View) -> np.ndarray:
    """Reach 0.5, press 0.5."""
    top = view.position("button_cap") + np.array([0, 0, _TOP_M - 0.045])
    reach = 1 - np.tanh(5 * np.linalg.norm(view.tool_m[:, 0] - top, axis=1))
    return 0.5 * reach + 0.5 * np.clip(-view.joint("cap") / _PRESSED_M, 0, 1)
