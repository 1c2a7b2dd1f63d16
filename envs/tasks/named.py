"""Put the named object at the named target: the scene, the rules and the script of every language task."""

from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, add_box, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View, fold_angle
from robolearn.envs.tasks.common import CUBE_M, add_bin, add_cube, apart, inside, stay, straight
from robolearn.robots import Arm

__all__ = ["Target", "Vocabulary", "named_task"]

Colour = tuple[float, float, float, float]
_APART_M, _MOVED_M, _PLATE_M = 0.1, 0.03, 0.07
_AXES = ("x", "y", "z")
_CELL_M, _FIRST_M = 0.04, (-0.08, -0.24)  # a field of the board that `say` names places on, and where a1 begins
_ROWS, _COLUMNS = "123456789", "abcdefghijkl"


@dataclass(frozen=True)
class Target:
    """Where objects may be put: a bin or a plate, placed at random within a rectangle."""

    kind: Literal["bin", "plate"]
    low_m: tuple[float, float]
    high_m: tuple[float, float]


@dataclass(frozen=True)
class Vocabulary:
    """What the instructions talk about. Every scene holds every object and every target."""

    objects: dict[str, tuple[Literal["cube", "can"], Colour]]  # body name → what it is
    targets: dict[str, Target]
    sentences: np.ndarray  # str [objects, targets, paraphrases]
    low_m: tuple[float, float]  # where objects lie
    high_m: tuple[float, float]

    @property
    def chance(self) -> float:
        """The success of a perfect hand that picks object and target blindly."""
        return 1.0 / (len(self.objects) * len(self.targets))


def named_task(name: str, arm: Arm, words: Vocabulary) -> Task:
    """Return the task: the named object at rest at the named target, the others where they were."""
    rules = _Rules(words)
    return Task(
        name=name,
        scene=lambda visual: _scene(arm, visual, words),
        mounts=(Mount(arm, low_m=(-0.3, -0.45, TABLE_M), high_m=(0.3, 0.45, 1.3)),),
        reset=rules.reset,
        observe=rules.observe,
        names=rules.names(),
        success=rules.success,
        reward=rules.reward,
        script=rules.script(),
        instructions=lambda view: words.sentences[tuple(view.variables["instruction"].T)],
        sentences=tuple(words.sentences.flatten().tolist()),
        hold_steps=10,
        say=rules.say,
        variables={"instruction": ((3,), "int64"), "start_m": ((len(words.objects), 2), "float64")},
    )


def _scene(arm: Arm, visual: bool, words: Vocabulary) -> mujoco.MjSpec:
    spec = tabletop()
    add_arm(spec, arm, visual)
    objects = [add_cube(spec, name, rgba) for name, (_, rgba) in words.objects.items()]
    for name, (kind, rgba) in words.objects.items():
        if kind == "can":
            _make_round(spec, name, rgba)
    floors, walls = [], []
    for name, target in words.targets.items():
        if target.kind == "bin":
            floor, *sides = add_bin(spec, name, (0.45, 0.47, 0.5, 1))
            walls += sides
        else:
            floor = _add_plate(spec, name)
        floors.append(floor)
    allow_contact(spec, gripper_geoms(spec), [*objects, "table", *walls])
    allow_contact(spec, objects, ["table", *floors, *walls])
    for index, one in enumerate(objects):
        allow_contact(spec, [one], objects[index + 1 :])
    return spec


def _make_round(spec: mujoco.MjSpec, name: str, rgba: Colour) -> None:
    """Let a cube look like a can; a box stands still where a cylinder rocks on its few points of contact."""
    spec.geom(f"{name}_geom").rgba = [0, 0, 0, 0]
    look = spec.body(name).add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[CUBE_M, CUBE_M, 0], rgba=list(rgba))
    look.contype, look.conaffinity, look.group, look.mass = 0, 0, 1, 0.0


