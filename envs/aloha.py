"""gym-aloha's two bimanual tasks in batches: its models, episodes, rewards and trajectories.

Repaired: actions are bounded by the actuators (gym-aloha says ±1 for joint angles), a state observation
needs no OpenGL, episodes depend on their seed and nothing else.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import mujoco
import numpy as np

from robolearn.contracts import Observations
from robolearn.envs.assets import package_file
from robolearn.envs.base import RowsEnv, ran_away
from robolearn.envs.images import Cameras
from robolearn.errors import ConfigError, suggest
from robolearn.spec import ActionSpec, Feature, Spec

if TYPE_CHECKING:
    from robolearn.envs.aloha_expert import AlohaExpert

__all__ = ["AlohaConfig", "AlohaEnv"]

_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
NAMES = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in (*_JOINTS, "gripper"))
_START = (0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.02239, -0.02239) * 2  # gym_aloha.constants.START_ARM_POSE
_CLOSED_M, _OPEN_M = 0.01844, 0.058  # finger positions that gym-aloha calls 0 and 1
_SUBSTEPS, _RATE_HZ = 10, 50.0
_SUCCESS_REWARD = 4.0


@dataclass(frozen=True)
class _Kind:
    """One of the tasks: model, objects, where they start (boxes of the reset), instruction."""

    model: str
    objects: tuple[str, ...]
    low_m: tuple[tuple[float, float, float], ...]
    high_m: tuple[tuple[float, float, float], ...]
    instruction: str


KINDS = {
    "transfer_cube": _Kind(
        "bimanual_viperx_transfer_cube.xml",
        ("box",),
        ((0.0, 0.4, 0.05),),
        ((0.2, 0.6, 0.05),),
        "hand the red cube from the right arm to the left arm",
    ),
    "insertion": _Kind(
        "bimanual_viperx_insertion.xml",
        ("peg", "socket"),
        ((0.1, 0.4, 0.05), (-0.2, 0.4, 0.05)),
        ((0.2, 0.6, 0.05), (-0.1, 0.6, 0.05)),
        "insert the red peg into the blue socket",
    ),
}


@dataclass(frozen=True)
class AlohaConfig:
    """Options of one ALOHA task."""

    name: str  # aloha/transfer_cube or aloha/insertion
    reward: Literal["staged", "sparse"] = "staged"  # gym-aloha's 0 to 4, or success
    cameras: tuple[str, ...] = ()
    image_px: tuple[int, int] = (640, 480)  # width, height
    renderer: str = "auto"
    max_steps: int = 300
    threads: int = 0

    def build(self, num_envs: int) -> "AlohaEnv":
        """Return `num_envs` rows; raises `ConfigError` for an unknown task."""
        if self.name.removeprefix("aloha/") not in KINDS:
            raise ConfigError(f"Unknown task '{self.name}'.", expected=suggest(self.name.removeprefix("aloha/"), KINDS))
        return AlohaEnv(self, num_envs)


class AlohaEnv(RowsEnv):
    """Actions are 12 joint positions [rad] and two gripper openings (0 closed, 1 open)."""

    def __init__(self, config: AlohaConfig, num_envs: int):
        super().__init__(num_envs, config.max_steps)
        self.config, self.kind = config, KINDS[config.name.removeprefix("aloha/")]
        self._file = str(package_file("gym_aloha", f"assets/{self.kind.model}"))
        self.model = mujoco.MjModel.from_xml_path(self._file)
        self.data = [mujoco.MjData(self.model) for _ in range(num_envs)]
        self._reward_of = _Transfer(self.model) if len(self.kind.objects) == 1 else _Insertion(self.model)
        self._threads = min(config.threads or len(os.sched_getaffinity(0)), num_envs)
        self._cameras = Cameras(
            lambda visual, look: mujoco.MjModel.from_xml_path(self._file), config.renderer, config.threads
        )
        self._pool: ThreadPoolExecutor | None = None
        self._qpos, self._qvel = np.zeros((num_envs, self.model.nq)), np.zeros((num_envs, self.model.nv))
        self._reward = np.zeros(num_envs)
        self._ctrl = np.zeros((num_envs, 16))
        width, height = config.image_px
        self._images = {camera: np.zeros((num_envs, height, width, 3), np.uint8) for camera in config.cameras}
        self.declare(self._make_spec())

    def begin(self, rows: np.ndarray) -> None:
        for row in rows:
            data, seed = self.data[row], self._seed[row]
            seed = int(self._random[row].integers(2**31)) if seed is None else seed
            mujoco.mj_resetData(self.model, data)
            data.qpos[:16], data.ctrl[:] = _START, _START
            draw = np.random.RandomState(seed % 2**32)  # gym-aloha's generator: the same seed, the same episode
            for index, (low, high) in enumerate(zip(self.kind.low_m, self.kind.high_m, strict=True)):
                start = 16 + 7 * index
                data.qpos[start : start + 7] = (*draw.uniform(low, high), 1, 0, 0, 0)
            self._settle(data)
            self._look(row)
        self._draw(rows)

    def advance(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self._ctrl[rows] = _to_ctrl(actions)
        self._parallel(rows)
        self._draw(rows)
        success = self._reward >= _SUCCESS_REWARD
        reward = self._reward.copy() if self.config.reward == "staged" else success.astype(float)
        return reward, success, ran_away(self._qpos, self._qvel)

    def observe(self) -> Observations:
        obs: Observations = {
            "observation.state": _finite(_to_state(self._qpos)),
            "observation.environment_state": _finite(self._qpos[:, 16:]),
            "task": np.full(self.num_envs, self.kind.instruction),
        }
        for camera, images in self._images.items():
            obs[f"observation.images.{camera}"] = images.copy()
        return obs

    def render(  # ty: ignore[incompatible-method-override]  # one row, as `contracts.VectorEnv` has it
        self, row: int = 0, camera: str = "angle", width: int = 480, height: int = 360
    ) -> np.ndarray:
        """Return a picture [height,width,3] uint8 of one row."""
        return self._cameras.picture(self.data[row], camera, (width, height), fine=True)

    def expert(self) -> "AlohaExpert":
        """Return the scripted demonstrator, bound to this environment."""
        from robolearn.envs.aloha_expert import AlohaExpert

        return AlohaExpert(self)

    def close_extras(self, **kwargs: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._cameras.close()

    # ------------------------------------------------------------ inside

    def _settle(self, data: mujoco.MjData) -> None:
        """Compute everything that follows from a state without actuation, as dm_control does after a reset."""
        flags = self.model.opt.disableflags
        self.model.opt.disableflags = flags | int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
        mujoco.mj_forward(self.model, data)
        self.model.opt.disableflags = flags

    def _look(self, row: int) -> None:
        data = self.data[row]
        self._qpos[row], self._qvel[row] = data.qpos, data.qvel
        touching = data.contact.geom
        self._reward[row] = self._reward_of(set(map(tuple, touching.tolist())))

    def _draw(self, rows: np.ndarray) -> None:
        if self._images and len(rows):
            self._cameras.fill(self._images, rows, [self.data[row] for row in rows])

    def _work(self, rows: np.ndarray) -> None:
        for row in rows:
            data = self.data[row]
            data.ctrl[:] = self._ctrl[row]
            mujoco.mj_step(self.model, data, _SUBSTEPS)
            mujoco.mj_step1(self.model, data)  # contacts of the present state
            self._look(row)

    def _parallel(self, rows: np.ndarray) -> None:
        if self._threads == 1 or len(rows) < 2:
            self._work(rows)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="aloha")
        list(self._pool.map(self._work, np.array_split(rows, self._threads)))

    def _make_spec(self) -> Spec:
        limits = self.model.actuator_ctrlrange
        low = np.concatenate([limits[:6, 0], [0.0], limits[8:14, 0], [0.0]])
        high = np.concatenate([limits[:6, 1], [1.0], limits[8:14, 1], [1.0]])
        pose = tuple(f"{name}_{part}" for name in self.kind.objects for part in ("x", "y", "z", "qw", "qx", "qy", "qz"))
        observations = {
            "observation.state": Feature(shape=(14,), unit="rad, share", names=NAMES),
            "observation.environment_state": Feature(shape=(len(pose),), frame="world", names=pose),
            "task": Feature(kind="text", dtype="str"),
        }
        width, height = self.config.image_px
        for camera in self.config.cameras:
            observations[f"observation.images.{camera}"] = Feature(
                kind="image", shape=(height, width, 3), dtype="uint8"
            )
        action = ActionSpec(
            dim=14,
            kind="joint_position",
            names=NAMES,
            unit="rad, share",
            rotation="none",
            gripper="positive_opens",
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
        )
        return Spec(observations, action, rate_hz=_RATE_HZ, robot="aloha", metadata={"env": self.config.name})


class _Touch:
    """Which pairs of geometries count, by name, in MuJoCo's order."""

    def __init__(self, model: mujoco.MjModel):
        self._model = model

    def pair(self, first: str, second: str) -> tuple[int, int]:
        return (self._model.geom(first).id, self._model.geom(second).id)


