"""Which triangle each sample sees: projection, clipping and the z-buffer, compiled without the interpreter lock.

Camera frame here: x right, y down, z forward [m]; pixel centres lie at +0.5. Depth is kept as
1/z [1/m], which is linear on the screen, so that the nearest surface has the largest value and
0 is background. `ids` holds face number + 1.
"""

import math
from typing import NamedTuple

import numpy as np

from robolearn.envs.raster.compiled import compiled, inlined

__all__ = ["OPAQUE", "Scene", "View", "Workspace", "camera_axes", "draw_parts"]

OPAQUE = 0.995  # MuJoCo's limit between opaque and transparent
_ONE = np.float32(1)
_ZERO = np.float32(0)
_HALF = np.float32(0.5)
_GUARD = 4.0  # triangles reaching further than this many frustum widths are clipped to it


class Scene(NamedTuple):
    """Every surface of a model; a part is a geom or part of it. Letters: N parts, P positions, C corners, F faces."""

    pos: np.ndarray  # [P,3] m, geom frame
    pos_start: np.ndarray  # [N+1]
    face_pos: np.ndarray  # [F,3]
    face_corner: np.ndarray  # [F,3]
    face_start: np.ndarray  # [N+1]
    face_part: np.ndarray  # [F]
    corner_pos: np.ndarray  # [C]
    normal: np.ndarray  # [C,3]
    uvw: np.ndarray  # [C,3]
    part_geom: np.ndarray  # [N]
    part_radius: np.ndarray  # [N] m, bounding sphere around the geom's origin
    part_box: np.ndarray  # [N,6] m, centre and half sizes of the bounding box in the geom's axes
    part_lit: np.ndarray  # [N,4] emission, specular, shininess exponent, light every pixel (else corners)
    part_texture: np.ndarray  # [N] texture number or -1
    part_plane: np.ndarray  # [N] 1 plane, 2 endless plane, else 0
    texels: np.ndarray  # [X] red, green, blue 0..255 in lanes of `texturing.LANE` bits
    texture: np.ndarray  # [T,3] kind (0 flat, 1 cube), faces, levels
    level: np.ndarray  # [T,L,3] first texel, width, height
    skybox: int  # texture number or -1


class View(NamedTuple):
    """A pinhole camera: pose in the world, focal lengths and centre in samples, clip distances [m]."""

    pos: np.ndarray
    mat: np.ndarray  # [9] MuJoCo's: columns are right, up, backward
    fx: float
    fy: float
    cx: float
    cy: float
    near: float
    far: float
    width: int
    height: int


class Workspace(NamedTuple):
    """Scratch memory of one thread, and the cached picture of what never moves."""

    cam_pos: np.ndarray  # [P,3] positions in the camera frame
    screen: np.ndarray  # [P,3] x, y [samples], 1/z; negative behind the near plane
    polygon: np.ndarray  # [2,10,3] a triangle being clipped
    ids: np.ndarray  # [h,w]
    inv_z: np.ndarray  # [h,w]
    static_ids: np.ndarray
    static_inv_z: np.ndarray
    static_rgb: np.ndarray  # [H,W,3] uint8
    static_key: np.ndarray  # poses and colours the cached picture was drawn for
    static_state: np.ndarray  # [1] 0 unknown, 1 visibility cached, 2 colours cached too
    lit: np.ndarray  # [C,6] light on a corner: plain rgb, shadow-casting rgb
    lit_stamp: np.ndarray  # [C]
    stamp: np.ndarray  # [1]
    layer_ids: np.ndarray  # [h,w] one transparent geom
    layer_inv_z: np.ndarray
    shadow: np.ndarray  # [S,S] 1 - depth from the light, or [1,1] without shadows
    shadow_ids: np.ndarray


@inlined
def camera_axes(view):
    """Rows right, down, forward of the camera in the world."""
    m = view.mat
    return m[0], m[3], m[6], -m[1], -m[4], -m[7], -m[2], -m[5], -m[8]


@inlined
def _bound(d, e):
    """Where an edge function e + d*t reaches zero: (lower, upper) limits of t."""
    if d > _ZERO:
        return -e / d, np.float32(1e9)
    if d < _ZERO:
        return np.float32(-1e9), -e / d
    if e < _ZERO:
        return np.float32(1e9), np.float32(-1e9)
    return np.float32(-1e9), np.float32(1e9)


