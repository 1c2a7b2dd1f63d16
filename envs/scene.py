"""Building blocks of scenes: a table, arms with grippers, boxes, contacts.

World frame: x away from the arm, y to its left, z up, the origin on the floor below the centre of
the table. A scene is an `mujoco.MjSpec`; with `visual` it also holds the meshes that only renderers
look at. Both variants have the same bodies and joints, so a state of one is a state of the other.
"""

from collections.abc import Sequence
from itertools import product

import mujoco
import numpy as np

from robolearn.envs.assets import robosuite_asset
from robolearn.errors import EnvError
from robolearn.robots import Arm

__all__ = [
    "BASE_M",
    "TABLE_M",
    "add_arm",
    "add_box",
    "add_camera",
    "allow_contact",
    "gripper_geoms",
    "quat_yaw",
    "tabletop",
]

TABLE_M = 0.8  # height of the table top
BASE_M = (-0.56, 0.0, 0.912)  # where robosuite mounts a Panda at this table
_TIMESTEP_S = 0.005
_GEOM = mujoco.mjtGeom
_CONTACT = (0.99, 0.99, 0.001)  # stiff, so that light objects do not sink into the fingers
_HIDDEN = 3  # geometry group that renderers skip


def tabletop(half_m: tuple[float, float] = (0.4, 0.5), impratio: float = 1.0) -> mujoco.MjSpec:
    """Return a floor, a table, lights and two cameras ("front", "side").

    `impratio` > 1 stiffens friction, so that what hangs in a grip turns less.
    """
    spec = mujoco.MjSpec()
    spec.modelname = "tabletop"
    spec.compiler.degree = False
    option = spec.option
    option.timestep, option.integrator = _TIMESTEP_S, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_PYRAMIDAL, impratio
    option.disableflags = int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)  # a diverged state stays visible
    spec.memory = 2**20  # [bytes] of working memory per environment; the default reserves more
    head = spec.visual.headlight
    head.ambient, head.diffuse, head.specular = [0.4] * 3, [0.25] * 3, [0.0] * 3
    world = spec.worldbody
    sun = world.add_light(pos=[0.6, -0.6, 2.5], dir=[-0.25, 0.3, -1.0], diffuse=[0.55] * 3, specular=[0.1] * 3)
    sun.type, sun.castshadow = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, True
    sky = spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=64, height=384)
    sky.builtin, sky.rgb1, sky.rgb2 = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, [0.93, 0.95, 0.97], [0.72, 0.78, 0.85]
    world.add_geom(
        name="floor", type=_GEOM.mjGEOM_PLANE, size=[3, 3, 0.1], rgba=[0.78, 0.8, 0.82, 1], contype=0, conaffinity=0
    )
    for index, (x, y) in enumerate(product((-1, 1), (-1, 1))):
        leg = (x * (half_m[0] - 0.05), y * (half_m[1] - 0.05), (TABLE_M - 0.05) / 2)
        add_box(world, f"leg{index}", leg, (0.025, 0.025, (TABLE_M - 0.05) / 2), (0.35, 0.36, 0.38, 1))
    add_box(world, "table", (0, 0, TABLE_M - 0.025), (*half_m, 0.025), (0.86, 0.8, 0.7, 1))
    add_camera(world, "front", (0.95, 0.0, 1.5), (0.0, 0.02, 0.88), fovy_deg=42)
    add_camera(world, "side", (0.85, 0.95, 1.55), (-0.16, 0.0, 0.98), fovy_deg=46)
    return spec


def add_arm(
    spec: mujoco.MjSpec,
    arm: Arm,
    visual: bool,
    prefix: str = "robot0_",
    base_m: Sequence[float] = BASE_M,
    yaw_rad: float = 0.0,
) -> None:
    """Mount `arm` with its gripper: position actuators, gravity compensation, collisions of the gripper only.

    Actuators come in the order of `arm.joints`, then `arm.gripper.joints`; the tool is the site
    `<prefix>grip_site`. Its camera is "wrist" on the first arm, `<prefix>wrist` on others.
    """
    if not arm.asset:
        raise EnvError(f"The arm '{arm.name}' has no model to simulate.", do="take another arm, such as panda")
    robot = _load(arm.asset, visual, keep="")
    for joint in list(robot.joints):
        if joint.name not in arm.joints:  # such as a head
            robot.delete(joint)
    hand = _load(arm.gripper.asset, visual, keep="finger|hand")
    robot.body("right_hand").add_frame().attach_body(hand.worldbody.first_body(), "", "")
    frame = spec.worldbody.add_frame(pos=list(base_m), quat=quat_yaw(yaw_rad))
    frame.attach_body(robot.body("base"), prefix, "")
    half = base_m[2] / 2 - 0.005
    if half > 0.0:
        place, size = (base_m[0], base_m[1], half), (0.1, 0.12, half)
        add_box(spec.worldbody, f"{prefix}stand", place, size, (0.3, 0.31, 0.34, 1))
    spec.camera(prefix + "eye_in_hand").name = "wrist" if prefix == "robot0_" else prefix + "wrist"
    for body in spec.bodies:
        if body.name.startswith(prefix):
            body.gravcomp = 1.0
    for index, name in enumerate(arm.joints):
        joint = spec.joint(prefix + name)
        joint.armature, joint.frictionloss = 5.0 / (index + 1), 0.1  # robosuite's, for every arm
        stiffness, damping = (1500.0, 120.0) if index < 4 else (750.0, 60.0)
        _position_actuator(spec, prefix + name, stiffness, damping, (arm.low_rad[index], arm.high_rad[index]), 87.0)
    for name, opened, closed in zip(arm.gripper.joints, arm.gripper.open_, arm.gripper.closed, strict=True):
        _position_actuator(spec, prefix + name, 1000.0, 0.0, (min(opened, closed), max(opened, closed)), 20.0)


