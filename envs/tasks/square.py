"""Put a square nut onto its peg: robosuite's NutAssemblySquare from the same boxes."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, add_box, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View, fold_angle, wrap_angle
from robolearn.envs.tasks.common import body_features, stay, straight
from robolearn.robots import Arm

__all__ = ["square"]

_PEG_M = np.array([0.23, 0.1, 0.85])  # centre; half sizes 16, 16, 100 mm
_NUT_HALF_M, _HANDLE_M = 0.01, 0.058  # half height; where the handle is held, from the centre
_YAW_RAD = (-1.9, 3.4)  # what the wrist reaches
_METAL, _STEEL = (0.72, 0.53, 0.25, 1), (0.6, 0.62, 0.65, 1)


def square(arm: Arm) -> Task:
    """Return the task: the nut around the peg, low on the table, as robosuite counts it."""
    names, observe = body_features(["nut", "peg"], pairs=[("nut", "peg")])
    return Task(
        name="square",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm, high_m=(0.35, 0.45, 1.3), yaw_rad=_YAW_RAD),),
        reset=_reset,
        observe=observe,
        names=names,
        success=_success,
        reward=_reward,
        script=_script(),
        instructions=lambda view: np.full(len(view.qpos), "put the square nut on the peg"),
        hold_steps=3,
        max_steps=250,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    peg = spec.worldbody.add_body(name="peg", pos=_PEG_M)
    add_box(peg, "peg_geom", (0, 0, 0), (0.016, 0.016, 0.1), _STEEL)
    nut = spec.worldbody.add_body(name="nut", pos=[0, 0, TABLE_M + _NUT_HALF_M])
    nut.add_freejoint()
    parts = {
        "nut_near": ((-0.03325, 0), (0.0105, 0.04375)),
        "nut_far": ((0.03325, 0), (0.0105, 0.04375)),
        "nut_left": ((0, 0.03325), (0.03125, 0.0105)),
        "nut_right": ((0, -0.03325), (0.03125, 0.0105)),
        "nut_handle": ((0.054, 0), (0.02525, 0.015875)),
    }
    for name, (place, half) in parts.items():
        add_box(nut, name, (*place, 0), (*half, _NUT_HALF_M), _METAL, mass_kg=0.0032)
    allow_contact(spec, gripper_geoms(spec), [*parts, "table"], friction=2.0, torsion_m=0.02)
    allow_contact(spec, list(parts), ["table", "peg_geom"])
    return spec


def _reset(row: Row) -> None:
    place = row.random.uniform((-0.13, 0.0), (-0.05, 0.225))  # robosuite: x -0.115 to -0.11, y 0.11 to 0.225
    row.place("nut", (*place, TABLE_M + _NUT_HALF_M), row.random.uniform(0, 2 * np.pi))


def _success(view: View) -> np.ndarray:
    away = view.position("nut") - _PEG_M
    around = np.linalg.norm(away[:, :2], axis=1) < 0.03
    return around & (view.position("nut")[:, 2] < TABLE_M + 0.05) & (view.width_m[:, 0] > 0.04)


def _reward(view: View) -> np.ndarray:
    """Reach 0.3, lift 0.3, carry 0.3."""
    nut = view.position("nut")
    reach = 1 - np.tanh(8 * np.linalg.norm(view.tool_m[:, 0] - _handle(view), axis=1))
    lift = np.clip((nut[:, 2] - TABLE_M - _NUT_HALF_M) / 0.15, 0, 1)
    carry = 1 - np.tanh(5 * np.linalg.norm(nut[:, :2] - _PEG_M[:2], axis=1))
    return 0.3 * reach + 0.3 * lift + 0.3 * carry * (lift > 0.3)


def _handle(view: View) -> np.ndarray:
    yaw = view.yaw("nut")
    return view.position("nut") + _HANDLE_M * np.stack([np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)], 1)


def _at_handle(height_m: float):
    """A goal at the handle, fingers across it, from the side that the wrist can then turn towards the arm."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        low, high = _YAW_RAD
        first = fold_angle(view.yaw("nut"), np.pi)
        options = first + np.pi * np.array([[0.0], [1.0], [-1.0]])  # [option,E]
        after = options + _to_arm(view)
        fits = (options > low) & (options < high) & (after > low) & (after < high)
        yaw = np.where(fits, options, np.inf).min(0)
        return np.column_stack([_handle(view) + np.array([0, 0, height_m]), np.where(np.isfinite(yaw), yaw, first)])

    return goal


def _to_arm(view: View) -> np.ndarray:
    """Return the turn that points the handle at the arm [E], along the peg's sides."""
    return wrap_angle(np.pi - view.yaw("nut"))


def _carry(height_m: float):
    """A goal with the nut over the peg, its handle towards the arm."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        turn, slip = _to_arm(view), view.tool_m[:, 0] - view.position("nut")
        cos, sin = np.cos(turn), np.sin(turn)
        x, y = cos * slip[:, 0] - sin * slip[:, 1], sin * slip[:, 0] + cos * slip[:, 1]
        yaw = view.yaw_rad[:, 0] + turn
        return np.column_stack([_PEG_M[0] + x, _PEG_M[1] + y, TABLE_M + height_m + slip[:, 2], yaw])

    return goal


def _script() -> tuple[Phase, ...]:
    return (
        Phase(_at_handle(0.1), reach_m=0.02, reach_rad=0.08),
        Phase(_at_handle(0.0), reach_m=0.006),
        Phase(stay, grip=1, steps=5),
        Phase(straight(TABLE_M + 0.25), grip=1, reach_m=0.03),
        Phase(_carry(0.23), grip=1, reach_xy_m=0.01, reach_rad=0.06),
        Phase(_carry(0.19), grip=1, reach_m=0.005, reach_rad=0.04, speed_m=0.03),
        Phase(_carry(0.04), grip=1, reach_m=0.015, speed_m=0.03),
        Phase(stay, steps=4),
        Phase(straight(TABLE_M + 0.3)),
    )
