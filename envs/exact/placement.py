"""Resets: initial joints and object placements, drawn as robosuite draws them, from one seeded generator."""

import xml.etree.ElementTree as ET
from copy import copy
from dataclasses import replace

import mujoco
import numpy as np

from robolearn.envs.exact.export import ArmExport, Export, Item, Sampler
from robolearn.envs.exact.layout import RowModel
from robolearn.errors import EnvError

__all__ = ["BoxSizer", "draw_joints", "place"]

_ATTEMPTS = 5000
_AWAY = (10.0, 10.0, 10.0, 1.0, 0.0, 0.0, 0.0)  # where robosuite puts objects that an episode does not use
_SIZED = (
    "geom_size", "geom_rbound", "geom_aabb", "body_mass", "body_subtreemass", "body_inertia", "body_ipos", "body_iquat",
    "body_invweight0", "dof_invweight0", "dof_M0", "dof_length",
)  # fmt: skip


def draw_joints(arm: ArmExport, noise: tuple[str, float], random: np.random.Generator) -> np.ndarray:
    """Return initial joint angles [rad]."""
    kind, magnitude = noise
    size = len(arm.home_rad)
    draw = random.standard_normal(size) if kind == "gaussian" else random.uniform(-1.0, 1.0, size)
    return np.array(arm.home_rad) + draw * magnitude


def place(
    export: Export, random: np.random.Generator, sizes: dict[str, np.ndarray], absent: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Return the pose [7] of every free joint's object; `sizes` are half extents of resized boxes [m].

    Raises `EnvError` when the objects do not fit.
    """
    placed: list[tuple[np.ndarray, Item]] = []
    poses: dict[str, np.ndarray] = {}
    for sampler in export.samplers:
        for given in sampler.items:
            item = _resized(given, sizes)
            position = _position(sampler, item, placed, random)
            turn = _turn(sampler, item, random)
            placed.append((position, item))
            if item.joint:
                poses[item.joint] = np.concatenate([position, turn])
    return poses | {joint: np.array(_AWAY) for joint in absent}


def _resized(item: Item, sizes: dict[str, np.ndarray]) -> Item:
    if item.body not in sizes:
        return item
    half = sizes[item.body]
    return replace(item, radius_m=float(np.hypot(half[0], half[1])), bottom_m=-float(half[2]), top_m=float(half[2]))


def _position(
    sampler: Sampler, item: Item, placed: list[tuple[np.ndarray, Item]], random: np.random.Generator
) -> np.ndarray:
    margin = item.radius_m if sampler.inside else 0.0
    z = sampler.z_offset_m + sampler.reference_m[2] - item.bottom_m
    for _ in range(_ATTEMPTS):
        x = random.uniform(sampler.x_m[0] + margin, sampler.x_m[1] - margin) + sampler.reference_m[0]
        y = random.uniform(sampler.y_m[0] + margin, sampler.y_m[1] - margin) + sampler.reference_m[1]
        here = np.array([x, y, z])
        if not sampler.apart or not any(_overlap(here, item, *other) for other in placed):
            return here
    raise EnvError("The objects do not fit into their range.", found=item.name, do="reset with another seed")


def _overlap(here: np.ndarray, item: Item, there: np.ndarray, other: Item) -> bool:
    near = np.hypot(*(here - there)[:2]) <= other.radius_m + item.radius_m
    return bool(near and here[2] - there[2] <= other.top_m - item.bottom_m)


def _turn(sampler: Sampler, item: Item, random: np.random.Generator) -> np.ndarray:
    low, high = sampler.rotation if sampler.rotation is not None else (0.0, 2.0 * np.pi)
    angle = random.uniform(low, high) if high > low else low
    turn = np.zeros(4)
    turn[0], turn[1 + "xyz".index(sampler.axis)] = np.cos(angle / 2), np.sin(angle / 2)
    if item.turn_wxyz is None:
        return turn
    # robosuite multiplies these as xyzw quaternions although they are wxyz; placements follow it
    x1, y1, z1, w1 = item.turn_wxyz
    x0, y0, z0, w0 = turn
    return np.array(
        [
            x0 * w1 + y0 * z1 - z0 * y1 + w0 * x1,
            -x0 * z1 + y0 * w1 + z0 * x1 + w0 * y1,
            x0 * y1 - y0 * x1 + z0 * w1 + w0 * z1,
            -x0 * x1 - y0 * y1 - z0 * z1 + w0 * w1,
        ]
    )


class BoxSizer:
    """Gives one body's boxes other half extents, with the mass and inertia that follow from its density.

    What the compiler would derive is taken from a model of that body alone and a scratch copy of the whole.
    The bounding volumes of the rows' common `model` are set to those of the largest size, `high_m`.
    """

    def __init__(self, export: Export, model: mujoco.MjModel, body: str, high_m: tuple[float, ...]):
        root = ET.fromstring(export.xml)
        found = next((item for item in root.iter("body") if item.get("name") == body), None)
        if found is None:
            raise EnvError(f"No body '{body}' to resize.", found=export.task)
        self._xml = _alone(root, found)
        self._scratch = copy(model)
        self._data = mujoco.MjData(self._scratch)
        self._body = model.body(body).id
        largest = self._compile(np.array(high_m))
        names = [largest.geom(geom).name for geom in range(largest.ngeom)]
        kept = {model.geom(geom).name: geom for geom in range(model.ngeom) if model.geom_bodyid[geom] == self._body}
        self._from = [names.index(name) for name in kept]
        self._to = list(kept.values())
        start, count = model.body_bvhadr[self._body], model.body_bvhnum[self._body]
        model.bvh_aabb[start : start + count, 3:] = np.max(largest.geom_aabb[self._from, 3:], axis=0)

    def apply(self, row: RowModel, half_m: np.ndarray) -> None:
        """Set a row's box."""
        alone, scratch = self._compile(half_m), self._scratch
        for name in ("geom_size", "geom_rbound", "geom_aabb"):
            getattr(scratch, name)[self._to] = getattr(alone, name)[self._from]
        for name in ("body_mass", "body_inertia", "body_ipos", "body_iquat"):
            getattr(scratch, name)[self._body] = getattr(alone, name)[1]
        mujoco.mj_setConst(scratch, self._data)
        row.take(scratch, _SIZED)

    def _compile(self, half_m: np.ndarray) -> mujoco.MjModel:
        size = " ".join(repr(float(value)) for value in half_m)
        return mujoco.MjModel.from_xml_string(self._xml.replace("SIZE", size))


def _alone(root: ET.Element, body: ET.Element) -> str:
    """Return the XML of a scene with nothing but `body`; box sizes read SIZE."""
    scene = ET.Element("mujoco")
    for name in ("compiler", "default"):
        scene.extend(root.findall(name))
    ET.SubElement(scene, "worldbody").append(body)
    for parent in list(body.iter()):
        for child in list(parent):
            if child.tag == "site":
                parent.remove(child)
    for geom in body.iter("geom"):
        geom.attrib.pop("material", None)
        if geom.get("type") == "box":
            geom.set("size", "SIZE")
    return ET.tostring(scene, encoding="unicode")
