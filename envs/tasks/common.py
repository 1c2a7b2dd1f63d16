"""Objects, observations and script goals that several tasks share."""

from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_box
from robolearn.envs.task import View, fold_angle

__all__ = [
    "BIN_M",
    "CUBE_M",
    "above",
    "add_bin",
    "add_can",
    "add_cube",
    "apart",
    "at_rest",
    "body_features",
    "inside",
    "over",
    "over_point",
    "stay",
    "straight",
]

CUBE_KG = 0.05
CUBE_M, BIN_M, WALL_M = 0.02, 0.06, 0.025  # half sizes of a cube, of a bin's floor, of its wall height
Goal = Callable[[View, np.ndarray], np.ndarray]
_AXES = ("x", "y", "z")


def add_cube(spec: mujoco.MjSpec, name: str, rgba: tuple[float, ...], half_m: float = CUBE_M) -> str:
    """Add a free cube body; returns the name of its geometry."""
    body = spec.worldbody.add_body(name=name, pos=[0, 0, TABLE_M + half_m])
    body.add_freejoint()
    add_box(body, f"{name}_geom", (0, 0, 0), (half_m,) * 3, rgba, mass_kg=CUBE_KG)
    return f"{name}_geom"


def add_can(spec: mujoco.MjSpec, name: str, rgba: tuple[float, ...], radius_m: float, half_m: float) -> str:
    """Add a free upright cylinder; returns the name of its geometry."""
    body = spec.worldbody.add_body(name=name, pos=[0, 0, TABLE_M + half_m])
    body.add_freejoint()
    geom = body.add_geom(
        name=f"{name}_geom",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[radius_m, half_m, 0],
        rgba=list(rgba),
        group=1,
        mass=CUBE_KG,
    )
    geom.contype = geom.conaffinity = 0
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


def inside(view: View, cube: str, bin_: str) -> np.ndarray:
    """Return whether a cube lies inside a bin [E]."""
    away = view.position(cube) - view.position(bin_)
    return (np.abs(away[:, :2]).max(1) < BIN_M) & (away[:, 2] < 2 * WALL_M)


def at_rest(view: View, body: str) -> np.ndarray:
    """Return whether a free body moves slower than 2 cm/s [E]."""
    return np.linalg.norm(view.velocity(body), axis=1) < 0.02


def apart(random: np.random.Generator, count: int, low_m: tuple, high_m: tuple, distance_m: float) -> list[np.ndarray]:
    """Draw `count` points (x, y) of a rectangle that are at least `distance_m` from each other."""
    points: list[np.ndarray] = []
    while len(points) < count:
        point = random.uniform(low_m, high_m)
        if all(np.linalg.norm(point - other) > distance_m for other in points):
            points.append(point)
    return points


def body_features(
    bodies: Sequence[str], symmetry: int = 1, pairs: Sequence[tuple[str, str]] = (), joints: Sequence[str] = ()
) -> tuple[tuple[str, ...], Callable[[View], np.ndarray]]:
    """Return names and function of an observation of `bodies`.

    Each body gives its position, its yaw relative to the tool as sine and cosine of `symmetry` times
    the angle, and the vector from every tool; each pair the vector from one to the other; joints their
    positions.
    """
    names = [f"{body}_{part}" for body in bodies for part in (*_AXES, "sin_yaw", "cos_yaw")]
    names += [f"tool_to_{body}_{axis}" for body in bodies for axis in _AXES]
    names += [f"{one}_to_{other}_{axis}" for one, other in pairs for axis in _AXES]
    names += list(joints)

    def observe(view: View) -> np.ndarray:
        tool, parts = view.tool_m[:, 0], []
        for body in bodies:
            turn = symmetry * (view.yaw(body) - view.yaw_rad[:, 0])
            parts += [view.position(body), np.stack([np.sin(turn), np.cos(turn)], 1)]
        parts += [view.position(body) - tool for body in bodies]
        parts += [view.position(other) - view.position(one) for one, other in pairs]
        parts += [view.joint(name)[:, None] for name in joints]
        return np.concatenate(parts, 1)

    return tuple(names), observe


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


def over_point(point: Callable[[View], np.ndarray]) -> Goal:
    """Return a goal at a point [E,3], with the yaw that the tool started with."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        return np.column_stack([point(view), last[:, 0, 3]])

    return goal
