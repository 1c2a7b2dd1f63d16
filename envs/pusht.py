"""Push-T of gym-pusht, many rows at once, with the keypoints of the published demonstrations.

Scene, reset and physics are gym-pusht's own; the control loop is the same arithmetic without its
observation, contact and coverage overhead. Seeds start the same episodes as `gym_pusht/PushT-v0`.
"""

import math
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.contracts import Observations
from robolearn.envs.base import RowsEnv
from robolearn.spec import ActionSpec, Feature, Spec

__all__ = ["KEYPOINTS_PX", "PushTConfig", "PushTEnv", "coverage", "keypoints"]

# The nine points of the block, in its own frame, that the demonstrations' `keypoint` array follows.
KEYPOINTS_PX = np.array(
    [
        [9.269787, 90.04097],
        [-60.98347, -1.186729],
        [60.912758, -1.393364],
        [-0.270504, 25.543625],
        [-14.064926, 122.815857],
        [39.002739, 32.857403],
        [-39.966415, 32.729656],
        [-16.824345, 62.863178],
        [23.541462, -1.700288],
    ]
)
_BAR = ((-60.0, 0.0), (60.0, 0.0), (60.0, 30.0), (-60.0, 30.0))
_STEM = ((-15.0, 30.0), (15.0, 30.0), (15.0, 120.0), (-15.0, 120.0))
_AREA_PX2 = 120.0 * 30.0 + 30.0 * 90.0
_SUCCESS = 0.95
_STIFFNESS, _DAMPING, _DT_S, _SUBSTEPS = 100.0, 20.0, 0.01, 10
_TASK = "Push the T-shaped block onto the T-shaped target."
_KEYPOINT_NAMES = tuple(f"keypoint{index}_{axis}" for index in range(9) for axis in "xy")


@dataclass(frozen=True)
class PushTConfig:
    """Options of Push-T."""

    name: str = "pusht"
    images: bool = False  # observation.images.top, 96×96
    block_pose: bool = False  # observation.block_pose: x, y [px], angle [rad]
    max_steps: int = 300

    def build(self, num_envs: int) -> "PushTEnv":
        """Return `num_envs` rows."""
        return PushTEnv(self, num_envs)


