"""The lean fidelity: the same task, observations and actions on a model made for speed.

No visual geometry, no collisions of the arm itself, meshes as fitted primitives, no air, gravity
compensation, 5 ms steps. Position actuators follow a joint goal found once per control step; their
gains are robosuite's task-space gains times the arm's own inertia, so that it answers as robosuite's.
"""

import mujoco
import numpy as np

from robolearn.envs.exact.engine import Engine, load_model
from robolearn.envs.exact.export import Export
from robolearn.envs.exact.layout import layout
from robolearn.envs.exact.terms import Terms
from robolearn.errors import EnvError

__all__ = ["LeanEngine", "lean_model"]

TIMESTEP_S = 0.005
_ROUND = ("Can",)  # objects that a cylinder fits better than a box
_KINDS = ("OSC_POSE", "OSC_POSITION")
_MESH, _BOX, _CYLINDER = mujoco.mjtGeom.mjGEOM_MESH, mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
_GRIPPER, _OBJECT = 1, 2  # collision bits: grippers and objects meet everything but the own gripper


class LeanEngine(Engine):
    """An `Engine` over `lean_model`; delta pose actions only, compiled only."""

    def __init__(self, export: Export, terms: Terms, num_envs: int, threads: int = 0, own_models: bool = False):
        for arm in export.arms:
            if arm.kind not in _KINDS or arm.absolute or arm.world:
                raise EnvError("The lean fidelity has delta pose actions only.", found=arm.kind, expected=_KINDS)
        super().__init__(export, terms, num_envs, threads, own_models=own_models)

    def load(self) -> mujoco.MjModel:
        return lean_model(self.export, self.terms)

    def _run(self, rows: np.ndarray, substeps: int) -> None:
        from robolearn.envs.exact.loop import run_rows_lean

        where, plan, record = layout(), self.plan, self.record
        out = (self.qpos, self.qvel, self.bodies, self.sites, self.touch)
        self.crew.run(
            lambda taken: run_rows_lean(
                where, plan, record, rows, self.models, self.datas, substeps, self.actions, self.state, out, taken
            ),
            len(rows),
        )


def lean_model(export: Export, terms: Terms) -> mujoco.MjModel:
    """Return the fast model; bodies, joints and sites have the exact model's names and numbers."""
    exact = load_model(export)
    spec = mujoco.MjSpec.from_string(export.xml)
    _strip(spec, export)
    _keep_inertia(spec, exact)
    absent = {spec.joint(name).parent.name for name in terms.absent}
    for body in spec.bodies:
        if body.name.startswith(("robot", "gripper", "fixed_mount", "mount")) or body.name in absent:
            body.gravcomp = 1.0
    placed = [exact.body(item.body).id for sampler in export.samplers for item in sampler.items]
    objects = {exact.body(body).name for body in range(exact.nbody) if exact.body_rootid[body] in placed}
    _collisions(spec, objects, absent)
    _actuators(spec, export, exact)
    option = spec.option
    option.timestep, option.density, option.viscosity = TIMESTEP_S, 0.0, 0.0  # friction cones as robosuite's
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    model = spec.compile()
    for name, bodies in export.poses.items():
        for body, value in bodies.items():
            getattr(model, name)[model.body(body).id] = value
    return model


def _strip(spec: mujoco.MjSpec, export: Export) -> None:
    """Drop what nothing touches and what only looks, and give the rest simple shapes."""
    for geom in list(spec.geoms):
        looks = geom.contype == 0 and geom.conaffinity == 0
        if looks or geom.name.startswith(("robot", "fixed_mount", "mount")):
            spec.delete(geom)
    for sensor in list(spec.sensors):
        spec.delete(sensor)
    for geom in spec.geoms:
        if geom.type == _MESH:
            geom.type = _CYLINDER if geom.name.startswith(_ROUND) else _BOX
        geom.material = ""
    for element in [*spec.materials, *spec.textures]:
        spec.delete(element)
    used = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            spec.delete(mesh)


def _keep_inertia(spec: mujoco.MjSpec, exact: mujoco.MjModel) -> None:
    for body in spec.bodies:
        if body.name and exact.body(body.name).id > 0:
            given = exact.body(body.name)
            body.explicitinertial = True
            body.mass, body.inertia = float(given.mass[0]), given.inertia
            body.ipos, body.iquat = given.ipos, given.iquat


def _collisions(spec: mujoco.MjSpec, objects: set[str], absent: set[str]) -> None:
    for geom in spec.geoms:
        if geom.parent.name in absent:
            geom.contype, geom.conaffinity = 0, 0
        elif geom.name.startswith("gripper"):
            geom.contype, geom.conaffinity = _GRIPPER, 0
        elif geom.parent.name in objects:
            geom.contype, geom.conaffinity = _OBJECT, _GRIPPER | _OBJECT
        else:
            geom.contype, geom.conaffinity = 0, _GRIPPER | _OBJECT


def _actuators(spec: mujoco.MjSpec, export: Export, exact: mujoco.MjModel) -> None:
    """Turn the arms' motors into position actuators with robosuite's stiffness at the home pose."""
    data = mujoco.MjData(exact)
    for arm in export.arms:
        data.qpos[list(arm.qpos)] = arm.home_rad
    mujoco.mj_forward(exact, data)
    mass = np.zeros((exact.nv, exact.nv))
    mujoco.mj_fullM(exact, mass, data.qM)
    for arm in export.arms:
        for number, dof, low, high in zip(arm.ctrl, arm.qvel, arm.torque_low, arm.torque_high, strict=True):
            actuator, inertia = spec.actuators[number], mass[dof, dof]
            actuator.set_to_position(kp=arm.kp[0] * inertia, kv=arm.kd[0] * inertia)
            actuator.ctrllimited = False
            actuator.forcelimited, actuator.forcerange = True, [low, high]
