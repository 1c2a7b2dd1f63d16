"""Meta-World's 50 tasks by name (`metaworld/assembly-v3`), batched and seeded.

Physics runs on all threads. For the ten tasks of MT10 observations and rewards are computed for all
rows at once; for the others Meta-World's own code is asked row by row. Trajectories equal
Meta-World's bit for bit, rewards to single precision. Repaired: `reset(seed)` decides the episode, nothing else.
"""

from copy import copy
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from robolearn.contracts import Observations
from robolearn.envs.exact.crew import Crew
from robolearn.envs.exact.layout import RowModel, layout
from robolearn.envs.exact.rows import COUNTERS, RowsEnv, ran_away
from robolearn.envs.images import Cameras
from robolearn.envs.metaworld_expert import ScriptedPolicy
from robolearn.envs.metaworld_terms import NATIVE, Scene, Terms, record_of
from robolearn.errors import ConfigError, suggest
from robolearn.seeding import generator
from robolearn.spec import ActionSpec, Feature, Spec

__all__ = ["MetaWorldConfig", "MetaWorldEnv"]

_MOVED = ("body_pos", "body_quat", "site_pos")  # model arrays that resets write
_FULL = mujoco.mjtState.mjSTATE_INTEGRATION
_CONTROL_HZ = 80.0  # five steps of 2.5 ms
_VIEWED = ("xpos", "xquat", "site_xpos", "geom_xpos", "qpos", "qvel")  # physics that attributes may point into
_OWN = ("data", "model", "_np_random")  # of a row, never copied
_HAND_QUAT = np.array([1.0, 0.0, 1.0, 0.0])


@dataclass(frozen=True)
class MetaWorldConfig:
    """Options of one Meta-World task."""

    name: str
    stop_on_success: bool = True  # Meta-World itself never ends an episode early
    max_steps: int = 500
    native: bool = True  # False: ask Meta-World's own code for every task
    threads: int = 0

    def build(self, num_envs: int) -> "MetaWorldEnv":
        """Return `num_envs` rows of the task; raises `ConfigError` for an unknown one."""
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        task = self.name.removeprefix("metaworld/")
        task = task if task in ALL_V3_ENVIRONMENTS else f"{task}-v3"
        if task not in ALL_V3_ENVIRONMENTS:
            raise ConfigError(f"Unknown task '{self.name}'.", expected=suggest(task, ALL_V3_ENVIRONMENTS))
        return MetaWorldEnv(task, ALL_V3_ENVIRONMENTS[task], num_envs, self)


@dataclass(frozen=True)
class Snapshot:
    """Everything that decides how one row goes on."""

    state: np.ndarray
    host: dict[str, Any]
    model: dict[str, np.ndarray]
    counters: dict[str, Any]
    random: Any


