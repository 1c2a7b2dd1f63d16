"""Take a tool out of its stand and hang it on a hook."""

import mujoco
import numpy as np

from robolearn.envs.scene import TABLE_M, add_arm, add_box, allow_contact, gripper_geoms, tabletop
from robolearn.envs.task import Mount, Phase, Row, Task, View, fold_angle
from robolearn.envs.tasks.common import body_features, stay, straight
from robolearn.robots import Arm

__all__ = ["tool_hang"]

# The tool's frame lies in the middle of its hole; its plate is thin along y.
_HOLE_M, _RIM_M, _THIN_M, _HANDLE_M = 0.018, 0.006, 0.005, 0.1  # half hole, half rim, half thickness, handle length
_FOOT_M = _HOLE_M + 2 * _RIM_M + _HANDLE_M  # from the hole down to the tool's end
_GRIP_M = _HOLE_M + 2 * _RIM_M - 0.01  # fingertips overlap the top rim by 1 cm
# The hook's frame lies at the foot of its post; its rod points to -y.
_ROD_Z_M, _ROD_M, _LENGTH_M = 0.22, 0.005, 0.12
_REST_M = _ROD_Z_M + _ROD_M - _HOLE_M  # of the hole's middle when the tool hangs
_METAL, _STEEL, _WOOD = (0.72, 0.2, 0.16, 1), (0.6, 0.62, 0.65, 1), (0.5, 0.36, 0.24, 1)


def tool_hang(arm: Arm) -> Task:
    """Return the task: the tool hangs on the rod by its hole and the gripper is away, for half a second."""
    names, observe = body_features(["tool", "hook"], symmetry=2, pairs=[("tool", "hook")])
    return Task(
        name="tool_hang",
        scene=lambda visual: _scene(arm, visual),
        mounts=(Mount(arm),),
        reset=_reset,
        observe=observe,
        names=names,
        success=_success,
        reward=_reward,
        script=_script(),
        instructions=lambda view: np.full(len(view.qpos), "hang the tool on the hook"),
        hold_steps=10,
        max_steps=250,
    )


def _scene(arm: Arm, visual: bool) -> mujoco.MjSpec:
    spec = tabletop(impratio=5.0)
    add_arm(spec, arm, visual)
    plate = _add_tool(spec)
    stand = _add_stand(spec)
    hook = _add_hook(spec)
    allow_contact(spec, gripper_geoms(spec), [*plate, "table", *hook], friction=2.0, torsion_m=0.02)
    allow_contact(spec, plate, ["table", *stand, *hook])
    return spec


def _add_tool(spec: mujoco.MjSpec) -> list[str]:
    tool = spec.worldbody.add_body(name="tool", pos=[0, 0, TABLE_M + _FOOT_M])
    tool.add_freejoint()
    outer, middle = _HOLE_M + 2 * _RIM_M, _HOLE_M + _RIM_M
    parts = {
        "rim_top": ((0, 0, middle), (outer, _THIN_M, _RIM_M)),
        "rim_bottom": ((0, 0, -middle), (outer, _THIN_M, _RIM_M)),
        "rim_left": ((-middle, 0, 0), (_RIM_M, _THIN_M, _HOLE_M)),
        "rim_right": ((middle, 0, 0), (_RIM_M, _THIN_M, _HOLE_M)),
        "handle": ((0, 0, -outer - _HANDLE_M / 2), (0.011, _THIN_M, _HANDLE_M / 2)),
    }
    for name, (place, half) in parts.items():
        add_box(tool, name, place, half, _METAL, mass_kg=0.01)
    return list(parts)


def _add_stand(spec: mujoco.MjSpec) -> list[str]:
    """Add a slot that holds the handle upright."""
    stand = spec.worldbody.add_body(name="stand", mocap=True, pos=[0, -0.1, TABLE_M])
    gap, half, height = _THIN_M + 0.001, 0.012, 0.03
    parts = {
        "slot_front": ((0, gap + half, height), (0.035, half, height)),
        "slot_back": ((0, -gap - half, height), (0.035, half, height)),
        "slot_left": ((-0.0235, 0, height), (0.0115, gap, height)),
        "slot_right": ((0.0235, 0, height), (0.0115, gap, height)),
    }
    for name, (place, size) in parts.items():
        add_box(stand, name, place, size, _WOOD)
    return list(parts)


def _add_hook(spec: mujoco.MjSpec) -> list[str]:
    hook = spec.worldbody.add_body(name="hook", mocap=True, pos=[0, 0.28, TABLE_M])
    add_box(hook, "hook_base", (0, 0, 0.01), (0.05, 0.05, 0.01), _STEEL)
    parts = {
        "post": ((0, 0.01, _ROD_Z_M / 2), (0.01, 0.01, _ROD_Z_M / 2 + _ROD_M)),
        "rod": ((0, -_LENGTH_M / 2, _ROD_Z_M), (_ROD_M, _LENGTH_M / 2, _ROD_M)),
        "rod_tip": ((0, -_LENGTH_M + 0.003, _ROD_Z_M + 0.007), (_ROD_M, 0.003, 0.003)),
    }
    for name, (place, half) in parts.items():
        add_box(hook, name, place, half, _STEEL)
    return list(parts)


