"""The batched physics of one exported task: one model, E states, the control loop on all threads."""

import mujoco
import numpy as np

from robolearn.envs.exact.crew import Crew
from robolearn.envs.exact.export import ArmExport, Export
from robolearn.envs.exact.layout import RowModel, layout
from robolearn.envs.exact.plan import GRIPPER, JOINTS, STATE, Kind, Plan, Record, State
from robolearn.envs.exact.terms import Terms
from robolearn.errors import EnvError

__all__ = ["FULL", "Engine", "at_reset", "load_model"]

FULL = mujoco.mjtState.mjSTATE_INTEGRATION
_KINDS = {
    "OSC_POSE": Kind.OSC,
    "OSC_POSITION": Kind.OSC,
    "JOINT_POSITION": Kind.JOINT_POSITION,
    "JOINT_VELOCITY": Kind.JOINT_VELOCITY,
}


def load_model(export: Export) -> mujoco.MjModel:
    """Compile the exported model, as the peer uses it; a diverged state is left to be seen."""
    model = mujoco.MjModel.from_xml_string(export.xml)
    for name, bodies in export.poses.items():
        for body, value in bodies.items():
            getattr(model, name)[model.body(body).id] = value
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    return model


class Engine:
    """E rows of one model; every array has a leading [E].

    With `compiled` the loop is machine code outside the interpreter lock, otherwise numpy and the
    Python bindings, row by row; both agree to about 1e-12.
    """

    def __init__(
        self,
        export: Export,
        terms: Terms,
        num_envs: int,
        threads: int = 0,
        compiled: bool = True,
        own_models: bool = False,
    ):
        self.export, self.terms, self.num_envs, self.compiled = export, terms, num_envs, compiled
        self.model = self.load()
        self.data = [mujoco.MjData(self.model) for _ in range(num_envs)]
        apart = num_envs if terms.sizes or own_models else 1
        self.rows = [RowModel(self.model) for _ in range(apart)] * (num_envs // apart)
        self.substeps = int((1.0 / export.control_hz) / self.model.opt.timestep)
        self.plan = make_plan(export, self.model)
        self.record, self.index = _make_record(export, terms, self.model)
        self.state = np.zeros((num_envs, len(export.arms), STATE))
        self.actions = np.zeros((num_envs, export.action_dim))
        self.qpos, self.qvel = np.zeros((num_envs, self.model.nq)), np.zeros((num_envs, self.model.nv))
        self.bodies = np.zeros((num_envs, len(self.record.bodies), 7))
        self.sites = np.zeros((num_envs, len(self.record.sites), 12))
        self.touch = np.zeros((num_envs, len(self.record.pairs)), bool)
        self.models = np.array([row.address for row in self.rows], np.int64)
        self.datas = np.array([data._address for data in self.data], np.int64)
        self.crew = Crew(threads, num_envs, "exact")

    def load(self) -> mujoco.MjModel:
        """Return the model of all rows."""
        return load_model(self.export)

    def step(self, rows: np.ndarray) -> None:
        """Take one control step with `self.actions` on `rows` and record them."""
        self._run(rows, self.substeps)

    def gather(self, rows: np.ndarray) -> None:
        """Record `rows` as they are."""
        self._run(rows, 0)

    def begin(self, row: int) -> None:
        """Start the controllers of a row from its present joints, before its grippers and objects are placed."""
        state, data = self.state[row], self.data[row]
        self.forward(row)
        mass = np.zeros((self.model.nv, self.model.nv))
        mujoco.mj_fullM(self.model, mass, data.qM)
        state[:] = 0.0
        for index, arm in enumerate(self.export.arms):
            count, dof = len(arm.qpos), list(arm.qvel)
            state[index, State.HOME : State.HOME + count] = data.qpos[list(arm.qpos)]
            state[index, State.GRIP : State.GRIP + len(arm.grip_start)] = arm.grip_start
            jacobian = np.zeros((6, self.model.nv))
            mujoco.mj_jacSite(self.model, data, jacobian[:3], jacobian[3:], arm.site)
            site = np.concatenate([data.site_xpos[arm.site], data.site_xmat[arm.site]])
            at_reset(state[index], mass[np.ix_(dof, dof)], site, jacobian[:, dof])

    def bare_steps(self, rows: np.ndarray, substeps: int) -> None:
        """Take plain physics steps of the whole model with the controls as they are, for comparison."""
        from robolearn.envs.exact.loop import step_rows

        where = layout()
        for row in self.rows:
            row.count(True)
        self.crew.run(lambda taken: step_rows(where, rows, self.models, self.datas, substeps, taken), len(rows))
        for row in self.rows:
            row.count(False)

    def get_state(self, row: int) -> np.ndarray:
        """Return everything that decides how the physics of a row goes on."""
        state = np.empty(mujoco.mj_stateSize(self.model, FULL))
        mujoco.mj_getState(self.model, self.data[row], state, FULL)
        return state

    def set_state(self, row: int, state: np.ndarray) -> None:
        """Bring the physics of a row to `state`."""
        mujoco.mj_setState(self.model, self.data[row], state, FULL)

    def forward(self, row: int) -> None:
        """Bring all derived quantities of a row up to date."""
        from robolearn.envs.exact.reference import call

        call("mj_forward", int(self.models[row]), int(self.datas[row]))

    def close(self) -> None:
        """End the threads."""
        self.crew.close()

    def _run(self, rows: np.ndarray, substeps: int) -> None:
        out = (self.qpos, self.qvel, self.bodies, self.sites, self.touch)
        if not self.compiled:
            from robolearn.envs.exact.reference import run_row

            for row in rows:
                run_row(self, row, substeps)
            return
        from robolearn.envs.exact.loop import run_rows

        where, plan, record = layout(), self.plan, self.record
        self.crew.run(
            lambda taken: run_rows(
                where, plan, record, rows, self.models, self.datas, substeps, self.actions, self.state, out, taken
            ),
            len(rows),
        )


def at_reset(state: np.ndarray, mass: np.ndarray, site: np.ndarray, jacobian: np.ndarray) -> None:
    """Give one arm what its controller saw when it was made: mass [n,n], site [12], Jacobian [6,n]."""
    count = len(mass)
    state[State.STALE] = 1.0
    state[State.MASS : State.SITE].reshape(JOINTS, JOINTS)[:count, :count] = mass
    state[State.SITE : State.JACOBIAN] = site
    state[State.JACOBIAN :].reshape(6, JOINTS)[:, :count] = jacobian


def make_plan(export: Export, model: mujoco.MjModel) -> Plan:
    """Return the loop's constants; raises `EnvError` for a controller that it does not have."""
    arms = export.arms
    for arm in arms:
        if arm.kind not in _KINDS:
            raise EnvError(f"No compiled {arm.kind} controller.", found=arm.robot, expected=", ".join(_KINDS))
        if len(arm.qpos) > JOINTS or len(arm.grip_ctrl) > GRIPPER:
            raise EnvError(
                f"{arm.robot} has too many actuators for the control loop.",
                found=f"{len(arm.qpos)} joints, {len(arm.grip_ctrl)} gripper actuators",
                expected=f"at most {JOINTS} and {GRIPPER}",
            )
    mid = [(np.add(arm.out_high, arm.out_low) / 2, np.add(arm.high, arm.low) / 2) for arm in arms]
    scale = [np.abs(np.subtract(arm.out_high, arm.out_low)) / np.abs(np.subtract(arm.high, arm.low)) for arm in arms]
    return Plan(
        kind=np.array([_KINDS[arm.kind] for arm in arms], np.int64),
        absolute=np.array([arm.absolute for arm in arms], np.int64),
        rotate=np.array([arm.kind != "OSC_POSITION" for arm in arms], np.int64),
        world=np.array([arm.world for arm in arms], np.int64),
        uncoupled=np.array([arm.uncoupled for arm in arms], np.int64),
        joints=np.array([len(arm.qpos) for arm in arms], np.int64),
        site=np.array([arm.site for arm in arms], np.int64),
        action=np.array([arm.action for arm in arms], np.int64),
        qpos=_padded([arm.qpos for arm in arms], JOINTS, np.int64),
        qvel=_padded([arm.qvel for arm in arms], JOINTS, np.int64),
        ctrl=_padded([arm.ctrl for arm in arms], JOINTS, np.int64),
        base_site=np.array([arm.base_site for arm in arms], np.int64),
        base_m=np.array([arm.base_m for arm in arms]),
        base_rot=np.array([np.reshape(arm.base_rot, (3, 3)) for arm in arms]),
        mass=np.stack([_mass_places(arm, model) for arm in arms]),
        kp=_padded([arm.kp for arm in arms], JOINTS),
        kd=_padded([arm.kd for arm in arms], JOINTS),
        low=_padded([arm.low for arm in arms], JOINTS),
        high=_padded([arm.high for arm in arms], JOINTS),
        scale=_padded(scale, JOINTS),
        in_mid=_padded([item[1] for item in mid], JOINTS),
        out_mid=_padded([item[0] for item in mid], JOINTS),
        torque_low=_padded([arm.torque_low for arm in arms], JOINTS),
        torque_high=_padded([arm.torque_high for arm in arms], JOINTS),
        grip_ctrl=_padded([arm.grip_ctrl for arm in arms], GRIPPER, np.int64, -1),
        grip_step=_padded([arm.grip_step for arm in arms], GRIPPER),
        grip_sign=np.array([arm.grip_sign for arm in arms], np.int64),
        grip_mid=_padded([np.add(arm.grip_high, arm.grip_low) / 2 for arm in arms], GRIPPER),
        grip_half=_padded([np.subtract(arm.grip_high, arm.grip_low) / 2 for arm in arms], GRIPPER),
    )


def _mass_places(arm: ArmExport, model: mujoco.MjModel) -> np.ndarray:
    """Return where M[i, j], j <= i, of the arm's joints lies in MuJoCo's sparse matrix, [J,J]."""
    places = np.full((JOINTS, JOINTS), -1, np.int64)
    for i, dof in enumerate(arm.qvel):
        ancestor, place = dof, int(model.dof_Madr[dof])
        while ancestor >= 0:  # a row holds the joint itself, then its ancestors
            if ancestor in arm.qvel:
                places[i, arm.qvel.index(ancestor)] = place
            ancestor, place = int(model.dof_parentid[ancestor]), place + 1
    return places


def _padded(rows: list, width: int, dtype: type = np.float64, fill: int = 0) -> np.ndarray:
    out = np.full((len(rows), width), fill, dtype)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return out


def _make_record(export: Export, terms: Terms, model: mujoco.MjModel) -> tuple[Record, dict[str, int]]:
    """Return what the loop records and where `View` finds it."""
    index: dict[str, int] = {}
    bodies = [model.body(name).id for name in terms.bodies] + [arm.hand_body for arm in export.arms]
    sites = [model.site(name).id for name in terms.sites] + [arm.site for arm in export.arms]
    hands = [f"hand{i}" for i in range(len(export.arms))]
    tools = [f"tool{i}" for i in range(len(export.arms))]
    index |= {f"body:{name}": i for i, name in enumerate((*terms.bodies, *hands))}
    index |= {f"site:{name}": i for i, name in enumerate((*terms.sites, *tools))}
    grip, groups, pairs = export.arms[0].grip_geoms, np.zeros(model.ngeom, np.int64), []

    def mask(geoms: tuple[str, ...]) -> int:
        bit = 1 << len(mask_bits)
        mask_bits.append(geoms)
        groups[[model.geom(name).id for name in geoms]] |= bit
        return bit

    mask_bits: list[tuple[str, ...]] = []
    left, right = mask(grip.get("left_fingerpad", ())), mask(grip.get("right_fingerpad", ()))
    whole = mask(grip["all"])
    for name, geoms in terms.graspable:
        thing = mask(geoms)
        index |= {f"left:{name}": len(pairs), f"right:{name}": len(pairs) + 1, f"any:{name}": len(pairs) + 2}
        pairs += [(left, thing), (right, thing), (whole, thing)]
    index = {(f"pair:{key}" if key.split(":")[0] in ("left", "right", "any") else key): i for key, i in index.items()}
    for name, some, others in terms.contacts:
        index[f"pair:{name}"] = len(pairs)
        pairs.append((mask(some), mask(others)))
    return (
        Record(
            np.array(bodies, np.int64),
            np.array(sites, np.int64),
            groups,
            np.array(pairs, np.int64).reshape(-1, 2),
        ),
        index,
    )
