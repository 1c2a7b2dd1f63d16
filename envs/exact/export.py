"""A robosuite task as plain data: its model, controllers, placements. The one place that asks robosuite.

The result is cached under the user's cache directory by what it depends on, so that later processes
need neither robosuite's imports nor its model building.
"""

import hashlib
import json
import logging
import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.config import parse
from robolearn.errors import EnvError, suggest

__all__ = ["ArmExport", "Export", "Item", "Sampler", "export_task", "open_peer"]

_FORMAT = 1  # raise it when the meaning of the exported fields changes
_MEMORY = {"ToolHang": "4M"}  # working memory per environment, else 1 MB; robosuite's own models ask for 1.3 GB
_CONTROLLERS = ("OSC_POSE", "OSC_POSITION", "JOINT_POSITION", "JOINT_VELOCITY", "IK_POSE")
_POSES = ("body_pos", "body_quat")  # model arrays that robosuite writes after compiling


@dataclass(frozen=True)
class ArmExport:
    """Constants of one arm, its controller and its gripper; indices are those of the compiled model."""

    name: str  # prefix of its observations: "robot0_", "robot0_left_"
    robot: str
    kind: str  # OSC_POSE, OSC_POSITION, JOINT_POSITION, JOINT_VELOCITY, IK_POSE
    absolute: bool
    world: bool
    uncoupled: bool
    site: int
    hand_body: int
    qpos: tuple[int, ...]
    qvel: tuple[int, ...]
    ctrl: tuple[int, ...]
    action: tuple[int, int, int]  # first entry, number of entries, entry of the gripper (-1: none)
    base_site: int  # the base frame's site where it moves with the arm (IIWA), else -1
    base_m: tuple[float, ...]
    base_rot: tuple[float, ...]
    kp: tuple[float, ...]
    kd: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    out_low: tuple[float, ...]
    out_high: tuple[float, ...]
    torque_low: tuple[float, ...]
    torque_high: tuple[float, ...]
    home_rad: tuple[float, ...]
    grip_qpos: tuple[int, ...]
    grip_qvel: tuple[int, ...]
    grip_home: tuple[float, ...]
    grip_ctrl: tuple[int, ...]
    grip_start: tuple[float, ...]
    grip_step: tuple[float, ...]
    grip_sign: bool
    grip_low: tuple[float, ...]
    grip_high: tuple[float, ...]
    grip_geoms: Mapping[str, tuple[str, ...]]  # left_fingerpad, right_fingerpad, …, "all"


@dataclass(frozen=True)
class Item:
    """A placed object."""

    name: str
    joint: str  # empty: a body without a joint
    body: str
    radius_m: float
    bottom_m: float
    top_m: float
    turn_wxyz: tuple[float, ...] | None
    geoms: tuple[str, ...]


@dataclass(frozen=True)
class Sampler:
    """Uniform placement of some items."""

    items: tuple[Item, ...]
    x_m: tuple[float, float]
    y_m: tuple[float, float]
    rotation: tuple[float, float] | None  # None: any
    axis: str
    inside: bool  # the whole object stays in range
    apart: bool  # no overlap with what was placed before
    reference_m: tuple[float, ...]
    z_offset_m: float


@dataclass(frozen=True)
class Export:
    """One task with one robot and controller."""

    task: str
    xml: str
    arms: tuple[ArmExport, ...]
    action_dim: int
    noise: tuple[str, float]  # of the initial joints: distribution, magnitude [rad]
    samplers: tuple[Sampler, ...]
    poses: Mapping[str, Mapping[str, tuple[float, ...]]]  # model arrays written after compiling, by body
    peer: Mapping[str, Any]  # plain attributes of the task's class that rewards and success need
    control_hz: float
    horizon: int


