"""Any gymnasium environment by its id (`gym/Pusher-v5`), as rows of one vector environment.

Repaired on the way: episodes depend on their seed even where an environment draws from numpy's global
generator; the horizon is `truncated`, never `terminated`; success has one name; observations are float32.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import gymnasium
import mujoco
import numpy as np

from robolearn.contracts import Observations
from robolearn.envs.base import RowsEnv
from robolearn.envs.gym_experts import EXPERTS, PickCube
from robolearn.errors import EnvError, MissingLibraryError, suggest
from robolearn.spec import ActionSpec, Feature, Spec

__all__ = ["GymConfig", "GymEnv"]

_PACKAGES = ("gym_aloha", "gym_hil", "gym_pusht")  # whose ids are registered by importing them
_DEFAULTS = {"gym_hil/PandaPickCubeBase-v0": {"random_block_position": True}}  # else every episode starts the same
_SUCCESS = ("is_success", "success", "succeed")
_LONGEST = 1000  # steps of an episode where neither config nor environment states a horizon
_STATE = ("agent_pos", "state", "observation", "observation.state")


@dataclass(frozen=True)
class GymConfig:
    """Options of one gymnasium environment."""

    name: str  # gym/<id>
    options: Mapping[str, Any] = field(default_factory=dict)  # for gymnasium.make
    max_steps: int | None = None  # None: the environment's own horizon
    rate_hz: float | None = None  # None: what its metadata says
    success_reward: float | None = None  # a step that earns this much succeeds, where `info` has no success

    def build(self, num_envs: int) -> "GymEnv":
        """Return `num_envs` rows; raises `EnvError` for an unknown id or one without continuous actions."""
        return GymEnv(self, [_make(self.name.removeprefix("gym/"), self.options) for _ in range(num_envs)])


class GymEnv(RowsEnv):
    """Rows of single gymnasium environments, stepped one after the other."""

    def __init__(self, config: GymConfig, rows: list[gymnasium.Env]):
        horizon = rows[0].spec.max_episode_steps if rows[0].spec else None
        super().__init__(len(rows), config.max_steps or horizon or _LONGEST)
        self.config, self.rows = config, [row.unwrapped for row in rows]
        self._draws: list[Any] = [np.random.RandomState(row).get_state() for row in range(len(rows))]
        features = _features(rows[0].observation_space)
        self._latest: Observations = {
            key: np.zeros((len(rows), *feature.shape), feature.dtype) for key, feature in features.items()
        }
        self.declare(_spec(config, rows[0], features))

    def begin(self, rows: np.ndarray) -> None:
        for row in rows:
            seed = self._seed[row]
            if seed is not None:
                self._draws[row] = np.random.RandomState(seed % 2**32).get_state()
            with self._own_global_random(row):
                obs, _ = self.rows[row].reset(seed=seed)
            self._keep(row, obs)

    def advance(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reward, success, runaway = np.zeros(self.num_envs), np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for row, action in zip(rows, actions, strict=True):
            space = self.rows[row].action_space
            with self._own_global_random(row):
                obs, earned, ended, _, info = self.rows[row].step(action.reshape(space.shape).astype(space.dtype))
            reward[row], self._ended[row] = float(earned), bool(ended)
            success[row] = self._succeeds(info, float(earned))
            runaway[row] = not self._keep(row, obs)
        return reward, success, runaway

    def observe(self) -> Observations:
        return {key: value.copy() for key, value in self._latest.items()}

    def render(self, row: int = 0) -> np.ndarray:  # ty: ignore[incompatible-method-override]  # one row
        """Return the environment's own picture of one row."""
        picture = self.rows[row].render()
        if not isinstance(picture, np.ndarray):
            raise EnvError(
                f"{self.config.name} gives no pictures.", do="options={render_mode: rgb_array}, and an OpenGL library"
            )
        return picture

    def expert(self) -> PickCube:
        """Return the scripted demonstrator, bound to this environment; few environments have one."""
        name = self.config.name.removeprefix("gym/")
        if name not in EXPERTS:
            raise EnvError(f"No scripted expert for '{name}'.", expected=", ".join(EXPERTS))
        return EXPERTS[name](self.observe, self.num_envs)

    def close_extras(self, **kwargs: Any) -> None:
        for row in self.rows:
            row.close()

    def _succeeds(self, info: Mapping[str, Any], earned: float) -> bool:
        for name in _SUCCESS:
            if name in info:
                return bool(info[name])
        return self.config.success_reward is not None and earned >= self.config.success_reward

    def _keep(self, row: int, obs: Any) -> bool:
        """Store a row's observation; returns whether it is finite."""
        finite = True
        for key, value in _flatten(obs).items():
            value = np.asarray(value)
            if value.dtype.kind == "f":
                finite &= bool(np.isfinite(value).all())
                value = np.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0)
            self._latest[key][row] = value.reshape(self._latest[key].shape[1:])
        return finite

    @contextmanager
    def _own_global_random(self, row: int):
        """Give numpy's global generator to one row, and back."""
        outside = np.random.get_state()  # noqa: NPY002
        np.random.set_state(self._draws[row])  # noqa: NPY002
        try:
            yield
        finally:
            self._draws[row] = np.random.get_state()  # noqa: NPY002
            np.random.set_state(outside)  # noqa: NPY002


