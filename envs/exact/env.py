"""robosuite's tasks as a batched environment: the peer's rules, the compiled loop's speed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import mujoco
import numpy as np

from robolearn.contracts import Observations
from robolearn.envs.exact.engine import Engine, load_model
from robolearn.envs.exact.experts import EXPERTS
from robolearn.envs.exact.export import Export
from robolearn.envs.exact.lean import LeanEngine
from robolearn.envs.exact.placement import BoxSizer, draw_joints, place
from robolearn.envs.exact.rows import COUNTERS, RowsEnv, ran_away
from robolearn.envs.exact.script import ExactExpert
from robolearn.envs.exact.terms import Raw, Terms, View, proprioception
from robolearn.envs.images import Cameras
from robolearn.envs.perturb import RAD_PER_M, Commands, Perturbations, check_levels
from robolearn.errors import EnvError
from robolearn.seeding import generator
from robolearn.spec import ActionKind, ActionSpec, CameraSpec, Feature, Spec

__all__ = ["PERTURBED", "ExactEnv", "ExactOptions", "Snapshot"]

_REACH_M, _TURN_RAD = 3.0, 6.3  # bounds of absolute goals
PERTURBED = (
    "control_noise",
    "friction",
    "latency",
    "object_mass",
    "object_pose",
    "observation_noise",
    "paraphrase",
)


@dataclass(frozen=True)
class ExactOptions:
    """What is the same for every task."""

    dense: bool = False  # robosuite's shaped reward
    raw: bool = False  # robosuite's own keys too, float64; its pictures upside down as there
    stop_on_success: bool = True  # robosuite itself never ends an episode
    max_steps: int = 400
    threads: int = 0  # 0: one per core
    compiled: bool = True  # machine code; otherwise numpy
    lean: bool = False  # the fast model instead of robosuite's own
    cameras: tuple[str, ...] = ()
    image_px: int = 84
    renderer: str = "auto"
    perturb: Mapping[str, int] = field(default_factory=dict)  # axis → level, of `PERTURBED`


@dataclass(frozen=True)
class Snapshot:
    """Everything that decides how one row goes on."""

    state: np.ndarray
    controller: np.ndarray
    memory: dict[str, np.ndarray]
    counters: dict[str, Any]
    random: Mapping[str, Any]
    perturbed: tuple[Mapping[str, Any], dict[str, float]]  # generator, what was drawn


class ExactEnv(RowsEnv):
    """An exported robosuite task; actions are robosuite's."""

    def __init__(self, export: Export, terms: Terms, num_envs: int, options: ExactOptions | None = None):
        self.options = options or ExactOptions()
        super().__init__(num_envs, self.options.max_steps, self.options.stop_on_success)
        self.export, self.terms = export, terms
        check_levels(self.options.perturb, PERTURBED)
        self.perturb = Perturbations(self.options.perturb, num_envs)
        self.engine = _engine(export, terms, num_envs, self.options, self.perturb.physical)
        self.model = self.engine.model
        self.sizes = {body: np.tile(low, (num_envs, 1)) for body, low, _ in terms.sizes}
        self._sizers = {body: BoxSizer(export, self.model, body, high) for body, _, high in terms.sizes}
        self._cameras = Cameras(lambda visual, look: _visible(export), self.options.renderer, self.options.threads)
        shape = (num_envs, self.options.image_px, self.options.image_px, 3)
        self._images = {camera: np.zeros(shape, np.uint8) for camera in self.options.cameras}
        self._allocate()
        self.declare(self._make_spec())
        self._commands = Commands(self.perturb, num_envs, _noise_scale(export))
        self._objects = _object_bodies(export, self.model)
        self._jitter = {key: np.zeros_like(value) for key, value in self._last.items()}

    def render(  # ty: ignore[incompatible-method-override]  # one row, as `contracts.VectorEnv` has it
        self, row: int = 0, camera: str = "agentview", width: int = 480, height: int = 360
    ) -> np.ndarray:
        """Return a picture [height,width,3] uint8 of one row; objects that differ in size are drawn alike."""
        return self._cameras.picture(self.engine.data[row], camera, (width, height), fine=True)

    def close_extras(self, **kwargs: Any) -> None:
        self.engine.close()
        self._cameras.close()

    @property
    def raw(self) -> Raw:
        """The latest observations under robosuite's keys, float64 [E,…]."""
        return self._last

    @property
    def view(self) -> View:
        """The present state of all rows, for experts."""
        return self._view

    def expert(self) -> ExactExpert:
        """Return the task's scripted demonstrator, bound to this environment."""
        if self.export.task not in EXPERTS:
            raise EnvError(f"No scripted expert for '{self.export.task}'.", expected=", ".join(EXPERTS))
        return ExactExpert(EXPERTS[self.export.task], lambda: self._last, self.num_envs)

    def snapshot(self, row: int) -> Snapshot:
        """Return the full state of one row; `restore` resumes it bit for bit."""
        return Snapshot(
            self.engine.get_state(row),
            self.engine.state[row].copy(),
            {name: value[row].copy() for name, value in self._memory().items()},
            {name: getattr(self, name)[row].copy() for name in COUNTERS},
            self._random[row].bit_generator.state,
            (self.perturb.random[row].bit_generator.state, dict(self.perturb.drawn[row])),
        )

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Bring a row back to where a snapshot was taken, of any row of any such environment."""
        for name, value in snapshot.memory.items():
            self._memory()[name][row] = value
        self.perturb.random[row] = generator(0)
        self.perturb.random[row].bit_generator.state, self.perturb.drawn[row] = snapshot.perturbed
        self.resize(row)
        self.engine.set_state(row, snapshot.state)
        self.engine.state[row] = snapshot.controller
        for name, value in snapshot.counters.items():
            getattr(self, name)[row] = value
        self._view.fresh[row] = self._steps[row] == 0
        self._random[row] = generator(0)
        self._random[row].bit_generator.state = snapshot.random
        self._draw(np.array([row]))
        self._started = True

    # ------------------------------------------------------------ episodes

    def begin(self, rows: np.ndarray) -> None:
        """Draw sizes, joints and placements as robosuite does, in its order."""
        for row in rows:
            random, data = self._random[row], self.engine.data[row]
            mujoco.mj_resetData(self.model, data)
            self.perturb.begin(row, self._seed[row])
            self.perturb.draw_physics(row)
            self._commands.begin(row, np.zeros(self.export.action_dim))
            for body, low, high in self.terms.sizes:
                self.sizes[body][row] = random.uniform(low, high)
            self.resize(row)
            for arm in self.export.arms:
                data.qpos[list(arm.qpos)] = draw_joints(arm, self.export.noise, random)
            self.engine.begin(row)
            for arm in self.export.arms:
                if arm.grip_home:
                    data.qpos[list(arm.grip_qpos)] = arm.grip_home
            sizes = {body: value[row] for body, value in self.sizes.items()}
            for joint, pose in place(self.export, self.perturb.widen(random), sizes, self.terms.absent).items():
                start = self.model.joint(joint).qposadr[0]
                data.qpos[start : start + 7] = pose
            self.engine.forward(row)
        self._view.fresh[rows] = True
        self.engine.gather(rows)
        self.sense(rows)

    def advance(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.engine.actions[rows] = np.clip(self._commands.arriving(rows, actions), self._low, self._high)
        self.engine.step(rows)
        self._view.fresh[rows] = False
        self.sense(rows)
        with np.errstate(invalid="ignore"):
            reward = self.terms.reward(self._view, self.options.dense)
            return reward, self.terms.success(self._view), ran_away(self.engine.qpos, self.engine.qvel)

    def sense(self, rows: np.ndarray) -> None:
        """Compute the observations of `rows`; the others keep theirs."""
        remembered = {name: value.copy() for name, value in self._view.memory.items()}
        others = np.ones(self.num_envs, bool)
        others[rows] = False
        with np.errstate(invalid="ignore"):
            raw = proprioception(self._view) | self.terms.observe(self._view)
        for key, value in raw.items():
            self._last[key][rows] = value[rows]
        for name, value in remembered.items():
            self._view.memory[name][others] = value[others]
        self._draw(rows)
        if self.perturb.size("observation_noise"):
            for row in rows:
                for value in self._jitter.values():
                    value[row] = self.perturb.jitter(row, value.shape[1:])

    def _draw(self, rows: np.ndarray) -> None:
        """Draw what the cameras see; as robosuite's, pictures lag the joints by a physics step."""
        if not self._images or not len(rows):
            return
        states = [self.engine.data[row] for row in rows]
        qpos = np.array([data.qpos for data in states])
        for index, data in enumerate(states):
            if not (self.options.lean or self._view.fresh[rows[index]]):
                mujoco.mj_integratePos(self.model, qpos[index], data.qvel, -self.model.opt.timestep)
        self._cameras.fill(self._images, rows, states, qpos=qpos)

    def info(self) -> dict[str, Any]:
        if not self.options.perturb:
            return super().info()
        return super().info() | {"perturbation": [dict(drawn) for drawn in self.perturb.drawn]}

    def observe(self) -> Observations:
        obs: Observations = {
            "observation.state": self._joined(self._state_keys),
            "observation.environment_state": self._joined(self._object_keys),
            "task": np.array([self.perturb.say(row, self.terms.instruction) for row in range(self.num_envs)]),
        }
        obs |= {f"observation.images.{camera}": images.copy() for camera, images in self._images.items()}
        if self.options.raw:
            obs |= {key: value.copy() for key, value in self._last.items()}
            obs |= {f"{camera}_image": images[:, ::-1].copy() for camera, images in self._images.items()}
        return obs

    def resize(self, row: int) -> None:
        """Give a row's objects their `sizes`, and what a perturbation made of mass and friction."""
        model, drawn = self.engine.rows[row], self.perturb.drawn[row]
        if model is None:
            return
        for body, sizer in self._sizers.items():
            sizer.apply(model, self.sizes[body][row])
        if self.perturb.physical:
            model.own("geom_friction")[:] = self.model.geom_friction * drawn.get("friction", 1.0)
            for name in ("body_mass", "body_inertia"):
                plain = model.own(name) if self._sizers else getattr(self.model, name)
                model.own(name)[self._objects] = plain[self._objects] * drawn.get("object_mass", 1.0)

    # ------------------------------------------------------------ set-up

    def _joined(self, keys: tuple[str, ...]) -> np.ndarray:
        parts = [(self._last[key] + self._jitter[key]).reshape(self.num_envs, -1) for key in keys]
        return np.concatenate(parts, 1).astype(np.float32)

    def _memory(self) -> dict[str, np.ndarray]:
        sizes = {f"size:{body}": value for body, value in self.sizes.items()}
        noise = {f"noise:{key}": value for key, value in self._jitter.items()}
        commands = {"commands:noise": self._commands.noise, "commands:queue": self._commands.queue}
        return self._view.memory | sizes | self._last | noise | commands

    def _allocate(self) -> None:
        count, engine = self.num_envs, self.engine
        memory = {name: np.zeros((count, width)) for name, width in self.terms.memory}
        for value in memory.values():
            value[:, -1] = 1.0  # a pose that can be computed with before the first observation
        self._view = View(
            self.export, engine.qpos, engine.qvel, engine.bodies, engine.sites, engine.touch,
            np.zeros(count, bool), memory, engine.index,
        )  # fmt: skip
        engine.gather(np.arange(count))
        robot, objects = proprioception(self._view), self.terms.observe(self._view)
        self._last = {key: np.zeros(value.shape) for key, value in (robot | objects).items()}
        self._state_keys, self._object_keys = tuple(robot), tuple(objects)

    def _make_spec(self) -> Spec:
        observations = {
            "observation.state": _feature(self._last, self._state_keys),
            "observation.environment_state": _feature(self._last, self._object_keys),
            "task": Feature(kind="text", dtype="str"),
        }
        for camera in self._images:
            observations[f"observation.images.{camera}"] = _picture(self.options.image_px, "up")
        if self.options.raw:
            observations |= {key: Feature(shape=value.shape[1:], dtype="float64") for key, value in self._last.items()}
            for camera in self._images:
                observations[f"{camera}_image"] = _picture(self.options.image_px, "down")  # robosuite's rows go upwards
        fidelity = "lean" if self.options.lean else "exact"
        return Spec(
            observations,
            _action_spec(self.export),
            rate_hz=self.export.control_hz,
            robot="+".join(arm.robot for arm in self.export.arms),
            metadata={"env": f"robosuite/{self.export.task}", "fidelity": fidelity},
        )