def open_peer(
    task: str,
    robots: str | tuple[str, ...],
    controller: str | Mapping[str, Any] | None = None,
    cameras: tuple[str, ...] = (),
    image_px: int = 84,
) -> Any:
    """Return robosuite's own environment; raises `EnvError` for an unknown name.

    `controller` names an arm controller (robosuite's default gains) or is its full part config. Pictures of
    `cameras` need $MUJOCO_GL set before robosuite is imported.
    """
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    import robosuite

    if task not in robosuite.ALL_ENVIRONMENTS:
        raise EnvError(f"robosuite has no task '{task}'.", expected=suggest(task, robosuite.ALL_ENVIRONMENTS))
    names = (robots,) if isinstance(robots, str) else tuple(robots)
    _repair_sawyer()
    for name in names:
        if name not in robosuite.ALL_ROBOTS:
            raise EnvError(f"robosuite has no robot '{name}'.", expected=suggest(name, robosuite.ALL_ROBOTS))
    return robosuite.make(
        task,
        robots=list(names),
        controller_configs=[_controller(name, controller) for name in names],
        has_renderer=False,
        has_offscreen_renderer=bool(cameras),
        use_camera_obs=bool(cameras),
        camera_names=list(cameras) or "agentview",
        camera_heights=image_px,
        camera_widths=image_px,
        ignore_done=True,
        reward_shaping=True,
    )


def _repair_sawyer() -> None:
    """Let MuJoCo 3.8 compile the Sawyer: some of its visual meshes enclose no volume."""
    from robosuite.models.robots import robot_model

    broken = robot_model.REGISTERED_ROBOTS["Sawyer"]
    if hasattr(broken, "repaired"):
        return

    class Sawyer(broken):
        repaired = True

        def __init__(self, idn: int = 0):
            super().__init__(idn=idn)
            for mesh in self.asset.findall("mesh"):
                mesh.set("inertia", "shell")  # its bodies state their inertia: no mesh decides one

    robot_model.register_robot(Sawyer)


def export_task(
    task: str, robots: str | tuple[str, ...] = "Panda", controller: str | Mapping[str, Any] | None = None
) -> Export:
    """Return the exported task, from the cache when nothing that it depends on has changed."""
    names = (robots,) if isinstance(robots, str) else tuple(robots)
    folder = _folder(task, names, controller)
    if (folder / "export.json").exists():
        return _load(folder)
    drawn = np.random.get_state()  # noqa: NPY002 - robosuite draws from the global generator
    np.random.seed(0)  # noqa: NPY002
    try:
        peer = open_peer(task, names, controller)
        peer.reset()
        export = _extract(task, peer)
    finally:
        np.random.set_state(drawn)  # noqa: NPY002
    _save(folder, export)
    return export


def _controller(robot: str, controller: str | Mapping[str, Any] | None) -> dict[str, Any]:
    from robosuite.controllers import load_composite_controller_config, load_part_controller_config

    config: dict[str, Any] = dict(load_composite_controller_config(robot=robot) or {})
    if controller is None:
        return config
    name = controller if isinstance(controller, str) else str(controller.get("type", ""))
    if name not in _CONTROLLERS:
        raise EnvError(f"Unknown controller '{name}'.", expected=suggest(name, _CONTROLLERS))
    part = load_part_controller_config(default_controller=name)
    part |= {} if isinstance(controller, str) else dict(controller)
    parts = config["body_parts"]
    for arm in ("right", "left"):
        if arm in parts:
            parts[arm] = part | ({"gripper": parts[arm]["gripper"]} if "gripper" in parts[arm] else {})
    return config


# ---------------------------------------------------------------- reading the peer


def _extract(task: str, peer: Any) -> Export:
    xml = _small_memory(peer.edit_model_xml(peer.model.get_xml()), _MEMORY.get(task, "1M"))
    arms, cutoff = [], 0
    for robot in peer.robots:
        arms += [_arm(peer, robot, arm, cutoff) for arm in robot.arms]
        cutoff += robot.action_dim
    noise = peer.robots[0].initialization_noise
    return Export(
        task=task,
        xml=xml,
        arms=tuple(arms),
        action_dim=peer.action_dim,
        noise=(noise["type"], float(noise["magnitude"])),
        samplers=_samplers(getattr(peer, "placement_initializer", None)),
        poses=_written_poses(xml, peer.sim.model._model),
        peer=_attributes(peer),
        control_hz=float(peer.control_freq),
        horizon=int(peer.horizon),
    )