def _make(name: str, options: Mapping[str, Any]) -> gymnasium.Env:
    package = name.split("/")[0]
    if package in _PACKAGES:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise MissingLibraryError(
                f"'{name}' needs the library '{error.name}'.", do="pip install 'robolearn[sim]'"
            ) from error
    if name not in gymnasium.registry:
        raise EnvError(
            f"Unknown gymnasium id '{name}'.",
            expected=suggest(name, gymnasium.registry),
            do="import the package that registers it first",
        )
    with _lazy_pictures():
        return gymnasium.make(name, disable_env_checker=True, **{**_DEFAULTS.get(name, {}), **options})


class _LazyRenderer:
    """Stands in for `mujoco.Renderer`: it needs an OpenGL library only when a picture is asked for."""

    def __init__(self, model: Any, height: int = 240, width: int = 320, max_geom: int = 10000):
        self._arguments, self._renderer = (model, height, width, max_geom), None

    def update_scene(self, data: Any, camera: Any = -1, scene_option: Any = None) -> None:
        self._real().update_scene(data, camera, scene_option)

    def render(self) -> np.ndarray:
        if self._renderer is None:  # no scene yet
            return np.zeros((*self._arguments[1:3], 3), np.uint8)
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()

    def _real(self) -> Any:
        if self._renderer is None:
            try:
                self._renderer = _RENDERER(*self._arguments)
            except mujoco.FatalError as error:
                raise EnvError(
                    "Pictures of this environment need OpenGL.",
                    found=str(error),
                    do="install libegl1 and set MUJOCO_GL=egl, or libosmesa6 and MUJOCO_GL=osmesa",
                ) from error
        return self._renderer


_RENDERER = mujoco.Renderer


@contextmanager
def _lazy_pictures():
    """Let environments that make a renderer in their constructor start without an OpenGL library."""
    mujoco.Renderer = _LazyRenderer
    try:
        yield
    finally:
        mujoco.Renderer = _RENDERER


def _flatten(obs: Any, prefix: str = "") -> dict[str, Any]:
    """Return observation keys of ours → arrays."""
    if not isinstance(obs, Mapping):
        return {_key(prefix, np.asarray(obs)): obs}
    flat: dict[str, Any] = {}
    for name, value in obs.items():
        flat |= _flatten(value, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _key(name: str, value: np.ndarray) -> str:
    if value.dtype == np.uint8 and value.ndim == 3:
        return f"observation.images.{name.rsplit('.', 1)[-1] or 'main'}"
    if not name or name in _STATE:
        return "observation.state"
    return f"observation.{name}"


def _features(space: gymnasium.Space) -> dict[str, Feature]:
    features = {}
    for key, value in _flatten(_example(space)).items():
        image = key.startswith("observation.images.")
        shape = value.shape if value.ndim else (1,)
        features[key] = Feature(kind="image" if image else "signal", shape=shape, dtype="uint8" if image else "float32")
    return features


def _example(space: gymnasium.Space) -> Any:
    if isinstance(space, gymnasium.spaces.Dict):
        return {name: _example(part) for name, part in space.spaces.items()}
    if isinstance(space, gymnasium.spaces.Box):
        return np.zeros(space.shape, space.dtype)
    if isinstance(space, gymnasium.spaces.Discrete):
        return np.zeros((1,), np.float32)
    raise EnvError("An observation of another kind.", found=space, expected="Box, Discrete or Dict of them")


def _spec(config: GymConfig, env: gymnasium.Env, features: dict[str, Feature]) -> Spec:
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded():
        raise EnvError(f"{config.name} has no bounded continuous actions.", found=space, expected="a bounded Box")
    rate_hz = config.rate_hz or env.metadata.get("render_fps") or 30.0
    low, high = space.low.ravel().astype(float), space.high.ravel().astype(float)
    action = ActionSpec(dim=len(low), low=tuple(low.tolist()), high=tuple(high.tolist()))
    return Spec(features, action, rate_hz=float(rate_hz), metadata={"env": config.name})