@inlined
def _triangle(ids, inv_z, mark, x0, y0, w0, x1, y1, w1, x2, y2, w2):
    """Draw one triangle whose corners run clockwise on the screen (y down) into the z-buffer."""
    height, width = ids.shape
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    if area <= _ZERO:
        return
    left = max(0, math.ceil(min(x0, min(x1, x2)) - _HALF))
    right = min(width - 1, math.floor(max(x0, max(x1, x2)) - _HALF))
    top = max(0, math.ceil(min(y0, min(y1, y2)) - _HALF))
    bottom = min(height - 1, math.floor(max(y0, max(y1, y2)) - _HALF))
    if left > right or top > bottom:
        return
    inv = _ONE / area
    dx0, dx1 = (y1 - y2) * inv, (y2 - y0) * inv
    dy0, dy1 = (x2 - x1) * inv, (x0 - x2) * inv
    dx2 = -(dx0 + dx1)
    dw = dx0 * (w0 - w2) + dx1 * (w1 - w2)
    px = np.float32(left) + _HALF
    slack = np.float32(1e-4)
    for y in range(top, bottom + 1):
        py = np.float32(y) + _HALF
        e0 = dx0 * (px - x2) + dy0 * (py - y2)
        e1 = dx1 * (px - x2) + dy1 * (py - y2)
        e2 = _ONE - e0 - e1
        lo0, hi0 = _bound(dx0, e0 + slack * abs(dx0))
        lo1, hi1 = _bound(dx1, e1 + slack * abs(dx1))
        lo2, hi2 = _bound(dx2, e2 + slack * abs(dx2))
        lo = max(_ZERO, max(lo0, max(lo1, lo2)))
        hi = min(np.float32(right - left), min(hi0, min(hi1, hi2)))
        if hi < lo:
            continue
        first = left + math.ceil(lo)
        count = left + math.floor(hi) + 1 - first
        w = w2 + e0 * (w0 - w2) + e1 * (w1 - w2) + dw * np.float32(first - left)
        depth_row = inv_z[y, first : first + count]
        id_row = ids[y, first : first + count]
        for t in range(count):
            here = w + dw * np.float32(t)
            nearer = here > depth_row[t]
            depth_row[t] = here if nearer else depth_row[t]
            id_row[t] = mark if nearer else id_row[t]


@compiled
def _clip(polygon, source, target, count, a, b, c, d):
    """Keep the part of polygon[source] where a*x + b*y + c*z + d >= 0 in polygon[target]; returns its corners."""
    kept = 0
    for i in range(count):
        j = (i + 1) % count
        di = a * polygon[source, i, 0] + b * polygon[source, i, 1] + c * polygon[source, i, 2] + d
        dj = a * polygon[source, j, 0] + b * polygon[source, j, 1] + c * polygon[source, j, 2] + d
        if di >= 0:
            for k in range(3):
                polygon[target, kept, k] = polygon[source, i, k]
            kept += 1
        if (di >= 0) != (dj >= 0):
            share = di / (di - dj)
            for k in range(3):
                here = polygon[source, i, k]
                polygon[target, kept, k] = here + share * (polygon[source, j, k] - here)
            kept += 1
    return kept


@compiled
def _clipped_triangle(ids, inv_z, mark, polygon, view):
    """Draw the triangle polygon[0, :3] in the camera frame that crosses the near plane or lies far off the screen."""
    gx, gy = _GUARD * view.width / view.fx, _GUARD * view.height / view.fy
    n = _clip(polygon, 0, 1, 3, 0.0, 0.0, 1.0, -view.near)
    n = _clip(polygon, 1, 0, n, 1.0, 0.0, gx, 0.0)
    n = _clip(polygon, 0, 1, n, -1.0, 0.0, gx, 0.0)
    n = _clip(polygon, 1, 0, n, 0.0, 1.0, gy, 0.0)
    n = _clip(polygon, 0, 1, n, 0.0, -1.0, gy, 0.0)
    x0, y0, w0 = _screen(polygon, 0, view)
    for i in range(1, n - 1):
        x1, y1, w1 = _screen(polygon, i, view)
        x2, y2, w2 = _screen(polygon, i + 1, view)
        _triangle(ids, inv_z, mark, x0, y0, w0, x1, y1, w1, x2, y2, w2)


@inlined
def _screen(polygon, i, view):
    """Screen position and 1/z of corner i of polygon[1]."""
    w = 1.0 / max(polygon[1, i, 2], 1e-12)
    x, y = view.cx + view.fx * polygon[1, i, 0] * w, view.cy + view.fy * polygon[1, i, 1] * w
    return np.float32(x), np.float32(y), np.float32(w)


@inlined
def _row(a, b, c, m):
    """Row vector (a, b, c) times a 3x3 matrix [9]."""
    return (
        np.float32(a * m[0] + b * m[3] + c * m[6]),
        np.float32(a * m[1] + b * m[4] + c * m[7]),
        np.float32(a * m[2] + b * m[5] + c * m[8]),
    )


@inlined
def _beyond(box, a, b, c, d):
    """True if a*x + b*y + c*z + d > 0 in all of a box."""
    at = a * box[0] + b * box[1] + c * box[2] + d
    return at > abs(a) * box[3] + abs(b) * box[4] + abs(c) * box[5]