def _small_memory(xml: str, memory: str) -> str:
    root = ET.fromstring(xml)
    for size in root.findall("size"):
        root.remove(size)
    ET.SubElement(root, "size", memory=memory)
    return ET.tostring(root, encoding="unicode")


def _arm(peer: Any, robot: Any, arm: str, cutoff: int) -> ArmExport:
    part, gripper, model = robot.part_controllers[arm], robot.gripper[arm], peer.sim.model._model
    splits = robot.composite_controller._action_split_indexes
    first, last = splits[arm]
    grip = splits.get(robot.get_gripper_name(arm), (-1, -1))
    base_m, base_rot = robot.composite_controller.get_controller_base_pose(arm)
    joints = len(part.qpos_index)
    size = last - first
    several = f"{arm}_" if len(robot.arms) > 1 else ""
    half = len(robot.init_qpos) // len(robot.arms)
    home = robot.init_qpos[:half] if arm == "right" else robot.init_qpos[half:]
    has_grip = grip[1] > grip[0]
    actuators = robot._ref_joint_gripper_actuator_indexes[arm] if has_grip else []
    start, step, sign = _grip_motion(gripper, len(actuators))
    low, high = part.control_limits
    return ArmExport(
        name=f"{robot.robot_model.naming_prefix}{several}",
        robot=robot.name,
        kind=part.name,
        absolute=getattr(part, "input_type", "delta") == "absolute",
        world=getattr(part, "input_ref_frame", "base") == "world",
        uncoupled=bool(getattr(part, "uncoupling", True)),
        site=peer.sim.model.site_name2id(part.ref_name),
        hand_body=peer.sim.model.body_name2id(robot.robot_model.eef_name[arm]),
        qpos=_ints(part.qpos_index),
        qvel=_ints(part.qvel_index),
        ctrl=_ints(robot._ref_actuators_indexes_dict[arm]),
        action=(cutoff + first, size, cutoff + grip[0] if has_grip else -1),
        base_site=_moving(model, f"{part.naming_prefix}{part.part_name}_center"),
        base_m=_floats(base_m),
        base_rot=_floats(np.ravel(base_rot)),
        kp=_floats(part.kp),
        kd=_floats(part.kd),
        low=_floats(low),
        high=_floats(high),
        out_low=_floats(part.output_min),
        out_high=_floats(part.output_max),
        torque_low=_floats(model.actuator_ctrlrange[robot._ref_actuators_indexes_dict[arm], 0]),
        torque_high=_floats(model.actuator_ctrlrange[robot._ref_actuators_indexes_dict[arm], 1]),
        home_rad=_floats(home[:joints]),
        grip_qpos=_ints(robot._ref_gripper_joint_pos_indexes[arm]) if robot.has_gripper[arm] else (),
        grip_qvel=_ints(robot._ref_gripper_joint_vel_indexes[arm]) if robot.has_gripper[arm] else (),
        grip_home=_floats(gripper.init_qpos if gripper.init_qpos is not None else ()),
        grip_ctrl=_ints(actuators),
        grip_start=start,
        grip_step=step,
        grip_sign=sign,
        grip_low=_floats(model.actuator_ctrlrange[actuators, 0]),
        grip_high=_floats(model.actuator_ctrlrange[actuators, 1]),
        grip_geoms={key: tuple(value) for key, value in gripper.important_geoms.items()}
        | {"all": tuple(gripper.contact_geoms)},
    )


def _moving(model: Any, site: str) -> int:
    """Return the number of `site` if a joint moves it, else -1."""
    number = model.site(site).id
    body = model.site_bodyid[number]
    while body > 0:
        if model.body_jntnum[body] > 0:
            return int(number)
        body = model.body_parentid[body]
    return -1


