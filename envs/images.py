"""Pictures of rows: one renderer per camera, made on first use and shared by the threads."""

import threading
from collections.abc import Callable
from typing import Protocol

import mujoco
import numpy as np

from robolearn.envs.draw import Drawing
from robolearn.errors import EnvError, suggest

__all__ = ["Cameras", "Renderer"]


class Renderer(Protocol):
    """Pixels of one camera from a state whose kinematics are up to date."""

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return (height, width, 3) uint8."""


def _drawing(model: mujoco.MjModel, camera: str, width: int, height: int, fine: bool) -> Renderer:
    return Drawing(model, camera, width, height)


def _raster(model: mujoco.MjModel, camera: str, width: int, height: int, fine: bool) -> Renderer:
    from robolearn.envs.raster import Rasteriser, RasterOptions  # it imports a compiler

    options = RasterOptions(samples=2, shadows=True) if fine else RasterOptions()
    return Rasteriser(model, camera, width, height, options)


def _opengl(model: mujoco.MjModel, camera: str, width: int, height: int, fine: bool) -> Renderer:
    return _gl(model, camera, width, height, fast=False)


def _opengl_fast(model: mujoco.MjModel, camera: str, width: int, height: int, fine: bool) -> Renderer:
    return _gl(model, camera, width, height, fast=not fine)


def _gl(model: mujoco.MjModel, camera: str, width: int, height: int, fast: bool) -> Renderer:
    from robolearn.envs.opengl import OpenGL, OpenGLOptions

    return OpenGL(model, camera, width, height, OpenGLOptions.fast() if fast else OpenGLOptions())


_RENDERERS: dict[str, tuple[bool, Callable[[mujoco.MjModel, str, int, int, bool], Renderer]]] = {
    # name → (needs visual meshes, how to make one that threads may share)
    "drawing": (False, _drawing),
    "raster": (True, _raster),
    "opengl": (True, _opengl),
    "opengl_fast": (True, _opengl_fast),
}
_DEFAULT = "raster"


class Cameras:
    """Renders states of a scene. Visual scenes are compiled when the first picture of them is asked for.

    `scene(visual, look)` gives the model, with or without meshes, in one of its looks.
    """

    def __init__(self, scene: Callable[[bool, int], mujoco.MjModel], renderer: str = "auto"):
        name = _DEFAULT if renderer == "auto" else renderer
        if name not in _RENDERERS:
            raise EnvError(f"Unknown renderer '{renderer}'.", expected=suggest(renderer, ["auto", *_RENDERERS]))
        self._scene, (self._visual, self._make) = scene, _RENDERERS[name]
        self._models: dict[int, mujoco.MjModel] = {}
        self._renderers: dict[tuple[int, str, int, int, bool], Renderer] = {}
        self._lock, self._local = threading.Lock(), threading.local()

    def picture(
        self, data: mujoco.MjData, camera: str, size_px: tuple[int, int], look: int = -1, fine: bool = False
    ) -> np.ndarray:
        """Return what `camera` sees of the state `data` of the lean scene; sizes are (width, height).

        `fine` pictures are for people.
        """
        model, renderer = self._renderer((look, camera, *size_px, fine))
        if not hasattr(self._local, "data"):
            self._local.data = mujoco.MjData(model)
        pose = self._local.data
        pose.qpos[:], pose.mocap_pos[:], pose.mocap_quat[:] = data.qpos, data.mocap_pos, data.mocap_quat
        mujoco.mj_kinematics(model, pose)
        mujoco.mj_camlight(model, pose)
        return renderer.render(pose)

    def _renderer(self, key: tuple[int, str, int, int, bool]) -> tuple[mujoco.MjModel, Renderer]:
        look, camera, width, height, fine = key
        with self._lock:
            if look not in self._models:
                self._models[look] = self._scene(self._visual, look)
            model = self._models[look]
            if key not in self._renderers:
                names = [model.camera(index).name for index in range(model.ncam)]
                if camera not in names:
                    raise EnvError(f"No camera '{camera}'.", expected=suggest(camera, names))
                self._renderers[key] = self._make(model, camera, width, height, fine)
            return model, self._renderers[key]
