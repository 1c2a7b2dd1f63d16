"""MuJoCo's own pixels, each context in a process of its own; EGL or OSMesa, whichever works here."""

import functools
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import mujoco
import numpy as np

from robolearn.errors import ConfigError, EnvError, MissingLibraryError, suggest

__all__ = ["OpenGL", "OpenGLOptions", "choose_backend"]

_log = logging.getLogger(__name__)
_BACKENDS = ("egl", "osmesa")
_WORKER = "robolearn.envs.opengl_worker"


@dataclass(frozen=True)
class OpenGLOptions:
    """How pictures are drawn.

    groups: geom groups that are visible. effects: shadows, reflections, haze and multisampling.
    max_faces: triangles that all untextured meshes share, None for the meshes as they are.
    answer_s, start_s: how long a worker may take for a request, and for its first one [s].
    """

    groups: tuple[int, ...] = (0, 1, 2)
    effects: bool = True
    max_faces: int | None = None
    max_width: int = 640
    max_height: int = 480
    answer_s: float = 4.0
    start_s: float = 120.0

    @classmethod
    def fast(cls, groups: tuple[int, ...] = (0, 1, 2)) -> "OpenGLOptions":
        """Return the fast mode: no effects, meshes of 20,000 triangles together."""
        return cls(groups=groups, effects=False, max_faces=20_000)


@functools.cache
def choose_backend(wanted: str = "auto") -> str:
    """Return "egl" or "osmesa" after drawing a test picture with it in a separate process, and log which."""
    if wanted not in ("auto", *_BACKENDS):
        raise ConfigError("Unknown OpenGL library.", found=wanted, do=suggest(wanted, ("auto", *_BACKENDS)))
    failures = []
    for name in _BACKENDS if wanted == "auto" else (wanted,):
        try:
            command = [sys.executable, "-m", _WORKER, "--check"]
            tried = subprocess.run(command, env=_environment(name), capture_output=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            failures.append(f"{name}: no answer in 60 s")
            continue
        if tried.returncode == 0:
            _log.warning("OpenGL: drawing with %s", name)
            return name
        failures.append(
            f"{name}: {(tried.stderr.decode(errors='replace').strip().splitlines() or ['wrong pixels'])[-1]}"
        )
    raise MissingLibraryError(
        "No OpenGL library draws on this machine.",
        found="; ".join(failures),
        do="apt-get install libegl1 libgl1-mesa-dri (EGL) or libosmesa6 (OSMesa), or use the renderer 'raster'",
    )


def _environment(backend: str) -> dict[str, str]:
    """The environment of a worker: one context per core is fastest with a single-threaded driver."""
    return {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend, "LP_NUM_THREADS": "0"}


class OpenGL:
    """Draws one camera through a worker process that starts with the first picture and is replaced when it dies."""

    def __init__(
        self,
        model: mujoco.MjModel,
        camera: str | int,
        width: int,
        height: int,
        options: OpenGLOptions | None = None,
        backend: str = "auto",
    ):
        self.options = options or OpenGLOptions()
        if not (1 <= width <= self.options.max_width and 1 <= height <= self.options.max_height):
            limit = f"at most {self.options.max_width}x{self.options.max_height}"
            raise ConfigError("Impossible picture size.", found=f"{width}x{height}", expected=limit)
        names = [model.camera(i).name for i in range(model.ncam)]
        if isinstance(camera, str) and camera not in names:
            raise EnvError("The model has no such camera.", found=camera, do=suggest(camera, names))
        self.width, self.height, self.backend = width, height, backend
        self._camera = names.index(camera) if isinstance(camera, str) else camera
        start = mujoco.MjData(model)
        self._positions, self._mocap = model.nq, (start.mocap_pos.copy(), start.mocap_quat.copy())
        self._folder = tempfile.TemporaryDirectory(prefix="robolearn-opengl-")
        self._path = Path(self._folder.name, "model.mjb")
        mujoco.mj_saveModel(model, str(self._path), None)
        self._worker: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._lock = threading.Lock()

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return the picture [H,W,3] uint8 of a state."""
        return self.render_batch(data.qpos[None], data.mocap_pos[None], data.mocap_quat[None])[0]

    def render_batch(
        self, qpos: np.ndarray, mocap_pos: np.ndarray | None = None, mocap_quat: np.ndarray | None = None
    ) -> np.ndarray:
        """Return pictures [n,H,W,3] uint8 of positions [n,nq], mocap positions [n,m,3] and quaternions wxyz [n,m,4].

        Mocap bodies that are not given stand where the model has them.
        """
        n, bodies = len(qpos), len(self._mocap[0])
        pairs = zip(self._mocap, (mocap_pos, mocap_quat), strict=True)
        given = [np.broadcast_to(own, (n, *own.shape)) if other is None else other for own, other in pairs]
        found, expected = [np.shape(a) for a in (qpos, *given)], [(n, self._positions), (n, bodies, 3), (n, bodies, 4)]
        if found != expected:
            raise EnvError("Positions do not fit the model.", found=found, expected=expected)
        parts = [np.asarray(a, np.float64).reshape(n, -1) for a in (qpos, *given)]
        states = np.ascontiguousarray(np.concatenate(parts, axis=1))
        header = json.dumps({"camera": self._camera, "width": self.width, "height": self.height, "n": n}).encode()
        with self._lock:
            for _ in range(2):
                pixels = self._ask(header, states)
                if pixels is not None:
                    return np.frombuffer(pixels, np.uint8).reshape(n, self.height, self.width, 3).copy()
        raise EnvError(
            "The OpenGL worker failed twice.", found="no answer", do="use the renderer 'raster', or a smaller scene"
        )

    def _ask(self, header: bytes, states: np.ndarray) -> bytes | None:
        """One request; None after the worker died or was killed because it did not answer in time."""
        limit_s = self.options.answer_s if self._worker else self.options.start_s
        process, connection = self._worker = self._worker or self._start()
        try:
            connection.send_bytes(header)
            connection.send_bytes(states.reshape(-1))
            if connection.poll(limit_s + 0.05 * len(states)):
                return connection.recv_bytes()
            reason = f"did not answer in {limit_s:g} s"
        except (EOFError, OSError):
            reason = f"died with code {process.poll()}"
        _log.warning("OpenGL worker %d %s; starting another", process.pid, reason)
        self._stop()
        return None

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        backend = choose_backend(self.backend)
        ours, theirs = socket.socketpair()
        options = {key: value for key, value in asdict(self.options).items() if not key.endswith("_s")}
        command = [sys.executable, "-m", _WORKER, str(theirs.fileno()), str(self._path), json.dumps(options)]
        process = subprocess.Popen(command, env=_environment(backend), pass_fds=[theirs.fileno()])
        theirs.close()
        connection = Connection(ours.detach())
        self._finalizer = weakref.finalize(self, _end, process, connection)
        return process, connection

    def _stop(self) -> None:
        if self._worker:
            self._finalizer()
            self._worker = None

    def close(self) -> None:
        """End the worker and remove its model file."""
        with self._lock:
            self._stop()
        self._folder.cleanup()


def _end(process: "subprocess.Popen[bytes]", connection: Connection) -> None:
    connection.close()
    process.kill()
    process.wait()