def _picture(size_px: int, up: Literal["up", "down"]) -> Feature:
    return Feature(kind="image", shape=(size_px, size_px, 3), dtype="uint8", camera=CameraSpec(up=up))


def _visible(export: Export) -> mujoco.MjModel:
    """Return the exact model without its collision geometry, which robosuite hides too."""
    model = load_model(export)
    model.geom_group[model.geom_group == 0] = 5
    return model


def _noise_scale(export: Export) -> np.ndarray:
    """Return the noise of every action entry for a noise of 1 m, by what the controller makes of an action."""
    scale = np.zeros(export.action_dim)
    for arm in export.arms:
        first, size, _ = arm.action
        metres = np.arange(size) < (3 if "OSC" in arm.kind else 0)
        per_unit = np.ones(size)
        if not arm.absolute:
            per_unit = np.subtract(arm.out_high, arm.out_low)[:size] / np.subtract(arm.high, arm.low)[:size]
        scale[first : first + size] = np.where(metres, 1.0, RAD_PER_M) / per_unit
    return scale


def _object_bodies(export: Export, model: mujoco.MjModel) -> np.ndarray:
    """Return the numbers of the bodies that resets place, and of what is fixed to them."""
    roots = [model.body(item.body).rootid[0] for sampler in export.samplers for item in sampler.items if item.joint]
    return np.flatnonzero(np.isin(model.body_rootid, roots))


