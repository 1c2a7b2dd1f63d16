"""Put a square peg into a square hole."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, add_box, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View, fold_angle
from robolearn.envs.tasks.common import above, apart, at_rest, body_features, stay, straight
from robolearn.robots import Arm

__all__ = ["peg_insertion"]

_PEG_M, _PEG_HALF_M = 0.012, 0.05  # half thickness, half length
_CLEARANCE_M = 0.002  # on every side
_BLOCK_M, _DEPTH_M = 0.045, 0.04  # half width of the block, its height


def peg_insertion(arm: Arm) -> Task:
    """Return the task: the peg's foot at least 3 cm deep in the hole."""
    names, observe = body_features(["peg", "block"], symmetry=4, pairs=[("peg", "block")])
    return Task(
        name="peg_insertion",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm),),
        reset=_reset,
        observe=observe,
        names=names,
        success=_success,
        reward=_reward,
        script=_script(),
        instructions=lambda view: np.full(len(view.qpos), "insert the peg into the hole"),
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    peg = spec.worldbody.add_body(name="peg", pos=[0, 0, TABLE_M + _PEG_HALF_M])
    peg.add_freejoint()
    add_box(peg, "peg_geom", (0, 0, 0), (_PEG_M, _PEG_M, _PEG_HALF_M), (0.85, 0.55, 0.12, 1), mass_kg=0.05)
    block = spec.worldbody.add_body(name="block", mocap=True, pos=[0.1, 0.1, TABLE_M])
    hole = _PEG_M + _CLEARANCE_M
    middle, half = (_BLOCK_M + hole) / 2, (_BLOCK_M - hole) / 2
    walls = {
        "far": ((middle, 0), (half, _BLOCK_M)),
        "near": ((-middle, 0), (half, _BLOCK_M)),
        "left": ((0, middle), (hole, half)),
        "right": ((0, -middle), (hole, half)),
    }
    for name, (place, size) in walls.items():
        add_box(block, name, (*place, _DEPTH_M / 2), (*size, _DEPTH_M / 2), (0.35, 0.4, 0.48, 1))
    allow_contact(spec, gripper_geoms(spec), ["peg_geom", "table", *walls])
    allow_contact(spec, ["peg_geom"], ["table", *walls])
    return spec


def _reset(row: Row) -> None:
    peg, block = apart(row.random, 2, (-0.12, -0.15), (0.12, 0.15), 0.14)
    row.place("peg", (*peg, TABLE_M + _PEG_HALF_M), row.random.uniform(0, 2 * np.pi))
    row.place("block", (*block, TABLE_M), row.random.uniform(-np.pi / 4, np.pi / 4))


def _away(view: View) -> np.ndarray:
    """Return where the peg's foot is relative to the bottom of the hole [E,3]."""
    return _foot(view) - view.position("block")


def _foot(view: View) -> np.ndarray:
    return view.position("peg") - _PEG_HALF_M * view.axis("peg", 2)


def _success(view: View) -> np.ndarray:
    away = _away(view)
    return (np.linalg.norm(away[:, :2], axis=1) < 0.01) & (away[:, 2] < _DEPTH_M - 0.03) & (view.tilt("peg") < 0.2)


def _reward(view: View) -> np.ndarray:
    """Reach 0.3, lift or align 0.3, insert 0.3."""
    away = _away(view)
    reach = 1 - np.tanh(8 * np.linalg.norm(view.tool_m[:, 0] - view.position("peg"), axis=1))
    align = 1 - np.tanh(10 * np.linalg.norm(away[:, :2], axis=1))
    deep = np.clip(1 - away[:, 2] / _DEPTH_M, 0, 1) * (np.linalg.norm(away[:, :2], axis=1) < 0.01)
    return 0.3 * reach + 0.3 * align + 0.3 * deep


def _carry(height_m: float):
    """A goal with the peg's foot (wherever it sits in the hand) over the hole and turned to fit."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        tool, yaw = view.tool_m[:, 0], view.yaw_rad[:, 0]
        slip = tool - _foot(view)
        turn = fold_angle(view.yaw("block") - view.yaw("peg"), np.pi / 2)
        height = view.position("block")[:, 2] + height_m
        return np.column_stack([view.position("block")[:, :2] + slip[:, :2], height + slip[:, 2], yaw + turn])

    return goal


def _script() -> tuple[Phase, ...]:
    over_hole, inside = _DEPTH_M + 0.03, 0.004
    return (
        Phase(above("peg", 0.14), reach_m=0.02, reach_rad=0.08),
        Phase(above("peg", 0.025), reach_m=0.007),
        Phase(stay, grip=1, steps=5),
        Phase(straight(TABLE_M + 0.2), grip=1, reach_m=0.03),
        Phase(_carry(over_hole + 0.02), grip=1, reach_xy_m=0.01, reach_rad=0.05),
        Phase(
            _carry(over_hole - 0.02),
            grip=1,
            reach_m=0.0015,
            reach_rad=0.02,
            gain=0.5,
            ready=lambda view: at_rest(view, "peg"),
        ),
        Phase(_carry(inside), grip=1, reach_m=0.006, speed_m=0.008, gain=0.7),
        Phase(stay, steps=5),
        Phase(straight(TABLE_M + 0.25)),
    )
