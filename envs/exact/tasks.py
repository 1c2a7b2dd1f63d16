"""The robosuite tasks that run natively: Lift, PickPlace and NutAssembly with one object, ToolHang."""

import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np

from robolearn.envs.exact.export import Export
from robolearn.envs.exact.quaternions import mat_to_quat, upper
from robolearn.envs.exact.terms import Raw, Terms, View, reached, relative_to_hand

__all__ = ["NATIVE"]

_REACH, _GRASP, _LIFT, _HOVER = 0.1, 0.35, 0.5, 0.7  # stages of robosuite's shaped rewards


def lift(export: Export) -> Terms:
    """Raise the cube 4 cm above the table."""
    table_m, cube = export.peer["table_offset"][2], export.samplers[0].items[0]

    def observe(view: View) -> Raw:
        here = view.position(cube.body)
        return {"cube_pos": here, "cube_quat": view.quat(cube.body), "gripper_to_cube_pos": here - view.tool()}

    def success(view: View) -> np.ndarray:
        return view.position(cube.body)[:, 2] > table_m + 0.04

    def reward(view: View, shaped: bool) -> np.ndarray:
        near = reached(np.linalg.norm(view.position(cube.body) - view.tool(), axis=1)) + 0.25 * view.grasps("cube")
        return np.where(success(view), 2.25, near * shaped) * (export.peer["reward_scale"] / 2.25)

    return Terms(
        bodies=(cube.body,),
        observe=observe,
        reward=reward,
        success=success,
        instruction="lift the red cube",
        graspable=(("cube", cube.geoms),),
        sizes=((cube.body, (0.020,) * 3, (0.022,) * 3),),
    )


def pick_place(kind: str) -> Callable[[Export], Terms]:
    """Return the task of putting one kind of object into its bin."""

    def terms(export: Export) -> Terms:
        items = export.samplers[0].items
        names = [item.name for item in items]
        chosen = next(item for item in items if item.name.lower() == kind)
        bins = _Bins(export)

        def observe(view: View) -> Raw:
            return relative_to_hand(view, chosen.name, view.position(chosen.body), view.quat(chosen.body))

        def positions(view: View) -> np.ndarray:
            return np.stack([view.position(item.body) for item in items], 1)

        def placed(view: View) -> np.ndarray:
            where = positions(view)
            away = np.linalg.norm(view.tool()[:, None] - where, axis=2)
            return bins.holds(where) & (reached(away) < 0.6)

        def reward(view: View, shaped: bool) -> np.ndarray:
            done = placed(view)
            total = done.sum(1).astype(float)
            if shaped:
                total += _pick_place_stages(view, bins, names, positions(view), ~done)
            return total * export.peer["reward_scale"]

        return Terms(
            bodies=tuple(item.body for item in items),
            observe=observe,
            reward=reward,
            success=lambda view: np.any(placed(view), axis=1),
            instruction=f"put the {kind} into its bin",
            graspable=tuple((item.name, item.geoms) for item in items),
            absent=tuple(item.joint for item in items if item is not chosen),
            memory=((chosen.name, 7),),
        )

    return terms


class _Bins:
    """The four compartments, in the order of the objects."""

    def __init__(self, export: Export):
        corner, size = np.array(export.peer["bin2_pos"]), np.array(export.peer["bin_size"])
        low = np.tile(corner[:2], (4, 1))
        low[[0, 2], 0] -= size[0] / 2
        low[:2, 1] -= size[1] / 2
        self.low, self.high, self.z = low, low + size[:2] / 2, corner[2]
        self.size, self.target = size, np.array(export.peer["target_bin_placements"])

    def holds(self, where: np.ndarray) -> np.ndarray:
        """Return whether object i lies in compartment i, bool [E,4]."""
        flat = ((where[..., :2] > self.low) & (where[..., :2] < self.high)).all(2)
        return flat & (where[..., 2] > self.z) & (where[..., 2] < self.z + 0.1)