class MetaWorldEnv(RowsEnv):
    """Rows of one task; `host` is Meta-World's own environment, whose attributes are swapped per row."""

    def __init__(self, task: str, kind: Any, num_envs: int, config: MetaWorldConfig):
        super().__init__(num_envs, config.max_steps, config.stop_on_success)
        self.task, self.host = task, kind()
        self.host._freeze_rand_vec, self.host.seeded_rand_vec, self.host._set_task_called = False, True, True
        self.host._partially_observable = False
        vars(self.host).pop("sawyer_observation_space", None)  # made while goals were hidden, and clips them to zero
        self.model = self.host.model
        self._initial = {name: getattr(self.model, name).copy() for name in _MOVED}
        self.data = [mujoco.MjData(self.model) for _ in range(num_envs)]
        self._rows = [RowModel(self.model) for _ in range(num_envs)]
        self._models = np.array([row.address for row in self._rows], np.int64)
        self._datas = np.array([data._address for data in self.data], np.int64)
        self._plain = _freeze(self.host.__dict__, self.host.data)
        self._hosts: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        self._terms = NATIVE[task]() if config.native and task in NATIVE else None
        self._record = record_of(self.model, self._terms)
        self._scene = Scene.empty(self.model, self._record, self._terms, num_envs)
        space = self.host.sawyer_observation_space
        self._bounds = (space.low, space.high)
        self._obs = np.zeros((num_envs, 39))
        self._reach = np.stack([self.host.mocap_low, self.host.mocap_high]).astype(np.float64)
        self._crew = Crew(config.threads, num_envs, "metaworld")
        self._drawn = copy(self.model)  # resets move bodies of the model: it shows the row that is drawn
        self._cameras = Cameras(lambda visual, look: self._drawn)
        self.declare(self._make_spec())

    def render(  # ty: ignore[incompatible-method-override]  # one row, as `contracts.VectorEnv` has it
        self, row: int = 0, camera: str = "corner", width: int = 480, height: int = 360
    ) -> np.ndarray:
        """Return a picture [height,width,3] uint8 of one row."""
        for name in _MOVED:
            getattr(self._drawn, name)[...] = self._rows[row].own(name)
        picture = self._cameras.picture(self.data[row], camera, (width, height), fine=True)
        return picture[::-1, ::-1].copy() if camera.startswith("corner") else picture  # those hang upside down

    def close_extras(self, **kwargs: Any) -> None:
        self._crew.close()

    def expert(self) -> ScriptedPolicy:
        """Return the task's scripted demonstrator, bound to this environment."""
        return ScriptedPolicy(self.task, lambda: self._obs)

    @property
    def latest(self) -> np.ndarray:
        """The latest observations [E,39], float64: hand, gripper, objects, the same before, goal."""
        return self._obs

    def snapshot(self, row: int) -> Snapshot:
        """Return the full state of one row; `restore` resumes it bit for bit."""
        state = np.empty(mujoco.mj_stateSize(self.model, _FULL))
        mujoco.mj_getState(self.model, self.data[row], state, _FULL)
        return Snapshot(
            state,
            self._frozen(row),
            {name: self._rows[row].own(name).copy() for name in _MOVED},
            {name: getattr(self, name)[row].copy() for name in COUNTERS},
            self._random[row].bit_generator.state,
        )

    def _frozen(self, row: int) -> dict[str, Any]:
        frozen = _freeze(self._hosts[row], self.data[row]) | {"_obs_of_row": self._obs[row].copy()}
        if self._terms is not None:  # Meta-World's own code, which would remember it, was not asked
            frozen["_prev_obs"] = self._scene.previous[row].copy()
        return frozen

    def restore(self, row: int, snapshot: Snapshot) -> None:
        """Bring a row back to where a snapshot was taken, of any row of any such environment."""
        for name, value in snapshot.model.items():
            self._rows[row].own(name)[...] = value
        mujoco.mj_setState(self.model, self.data[row], snapshot.state, _FULL)
        host = _thaw(snapshot.host, self.model, self.data[row])
        self._obs[row] = host.pop("_obs_of_row")
        self._hosts[row] = host
        self._scene.start(row, self._hosts[row], self._obs[row])
        for name, value in snapshot.counters.items():
            getattr(self, name)[row] = value
        self._random[row] = generator(0)
        self._random[row].bit_generator.state = snapshot.random
        self._started = True

    # ------------------------------------------------------------ episodes

    def begin(self, rows: np.ndarray) -> None:
        """Let Meta-World reset each row, with the row's generator, from its pristine model."""
        for row in rows:
            for name, value in self._initial.items():
                getattr(self.model, name)[...] = value
            mujoco.mj_resetData(self.model, self.data[row])
            self.host.__dict__ = _thaw(self._plain, self.model, self.data[row]) | {"_np_random": self._random[row]}
            self._obs[row], _ = self.host.reset()
            self._hosts[row] = self.host.__dict__
            for name in _MOVED:
                self._rows[row].own(name)[...] = getattr(self.model, name)
            self._scene.start(row, self._hosts[row], self._obs[row])

    def advance(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        single = actions.astype(np.float32)  # Meta-World's action type: its rounding is part of the trajectory
        self._run(rows, single)
        if self._terms is not None:
            reward, success = self._judge_natively(self._terms, rows, single)
        else:
            reward, success = self._ask_host(rows, single)
        return reward, success, ran_away(self._scene.qpos, self._scene.qvel)

    def observe(self) -> Observations:
        words = self.task.removesuffix("-v3").replace("-", " ")  # tells tasks apart where one policy has several
        return {"observation.state": self._obs.astype(np.float32), "task": np.full(self.num_envs, words)}

    def _judge_natively(self, terms: Terms, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        whole = np.zeros((self.num_envs, 4), np.float32)
        whole[rows] = actions
        low, high = self._bounds
        now = terms.observe(self._scene)
        obs = np.concatenate([now, self._scene.previous, self._scene.target_m], 1)
        obs = np.minimum(np.maximum(obs, low), high)  # np.clip takes four times as long for so little
        self._obs[rows], self._scene.previous[rows] = obs[rows], now[rows]
        with np.errstate(invalid="ignore", divide="ignore"):
            return terms.judge(self._scene, obs, whole)

    def _ask_host(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reward, success = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        for action, row in zip(actions, rows, strict=True):
            self.host.__dict__ = self._hosts[row]
            obs = np.clip(self.host._get_obs(), *self._bounds)
            self.host._last_stable_obs = obs
            self._obs[row] = obs
            if np.isfinite(obs).all():
                given, info = self.host.evaluate_state(obs, action)
                reward[row], success[row] = given, info["success"] > 0.5
        return reward, success

    def _run(self, rows: np.ndarray, actions: np.ndarray) -> None:
        """Move the hands' targets, step the physics and record it; Meta-World's own code wants everything of it."""
        from robolearn.envs.exact.loop import FORWARD, KINEMATICS, run_rows_mocap

        scene, where, finish = self._scene, layout(), FORWARD if self._terms is None else KINEMATICS
        moves = (np.clip(actions[:, :3], -1, 1) * self.host.action_scale).astype(np.float64)
        fingers = (actions[:, 3:] * np.array([1, -1], np.float32)).astype(np.float64)
        out = (scene.qpos, scene.qvel, scene.bodies, scene.sites, scene.touch)

        def work(taken: np.ndarray) -> None:
            run_rows_mocap(
                where, self._record, rows, self._models, self._datas, self.host.frame_skip, finish,
                moves, self._reach, _HAND_QUAT, fingers, out, taken,
            )  # fmt: skip

        self._crew.run(work, len(rows))

    def _make_spec(self) -> Spec:
        return Spec(
            {"observation.state": Feature(shape=(39,), frame="world"), "task": Feature(kind="text", dtype="str")},
            ActionSpec(
                dim=4,
                kind="ee_delta",
                rotation="none",
                reference="previous_target",
                gripper="positive_closes",
                low=(-1.0,) * 4,
                high=(1.0,) * 4,
            ),
            rate_hz=_CONTROL_HZ,
            robot="sawyer",
            metadata={"env": f"metaworld/{self.task}"},
        )


@dataclass(frozen=True)
class _Place:
    """Where an attribute points into the physics: some of Meta-World's "constants" are views that move."""

    field: str
    start: int
    size: int


def _freeze(host: dict[str, Any], data: Any) -> dict[str, Any]:
    """Return a row's attributes without its physics: arrays copied, views as places."""
    kept = {key: value for key, value in host.items() if key not in _OWN}
    return {
        key: _place(value, data) if isinstance(value, np.ndarray) else _copied(value) for key, value in kept.items()
    }


def _thaw(frozen: dict[str, Any], model: Any, data: Any) -> dict[str, Any]:
    """Return attributes for a row: copies, views into its own physics."""
    host: dict[str, Any] = {"model": model, "data": data}
    for key, value in frozen.items():
        if isinstance(value, _Place):
            host[key] = getattr(data, value.field).reshape(-1)[value.start : value.start + value.size]
        else:
            host[key] = _copied(value)
    return host


def _place(value: np.ndarray, data: Any) -> Any:
    for name in _VIEWED:
        field = getattr(data, name)
        offset = value.ctypes.data - field.ctypes.data
        if value.size and 0 <= offset < field.nbytes and value.dtype == field.dtype:
            return _Place(name, offset // 8, value.size)
    return value.copy()


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray | list | dict) else value
