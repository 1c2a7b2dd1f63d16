"""Triangle meshes of MuJoCo's geom types, in the geom's own frame."""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Shape", "box", "capsule", "cylinder", "ellipsoid", "heightfield", "mesh", "pieces", "plane", "smooth"]


class Shape(NamedTuple):
    """One surface: face corners point at positions [P,3] and at shading corners [C].

    `normal` [C,3] is unit length; `uvw` [C,3] is a texture coordinate (u, v, 0) or a cube-map direction.
    """

    pos_m: np.ndarray
    face_pos: np.ndarray
    normal: np.ndarray
    uvw: np.ndarray
    corner_pos: np.ndarray
    face_corner: np.ndarray


def pieces(shape: Shape, most: int) -> list[Shape]:
    """Cut a surface across its longest side until no piece has more than `most` faces."""
    if len(shape.face_pos) <= most:
        return [shape]
    centre = shape.pos_m[shape.face_pos].mean(1)
    order = np.argsort(centre[:, np.argmax(np.ptp(centre, axis=0))], kind="stable")
    halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    return [piece for half in halves for piece in pieces(_subset(shape, half), most)]


def _subset(shape: Shape, faces: np.ndarray) -> Shape:
    """Only these faces, with the positions and corners that they use."""
    at, face_pos = np.unique(shape.face_pos[faces], return_inverse=True)
    corner, face_corner = np.unique(shape.face_corner[faces], return_inverse=True)
    return Shape(
        shape.pos_m[at],
        face_pos.reshape(-1, 3).astype(np.int32),
        shape.normal[corner],
        shape.uvw[corner],
        np.searchsorted(at, shape.corner_pos[corner]).astype(np.int32),
        face_corner.reshape(-1, 3).astype(np.int32),
    )


def _weld(corners: np.ndarray, normal: np.ndarray, uvw: np.ndarray) -> Shape:
    """Merge equal corners of a triangle soup: all arrays are [F*3,3]."""
    pos_m, pos_of = np.unique(np.round(corners, 7), axis=0, return_inverse=True)
    pos_of = pos_of.reshape(-1)
    full = np.round(np.concatenate([pos_of[:, None], normal, uvw], axis=1), 5)
    _, first, corner_of = np.unique(full, axis=0, return_index=True, return_inverse=True)
    return Shape(
        pos_m.astype(np.float32),
        pos_of.reshape(-1, 3).astype(np.int32),
        normal[first].astype(np.float32),
        uvw[first].astype(np.float32),
        pos_of[first].astype(np.int32),
        corner_of.reshape(-1, 3).astype(np.int32),
    )


def _quads(grid: np.ndarray) -> np.ndarray:
    """Triangles [F,3] (indices into the flattened grid) of a grid of vertex numbers [R,C], wound row-first."""
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    return np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def _surface(unit: np.ndarray, normal: np.ndarray, scale: np.ndarray, wrap: bool) -> tuple[np.ndarray, ...]:
    """Triangle soup (corners, normals, unit coordinates) of a grid of unit-shape points [R,C,3]."""
    rows, cols = unit.shape[:2]
    index = np.arange(rows * cols).reshape(rows, cols)
    if wrap:
        index = np.concatenate([index, index[:, :1]], axis=1)
    faces = _quads(index).reshape(-1)
    corners = (unit * scale).reshape(-1, 3)[faces]
    scaled = (normal / scale).reshape(-1, 3)[faces]
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
    return corners, scaled, unit.reshape(-1, 3)[faces]


def _join(*parts: tuple[np.ndarray, ...]) -> Shape:
    corners, normal, unit = (np.concatenate(list(column)) for column in zip(*parts, strict=True))
    triangles = corners.reshape(-1, 3, 3)
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
    keep = np.repeat(area > 1e-14, 3)
    return _weld(corners[keep], normal[keep], unit[keep])


