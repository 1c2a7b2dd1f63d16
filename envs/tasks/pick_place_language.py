"""Put the named cube of three into the named bin of two."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View, fold_angle
from robolearn.envs.tasks.common import CUBE_M, add_bin, add_cube, apart, inside, stay, straight
from robolearn.robots import Arm

__all__ = ["CHANCE", "pick_place_language"]

COLOURS = {"red": (0.85, 0.16, 0.14, 1), "green": (0.2, 0.62, 0.25, 1), "blue": (0.16, 0.32, 0.8, 1)}
SIDES = {"left": 0.3, "right": -0.3}  # y of the bins, m
CUBES, BINS = [f"{colour}_cube" for colour in COLOURS], [f"{side}_bin" for side in SIDES]
PHRASES = (
    "put the {colour} cube in the {side} bin",
    "place the {colour} cube into the {side} bin",
    "move the {colour} block to the {side} bin",
    "drop the {colour} cube in the bin on the {side}",
)
CHANCE = 1 / (len(COLOURS) * len(SIDES))  # success of a perfect hand that picks cube and bin blindly
_APART_M, _MOVED_M = 0.1, 0.03
_AXES = ("x", "y", "z")
NAMES = (
    *(f"{cube}_{axis}" for cube in CUBES for axis in (*_AXES, "sin_4yaw", "cos_4yaw")),
    *(f"tool_to_{cube}_{axis}" for cube in CUBES for axis in _AXES),
    *(f"{bin_}_{axis}" for bin_ in BINS for axis in "xy"),
    *(f"tool_to_{bin_}_{axis}" for bin_ in BINS for axis in "xy"),
)
_SENTENCES = np.array(
    [[[phrase.format(colour=colour, side=side) for phrase in PHRASES] for side in SIDES] for colour in COLOURS]
)


def pick_place_language(arm: Arm) -> Task:
    """Return the task: the named cube at rest in the named bin, the others where they were."""
    return Task(
        name="pick_place_language",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm, low_m=(-0.3, -0.45, TABLE_M), high_m=(0.3, 0.45, 1.3)),),
        reset=_reset,
        observe=_observe,
        names=NAMES,
        success=_success,
        reward=_reward,
        script=_script(),
        instructions=lambda view: _SENTENCES[tuple(view.variables["instruction"].T)],
        hold_steps=10,
        variables={"instruction": ((3,), "int64"), "start_m": ((len(CUBES), 2), "float64")},
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    cubes = [add_cube(spec, cube, rgba) for cube, rgba in zip(CUBES, COLOURS.values(), strict=True)]
    floors, walls = [], []
    for bin_ in BINS:
        floor, *sides = add_bin(spec, bin_, (0.45, 0.47, 0.5, 1))
        floors, walls = [*floors, floor], [*walls, *sides]
    allow_contact(spec, gripper_geoms(spec), [*cubes, "table", *walls])
    allow_contact(spec, cubes, ["table", *floors, *walls])
    for index, cube in enumerate(cubes):
        allow_contact(spec, [cube], cubes[index + 1 :])
    return spec


def _reset(row: Row) -> None:
    draw = row.random.uniform
    places = apart(row.random, len(CUBES), (-0.12, -0.14), (0.12, 0.14), _APART_M)
    for cube, place in zip(CUBES, places, strict=True):
        row.place(cube, (*place, TABLE_M + CUBE_M), draw(0, 2 * np.pi))
    for bin_, y in zip(BINS, SIDES.values(), strict=True):
        row.place(bin_, (draw(-0.06, 0.06), y + draw(-0.04, 0.04), TABLE_M))
    row.variables["start_m"][0] = places
    row.variables["instruction"][0] = row.random.integers(0, _SENTENCES.shape)


def _observe(view: View) -> np.ndarray:
    tool = view.tool_m[:, 0]
    cubes, bins = [view.position(cube) for cube in CUBES], [view.position(bin_)[:, :2] for bin_ in BINS]
    parts = []
    for cube, position in zip(CUBES, cubes, strict=True):
        turn = 4 * (view.yaw(cube) - view.yaw_rad[:, 0])
        parts += [position, np.stack([np.sin(turn), np.cos(turn)], 1)]
    parts += [position - tool for position in cubes]
    parts += bins
    parts += [position - tool[:, :2] for position in bins]
    return np.concatenate(parts, 1)


def _named(view: View, values: list[np.ndarray], part: int) -> np.ndarray:
    """Return per row the entry of `values` that the instruction names (part 0: cube, 1: bin)."""
    return np.stack(values, 1)[np.arange(len(view.qpos)), view.variables["instruction"][:, part]]


def _success(view: View) -> np.ndarray:
    rows, named = np.arange(len(view.qpos)), view.variables["instruction"]
    contained = np.stack([[inside(view, cube, bin_) for bin_ in BINS] for cube in CUBES], 0)  # [cube,bin,E]
    right = contained[named[:, 0], named[:, 1], rows] & (contained.sum((0, 1)) == 1)
    slow = np.linalg.norm(_named(view, [view.velocity(cube) for cube in CUBES], 0), axis=1) < 0.02
    place = np.stack([view.position(cube)[:, :2] for cube in CUBES], 1)
    moved = np.linalg.norm(place - view.variables["start_m"], axis=-1)
    moved[rows, named[:, 0]] = 0.0
    return right & slow & (moved.max(1) < _MOVED_M) & (view.width_m[:, 0] > 0.07)


def _reward(view: View) -> np.ndarray:
    """Reach 0.3, lift 0.3, carry 0.3, all of the named cube."""
    cube = _named(view, [view.position(cube) for cube in CUBES], 0)
    bin_ = _named(view, [view.position(bin_) for bin_ in BINS], 1)
    reach = 1 - np.tanh(8 * np.linalg.norm(view.tool_m[:, 0] - cube, axis=1))
    lift = np.clip((cube[:, 2] - TABLE_M - CUBE_M) / 0.1, 0, 1)
    carry = 1 - np.tanh(5 * np.linalg.norm(cube[:, :2] - bin_[:, :2], axis=1))
    return 0.3 * reach + 0.3 * lift + 0.3 * carry * (lift > 0.3)


def _over_cube(height_m: float):
    def goal(view: View, last: np.ndarray) -> np.ndarray:
        yaw = view.yaw_rad[:, 0]
        turn = fold_angle(_named(view, [view.yaw(cube) for cube in CUBES], 0) - yaw, np.pi / 2)
        cube = _named(view, [view.position(cube) for cube in CUBES], 0)
        return np.column_stack([cube + np.array([0, 0, height_m]), yaw + turn])

    return goal


def _over_bin(height_m: float):
    def goal(view: View, last: np.ndarray) -> np.ndarray:
        bin_ = _named(view, [view.position(bin_) for bin_ in BINS], 1)
        return np.column_stack([bin_[:, :2], np.full(len(bin_), height_m), last[:, 0, 3]])

    return goal


def _script() -> tuple[Phase, ...]:
    high = TABLE_M + 0.17
    return (
        Phase(_over_cube(0.10), reach_m=0.02, reach_rad=0.08),
        Phase(_over_cube(-0.003), reach_m=0.007),
        Phase(stay, grip=1, steps=5),
        Phase(straight(high), grip=1, ready=lambda view: view.tool_m[:, 0, 2] > TABLE_M + 0.12),
        Phase(_over_bin(high), grip=1, reach_xy_m=0.025),
        Phase(_over_bin(TABLE_M + 0.075), grip=1, reach_m=0.015),
        Phase(stay, steps=5),
        Phase(straight(TABLE_M + 0.2)),
    )