def add_box(
    body: "mujoco.MjsBody",
    name: str,
    position_m: Sequence[float],
    half_m: Sequence[float],
    rgba: Sequence[float],
    mass_kg: float | None = None,
) -> None:
    """Add a box that touches nothing until `allow_contact` says so."""
    geom = body.add_geom(
        name=name, type=_GEOM.mjGEOM_BOX, pos=list(position_m), size=list(half_m), rgba=list(rgba), group=1
    )
    geom.contype = geom.conaffinity = 0
    if mass_kg is not None:
        geom.mass = mass_kg


def add_joint(
    body: "mujoco.MjsBody",
    name: str,
    kind: str,
    axis: Sequence[float],
    limits: tuple[float, float],
    damping: float,
    frictionloss: float = 0.0,
    at_m: Sequence[float] = (0.0, 0.0, 0.0),
) -> "mujoco.MjsJoint":
    """Add a "slide" or "hinge" joint with limits [m or rad]."""
    types = {"slide": mujoco.mjtJoint.mjJNT_SLIDE, "hinge": mujoco.mjtJoint.mjJNT_HINGE}
    joint = body.add_joint(name=name, type=types[kind], axis=list(axis), range=list(limits), pos=list(at_m))
    joint.limited, joint.frictionloss = True, frictionloss
    joint.damping[0] = damping
    return joint


def add_camera(
    body: "mujoco.MjsBody", name: str, position_m: Sequence[float], target_m: Sequence[float], fovy_deg: float = 45.0
) -> None:
    """Add a camera that looks from `position_m` at `target_m` with the world's z up in the picture."""
    back = np.subtract(position_m, target_m)
    right = np.cross([0.0, 0.0, 1.0], back)
    axes = np.stack([right, np.cross(back, right), back])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, axes.T.ravel())
    body.add_camera(name=name, pos=list(position_m), quat=quat, fovy=fovy_deg)


def allow_contact(
    spec: mujoco.MjSpec,
    first: Sequence[str],
    second: Sequence[str],
    friction: float = 1.0,
    torsion_m: float = 0.0,
) -> None:
    """Let every geometry of `first` touch every one of `second`; all other contacts stay off.

    `friction` is the sliding coefficient; `torsion_m` > 0 adds resistance to spinning on the spot.
    """
    condim = 4 if torsion_m else 3
    for one, other in product(first, second):
        pair = spec.add_pair(geomname1=one, geomname2=other, condim=condim)
        pair.solimp[:3] = _CONTACT
        pair.friction = [friction, friction, torsion_m or 0.005, 0.0001, 0.0001]


def gripper_geoms(spec: mujoco.MjSpec, prefix: str = "robot0_") -> list[str]:
    """Return the names of the gripper's collision geometries."""
    return [geom.name for geom in spec.geoms if geom.name.startswith(prefix) and geom.name.endswith("_collision")]


def quat_yaw(yaw_rad: float) -> list[float]:
    """Return the quaternion (wxyz) of a turn about z."""
    return [float(np.cos(yaw_rad / 2)), 0.0, 0.0, float(np.sin(yaw_rad / 2))]


def _load(asset: str, visual: bool, keep: str) -> mujoco.MjSpec:
    """Read a robosuite MJCF: visual meshes only on request, collision meshes as fitted boxes if named by `keep`."""
    path = robosuite_asset(asset)
    spec = mujoco.MjSpec.from_file(str(path))
    for mesh in spec.meshes:
        mesh.file = str(path.parent / mesh.file)
    for sensor in list(spec.sensors):
        spec.delete(sensor)
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    for camera in list(spec.cameras):
        if camera.name != "eye_in_hand":
            spec.delete(camera)
    wanted = [part for part in keep.split("|") if part]
    for geom in list(spec.geoms):
        if geom.contype == 0 and geom.conaffinity == 0:
            if not visual:
                spec.delete(geom)
        elif any(part in geom.name for part in wanted):
            if geom.type == _GEOM.mjGEOM_MESH:
                geom.type = _GEOM.mjGEOM_BOX
            geom.contype = geom.conaffinity = 0
            geom.group = _HIDDEN
        else:
            spec.delete(geom)
    used = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            spec.delete(mesh)
    return spec


def _position_actuator(
    spec: mujoco.MjSpec,
    joint: str,
    stiffness: float,
    damping: float,
    limits: tuple[float, float],
    force: float,
) -> None:
    """Add force = stiffness (target - position) - damping velocity, clipped to ±`force`."""
    actuator = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.set_to_position(kp=stiffness, kv=damping)
    actuator.ctrllimited, actuator.ctrlrange = True, list(limits)
    actuator.forcelimited, actuator.forcerange = True, [-force, force]
