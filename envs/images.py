"""Pictures of rows: one renderer per camera, made on first use and shared by the threads."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import mujoco
import numpy as np

from robolearn.envs.draw import Drawing
from robolearn.errors import EnvError, suggest

__all__ = ["Cameras", "Renderer"]

_SHARE = 2  # pieces of work per thread and camera, so that no thread waits long for the last one


class Renderer(Protocol):
    """Pixels of one camera; may be used by several threads at once."""

    def render_batch(self, qpos: np.ndarray, mocap_pos: np.ndarray, mocap_quat: np.ndarray) -> np.ndarray:
        """Return [n,H,W,3] uint8 of positions [n,nq] and mocap poses [n,m,3] and [n,m,4] (wxyz)."""

    def close(self) -> None:
        """End what runs beside this process."""


class _InProcess:
    """What renderers of this process share: a state per thread, brought to given positions."""

    def __init__(self, model: mujoco.MjModel):
        self._model, self._local = model, threading.local()

    def states(self, qpos: np.ndarray, mocap_pos: np.ndarray, mocap_quat: np.ndarray) -> Iterator[mujoco.MjData]:
        if not hasattr(self._local, "data"):
            self._local.data = mujoco.MjData(self._model)
        data = self._local.data
        for joints, position, quat in zip(qpos, mocap_pos, mocap_quat, strict=True):
            data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = joints, position, quat
            mujoco.mj_kinematics(self._model, data)
            mujoco.mj_camlight(self._model, data)
            yield data

    def close(self) -> None:
        """Nothing runs beside this process."""


class _Drawing(_InProcess):
    def __init__(self, model: mujoco.MjModel, camera: str, width: int, height: int, fine: bool):
        super().__init__(model)
        self._drawing = Drawing(model, camera, width, height)

    def render_batch(self, qpos: np.ndarray, mocap_pos: np.ndarray, mocap_quat: np.ndarray) -> np.ndarray:
        return np.stack([self._drawing.render(data) for data in self.states(qpos, mocap_pos, mocap_quat)])


class _Raster(_InProcess):
    def __init__(self, model: mujoco.MjModel, camera: str, width: int, height: int, fine: bool):
        from robolearn.envs.raster import Rasteriser, RasterOptions  # it imports a compiler

        super().__init__(model)
        options = RasterOptions(samples=2, shadows=True) if fine else RasterOptions()
        self._raster = Rasteriser(model, camera, width, height, options)

    def render_batch(self, qpos: np.ndarray, mocap_pos: np.ndarray, mocap_quat: np.ndarray) -> np.ndarray:
        poses = [
            [pose.copy() for pose in (data.geom_xpos, data.geom_xmat, *self._raster.camera_pose(data))]
            for data in self.states(qpos, mocap_pos, mocap_quat)
        ]
        return self._raster.render_batch(*map(np.stack, zip(*poses, strict=True)))["rgb"]


def _opengl(model: mujoco.MjModel, camera: str, width: int, height: int, fine: bool) -> Renderer:
    return _gl(model, camera, width, height, fast=False)


def _opengl_fast(model: mujoco.MjModel, camera: str, width: int, height: int, fine: bool) -> Renderer:
    return _gl(model, camera, width, height, fast=not fine)


def _gl(model: mujoco.MjModel, camera: str, width: int, height: int, fast: bool) -> Renderer:
    from robolearn.envs.opengl import OpenGL, OpenGLOptions

    return OpenGL(model, camera, width, height, OpenGLOptions.fast() if fast else OpenGLOptions())


_RENDERERS: dict[str, tuple[bool, Callable[[mujoco.MjModel, str, int, int, bool], Renderer]]] = {
    # name → (needs visual meshes, how to make one that threads may share)
    "drawing": (False, _Drawing),
    "raster": (True, _Raster),
    "opengl": (True, _opengl),
    "opengl_fast": (True, _opengl_fast),
}
_DEFAULT = "raster"


class Cameras:
    """Renders states of a scene. Visual scenes are compiled when the first picture of them is asked for.

    `scene(visual, look)` gives the model, with or without meshes, in one of its looks.
    """

    def __init__(self, scene: Callable[[bool, int], mujoco.MjModel], renderer: str = "auto", threads: int = 0):
        name = _DEFAULT if renderer == "auto" else renderer
        if name not in _RENDERERS:
            raise EnvError(f"Unknown renderer '{renderer}'.", expected=suggest(renderer, ["auto", *_RENDERERS]))
        self._scene, (self._visual, self._make) = scene, _RENDERERS[name]
        self._models: dict[int, mujoco.MjModel] = {}
        self._renderers: dict[tuple[int, str, int, int, bool], Renderer] = {}
        self._threads = threads or len(os.sched_getaffinity(0))
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def picture(
        self, data: mujoco.MjData, camera: str, size_px: tuple[int, int], look: int = -1, fine: bool = False
    ) -> np.ndarray:
        """Return what `camera` sees of the state `data`; sizes are (width, height).

        `fine` pictures are for people.
        """
        renderer = self._renderer((look, camera, *size_px, fine))
        return renderer.render_batch(data.qpos[None], data.mocap_pos[None], data.mocap_quat[None])[0]

    def fill(
        self,
        images: Mapping[str, np.ndarray],
        rows: np.ndarray,
        states: Sequence[mujoco.MjData],
        looks: np.ndarray | None = None,
        qpos: np.ndarray | None = None,
    ) -> None:
        """Draw `rows` into the pictures [E,H,W,3] of every camera, on all threads.

        `states` [n] are those of the rows, `looks` [n] the look of each, `qpos` [n,nq] joints to draw instead of
        the states'. A row whose joints are no numbers is black.
        """
        qpos = np.array([data.qpos for data in states]) if qpos is None else qpos
        poses = (qpos, np.array([data.mocap_pos for data in states]), np.array([data.mocap_quat for data in states]))
        drawn, jobs = np.isfinite(qpos).all(1), []
        looks = np.full(len(rows), -1) if looks is None else looks
        for look in np.unique(looks):
            alike = np.flatnonzero(drawn & (looks == look))
            parts = np.array_split(alike, max(1, min(len(alike), _SHARE * self._threads)))
            jobs += [(camera, part, int(look)) for part in parts for camera in images if len(part)]

        def draw(job: tuple[str, np.ndarray, int]) -> None:
            camera, part, look = job
            height, width = images[camera].shape[1:3]
            renderer = self._renderer((look, camera, width, height, False))
            images[camera][rows[part]] = renderer.render_batch(*(pose[part] for pose in poses))

        for pictures in images.values():
            pictures[rows[~drawn]] = 0
        if self._threads == 1 or len(jobs) < 2:
            for job in jobs:
                draw(job)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="cameras")
        list(self._pool.map(draw, jobs))

    def close(self) -> None:
        """End the threads and the renderers; the next picture makes new ones."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _renderer(self, key: tuple[int, str, int, int, bool]) -> Renderer:
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
            return self._renderers[key]