def _pick_place_stages(view: View, bins: _Bins, names: list[str], where: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Return the best of reaching, grasping, lifting and hovering over the objects not yet placed."""
    reach, grasp, lifted = _shared_stages(
        view, names, np.linalg.norm(where - view.tool()[:, None], axis=2), bins.z + 0.25 - where[..., 2], active
    )
    away = np.abs(where[..., :2] - bins.target[:, :2])
    above = (away < bins.size[:2] / 4.0).all(2)
    near = reached(np.linalg.norm(away, axis=2)) * (_HOVER - _LIFT)
    hover = np.where(active, np.where(above, _LIFT, lifted[:, None]) + near, -np.inf).max(1)
    hover = np.where(active.any(1), hover, 0.0)
    return np.max([reach, grasp, lifted, hover], axis=0)


def _shared_stages(
    view: View, names: list[str], distance_m: np.ndarray, below_m: np.ndarray, active: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the reaching, grasping and lifting stage [E] from distances to the objects [E,n]."""
    some = active.any(1)
    nearest = np.where(active, distance_m, np.inf).min(1)
    reach = np.where(some, reached(nearest) * _REACH, 0.0)
    left = np.stack([view.touching(f"left:{name}") for name in names], 1)
    right = np.stack([view.touching(f"right:{name}") for name in names], 1)
    grasp = ((left & active).any(1) & (right & active).any(1)) * _GRASP
    height = np.where(active, np.maximum(below_m, 0.0), np.inf).min(1)
    lifted = _GRASP + (1.0 - np.tanh(15.0 * height)) * (_LIFT - _GRASP)
    return reach, grasp, np.where(some & (grasp > 0), lifted, 0.0)


def nut_assembly(kind: str) -> Callable[[Export], Terms]:
    """Return the task of putting one kind of nut on its peg."""

    def terms(export: Export) -> Terms:
        items = [item for sampler in export.samplers for item in sampler.items]
        names = [item.name for item in items]
        chosen = next(item for item in items if kind in item.name.lower())
        handles = tuple(f"{item.name}_handle_site" for item in items)
        table_m = export.peer["table_offset"][2]

        def observe(view: View) -> Raw:
            return relative_to_hand(view, chosen.name, view.position(chosen.body), view.quat(chosen.body))

        def state(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """Return nut positions and peg positions [E,2,3] and which nuts are on their pegs [E,2]."""
            nuts = np.stack([view.position(item.body) for item in items], 1)
            pegs = np.stack([view.position("peg1"), view.position("peg2")], 1)
            away = np.linalg.norm(view.tool()[:, None] - nuts, axis=2)
            on = (np.abs(nuts - pegs)[..., :2] < 0.03).all(2) & (nuts[..., 2] < table_m + 0.05)
            return nuts, pegs, on & (reached(away) < 0.6)

        def reward(view: View, shaped: bool) -> np.ndarray:
            nuts, pegs, on = state(view)
            total = on.sum(1).astype(float)
            if shaped:
                grips = np.stack([view.site(handle) for handle in handles], 1)
                away = np.linalg.norm(grips - view.tool()[:, None], axis=2)
                below = view.position("table")[:, None, 2] + 0.2 - nuts[..., 2]
                reach, grasp, lifted = _shared_stages(view, names, away, below, ~on)
                near = reached(np.linalg.norm((pegs - nuts)[..., :2], axis=2)) * (_HOVER - _LIFT)
                hover = np.where(on, 0.0, lifted[:, None] + near).max(1)
                total += np.max([reach, grasp, lifted, hover], axis=0)
            return total * export.peer["reward_scale"]

        return Terms(
            bodies=(*(item.body for item in items), "peg1", "peg2", "table"),
            observe=observe,
            reward=reward,
            success=lambda view: np.any(state(view)[2], axis=1),
            instruction=f"put the {kind} nut on its peg",
            sites=handles,
            graspable=tuple((item.name, item.geoms) for item in items),
            absent=tuple(item.joint for item in items if item is not chosen),
            memory=((chosen.name, 7),),
        )

    return terms


_TIP_M = 0.05  # robosuite's largest distance of the frame's tip to the middle of the stand's base
_LOOSE_M = 0.0105 - 0.00375  # of the tool's hole about the hook: its radius less half the hook's thickness


def tool_hang(export: Export) -> Terms:
    """Put the frame into its stand, then hang the tool on the frame's hook."""
    base_m, *walls_m = _offsets(export, "stand_base", *(f"stand_wall{i}" for i in range(4)))
    ring = tuple(f"tool_hole1_hc_{i}" for i in range(8))
    ends_m = _offsets(export, ring[0], ring[4])
    tool = next(sampler.items[0] for sampler in export.samplers if sampler.items[0].name == "tool")
    fingers = tuple({geom for key, part in export.arms[0].grip_geoms.items() if key != "all" for geom in part})

    def assembled(view: View) -> np.ndarray:
        base, low = view.point("stand_root", base_m), view.site("frame_mount_site")
        shaft, rod = view.site("stand_mount_site") - base, view.site("frame_intersection_site") - low
        upright = shaft[:, 2] > np.cos(np.pi / 18) * np.linalg.norm(shaft, axis=1)
        deep = np.linalg.norm(view.site("frame_tip_site") - base, axis=1) < _TIP_M
        walls = [view.point("stand_root", wall_m) - low for wall_m in walls_m]
        return upright & deep & _between(rod, walls[0], walls[2]) & _between(rod, walls[1], walls[3])

    def hung(view: View) -> np.ndarray:
        end = view.site("frame_hang_site")
        hook, hole = view.site("frame_intersection_site") - end, view.site("tool_hole1_center") - end
        length = np.linalg.norm(hook, axis=1)
        around = _between(hook, *(view.point("tool_hole1_root", end_m) - end for end_m in ends_m))
        near = np.linalg.norm(np.cross(hole, hook), axis=1) < _LOOSE_M * length
        along = (hole * hook).sum(1)
        on = (along > 0.05 * length**2) & (along < length**2)
        return view.touching("ring:hook") & ~view.touching("fingers:tool") & around & near & on

    def observe(view: View) -> Raw:
        frame_quat = mat_to_quat(view.site_mat("frame_intersection_site"))
        return {
            **relative_to_hand(view, "base", view.point("stand_root", base_m), upper(view.quat("stand_root"))),
            **relative_to_hand(view, "frame", view.site("frame_intersection_site"), frame_quat),
            **relative_to_hand(view, "tool", view.position("tool_root"), upper(view.quat("tool_root"))),
            "frame_is_assembled": assembled(view)[:, None].astype(float),
            "tool_on_frame": hung(view)[:, None].astype(float),
        }

    def success(view: View) -> np.ndarray:
        return assembled(view) & hung(view)

    return Terms(
        bodies=("stand_root", "tool_root", "tool_hole1_root"),
        observe=observe,
        reward=lambda view, shaped: success(view) * export.peer["reward_scale"],
        success=success,
        instruction="put the frame into the stand and hang the tool on it",
        sites=(
            "frame_hang_site",
            "frame_intersection_site",
            "frame_mount_site",
            "frame_tip_site",
            "stand_mount_site",
            "tool_hole1_center",
        ),
        contacts=(("ring:hook", ring, ("frame_horizontal_frame",)), ("fingers:tool", fingers, tool.geoms)),
        memory=(("base", 7), ("frame", 7), ("tool", 7)),
    )


def _offsets(export: Export, *geoms: str) -> list[np.ndarray]:
    """Return where geometries are in their bodies [3], m."""
    found = {geom.get("name"): geom.get("pos", "0 0 0") for geom in ET.fromstring(export.xml).iter("geom")}
    return [np.array(found[name].split(), float) for name in geoms]


def _between(line: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return whether a line [E,3] from the origin passes between two points [E,3], bool [E]."""
    return (np.cross(one, line) * np.cross(other, line)).sum(1) < 0


NATIVE: dict[str, Callable[[Export], Terms]] = {
    "Lift": lift,
    "NutAssemblyRound": nut_assembly("round"),
    "NutAssemblySquare": nut_assembly("square"),
    "PickPlaceBread": pick_place("bread"),
    "PickPlaceCan": pick_place("can"),
    "PickPlaceCereal": pick_place("cereal"),
    "PickPlaceMilk": pick_place("milk"),
    "ToolHang": tool_hang,
}
