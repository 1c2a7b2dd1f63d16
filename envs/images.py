"""Pictures of rows: one renderer per thread and camera, made on first use."""

import threading
from collections.abc import Callable
from typing import Protocol

import mujoco
import numpy as np

from robolearn.envs.draw import Drawing
from robolearn.envs.task import Task
from robolearn.errors import EnvError, suggest

__all__ = ["Cameras", "Renderer"]


class Renderer(Protocol):
    """Pixels of one camera from a state whose kinematics are up to date."""

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return (height, width, 3) uint8."""


def _drawing(model: mujoco.MjModel, camera: str, width: int, height: int) -> Renderer:
    return Drawing(model, camera, width, height)


_RENDERERS: dict[str, tuple[bool, Callable[[mujoco.MjModel, str, int, int], Renderer]]] = {
    # name → (needs visual meshes, how to make one)
    "drawing": (False, _drawing),
}
_DEFAULT = "drawing"


class Cameras:
    """Renders states of a task. The visual scene is compiled when the first picture is asked for."""

    def __init__(self, task: Task, renderer: str):
        name = _DEFAULT if renderer == "auto" else renderer
        if name not in _RENDERERS:
            raise EnvError(f"Unknown renderer '{renderer}'.", expected=suggest(renderer, ["auto", *_RENDERERS]))
        self._task, (self._visual, self._make) = task, _RENDERERS[name]
        self._model: mujoco.MjModel | None = None
        self._lock, self._local = threading.Lock(), threading.local()

    def picture(self, data: mujoco.MjData, camera: str, width: int, height: int) -> np.ndarray:
        """Return what `camera` sees of the state `data` of the task's lean scene."""
        local = self._local
        if not hasattr(local, "data"):
            local.data, local.renderers = mujoco.MjData(self._scene()), {}
        model, pose = self._scene(), local.data
        key = (camera, width, height)
        if key not in local.renderers:
            names = [model.camera(index).name for index in range(model.ncam)]
            if camera not in names:
                raise EnvError(f"No camera '{camera}'.", expected=suggest(camera, names))
            local.renderers[key] = self._make(model, camera, width, height)
        pose.qpos[:], pose.mocap_pos[:], pose.mocap_quat[:] = data.qpos, data.mocap_pos, data.mocap_quat
        mujoco.mj_kinematics(model, pose)
        mujoco.mj_camlight(model, pose)
        return local.renderers[key].render(pose)

    def _scene(self) -> mujoco.MjModel:
        with self._lock:
            if self._model is None:
                self._model = self._task.scene(self._visual).compile()
            return self._model
