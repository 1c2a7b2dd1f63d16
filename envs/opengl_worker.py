"""One OpenGL context in a process of its own: reads poses from a socket, answers with pixels.

Run by `opengl.OpenGL` as `python -m robolearn.envs.opengl_worker <socket> <model file> <options>`, or with
`--check` to find out whether this machine can draw at all. $MUJOCO_GL chooses the library.
"""

import json
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

import mujoco
import numpy as np

__all__ = ["Picture"]

_CHECK = (
    "<mujoco><worldbody><light pos='0 0 3'/><geom size='1' rgba='1 0 0 1'/><camera pos='0 0 4'/></worldbody></mujoco>"
)
_EFFECTS = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE)


class Picture:
    """MuJoCo's renderer for one model: any camera, any size up to `width` x `height`."""

    def __init__(self, model: mujoco.MjModel, width: int, height: int, groups: tuple[int, ...], effects: bool):
        if not effects:
            model.vis.quality.offsamples = 0
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        self.model, self.data = model, mujoco.MjData(model)
        self._gl = mujoco.GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        for flag in () if effects else _EFFECTS:
            self._scene.flags[flag] = 0
        self._option, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self._option.geomgroup[:] = [group in groups for group in range(len(self._option.geomgroup))]
        self._option.sitegroup[:] = 0  # marks for people who edit models; the rasteriser does not draw them either
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def draw(self, camera: int, out: np.ndarray) -> None:
        """Draw the state of `data` into out [H,W,3] uint8."""
        self._camera.fixedcamid = camera
        mujoco.mjv_updateScene(
            self.model, self.data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        area = mujoco.MjrRect(0, 0, out.shape[1], out.shape[0])
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(out, None, area, self._context)
        out[:] = out[::-1].copy()  # OpenGL counts rows from the bottom


def _pose(picture: Picture, state: np.ndarray) -> None:
    """Set positions and mocap poses, as `opengl.OpenGL` packs them."""
    data, nq, nmocap = picture.data, picture.model.nq, picture.model.nmocap
    data.qpos[:] = state[:nq]
    data.mocap_pos[:] = state[nq : nq + 3 * nmocap].reshape(-1, 3)
    data.mocap_quat[:] = state[nq + 3 * nmocap :].reshape(-1, 4)
    for update in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight, mujoco.mj_tendon):
        update(picture.model, data)


def _serve(connection: Connection, make: Callable[[], Picture]) -> None:
    """Answer requests until the other side closes; the context is made for the first one."""
    picture: Picture | None = None
    while True:
        try:
            request = json.loads(connection.recv_bytes())
            states = np.frombuffer(connection.recv_bytes(), np.float64).reshape(request["n"], -1)
        except EOFError:
            return
        picture = picture or make()
        images = np.empty((request["n"], request["height"], request["width"], 3), np.uint8)
        for state, image in zip(states, images, strict=True):
            _pose(picture, state)
            picture.draw(request["camera"], image)
        connection.send_bytes(images.reshape(-1))


def _load(path: str, options: dict) -> Picture:
    model = mujoco.MjModel.from_binary_path(path)
    if options["max_faces"] is not None:
        from robolearn.envs.raster.simplify import simplify_model  # it imports a compiler

        simplify_model(model, options["max_faces"])
    size = options["max_width"], options["max_height"]
    return Picture(model, *size, tuple(options["groups"]), options["effects"])


def _check() -> int:
    """Draw a red ball; 0 if its middle is red."""
    picture = Picture(mujoco.MjModel.from_xml_string(_CHECK), 16, 16, (0,), effects=True)
    mujoco.mj_forward(picture.model, picture.data)
    out = np.zeros((16, 16, 3), np.uint8)
    picture.draw(0, out)
    red, green = int(out[8, 8, 0]), int(out[8, 8, 1])
    return 0 if red > green + 50 else 1


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        sys.exit(_check())
    _serve(Connection(int(sys.argv[1])), lambda: _load(sys.argv[2], json.loads(sys.argv[3])))