def _ring(angle: np.ndarray, radius: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Points [R,C,3] on circles of the given radius and height, one row each."""
    cos, sin = np.cos(angle), np.sin(angle)
    xy = np.stack([cos, sin], -1)[None] * radius[:, None, None]
    return np.concatenate([xy, np.broadcast_to(height[:, None, None], (*xy.shape[:2], 1))], axis=-1)


def ellipsoid(size_m: np.ndarray, slices: int, stacks: int) -> Shape:
    """Ellipsoid of half axes `size_m` [3]."""
    angle = 2 * np.pi * np.arange(slices) / slices
    elevation = np.linspace(-np.pi / 2, np.pi / 2, stacks + 1)
    unit = _ring(angle, np.cos(elevation), np.sin(elevation))
    return _join(_surface(unit, unit, size_m, wrap=True))


def _disk(angle: np.ndarray, rings: int, sign: float, scale: np.ndarray) -> tuple[np.ndarray, ...]:
    radius = np.linspace(1, 0, rings + 1) if sign > 0 else np.linspace(0, 1, rings + 1)
    unit = _ring(angle, radius, np.full(rings + 1, sign))
    return _surface(unit, np.broadcast_to([0.0, 0.0, sign], unit.shape), scale, wrap=True)


def cylinder(radius_m: float, half_m: float, slices: int, stacks: int) -> Shape:
    """Closed cylinder along z."""
    angle = 2 * np.pi * np.arange(slices) / slices
    unit = _ring(angle, np.ones(stacks + 1), np.linspace(-1, 1, stacks + 1))
    scale = np.array([radius_m, radius_m, half_m])
    side = _surface(unit, unit * [1, 1, 0], scale, wrap=True)
    return _join(side, _disk(angle, 2, 1.0, scale), _disk(angle, 2, -1.0, scale))


def capsule(radius_m: float, half_m: float, slices: int, stacks: int) -> Shape:
    """Capsule along z; `half_m` is half the length between the centres of its caps."""
    angle = 2 * np.pi * np.arange(slices) / slices
    parts = []
    for low, high, offset in ((-np.pi / 2, 0, -1), (0, np.pi / 2, 1)):
        elevation = np.linspace(low, high, stacks // 2 + 1)
        ball = _ring(angle, np.cos(elevation), np.sin(elevation))
        corners, normal, unit = _surface(ball, ball, np.full(3, radius_m), wrap=True)
        parts.append((corners + np.array([0, 0, offset * half_m]), normal, unit))
    tube = _ring(angle, np.ones(3), np.linspace(-1, 1, 3))
    parts.append(_surface(tube, tube * [1, 1, 0], np.array([radius_m, radius_m, half_m]), wrap=True))
    return _join(*parts)


def box(size_m: np.ndarray, quads: int) -> Shape:
    """Box of half sizes `size_m` [3], every side divided into `quads`² squares."""
    line = np.linspace(-1, 1, quads + 1)
    parts = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v = np.meshgrid(line, line)
            unit = np.empty((*u.shape, 3))
            unit[..., axis], unit[..., (axis + 1) % 3], unit[..., (axis + 2) % 3] = sign, u, v
            normal = np.zeros_like(unit)
            normal[..., axis] = sign
            parts.append(_outward(_surface(unit, normal, size_m, wrap=False)))
    return _join(*parts)


def _outward(soup: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Wind every triangle counter-clockwise as seen from the side its normals point to."""
    corners, normal, unit = (a.reshape(-1, 3, 3).copy() for a in soup)
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flip = (facing * normal[:, 0]).sum(1) < 0
    for array in (corners, normal, unit):
        array[flip] = array[flip][:, [0, 2, 1]]
    return corners.reshape(-1, 3), normal.reshape(-1, 3), unit.reshape(-1, 3)


def plane(half_x_m: float, half_y_m: float, quads: int) -> Shape:
    """Rectangle in z = 0 that faces +z."""
    line_x, line_y = np.linspace(-half_x_m, half_x_m, quads + 1), np.linspace(-half_y_m, half_y_m, quads + 1)
    x, y = np.meshgrid(line_x, line_y, indexing="xy")
    unit = np.stack([x, y, np.zeros_like(x)], -1)
    normal = np.broadcast_to([0.0, 0.0, 1.0], unit.shape)
    return _join(_outward(_surface(unit, normal, np.ones(3), wrap=False)))


def mesh(model: Any, mesh_id: int) -> Shape:
    """A mesh asset with MuJoCo's shading normals: a corner far from its face's plane is shaded flat."""
    v0, f0, nf = model.mesh_vertadr[mesh_id], model.mesh_faceadr[mesh_id], model.mesh_facenum[mesh_id]
    n0, t0 = model.mesh_normaladr[mesh_id], model.mesh_texcoordadr[mesh_id]
    vert = np.asarray(model.mesh_vert[v0 : v0 + model.mesh_vertnum[mesh_id]], np.float64)
    face = model.mesh_face[f0 : f0 + nf]
    corners = vert[face]
    normal = np.asarray(model.mesh_normal[n0 + model.mesh_facenormal[f0 : f0 + nf]], np.float64)
    if t0 >= 0:
        uv = np.asarray(model.mesh_texcoord[t0 + model.mesh_facetexcoord[f0 : f0 + nf]], np.float64)
        uvw = np.concatenate([uv, np.zeros((nf, 3, 1))], axis=-1)
    else:
        flat = _face_normals(corners)[:, None]
        normal = np.where((normal * flat).sum(-1, keepdims=True) < 0.8, flat, normal)
        uvw = corners
    keep = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) > 0
    return _weld(corners[keep].reshape(-1, 3), normal[keep].reshape(-1, 3), uvw[keep].reshape(-1, 3))


