"""robosuite's tasks as a batched environment: the peer's rules, the compiled loop's speed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np

from robolearn.contracts import Observations
from robolearn.envs.exact.engine import Engine
from robolearn.envs.exact.experts import EXPERTS, ExactExpert
from robolearn.envs.exact.export import Export
from robolearn.envs.exact.lean import LeanEngine
from robolearn.envs.exact.placement import BoxSizer, draw_joints, place
from robolearn.envs.exact.terms import Raw, Terms, View, proprioception
from robolearn.errors import EnvError
from robolearn.seeding import generator
from robolearn.spec import ActionKind, ActionSpec, Feature, Spec

__all__ = ["ExactEnv", "ExactOptions", "Snapshot"]

_RUNAWAY = 1e4  # joint speeds [rad/s] that no working scene reaches
_REACH_M, _TURN_RAD = 3.0, 6.3  # bounds of absolute goals


@dataclass(frozen=True)
class ExactOptions:
    """What is the same for every task."""

    dense: bool = False  # robosuite's shaped reward
    raw: bool = False  # robosuite's own keys too, float64
    stop_on_success: bool = True  # robosuite itself never ends an episode
    max_steps: int = 400
    threads: int = 0  # 0: one per core
    compiled: bool = True  # machine code; otherwise numpy
    lean: bool = False  # the fast model instead of robosuite's own


@dataclass(frozen=True)
class Snapshot:
    """Everything that decides how one row goes on."""

    state: np.ndarray
    controller: np.ndarray
    memory: dict[str, np.ndarray]
    counters: dict[str, Any]
    random: Mapping[str, Any]


class ExactEnv(gymnasium.vector.VectorEnv):
    """`contracts.VectorEnv` over an exported robosuite task.

    Actions are robosuite's, clipped to its bounds; a non-finite action ends its episode as diverged
    without touching the physics.
    """

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}  # noqa: RUF012 - gymnasium's attribute

    def __init__(self, export: Export, terms: Terms, num_envs: int, options: ExactOptions | None = None):
        if num_envs < 1:
            raise EnvError("An environment needs rows.", found=num_envs, expected="num_envs >= 1")
        self.export, self.terms, self.num_envs = export, terms, num_envs
        self.options = options or ExactOptions()
        self.max_episode_steps = self.options.max_steps
        self.engine = _engine(export, terms, num_envs, self.options)
        self.model = self.engine.model
        self._sizers = {body: BoxSizer(export, self.model, body, high) for body, _, high in terms.sizes}
        self._allocate()
        spec = self._make_spec()
        self.spec: Spec = spec  # ty: ignore[incompatible-attribute-override]  # an EnvSpec elsewhere
        self._declare_spaces(spec)

    # ------------------------------------------------------------ gymnasium

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start new episodes on the rows of `options["reset_mask"]` (all without one).

        A row without a seed goes on with the generator of its last episode.
        """
        rows = self._rows_to_reset(options)
        if isinstance(seed, int):
            seed = [seed + row for row in range(self.num_envs)]
        if seed is not None and len(seed) != self.num_envs:
            raise EnvError("One seed per row is needed.", found=len(seed), expected=self.num_envs)
        for row in rows:
            given = seed[row] if seed is not None else None
            if given is not None:
                self._random[row] = generator(given, "episode")
            self._reset_row(row)
        self.engine.gather(rows)
        self._started = True
        return self.observe(rows), self._info()

    def step(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance every unfinished row by one control step."""
        if not self._started:
            raise EnvError("The environment was never reset.", do="call reset(seed=...) first")
        actions = np.asarray(actions, np.float64)
        if actions.shape != (self.num_envs, self.export.action_dim):
            expected = (self.num_envs, self.export.action_dim)
            raise EnvError("Wrong action shape.", found=actions.shape, expected=expected)
        refused = ~np.isfinite(actions).all(1) & ~self._done
        rows = np.flatnonzero(~self._done & ~refused)
        self.engine.actions[rows] = np.clip(actions[rows], self._low, self._high)
        self.engine.step(rows)
        self._view.fresh[rows] = False
        observations = self.observe(rows)
        reward = self._judge(rows, refused)
        return observations, reward, self._terminated.copy(), self._truncated.copy(), self._info()

    def close_extras(self, **kwargs: Any) -> None:
        self.engine.close()

    # ------------------------------------------------------------ beyond gymnasium

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
            {name: getattr(self, name)[row].copy() for name in _COUNTERS},
            self._random[row].bit_generator.state,
        )

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Bring a row back to where a snapshot was taken, of any row of any such environment."""
        for name, value in snapshot.memory.items():
            self._memory()[name][row] = value
        self.resize(row)
        self.engine.set_state(row, snapshot.state)
        self.engine.state[row] = snapshot.controller
        for name, value in snapshot.counters.items():
            getattr(self, name)[row] = value
        self._random[row] = generator(0)
        self._random[row].bit_generator.state = snapshot.random
        self._started = True

    # ------------------------------------------------------------ one step, in order

    def observe(self, rows: np.ndarray) -> Observations:
        """Return fresh observations; rows that did not move keep their last ones."""
        raw = {key: np.asarray(value, np.float64) for key, value in self._raw().items()}
        moved = np.zeros(self.num_envs, bool)
        moved[rows] = True
        for key, value in raw.items():
            self._last[key][moved] = value[moved]
        obs: Observations = {
            "observation.state": self._joined(self._state_keys),
            "observation.environment_state": self._joined(self._object_keys),
            "task": np.full(self.num_envs, self.terms.instruction),
        }
        if self.options.raw:
            obs |= {key: value.copy() for key, value in self._last.items()}
        return obs

    def _raw(self) -> Raw:
        remembered = {name: value.copy() for name, value in self._view.memory.items()}
        raw = proprioception(self._view) | self.terms.observe(self._view)
        frozen = self._done & ~self._view.fresh
        for name, value in remembered.items():  # a frozen row observes nothing anew
            self._view.memory[name][frozen] = value[frozen]
        return raw

    def _joined(self, keys: tuple[str, ...]) -> np.ndarray:
        parts = [self._last[key].reshape(self.num_envs, -1) for key in keys]
        return np.concatenate(parts, 1).astype(np.float32)

    def _judge(self, rows: np.ndarray, refused: np.ndarray) -> np.ndarray:
        """Update success and end of the rows that were just advanced; return the rewards."""
        moved = np.zeros(self.num_envs, bool)
        moved[rows] = True
        self._steps[rows] += 1
        with np.errstate(invalid="ignore"):
            runaway = ~(np.abs(self.engine.qvel).max(1) < _RUNAWAY) | ~np.isfinite(self.engine.qpos).all(1)
            reward = self.terms.reward(self._view, self.options.dense)
            holds = self.terms.success(self._view)
        self._diverged |= refused | (runaway & moved)
        good = moved & ~self._diverged
        self._success |= holds & good
        self._terminated |= self._diverged | (self._success if self.options.stop_on_success else False)
        self._truncated |= moved & (self._steps >= self.max_episode_steps) & ~self._terminated
        self._done = self._terminated | self._truncated
        return np.where(good, reward, 0.0)

    def _info(self) -> dict[str, Any]:
        return {"success": self._success.copy(), "diverged": self._diverged.copy(), "steps": self._steps.copy()}

    # ------------------------------------------------------------ resets

    def _reset_row(self, row: int) -> None:
        random, data, export = self._random[row], self.engine.data[row], self.export
        mujoco.mj_resetData(self.model, data)
        sizes = {body: random.uniform(low, high) for body, low, high in self.terms.sizes}
        for body, half_m in sizes.items():
            self.sizes[body][row] = half_m
        self.resize(row)
        for arm in export.arms:
            data.qpos[list(arm.qpos)] = draw_joints(arm, export.noise, random)
        self.engine.begin(row)
        for arm in export.arms:
            if arm.grip_home:
                data.qpos[list(arm.grip_qpos)] = arm.grip_home
        for joint, pose in place(export, random, sizes, self.terms.absent).items():
            start = self.model.joint(joint).qposadr[0]
            data.qpos[start : start + 7] = pose
        self.engine.forward(row)
        self._view.fresh[row] = True
        for name in _COUNTERS:
            getattr(self, name)[row] = 0

    def resize(self, row: int) -> None:
        """Give a row's objects their `sizes`."""
        model = self.engine.rows[row]
        if model is not None:
            for body, sizer in self._sizers.items():
                sizer.apply(model, self.sizes[body][row])

    def _rows_to_reset(self, options: Mapping[str, Any] | None) -> np.ndarray:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.arange(self.num_envs)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool:
            raise EnvError("A reset mask is bool [E].", found=f"{mask.dtype} {mask.shape}", expected=self.num_envs)
        return np.flatnonzero(mask)

    # ------------------------------------------------------------ set-up

    def _memory(self) -> dict[str, np.ndarray]:
        return self._view.memory | {f"size:{body}": value for body, value in self.sizes.items()} | self._last

    def _allocate(self) -> None:
        count, engine = self.num_envs, self.engine
        memory = {name: np.zeros((count, width)) for name, width in self.terms.memory}
        for value in memory.values():
            value[:, -1] = 1.0  # a pose that can be computed with before the first observation
        self._view = View(
            self.export, engine.qpos, engine.qvel, engine.bodies, engine.sites, engine.touch,
            np.zeros(count, bool), memory, engine.index,
        )  # fmt: skip
        self.sizes = {body: np.tile(low, (count, 1)) for body, low, _ in self.terms.sizes}
        self._steps, self._done = np.zeros(count, np.int64), np.ones(count, bool)
        self._success, self._diverged = np.zeros(count, bool), np.zeros(count, bool)
        self._terminated, self._truncated = np.zeros(count, bool), np.zeros(count, bool)
        self._random = [generator("row", row) for row in range(count)]
        self._low, self._high = _bounds(self.export)
        engine.gather(np.arange(count))
        raw = self._raw()
        self._last = {key: np.zeros_like(np.asarray(value, np.float64)) for key, value in raw.items()}
        robot = tuple(key for key in proprioception(self._view))
        self._state_keys, self._object_keys = robot, tuple(key for key in raw if key not in robot)
        self._started = False

    def _make_spec(self) -> Spec:
        observations = {
            "observation.state": _feature(self._last, self._state_keys),
            "observation.environment_state": _feature(self._last, self._object_keys),
            "task": Feature(kind="text", dtype="str"),
        }
        if self.options.raw:
            observations |= {key: Feature(shape=value.shape[1:], dtype="float64") for key, value in self._last.items()}
        robot = "+".join(arm.robot for arm in self.export.arms)
        return Spec(
            observations,
            _action_spec(self.export, self._low, self._high),
            rate_hz=self.export.control_hz,
            robot=robot,
            metadata={"env": f"robosuite/{self.export.task}", "fidelity": "lean" if self.options.lean else "exact"},
        )

    def _declare_spaces(self, spec: Spec) -> None:
        box, batch = gymnasium.spaces.Box, gymnasium.vector.utils.batch_space
        self.single_observation_space = gymnasium.spaces.Dict(
            {
                key: box(-np.inf, np.inf, feature.shape, np.dtype(feature.dtype).type)
                for key, feature in spec.observations.items()
                if feature.kind == "signal"
            }
        )
        self.single_action_space = box(self._low.astype(np.float32), self._high.astype(np.float32))
        self.observation_space = batch(self.single_observation_space, self.num_envs)
        self.action_space = batch(self.single_action_space, self.num_envs)


_COUNTERS = ("_steps", "_done", "_success", "_diverged", "_terminated", "_truncated")


def _engine(export: Export, terms: Terms, num_envs: int, options: ExactOptions) -> Engine:
    if not options.lean:
        return Engine(export, terms, num_envs, options.threads, options.compiled)
    if not options.compiled:
        raise EnvError("The lean fidelity is compiled only.", do="set compiled=true or fidelity=exact")
    return LeanEngine(export, terms, num_envs, options.threads)


def _bounds(export: Export) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.full(export.action_dim, -1.0), np.full(export.action_dim, 1.0)
    for arm in export.arms:
        first, size, _ = arm.action
        bound = np.array(arm.high)[:size]
        if arm.absolute:
            bound = np.array(([_REACH_M] * 3 + [_TURN_RAD] * 3)[:size] if "OSC" in arm.kind else [_TURN_RAD] * size)
            low[first : first + size], high[first : first + size] = -bound, bound
        else:
            low[first : first + size], high[first : first + size] = np.array(arm.low)[:size], bound
    return low, high


def _action_spec(export: Export, low: np.ndarray, high: np.ndarray) -> ActionSpec:
    arm = export.arms[0]
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


def _feature(values: Mapping[str, np.ndarray], keys: tuple[str, ...]) -> Feature:
    names = []
    for key in keys:
        size = values[key][0].size
        names += [f"{key}[{index}]" for index in range(size)] if size > 1 else [key]
    return Feature(shape=(len(names),), names=tuple(names))
