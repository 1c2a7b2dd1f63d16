"""Pick a cube from anywhere on the table and leave it in a bin."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, add_box, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View, fold_angle
from robolearn.robots import Arm

__all__ = ["add_bin", "add_cube", "pick_place"]

CUBE_M, BIN_M, WALL_M = 0.02, 0.06, 0.025  # half sizes of the cube, of the bin's floor, of its wall height
CUBE_KG = 0.05
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


def add_cube(spec: mujoco.MjSpec, name: str, rgba: tuple[float, ...]) -> str:
    """Add a free cube body; returns the name of its geometry."""
    body = spec.worldbody.add_body(name=name, pos=[0, 0, TABLE_M + CUBE_M])
    body.add_freejoint()
    add_box(body, f"{name}_geom", (0, 0, 0), (CUBE_M,) * 3, rgba, mass_kg=CUBE_KG)
    return f"{name}_geom"


def add_bin(spec: mujoco.MjSpec, name: str, rgba: tuple[float, ...]) -> list[str]:
    """Add an open bin that resets may move; returns its geometries: floor, then four walls."""
    body = spec.worldbody.add_body(name=name, mocap=True, pos=[0, 0.3, TABLE_M])
    thick = 0.004
    outer = BIN_M + 2 * thick
    parts = {
        "floor": ((0, 0, 0.002), (outer, outer, 0.002)),
        "far": ((BIN_M + thick, 0, WALL_M), (thick, outer, WALL_M)),
        "near": ((-BIN_M - thick, 0, WALL_M), (thick, outer, WALL_M)),
        "left": ((0, BIN_M + thick, WALL_M), (BIN_M, thick, WALL_M)),
        "right": ((0, -BIN_M - thick, WALL_M), (BIN_M, thick, WALL_M)),
    }
    for part, (position, half) in parts.items():
        add_box(body, f"{name}_{part}", position, half, rgba)
    return [f"{name}_{part}" for part in parts]


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


def inside(view: View, cube: str, bin_: str) -> np.ndarray:
    """Return whether a cube lies inside a bin [E]."""
    away = view.position(cube) - view.position(bin_)
    return (np.abs(away[:, :2]).max(1) < BIN_M) & (away[:, 2] < 2 * WALL_M)


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


def above(body: str, height_m: float):
    """Return a goal over a four-fold symmetric body, fingers along its faces."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        yaw = view.yaw_rad[:, 0]
        turn = fold_angle(view.yaw(body) - yaw, np.pi / 2)
        return np.column_stack([view.position(body) + np.array([0, 0, height_m]), yaw + turn])

    return goal


def straight(height_m: float):
    """Return a goal straight up or down from the last one, at an absolute height."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        return np.column_stack([last[:, 0, :2], np.full(len(last), height_m), last[:, 0, 3]])

    return goal


def over(body: str, height_m: float):
    """Return a goal over a body at an absolute height, yaw as it was."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        return np.column_stack([view.position(body)[:, :2], np.full(len(last), height_m), last[:, 0, 3]])

    return goal


def stay(view: View, last: np.ndarray) -> np.ndarray:
    """The last goal again."""
    return last


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