def _engine(export: Export, terms: Terms, num_envs: int, options: ExactOptions, own_models: bool) -> Engine:
    if not options.lean:
        return Engine(export, terms, num_envs, options.threads, options.compiled, own_models)
    if not options.compiled:
        raise EnvError("The lean fidelity is compiled only.", do="set compiled=true or fidelity=exact")
    return LeanEngine(export, terms, num_envs, options.threads, own_models)


def _action_spec(export: Export) -> ActionSpec:
    arm, (low, high) = export.arms[0], _bounds(export)
    kinds: dict[str, ActionKind] = {
        "JOINT_POSITION": "joint_position" if arm.absolute else "joint_delta",
        "JOINT_VELOCITY": "joint_velocity",
    }
    task_space = arm.kind not in kinds
    return ActionSpec(
        dim=export.action_dim,
        kind=kinds.get(arm.kind, "ee_pose" if arm.absolute else "ee_delta"),
        frame="base" if task_space and not arm.world else "",
        rotation=("axis_angle" if arm.kind != "OSC_POSITION" else "none") if task_space else "",
        reference="" if arm.absolute else "measured",
        gripper="positive_closes" if arm.action[2] >= 0 else "none",
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )


def _bounds(export: Export) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.full(export.action_dim, -1.0), np.full(export.action_dim, 1.0)
    for arm in export.arms:
        first, size, _ = arm.action
        part = slice(first, first + size)
        if arm.absolute:
            pose = "OSC" in arm.kind
            high[part] = ([_REACH_M] * 3 + [_TURN_RAD] * 3)[:size] if pose else _TURN_RAD
            low[part] = -high[part]
        else:
            low[part], high[part] = arm.low[:size], arm.high[:size]
    return low, high


def _feature(values: Mapping[str, np.ndarray], keys: tuple[str, ...]) -> Feature:
    names = []
    for key in keys:
        size = values[key][0].size
        names += [f"{key}[{index}]" for index in range(size)] if size > 1 else [key]
    return Feature(shape=(len(names),), names=tuple(names))
