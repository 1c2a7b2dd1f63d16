"""LIBERO's tasks inside a worker process of LIBERO's own Python (3.8 or later), without this library.

Episode i starts from the i-th of the task's stored initial states. Pictures are turned by half a turn, as the
published policies expect them. An episode begins with ten idle steps, while the objects settle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["Rows", "make"]

_IDLE = np.array([0.0] * 6 + [-1.0])
_IDLE_STEPS = 10
_CAMERAS = {"agentview_image": "agentview", "robot0_eye_in_hand_image": "wrist"}
_STATE = ("x", "y", "z", "turn_x", "turn_y", "turn_z", "finger_left", "finger_right")


class Rows:
    """Rows of one LIBERO task, each with a simulator of its own, stepped one after the other."""

    def __init__(self, suite: str, task_id: int, rows: int, image_px: int, max_steps: int):
        from libero.libero import benchmark, get_libero_path  # ty: ignore[import-not-found]
        from libero.libero.envs import OffScreenRenderEnv  # ty: ignore[import-not-found]

        tasks = benchmark.get_benchmark_dict()[suite]()
        task = tasks.get_task(task_id)
        file = os.path.join(get_libero_path("bddl_files"), task.problem_folder, task.bddl_file)
        size = {"camera_heights": image_px, "camera_widths": image_px}
        self.rows = [OffScreenRenderEnv(bddl_file_name=file, **size) for _ in range(rows)]
        self.starts, self.instruction = tasks.get_task_init_states(task_id), task.language
        self.max_steps, self.image_px = max_steps, image_px
        self.steps, self.done = np.zeros(rows, np.int64), np.ones(rows, bool)
        self.success, self.diverged = np.zeros(rows, bool), np.zeros(rows, bool)
        self.latest = [self._nothing() for _ in range(rows)]

    def reset(self, seed: list[int], options: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict]:
        """Start the episodes of the mask from their stored states."""
        for row in np.flatnonzero(options["reset_mask"]):
            env, number = self.rows[row], int(options["episode"][row])
            env.seed(seed[row])
            env.reset()
            given = env.set_init_state(self.starts[max(number, 0) % len(self.starts)])
            for _ in range(_IDLE_STEPS):
                given, _, _, _ = env.step(_IDLE)
            self.latest[row] = self._observed(given)
            self.steps[row], self.done[row], self.success[row], self.diverged[row] = 0, False, False, False
        return self._obs(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        """Advance the rows that are not done."""
        reward = np.zeros(len(self.rows))
        for row in np.flatnonzero(~self.done):
            if not np.isfinite(actions[row]).all():
                self.diverged[row] = True
            else:
                given, reward[row], self.success[row], _ = self.rows[row].step(np.clip(actions[row], -1.0, 1.0))
                self.latest[row] = self._observed(given)
                self.steps[row] += 1
        terminated = self.success | self.diverged
        truncated = (self.steps >= self.max_steps) & ~terminated
        self.done = terminated | truncated
        return self._obs(), reward, terminated, truncated, {"success": self.success, "diverged": self.diverged}

    def render(self, row: int = 0) -> np.ndarray:
        """Return the latest picture of the agent's view."""
        return self.latest[row]["observation.images.agentview"]

    def _nothing(self) -> dict[str, np.ndarray]:
        black = np.zeros((self.image_px, self.image_px, 3), np.uint8)
        images = {f"observation.images.{name}": black for name in _CAMERAS.values()}
        return {"observation.state": np.zeros(8, np.float32), **images}

    def _observed(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        quat = np.asarray(given["robot0_eef_quat"], float)  # xyzw
        turn = 2.0 * np.arccos(np.clip(quat[3], -1.0, 1.0))
        axis = quat[:3] / max(float(np.linalg.norm(quat[:3])), 1e-9)
        state = np.concatenate([given["robot0_eef_pos"], turn * axis, given["robot0_gripper_qpos"]])
        images = {f"observation.images.{name}": given[key][::-1, ::-1] for key, name in _CAMERAS.items()}
        return {"observation.state": state.astype(np.float32), **images}

    def _obs(self) -> dict[str, np.ndarray]:
        stacked = {key: np.stack([row[key] for row in self.latest]) for key in self.latest[0]}
        return {**stacked, "task": np.full(len(self.rows), self.instruction)}


def make(options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the rows of one task and what they are."""
    size, image = options["image_px"], {"kind": "image", "dtype": "uint8"}
    rows = Rows(options["suite"], options["task"], options["rows"], size, options["max_steps"])
    observations = {
        "observation.state": {"shape": [8], "names": list(_STATE), "frame": "world"},
        "task": {"kind": "text", "dtype": "str"},
    }
    for name in _CAMERAS.values():
        observations[f"observation.images.{name}"] = {**image, "shape": [size, size, 3]}
    action = {
        "dim": 7,
        "kind": "ee_delta",
        "rotation": "axis_angle",
        "reference": "measured",
        "gripper": "positive_closes",
        "low": [-1.0] * 7,
        "high": [1.0] * 7,
    }
    spec = {"observations": observations, "action": action, "rate_hz": 20.0, "robot": "Panda"}
    return rows, {"spec": spec, "max_episode_steps": options["max_steps"]}
