"""The own tasks' physics on mujoco_warp: the same model, E states stepped together on a GPU.

Without a GPU warp compiles the same kernels for the CPU: slow, but it shows that a task loads and that a
step is MuJoCo's. Observations, rewards and controllers of the tasks still run on the host.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any

import mujoco
import numpy as np

from robolearn.errors import EnvError, MissingLibraryError

__all__ = ["WarpRows", "gpu"]


class WarpRows:
    """E states of one model on warp's present device, in single precision; arrays have a leading [E].

    `contacts` and `constraints` are how many one row may have; without them, room for twice what `start` has.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        start: mujoco.MjData,
        num_envs: int,
        contacts: int | None = None,
        constraints: int | None = None,
    ):
        warp, library = _libraries()
        # mujoco_warp refuses the flag; without a guard of its own a diverged row shows as numbers that are not finite.
        model = copy(model)
        model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        # Its general convex collisions lose contacts of less than 10 µm in single precision, which is how deep a
        # cube rests; without them boxes meet boxes by their own function, as in MuJoCo.
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)
        mujoco.mj_forward(model, start)
        self.num_envs, self._library, self._warp = num_envs, library, warp
        self.contacts = contacts or 2 * start.ncon + 16
        self.constraints = constraints or 2 * start.nefc + 64
        try:
            self._model = library.put_model(model)
        except NotImplementedError as error:
            raise EnvError("mujoco_warp does not have what this scene uses.", found=error) from error
        size = {"nworld": num_envs, "nconmax": self.contacts, "njmax": self.constraints}
        self._data = library.put_data(model, start, **size)
        self._graph: Any = None

    def step(self, count: int = 1) -> None:
        """Advance every row by `count` physics steps; on a GPU they are recorded once and replayed."""
        for _ in range(count):
            if self._graph is not None:
                self._warp.capture_launch(self._graph)
                continue
            self._library.step(self._model, self._data)
            if self._warp.get_device().is_cuda:
                with self._warp.ScopedCapture() as capture:
                    self._library.step(self._model, self._data)
                self._graph = capture.graph

    def control(self, ctrl: np.ndarray) -> None:
        """Set the controls [E,nu] of all rows."""
        self._data.ctrl.assign(np.ascontiguousarray(ctrl, np.float32))

    @property
    def qpos(self) -> np.ndarray:
        """Positions [E,nq], copied to the host."""
        return self._data.qpos.numpy()

    @property
    def qvel(self) -> np.ndarray:
        """Velocities [E,nv], copied to the host."""
        return self._data.qvel.numpy()

    def wait(self) -> None:
        """Return when the device has done everything that it was asked."""
        self._warp.synchronize()


def gpu() -> str | None:
    """Return the name of warp's GPU, None where there is none."""
    warp, _ = _libraries()
    devices: Sequence[Any] = warp.get_cuda_devices()
    return str(devices[0].name) if devices else None


def _libraries() -> tuple[Any, Any]:
    try:
        import mujoco_warp
        import warp
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            f"Physics on a GPU needs the library '{error.name}'.",
            do="pip install mujoco-warp==3.8.1 'warp-lang>=1.13,<1.16' (others do not fit together)",
        ) from error
    warp.config.quiet = True
    return warp, mujoco_warp