def _grip_motion(gripper: Any, actuators: int) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Return the first command, its change per step for a full action, and whether only the sign counts.

    robosuite's grippers integrate their action: read off by trying.
    """
    if actuators == 0:
        return (), (), True
    kept = gripper.current_action
    answers = []
    for value in (0.0, 1.0, 0.5):
        gripper.current_action = np.zeros(gripper.dof)
        answers.append(np.broadcast_to(gripper.format_action(np.full(gripper.dof, value)), actuators).astype(float))
    gripper.current_action = kept
    step = answers[1] - answers[0]
    return _floats(answers[0]), _floats(step), bool(np.allclose(answers[2], answers[1]))


def _samplers(initializer: Any) -> tuple[Sampler, ...]:
    if initializer is None:
        return ()
    parts = getattr(initializer, "samplers", None)
    if parts is None:
        return (_sampler(initializer),)
    return tuple(_sampler(part) for part in parts.values())


def _sampler(sampler: Any) -> Sampler:
    rotation = sampler.rotation
    if rotation is not None:
        rotation = (float(np.min(rotation)), float(np.max(rotation)))
    return Sampler(
        items=tuple(_item(obj) for obj in sampler.mujoco_objects),
        x_m=(float(sampler.x_range[0]), float(sampler.x_range[1])),
        y_m=(float(sampler.y_range[0]), float(sampler.y_range[1])),
        rotation=rotation,
        axis=sampler.rotation_axis,
        inside=bool(sampler.ensure_object_boundary_in_range),
        apart=bool(sampler.ensure_valid_placement),
        reference_m=_floats(sampler.reference_pos),
        z_offset_m=float(sampler.z_offset),
    )


def _item(obj: Any) -> Item:
    turn = getattr(obj, "init_quat", None)
    return Item(
        name=obj.name,
        joint=obj.joints[0] if obj.joints else "",
        body=obj.root_body,
        radius_m=float(obj.horizontal_radius),
        bottom_m=float(obj.bottom_offset[-1]),
        top_m=float(obj.top_offset[-1]),
        turn_wxyz=None if turn is None else _floats(turn),
        geoms=tuple(obj.contact_geoms),
    )


def _written_poses(xml: str, written: Any) -> dict[str, dict[str, tuple[float, ...]]]:
    """Return which bodies the peer moved in the compiled model."""
    import mujoco

    fresh = mujoco.MjModel.from_xml_string(xml)
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for name in _POSES:
        old, new = getattr(fresh, name), getattr(written, name)
        moved = np.flatnonzero((old != new).any(1))
        found[name] = {fresh.body(int(body)).name: _floats(new[body]) for body in moved}
    return found


def _attributes(peer: Any) -> dict[str, Any]:
    """Return the peer's plain numbers and vectors, among them what rewards and success are made of."""
    found: dict[str, Any] = {}
    for name, value in vars(peer).items():
        if isinstance(value, bool | int | float | str):
            found[name] = value
        elif isinstance(value, np.ndarray | tuple | list) and np.asarray(value).dtype.kind in "if":
            found[name] = np.asarray(value).tolist()
    return found


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in np.ravel(values))


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in np.ravel(values))


# ---------------------------------------------------------------- cache


def _folder(task: str, robots: tuple[str, ...], controller: Any) -> Path:
    found = find_spec("robosuite")
    where = found.origin if found else "missing"
    key = [_FORMAT, task, robots, controller, version("robosuite"), version("mujoco"), where, _source()]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=dict).encode()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "robolearn" / "exact" / f"{task}-{digest}"


def _source() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


def _save(folder: Path, export: Export) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(export))
    part = folder / f"export.{os.getpid()}.part"
    part.write_text(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "export": text}))
    part.replace(folder / "export.json")


def _load(folder: Path) -> Export:
    stored = json.loads((folder / "export.json").read_text())
    if hashlib.sha256(stored["export"].encode()).hexdigest() != stored["sha256"]:
        raise EnvError("A cached task is damaged.", found=str(folder), do="delete the folder; it is rebuilt")
    return parse(Export, json.loads(stored["export"]), where="export")