class PushTEnv(RowsEnv):
    """`contracts.VectorEnv`; actions are target positions of the agent [px], reward min(coverage/0.95, 1)."""

    def __init__(self, config: PushTConfig, num_envs: int):
        super().__init__(num_envs, config.max_steps)
        self.config, self.rows = config, [_scene() for _ in range(num_envs)]
        self.declare(_spec(config))
        self._pose = np.zeros((num_envs, 5))  # agent x, y; block x, y, angle
        self._coverage = np.zeros(num_envs)
        self._images = np.zeros((num_envs, 96, 96, 3), np.uint8) if config.images else None

    def begin(self, rows: np.ndarray) -> None:
        for row in rows:
            self.rows[row].reset(seed=self._seed[row])
            for shape in self.rows[row].space.shapes:
                shape.collision_type = 1  # away from type 0, whose contacts gym-pusht counts in Python
            self._look(row)

    def advance(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        for row, action in zip(rows, actions, strict=True):
            _push(self.rows[row], action)
            self._look(row)
        runaway = ~np.all(np.isfinite(self._pose), 1)
        return np.minimum(self._coverage / _SUCCESS, 1.0), np.asarray(self._coverage >= _SUCCESS), runaway

    def observe(self) -> Observations:
        obs: Observations = {
            "observation.state": self._pose[:, :2].astype(np.float32),
            "observation.environment_state": keypoints(self._pose[:, 2:]).reshape(-1, 18).astype(np.float32),
            "task": np.full(self.num_envs, _TASK),
        }
        if self.config.block_pose:
            pose = self._pose[:, 2:].copy()
            pose[:, 2] %= 2 * np.pi
            obs["observation.block_pose"] = pose.astype(np.float32)
        if self._images is not None:
            obs["observation.images.top"] = self._images.copy()
        return obs

    def info(self) -> dict[str, Any]:
        return super().info() | {"coverage": self._coverage.copy()}

    def render(self, row: int = 0) -> np.ndarray:  # ty: ignore[incompatible-method-override]  # one row
        """Return gym-pusht's own picture of one row, 512×512."""
        return self._picture(row, 512)

    # ------------------------------------------------------------ inside

    def _look(self, row: int) -> None:
        scene = self.rows[row]
        self._pose[row] = (*scene.agent.position, *scene.block.position, scene.block.angle)
        self._coverage[row] = coverage(*self._pose[row, 2:])
        if self._images is not None:
            self._images[row] = self._picture(row, 96)

    def _picture(self, row: int, size_px: int) -> np.ndarray:
        scene = self.rows[row]
        return scene._get_img(scene._draw(), width=size_px, height=size_px)


def keypoints(pose: np.ndarray) -> np.ndarray:
    """Return the nine keypoints [n,9,2] px of block poses [n,3] (x, y [px], angle [rad])."""
    cos, sin = np.cos(pose[:, 2:]), np.sin(pose[:, 2:])
    x, y = KEYPOINTS_PX.T
    return np.stack([pose[:, :1] + cos * x - sin * y, pose[:, 1:2] + sin * x + cos * y], -1)


def coverage(x_px: float, y_px: float, angle_rad: float) -> float:
    """Return which part of the goal the block covers, from 0 to 1."""
    block = _placed(x_px, y_px, angle_rad)
    return sum(_overlap(one, other) for one in block for other in _GOAL_PARTS) / _AREA_PX2


_Polygon = list[tuple[float, float]]


@dataclass(frozen=True)
class _Part:
    """A convex part of a block in the world: its corners and a circle around them [px]."""

    corners: _Polygon
    centre: tuple[float, float]
    radius: float


def _placed(x: float, y: float, angle_rad: float) -> tuple[_Part, ...]:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    parts = []
    for polygon, radius in ((_BAR, 61.9), (_STEM, 47.5)):
        corners = [(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in polygon]
        (ax, ay), (cx, cy) = corners[0], corners[2]
        parts.append(_Part(corners, ((ax + cx) / 2, (ay + cy) / 2), radius))
    return tuple(parts)


def _overlap(one: _Part, other: _Part) -> float:
    """Return the area of the intersection of two convex polygons of one turning sense (Sutherland-Hodgman 1974)."""
    if math.dist(one.centre, other.centre) > one.radius + other.radius:
        return 0.0
    points, window = one.corners, other.corners
    for edge in range(len(window)):
        if not points:
            return 0.0
        (ax, ay), (bx, by) = window[edge - 1], window[edge]
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in points]
        kept: _Polygon = []
        for index, (x, y) in enumerate(points):
            side, before = sides[index], sides[index - 1]
            if (side >= 0.0) != (before >= 0.0):
                (px, py), part = points[index - 1], before / (before - side)
                kept.append((px + part * (x - px), py + part * (y - py)))
            if side >= 0.0:
                kept.append((x, y))
        points = kept
    area = sum(points[i - 1][0] * points[i][1] - points[i][0] * points[i - 1][1] for i in range(len(points)))
    return abs(area) / 2


def _push(scene: Any, target: np.ndarray) -> None:
    """Track `target` [px] for one control step: proportional-derivative steps of 10 ms, as gym-pusht's."""
    agent, space = scene.agent, scene.space
    (x, y), (speed_x, speed_y) = agent.position, agent.velocity
    goal_x, goal_y = float(target[0]), float(target[1])
    for _ in range(_SUBSTEPS):
        speed_x += (_STIFFNESS * (goal_x - x) + _DAMPING * (0.0 - speed_x)) * _DT_S
        speed_y += (_STIFFNESS * (goal_y - y) + _DAMPING * (0.0 - speed_y)) * _DT_S
        agent.velocity = (speed_x, speed_y)
        space.step(_DT_S)
        x, y = x + speed_x * _DT_S, y + speed_y * _DT_S  # how a kinematic body moves


_GOAL_PARTS = _placed(256.0, 256.0, math.pi / 4)


def _scene() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        from gym_pusht.envs.pusht import PushTEnv as Scene  # it imports pygame

    return Scene(obs_type="state")


def _spec(config: PushTConfig) -> Spec:
    observations = {
        "observation.state": Feature(shape=(2,), unit="px", frame="pusht", names=("agent_x", "agent_y")),
        "observation.environment_state": Feature(shape=(18,), unit="px", frame="pusht", names=_KEYPOINT_NAMES),
        "task": Feature(kind="text", dtype="str"),
    }
    if config.block_pose:
        names = ("block_x_px", "block_y_px", "block_angle_rad")
        observations["observation.block_pose"] = Feature(shape=(3,), frame="pusht", names=names)
    if config.images:
        observations["observation.images.top"] = Feature(kind="image", shape=(96, 96, 3), dtype="uint8")
    action = ActionSpec(
        dim=2,
        kind="ee_pose",
        names=("target_x", "target_y"),
        unit="px",
        frame="pusht",
        rotation="none",
        low=(0.0, 0.0),
        high=(512.0, 512.0),
    )
    return Spec(observations, action, rate_hz=10.0, metadata={"env": "pusht"})
