"""A plain picture of a scene by OpenCV: shaded boxes and cylinders, arm links as rods.

It needs no OpenGL and no meshes. Surfaces are painted from far to near.
"""

from collections.abc import Callable

import cv2
import mujoco
import numpy as np

__all__ = ["Drawing"]

_LIGHT = np.array([0.35, -0.45, 0.82])
_SKY = ((236, 240, 244), (205, 214, 224))  # top and bottom
_ROD_RGB, _JOINT_RGB = np.array([232, 234, 238.0]), np.array([120, 126, 136.0])
_ROD_M, _JOINT_M = 0.045, 0.055
_CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
_FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
_Shape = tuple[float, Callable[[np.ndarray], None]]  # distance, how to paint
_AROUND = np.linspace(0, 2 * np.pi, 17)[:-1]


class Drawing:
    """Draws what one camera of `model` sees; see `images.Renderer`."""

    def __init__(self, model: mujoco.MjModel, camera: str, width: int, height: int):
        self._model, self._camera = model, model.camera(camera).id
        self._width, self._height = width, height
        self._focal = 0.5 * height / np.tan(np.deg2rad(model.cam_fovy[self._camera]) / 2)
        solids = [index for index in range(model.ngeom) if _is_solid(model, index)]
        self._fixed = [index for index in solids if model.geom_bodyid[index] == 0]
        self._moving = [index for index in solids if model.geom_bodyid[index] != 0]
        self._rods = _links(model)
        ramp = np.linspace(0, 1, height)[:, None, None]
        self._sky = np.broadcast_to((1 - ramp) * _SKY[0] + ramp * _SKY[1], (height, width, 3)).astype(np.uint8)

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return (height, width, 3) uint8 RGB."""
        image = self._sky.copy()
        for geom in self._fixed:  # furniture is big: its own order, not its distance, is right
            for _, paint in self._solid(data, geom):
                paint(image)
        shapes = [shape for geom in self._moving for shape in self._solid(data, geom)]
        shapes += [shape for rod in self._rods for shape in self._rod(data, *rod)]
        for _, paint in sorted(shapes, key=lambda shape: -shape[0]):
            paint(image)
        return image

    def _solid(self, data: mujoco.MjData, geom: int) -> list[_Shape]:
        position, mat = data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3)
        rgb = self._model.geom_rgba[geom, :3] * 255.0
        eye, faces = data.cam_xpos[self._camera], []
        for face in _surfaces(self._model, geom):
            corners = face @ mat.T + position
            normal = np.cross(corners[1] - corners[0], corners[2] - corners[1])
            normal /= max(float(np.linalg.norm(normal)), 1e-12)
            normal = normal if normal @ (corners.mean(0) - position) >= 0 else -normal
            if normal @ (eye - corners.mean(0)) > 0:
                faces += self._polygon(data, corners, _shade(rgb, normal))
        return faces

    def _polygon(self, data: mujoco.MjData, corners: np.ndarray, rgb: np.ndarray) -> list[_Shape]:
        pixels, depth = self._project(data, corners)
        if depth.min() < 0.02:
            return []
        outline = np.round(pixels).astype(np.int32)

        def paint(image: np.ndarray) -> None:
            cv2.fillPoly(image, [outline], rgb.tolist(), cv2.LINE_AA)
            cv2.polylines(image, [outline], True, (rgb * 0.8).tolist(), 1, cv2.LINE_AA)

        return [(float(depth.mean()), paint)]

    def _rod(self, data: mujoco.MjData, first: int, second: int) -> list[_Shape]:
        ends = np.stack([data.xpos[first], data.xpos[second]])
        pixels, depth = self._project(data, ends)
        if depth.min() < 0.02:
            return []
        start, end = (tuple(int(value) for value in np.round(point)) for point in pixels)
        width, radius = (max(1, round(self._focal * size / depth.mean())) for size in (2 * _ROD_M, _JOINT_M))

        def paint(image: np.ndarray) -> None:
            cv2.line(image, start, end, (_ROD_RGB * 0.72).tolist(), width + 2, cv2.LINE_AA)
            cv2.line(image, start, end, _ROD_RGB.tolist(), width, cv2.LINE_AA)
            cv2.circle(image, end, radius, _JOINT_RGB.tolist(), -1, cv2.LINE_AA)

        return [(float(depth.mean()), paint)]

    def _project(self, data: mujoco.MjData, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        local = (points - data.cam_xpos[self._camera]) @ data.cam_xmat[self._camera].reshape(3, 3)
        depth = -local[:, 2]
        scale = self._focal / np.maximum(depth, 1e-6)
        return np.stack([self._width / 2 + local[:, 0] * scale, self._height / 2 - local[:, 1] * scale], 1), depth


def _is_solid(model: mujoco.MjModel, geom: int) -> bool:
    boxes = (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_SPHERE)
    return model.geom_type[geom] in boxes and model.geom_rgba[geom, 3] > 0.05


def _surfaces(model: mujoco.MjModel, geom: int) -> list[np.ndarray]:
    """Return the faces of a geometry in its own frame, each [corners,3]."""
    size, kind = model.geom_size[geom], model.geom_type[geom]
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return [_CUBE[list(face)] * size for face in _FACES]
    radius, half = size[0], size[1] if kind == mujoco.mjtGeom.mjGEOM_CYLINDER else size[0] * 0.7
    ring = np.stack([radius * np.cos(_AROUND), radius * np.sin(_AROUND), np.zeros_like(_AROUND)], 1)
    rise = np.array([0.0, 0.0, half])
    top, bottom = ring + rise, ring - rise
    sides = [np.stack([bottom[i], bottom[i - 1], top[i - 1], top[i]]) for i in range(len(_AROUND))]
    return [top, bottom, *sides]


def _links(model: mujoco.MjModel) -> list[tuple[int, int]]:
    """Return (parent, child) bodies of the arms, from each last hinge back to its base."""
    pairs = []
    for hand in (model.site_bodyid[index] for index in range(model.nsite) if "grip_site" in model.site(index).name):
        chain = [int(hand)]
        while model.body_parentid[chain[-1]] > 0:
            chain.append(int(model.body_parentid[chain[-1]]))
        hinges = [body for body in chain if model.body_jntnum[body]]
        hinges = [body for body in chain[chain.index(hinges[0]) :] if np.linalg.norm(model.body_pos[body]) > 0.02]
        pairs += [(int(model.body_parentid[body]), body) for body in hinges if model.body_parentid[body]]
    return pairs


def _shade(rgb: np.ndarray, normal: np.ndarray) -> np.ndarray:
    return np.clip(rgb * (0.62 + 0.42 * max(float(normal @ _LIGHT), 0.0)), 0, 255)