class _Transfer:
    """gym_aloha.tasks.sim.TransferCubeTask.get_reward."""

    def __init__(self, model: mujoco.MjModel):
        touch = _Touch(model)
        self._left = touch.pair("red_box", "vx300s_left/10_left_gripper_finger")
        self._right = touch.pair("red_box", "vx300s_right/10_right_gripper_finger")
        self._table = touch.pair("red_box", "table")

    def __call__(self, touching: set[tuple[int, ...]]) -> float:
        lifted = self._table not in touching
        if self._left in touching:
            return 4.0 if lifted else 3.0
        if self._right in touching:
            return 2.0 if lifted else 1.0
        return 0.0


class _Insertion:
    """gym_aloha.tasks.sim.InsertionTask.get_reward."""

    def __init__(self, model: mujoco.MjModel):
        touch, walls = _Touch(model), [f"socket-{index}" for index in range(1, 5)]
        self._right = touch.pair("red_peg", "vx300s_right/10_right_gripper_finger")
        self._left = {touch.pair(wall, "vx300s_left/10_left_gripper_finger") for wall in walls}
        self._table = {touch.pair(name, "table") for name in ("red_peg", *walls)}
        self._meet = {touch.pair("red_peg", wall) for wall in walls}
        self._pin = touch.pair("red_peg", "pin")

    def __call__(self, touching: set[tuple[int, ...]]) -> float:
        if self._pin in touching:
            return 4.0
        lifted = not self._table & touching
        if self._meet & touching and lifted:
            return 3.0
        if self._right in touching and self._left & touching:
            return 2.0 if lifted else 1.0
        return 0.0


def _to_ctrl(actions: np.ndarray) -> np.ndarray:
    fingers = actions[:, [6, 13]] * (_OPEN_M - _CLOSED_M) + _CLOSED_M
    left, right = fingers[:, :1], fingers[:, 1:]
    return np.concatenate([actions[:, :6], left, -left, actions[:, 7:13], right, -right], 1)


def _to_state(qpos: np.ndarray) -> np.ndarray:
    grip = (qpos[:, [6, 14]] - _CLOSED_M) / (_OPEN_M - _CLOSED_M)
    return np.concatenate([qpos[:, :6], grip[:, :1], qpos[:, 8:14], grip[:, 1:]], 1)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
