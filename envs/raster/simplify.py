"""Several meshes reduced together, so that the error is the same everywhere."""

from collections.abc import Sequence

import mujoco
import numpy as np

from robolearn.envs.raster.decimate import decimate
from robolearn.envs.raster.shapes import Shape, mesh, smooth

__all__ = ["share_faces", "simplify_model"]


def share_faces(shapes: Sequence[Shape], budget: int) -> list[Shape | None]:
    """Return shapes with about `budget` faces together; None for one that is too small to be seen."""
    if sum(len(shape.face_pos) for shape in shapes) <= budget:
        return list(shapes)
    offset = np.cumsum([0] + [len(shape.pos_m) for shape in shapes])
    vert = np.concatenate([shape.pos_m for shape in shapes])
    face = np.concatenate([shape.face_pos + start for shape, start in zip(shapes, offset, strict=False)])
    vert, face, source = decimate(vert, face, budget)
    owner = np.searchsorted(offset, source, side="right") - 1
    reduced: list[Shape | None] = []
    for index in range(len(shapes)):
        mine = np.flatnonzero(owner == index)
        faces = face[owner[face[:, 0]] == index] - (mine[0] if len(mine) else 0)
        reduced.append(smooth(vert[mine], faces) if len(mine) else None)
    return reduced


def simplify_model(model: mujoco.MjModel, max_faces: int) -> None:
    """Overwrite the untextured meshes of a model that is only drawn, never stepped."""
    textured = {
        int(model.geom_dataid[geom])
        for geom in range(model.ngeom)
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH
        and model.geom_matid[geom] >= 0
        and model.mat_texid[model.geom_matid[geom], mujoco.mjtTextureRole.mjTEXROLE_RGB] >= 0
    }
    numbers = [number for number in range(model.nmesh) if number not in textured]
    for number, shape in zip(numbers, share_faces([mesh(model, n) for n in numbers], max_faces), strict=True):
        if shape is not None:
            _overwrite(model, number, shape)


def _overwrite(model: mujoco.MjModel, number: int, shape: Shape) -> None:
    """Put a smaller shape where a mesh lies, unless it needs more room than there is."""
    faces, vertices, normals = len(shape.face_pos), len(shape.pos_m), len(shape.normal)
    room = model.mesh_facenum[number], model.mesh_vertnum[number], model.mesh_normalnum[number]
    if faces > room[0] or vertices > room[1] or normals > room[2]:
        return
    face, vert, normal = model.mesh_faceadr[number], model.mesh_vertadr[number], model.mesh_normaladr[number]
    model.mesh_vert[vert : vert + vertices] = shape.pos_m
    model.mesh_normal[normal : normal + normals] = shape.normal
    model.mesh_face[face : face + faces] = shape.face_pos
    model.mesh_facenormal[face : face + faces] = shape.face_corner
    model.mesh_facenum[number], model.mesh_vertnum[number] = faces, vertices
    model.mesh_texcoordadr[number] = -1