def _reset(row: Row) -> None:
    draw = row.random.uniform
    place, yaw = draw((-0.1, -0.2), (0.08, -0.05)), draw(-0.4, 0.4)
    row.place("stand", (*place, TABLE_M), yaw)
    row.place("tool", (*place, TABLE_M + _FOOT_M), yaw)
    row.place("hook", (*draw((-0.05, 0.24), (0.06, 0.3)), TABLE_M), draw(-0.3, 0.3))


def _in_hook(view: View) -> np.ndarray:
    """Return where the hole's middle is in the hook's frame [E,3]."""
    away, yaw = view.position("tool") - view.position("hook"), view.yaw("hook")
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([cos * away[:, 0] + sin * away[:, 1], -sin * away[:, 0] + cos * away[:, 1], away[:, 2]], 1)


def _success(view: View) -> np.ndarray:
    x, y, z = _in_hook(view).T
    hangs = (np.abs(x) < _HOLE_M) & (y > 0.005 - _LENGTH_M) & (y < -0.005) & (np.abs(z - _REST_M) < 0.008)
    free = (np.linalg.norm(view.tool_m[:, 0] - view.position("tool"), axis=1) > 0.06) & (view.width_m[:, 0] > 0.06)
    return hangs & free & (np.linalg.norm(view.velocity("tool"), axis=1) < 0.1)


def _reward(view: View) -> np.ndarray:
    """Reach 0.3, lift 0.2, bring to the hook 0.4."""
    tool = view.position("tool")
    reach = 1 - np.tanh(8 * np.linalg.norm(view.tool_m[:, 0] - tool - np.array([0, 0, _GRIP_M]), axis=1))
    lift = np.clip((tool[:, 2] - TABLE_M - _FOOT_M) / 0.1, 0, 1)
    near = 1 - np.tanh(6 * np.linalg.norm(_in_hook(view) - np.array([0, -_LENGTH_M / 2, _REST_M]), axis=1))
    return 0.3 * reach + 0.2 * lift + 0.4 * near * (lift > 0.3)


def _over_tool(height_m: float):
    """A goal at the tool's top rim, fingers across the plate."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        place = view.position("tool") + np.array([0, 0, _GRIP_M + height_m])
        return np.column_stack([place, fold_angle(view.yaw("tool"), np.pi)])

    return goal


def _on_rod(along_m: float, height_m: float):
    """A goal with the hole `along_m` from the post (towards the rod's tip) at `height_m` above the table."""

    def goal(view: View, last: np.ndarray) -> np.ndarray:
        yaw, slip = view.yaw("hook"), view.tool_m[:, 0] - view.position("tool")
        turn = fold_angle(yaw - view.yaw("tool"), np.pi)
        out = along_m * np.stack([np.sin(yaw), -np.cos(yaw)], 1)
        cos, sin = np.cos(turn), np.sin(turn)
        offset = np.stack([cos * slip[:, 0] - sin * slip[:, 1], sin * slip[:, 0] + cos * slip[:, 1]], 1)
        place = view.position("hook")[:, :2] + out + offset
        return np.column_stack([place, TABLE_M + height_m + slip[:, 2], view.yaw_rad[:, 0] + turn])

    return goal


def _script() -> tuple[Phase, ...]:
    before, on = _LENGTH_M + 0.04, _LENGTH_M - 0.045
    through = _ROD_Z_M + 0.006
    slow_m, soft = 0.03, 0.7
    return (
        Phase(_over_tool(0.08), reach_m=0.02, reach_rad=0.05),
        Phase(_over_tool(0.0), reach_m=0.006, speed_m=0.03),
        Phase(stay, grip=1, steps=5),
        Phase(straight(TABLE_M + 0.36), grip=1, reach_m=0.03, speed_m=0.03),
        Phase(_on_rod(before + 0.02, through + 0.05), grip=1, reach_m=0.02, reach_rad=0.06),
        Phase(_on_rod(before, through), grip=1, reach_m=0.005, reach_rad=0.04, speed_m=slow_m, gain=soft),
        Phase(_on_rod(on, through), grip=1, reach_m=0.006, speed_m=slow_m, gain=soft),
        Phase(_on_rod(on, _REST_M + 0.009), grip=1, reach_m=0.005, speed_m=slow_m, gain=soft),
        Phase(stay, steps=5),
        Phase(straight(TABLE_M + 0.42)),
    )
