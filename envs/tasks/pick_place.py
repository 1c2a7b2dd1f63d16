"""Pick a cube from anywhere on the table and leave it in a bin."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View
from robolearn.envs.tasks.common import CUBE_M, above, add_bin, add_cube, inside, over, stay, straight
from robolearn.robots import Arm

__all__ = ["pick_place"]

CUBE_X_M, CUBE_Y_M = (-0.1, 0.1), (-0.27, 0.03)
BIN_X_M, BIN_Y_M = (-0.05, 0.05), (0.17, 0.37)
NAMES = (
    *("cube_x", "cube_y", "cube_z", "cube_sin_4yaw", "cube_cos_4yaw", "bin_x", "bin_y"),
    *("tool_to_cube_x", "tool_to_cube_y", "tool_to_cube_z", "tool_to_bin_x", "tool_to_bin_y"),
    *("cube_to_bin_x", "cube_to_bin_y"),
)


def pick_place(arm: Arm) -> Task:
    """Return the task: cube at rest in the bin with the gripper open for 0.5 s."""
    return Task(
        name="pick_place",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm),),
        reset=_reset,
        observe=_observe,
        names=NAMES,
        success=_success,
        reward=_reward,
        script=_script(),
        instructions=lambda view: np.full(len(view.qpos), "put the cube in the bin"),
        hold_steps=10,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    cube = add_cube(spec, "cube", (0.85, 0.16, 0.14, 1))
    walls = add_bin(spec, "bin", (0.2, 0.42, 0.72, 1))
    allow_contact(spec, gripper_geoms(spec), [cube, "table", *walls[1:]])
    allow_contact(spec, [cube], ["table", *walls])
    return spec


def _reset(row: Row) -> None:
    draw = row.random.uniform
    row.place("cube", (draw(*CUBE_X_M), draw(*CUBE_Y_M), TABLE_M + CUBE_M), draw(0, 2 * np.pi))
    row.place("bin", (draw(*BIN_X_M), draw(*BIN_Y_M), TABLE_M))


def _observe(view: View) -> np.ndarray:
    tool, cube, bin_ = view.tool_m[:, 0], view.position("cube"), view.position("bin")
    turn = 4 * (view.yaw("cube") - view.yaw_rad[:, 0])  # a cube looks the same every 90 degrees
    parts = [
        cube,
        np.stack([np.sin(turn), np.cos(turn)], 1),
        bin_[:, :2],
        cube - tool,
        bin_[:, :2] - tool[:, :2],
        bin_[:, :2] - cube[:, :2],
    ]
    return np.concatenate(parts, 1)


def _success(view: View) -> np.ndarray:
    slow = np.linalg.norm(view.velocity("cube"), axis=1) < 0.02
    return inside(view, "cube", "bin") & slow & (view.width_m[:, 0] > 0.07)


def _reward(view: View) -> np.ndarray:
    """Reach 0.3, lift 0.3, carry 0.3."""
    cube, bin_ = view.position("cube"), view.position("bin")
    reach = 1 - np.tanh(8 * np.linalg.norm(view.tool_m[:, 0] - cube, axis=1))
    lift = np.clip((cube[:, 2] - TABLE_M - CUBE_M) / 0.1, 0, 1)
    carry = 1 - np.tanh(5 * np.linalg.norm(cube[:, :2] - bin_[:, :2], axis=1))
    there = inside(view, "cube", "bin")
    return np.where(there, 0.9, 0.3 * reach + 0.3 * lift + 0.3 * carry * (lift > 0.3))


def _script() -> tuple[Phase, ...]:
    high = TABLE_M + 0.17
    return (
        Phase(above("cube", 0.10), reach_m=0.02, reach_rad=0.08),
        Phase(above("cube", -0.003), reach_m=0.007),
        Phase(stay, grip=1, steps=5),
        Phase(straight(high), grip=1, ready=lambda view: view.tool_m[:, 0, 2] > TABLE_M + 0.12),
        Phase(over("bin", high), grip=1, reach_xy_m=0.025),
        Phase(over("bin", TABLE_M + 0.075), grip=1, reach_m=0.015),
        Phase(stay, steps=5),
        Phase(straight(TABLE_M + 0.2)),
    )