def _add_plate(spec: mujoco.MjSpec, name: str) -> str:
    body = spec.worldbody.add_body(name=name, mocap=True, pos=[0, 0, TABLE_M])
    disc = body.add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[_PLATE_M, 0.003, 0], pos=[0, 0, 0.003])
    disc.contype, disc.conaffinity, disc.group, disc.rgba = 0, 0, 1, [0.92, 0.92, 0.95, 1]
    add_box(body, f"{name}_floor", (0, 0, 0.003), (_PLATE_M, _PLATE_M, 0.003), (0, 0, 0, 0))  # what things rest on
    return f"{name}_floor"


class _Rules:
    """The functions of a task over one vocabulary."""

    def __init__(self, words: Vocabulary):
        self._words, self._objects, self._targets = words, list(words.objects), list(words.targets)

    def reset(self, row: Row) -> None:
        words, draw = self._words, row.random.uniform
        places = apart(row.random, len(self._objects), words.low_m, words.high_m, _APART_M)
        for name, place in zip(self._objects, places, strict=True):
            row.place(name, (*place, TABLE_M + CUBE_M), draw(0, 2 * np.pi))
        for name, target in words.targets.items():
            row.place(name, (*draw(target.low_m, target.high_m), TABLE_M))
        row.variables["start_m"][0] = places
        row.variables["instruction"][0] = row.random.integers(0, words.sentences.shape)

    def names(self) -> tuple[str, ...]:
        return (
            *(f"{name}_{part}" for name in self._objects for part in (*_AXES, "sin_4yaw", "cos_4yaw")),
            *(f"tool_to_{name}_{axis}" for name in self._objects for axis in _AXES),
            *(f"{name}_{axis}" for name in self._targets for axis in "xy"),
            *(f"tool_to_{name}_{axis}" for name in self._targets for axis in "xy"),
        )

    def observe(self, view: View) -> np.ndarray:
        tool = view.tool_m[:, 0]
        objects = [view.position(name) for name in self._objects]
        targets = [view.position(name)[:, :2] for name in self._targets]
        parts = []
        for name, position in zip(self._objects, objects, strict=True):
            turn = 4 * (view.yaw(name) - view.yaw_rad[:, 0])
            parts += [position, np.stack([np.sin(turn), np.cos(turn)], 1)]
        parts += [position - tool for position in objects]
        parts += targets
        parts += [position - tool[:, :2] for position in targets]
        return np.concatenate(parts, 1)

    def success(self, view: View) -> np.ndarray:
        rows, named = np.arange(len(view.qpos)), view.variables["instruction"]
        there = np.stack([[self._at(view, one, target) for target in self._targets] for one in self._objects])
        right = there[named[:, 0], named[:, 1], rows] & (there.sum((0, 1)) == 1)
        slow = np.linalg.norm(self._named(view, view.velocity), axis=1) < 0.02
        place = np.stack([view.position(name)[:, :2] for name in self._objects], 1)
        moved = np.linalg.norm(place - view.variables["start_m"], axis=-1)
        moved[rows, named[:, 0]] = 0.0
        return right & slow & (moved.max(1) < _MOVED_M) & (view.width_m[:, 0] > 0.07)

    def reward(self, view: View) -> np.ndarray:
        """Reach 0.3, lift 0.3, carry 0.3, all of the named object."""
        item, target = self._named(view, view.position), self._target(view)
        reach = 1 - np.tanh(8 * np.linalg.norm(view.tool_m[:, 0] - item, axis=1))
        lift = np.clip((item[:, 2] - TABLE_M - CUBE_M) / 0.1, 0, 1)
        carry = 1 - np.tanh(5 * np.linalg.norm(item[:, :2] - target[:, :2], axis=1))
        return 0.3 * reach + 0.3 * lift + 0.3 * carry * (lift > 0.3)

    def say(self, view: View, legs: np.ndarray) -> np.ndarray:
        """Return where the named object is, what the hand is about and where the others are [E].

        Such as "f3 red reach left; green i4 blue h7": fields of a board of 4 cm that moves with the hand, rows ahead
        of it and columns from its right to its left.
        """
        fields = {name: _fields(view, name) for name in self._objects}
        words = []
        for row, (item, target) in enumerate(view.variables["instruction"][:, :2]):
            asked, *others = [self._objects[item], *(name for name in self._objects if name != self._objects[item])]
            rest = " ".join(f"{_word(name)} {fields[name][row]}" for name in others)
            words.append(f"{fields[asked][row]} {_word(asked)} {legs[row]} {_word(self._targets[target])}; {rest}")
        return np.array(words)

    def script(self) -> tuple[Phase, ...]:
        high = TABLE_M + 0.17
        return (
            Phase(self._over_object(0.10), reach_m=0.02, reach_rad=0.08, name="reach"),
            Phase(self._over_object(-0.003), reach_m=0.007, name="reach"),
            Phase(stay, grip=1, steps=5, name="carry"),
            Phase(straight(high), grip=1, ready=lambda view: view.tool_m[:, 0, 2] > TABLE_M + 0.12, name="carry"),
            Phase(self._over_target(high), grip=1, reach_xy_m=0.025, name="carry"),
            Phase(self._over_target(TABLE_M + 0.075, TABLE_M + 0.03), grip=1, reach_m=0.015, name="carry"),
            Phase(stay, steps=5, name="leave"),
            Phase(straight(TABLE_M + 0.2), name="leave"),
        )

    def _at(self, view: View, item: str, target: str) -> np.ndarray:
        if self._words.targets[target].kind == "bin":
            return inside(view, item, target)
        away = view.position(item) - view.position(target)
        return (np.linalg.norm(away[:, :2], axis=1) < _PLATE_M) & (away[:, 2] < 2 * CUBE_M)

    def _named(self, view: View, quantity) -> np.ndarray:
        """Return `quantity(body)` of the object that each row's instruction names."""
        values = np.stack([quantity(name) for name in self._objects], 1)
        return values[np.arange(len(values)), view.variables["instruction"][:, 0]]

    def _target(self, view: View) -> np.ndarray:
        values = np.stack([view.position(name) for name in self._targets], 1)
        return values[np.arange(len(values)), view.variables["instruction"][:, 1]]

    def _over_object(self, height_m: float):
        def goal(view: View, last: np.ndarray) -> np.ndarray:
            yaw = view.yaw_rad[:, 0]
            turn = fold_angle(self._named(view, view.yaw) - yaw, np.pi / 2)
            return np.column_stack([self._named(view, view.position) + np.array([0, 0, height_m]), yaw + turn])

        return goal

    def _over_target(self, bin_m: float, plate_m: float | None = None):
        heights = np.array(
            [bin_m if target.kind == "bin" or plate_m is None else plate_m for target in self._words.targets.values()]
        )

        def goal(view: View, last: np.ndarray) -> np.ndarray:
            height = heights[view.variables["instruction"][:, 1]]
            return np.column_stack([self._target(view)[:, :2], height, last[:, 0, 3]])

        return goal


def _word(name: str) -> str:
    """Return the word of a body's name that tells it from the others."""
    return name.partition("_")[0]


def _fields(view: View, name: str) -> list[str]:
    """Return the field of each row's board that a body is on; one beyond it counts as on its edge."""
    away, yaw = view.position(name) - view.tool_m[:, 0], view.yaw_rad[:, 0]
    ahead = np.cos(yaw) * away[:, 0] + np.sin(yaw) * away[:, 1]
    left = np.cos(yaw) * away[:, 1] - np.sin(yaw) * away[:, 0]
    places = (np.stack([ahead, left], 1) - _FIRST_M) / _CELL_M
    rows, columns = np.clip(places, 0, (len(_ROWS) - 1, len(_COLUMNS) - 1)).astype(int).T
    return [_COLUMNS[column] + _ROWS[row] for row, column in zip(rows, columns, strict=True)]