def _face_normals(corners: np.ndarray) -> np.ndarray:
    """Unit normals [F,3] of triangles [F,3,3]."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)


def smooth(vert_m: np.ndarray, face: np.ndarray, crease_cos: float = 0.8) -> Shape:
    """A plain mesh (vertices [V,3], faces [F,3]) with normals averaged over faces that meet at a shallow angle."""
    corners = np.asarray(vert_m, np.float64)[face]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = _face_normals(corners)
    vertex = face.reshape(-1)
    order = np.argsort(vertex, kind="stable")
    degree = np.bincount(vertex, minlength=len(vert_m))
    start = np.concatenate([[0], np.cumsum(degree)])
    # Every pair (corner, other face at the same vertex): a vertex of degree d has d² of them.
    repeat = degree[vertex]
    corner = np.repeat(np.arange(len(vertex)), repeat)
    within = np.arange(len(corner)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    other = order[start[vertex[corner]] + within] // 3
    near = (flat[corner // 3] * flat[other]).sum(1) > crease_cos
    normal = np.zeros((len(vertex), 3))
    for axis in range(3):
        normal[:, axis] = np.bincount(corner, weighted[other, axis] * near, minlength=len(vertex))
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    soup = corners.reshape(-1, 3)
    return _weld(soup, normal, soup)


def heightfield(model: Any, field_id: int) -> Shape:
    """A height field's top surface (flat normals) and its sides down to the base."""
    rows, cols = int(model.hfield_nrow[field_id]), int(model.hfield_ncol[field_id])
    start = model.hfield_adr[field_id]
    height = np.asarray(model.hfield_data[start : start + rows * cols], np.float64).reshape(rows, cols)
    half_x, half_y, top, base = (float(s) for s in model.hfield_size[field_id])
    x, y = np.meshgrid(np.linspace(-half_x, half_x, cols), np.linspace(-half_y, half_y, rows))
    grid = np.stack([x, y, height * top], -1)
    faces = _quads(np.arange(rows * cols).reshape(rows, cols))
    parts = [_flat(grid.reshape(-1, 3)[faces], np.array([0.0, 0.0, 1.0]))]
    for edge, out in (
        (grid[0], [0.0, -1.0, 0.0]),
        (grid[-1], [0.0, 1.0, 0.0]),
        (grid[:, 0], [-1.0, 0.0, 0.0]),
        (grid[:, -1], [1.0, 0.0, 0.0]),
    ):
        wall = np.stack([edge, edge * [1, 1, 0] + [0, 0, -base]])
        side = wall.reshape(-1, 3)[_quads(np.arange(2 * len(edge)).reshape(2, -1))]
        parts.append(_flat(side, np.array(out)))
    return _join(*parts)


def _flat(corners: np.ndarray, toward: np.ndarray) -> tuple[np.ndarray, ...]:
    """Flat-shaded soup of triangles [F,3,3] wound so that they face `toward`."""
    flip = _face_normals(corners) @ toward < 0
    corners = corners.copy()
    corners[flip] = corners[flip][:, [0, 2, 1]]
    soup = corners.reshape(-1, 3)
    return soup, np.repeat(_face_normals(corners), 3, axis=0), soup