@inlined
def _project(scene, part, xpos, xmat, view, cam_pos, screen):
    """Bring one part's positions into the camera frame and onto the screen; returns 0 hidden, 1 inside, 2 clip."""
    r0, r1, r2, d0, d1, d2, f0, f1, f2 = camera_axes(view)
    tx, ty, tz = xpos[0] - view.pos[0], xpos[1] - view.pos[1], xpos[2] - view.pos[2]
    ox, oy, oz = r0 * tx + r1 * ty + r2 * tz, d0 * tx + d1 * ty + d2 * tz, f0 * tx + f1 * ty + f2 * tz
    b00, b01, b02 = _row(r0, r1, r2, xmat)
    b10, b11, b12 = _row(d0, d1, d2, xmat)
    b20, b21, b22 = _row(f0, f1, f2, xmat)
    box = scene.part_box[part]
    if _beyond(box, -b20, -b21, -b22, view.near - oz):
        return 0
    slope_x = max(view.cx, view.width - view.cx) / view.fx
    slope_y = max(view.cy, view.height - view.cy) / view.fy
    for side in (-1.0, 1.0):
        x0, x1, x2 = side * b00 - slope_x * b20, side * b01 - slope_x * b21, side * b02 - slope_x * b22
        y0, y1, y2 = side * b10 - slope_y * b20, side * b11 - slope_y * b21, side * b12 - slope_y * b22
        if _beyond(box, x0, x1, x2, side * ox - slope_x * oz) or _beyond(box, y0, y1, y2, side * oy - slope_y * oz):
            return 0
    bx, by, bz = np.float32(ox), np.float32(oy), np.float32(oz)
    fx, fy, cx, cy = np.float32(view.fx), np.float32(view.fy), np.float32(view.cx), np.float32(view.cy)
    near = np.float32(view.near)
    for i in range(scene.pos_start[part], scene.pos_start[part + 1]):
        px, py, pz = scene.pos[i, 0], scene.pos[i, 1], scene.pos[i, 2]
        x = b00 * px + b01 * py + b02 * pz + bx
        y = b10 * px + b11 * py + b12 * pz + by
        z = b20 * px + b21 * py + b22 * pz + bz
        w = _ONE / max(z, near)
        cam_pos[i, 0], cam_pos[i, 1], cam_pos[i, 2] = x, y, z
        screen[i, 0], screen[i, 1] = cx + fx * x * w, cy + fy * y * w
        screen[i, 2] = w if z >= near else -_ONE
    radius = scene.part_radius[part]
    wide = abs(ox) + radius > _GUARD * slope_x * max(oz - radius, view.near)
    tall = abs(oy) + radius > _GUARD * slope_y * max(oz - radius, view.near)
    return 2 if oz - radius < view.near or wide or tall else 1


@inlined
def _draw_part(scene, part, view, work, may_clip, ids, inv_z):
    """Draw the front faces of one projected part."""
    guard_x, guard_y = np.float32(_GUARD * view.width), np.float32(_GUARD * view.height)
    screen, cam_pos, polygon = work.screen, work.cam_pos, work.polygon
    for face in range(scene.face_start[part], scene.face_start[part + 1]):
        i, j, k = scene.face_pos[face, 0], scene.face_pos[face, 1], scene.face_pos[face, 2]
        x0, y0, w0 = screen[i, 0], screen[i, 1], screen[i, 2]
        x1, y1, w1 = screen[j, 0], screen[j, 1], screen[j, 2]
        x2, y2, w2 = screen[k, 0], screen[k, 1], screen[k, 2]
        mark = np.int32(face + 1)
        if may_clip:
            behind = w0 < _ZERO or w1 < _ZERO or w2 < _ZERO
            far_x = max(abs(x0), max(abs(x1), abs(x2))) > guard_x
            far_y = max(abs(y0), max(abs(y1), abs(y2))) > guard_y
            if behind or far_x or far_y:
                if w0 < _ZERO and w1 < _ZERO and w2 < _ZERO:
                    continue
                for c in range(3):
                    polygon[0, 0, c], polygon[0, 1, c], polygon[0, 2, c] = cam_pos[i, c], cam_pos[k, c], cam_pos[j, c]
                _clipped_triangle(ids, inv_z, mark, polygon, view)
                continue
        _triangle(ids, inv_z, mark, x0, y0, w0, x2, y2, w2, x1, y1, w1)


@compiled
def draw_parts(scene, parts, xpos, xmat, view, work, ids, inv_z):
    """Project and draw the listed parts at the geom poses xpos [G,3], xmat [G,9] into a z-buffer."""
    for index in range(parts.shape[0]):
        part = parts[index]
        geom = scene.part_geom[part]
        seen = _project(scene, part, xpos[geom], xmat[geom], view, work.cam_pos, work.screen)
        if seen:
            _draw_part(scene, part, view, work, seen == 2, ids, inv_z)
