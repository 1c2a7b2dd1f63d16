"""Colours of visible samples: MuJoCo's fixed-function lights, textures, shadows, transparency, sky.

Light is computed at the corners of faces and interpolated (Gouraud), as MuJoCo's own renderer does; a
corner is lit when the first pixel needs it. Formulas: OpenGL 1.5 specification, section 2.14.
"""

import math

import numpy as np
from numba import njit

from robolearn.envs.raster.visibility import camera_axes

__all__ = ["LIGHT", "shade_image", "shade_layer"]

_FAST = {"nogil": True, "cache": True, "fastmath": {"contract", "arcp", "nsz", "reassoc"}}
# Passing a scene to a function copies its two dozen array headers; inlining avoids that per pixel.
_INLINE = {**_FAST, "forceinline": True}
# Columns of the light table [L,22].
LIGHT = {
    "kind": 0,  # 0 spot, 1 directional, 2 headlight
    "pos": slice(1, 4),
    "dir": slice(4, 7),
    "ambient": slice(7, 10),
    "diffuse": slice(10, 13),
    "specular": slice(13, 16),
    "attenuation": slice(16, 19),
    "cos_cutoff": 19,
    "exponent": 20,
    "shadow": 21,
}


@njit(**_INLINE)
def _light_at(px, py, pz, nx, ny, nz, lights, ambient, view, material, rgba, lit):
    """Light at a world point with a unit normal -> lit [6]: plain rgb, then rgb of the shadow-casting light."""
    ex, ey, ez = view.pos[0] - px, view.pos[1] - py, view.pos[2] - pz
    inv = 1.0 / math.sqrt(ex * ex + ey * ey + ez * ez + 1e-30)
    ex, ey, ez = ex * inv, ey * inv, ez * inv
    for c in range(3):
        lit[c] = rgba[c] * (material[0] + ambient)
        lit[c + 3] = 0.0
    for index in range(lights.shape[0]):
        light = lights[index]
        gain = 1.0
        if light[0] == 0.0:
            lx, ly, lz = light[1] - px, light[2] - py, light[3] - pz
            dist = math.sqrt(lx * lx + ly * ly + lz * lz) + 1e-30
            lx, ly, lz = lx / dist, ly / dist, lz / dist
            cos_spot = -(lx * light[4] + ly * light[5] + lz * light[6])
            if cos_spot < light[19]:
                continue
            gain = cos_spot ** light[20] if light[20] > 0 else 1.0
            gain /= light[16] + light[17] * dist + light[18] * dist * dist
        elif light[0] == 2.0:
            lx, ly, lz = view.mat[2], view.mat[5], view.mat[8]
        else:
            lx, ly, lz = -light[4], -light[5], -light[6]
        cosine = nx * lx + ny * ly + nz * lz
        glint = 0.0
        if cosine > 0.0 and material[1] > 0.0:
            hx, hy, hz = lx + ex, ly + ey, lz + ez
            half = (nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-30)
            if half > 0.0:
                glint = material[1] * math.exp(material[2] * math.log(half))
        cosine = max(0.0, cosine)
        first = 3 if light[21] > 0.0 else 0
        for c in range(3):
            lit[first + c] += gain * (rgba[c] * (light[7 + c] + cosine * light[10 + c]) + glint * light[13 + c])
    for c in range(6):
        lit[c] = min(1.0, lit[c])


@njit(**_INLINE)
def _rotate(m, x, y, z):
    return m[0] * x + m[1] * y + m[2] * z, m[3] * x + m[4] * y + m[5] * z, m[6] * x + m[7] * y + m[8] * z


@njit(**_INLINE)
def _light_corner(scene, corner, part, xpos, xmat, lights, ambient, view, rgba, work):
    """Light one face corner unless this frame already did."""
    if work.lit_stamp[corner] == work.stamp[0]:
        return
    work.lit_stamp[corner] = work.stamp[0]
    p, n = scene.pos[scene.corner_pos[corner]], scene.normal[corner]
    px, py, pz = _rotate(xmat, p[0], p[1], p[2])
    nx, ny, nz = _rotate(xmat, n[0], n[1], n[2])
    px, py, pz = px + xpos[0], py + xpos[1], pz + xpos[2]
    _light_at(px, py, pz, nx, ny, nz, lights, ambient, view, scene.part_lit[part], rgba, work.lit[corner])


@njit(**_INLINE)
def _bilinear(texels, first, width, height, u, v, wrap):
    """Texture value 0..1 at texel coordinates (u, v), repeated or clamped at the border."""
    u, v = u - 0.5, v - 0.5
    x, y = math.floor(u), math.floor(v)
    fu, fv = u - x, v - y
    if wrap:
        x0, x1, y0, y1 = x % width, (x + 1) % width, y % height, (y + 1) % height
    else:
        x0, x1 = min(max(x, 0), width - 1), min(max(x + 1, 0), width - 1)
        y0, y1 = min(max(y, 0), height - 1), min(max(y + 1, 0), height - 1)
    a, b = first + y0 * width, first + y1 * width
    w00, w01, w10, w11 = (1 - fu) * (1 - fv), fu * (1 - fv), (1 - fu) * fv, fu * fv
    p, q, r, s = texels[a + x0], texels[a + x1], texels[b + x0], texels[b + x1]
    k = 1.0 / 255.0
    return (
        k * (w00 * p[0] + w01 * q[0] + w10 * r[0] + w11 * s[0]),
        k * (w00 * p[1] + w01 * q[1] + w10 * r[1] + w11 * s[1]),
        k * (w00 * p[2] + w01 * q[2] + w10 * r[2] + w11 * s[2]),
    )


@njit(**_INLINE)
def _trilinear(scene, texture, side, s, t, ds, wrap):
    """Mip-mapped texture value at (s, t) in 0..1 where a sample spans `ds` of the base image's texels."""
    levels, faces = scene.texture[texture, 2], scene.texture[texture, 1]
    detail = min(max(0.0, math.log2(max(ds, 1e-9))), levels - 1.0)
    low = int(detail)
    mix = detail - low
    r, g, b = 0.0, 0.0, 0.0
    for step in range(2):
        weight = mix if step else 1.0 - mix
        if weight > 0.0:
            first, width, height = scene.level[texture, low + step]
            first += (side if faces == 6 else 0) * width * height
            x, y, z = _bilinear(scene.texels, first, width, height, s * width, t * height, wrap)
            r, g, b = r + weight * x, g + weight * y, b + weight * z
    return r, g, b


@njit(**_INLINE)
def _cube_side(x, y, z):
    ax, ay, az = abs(x), abs(y), abs(z)
    if ax >= ay and ax >= az:
        return 0 if x > 0 else 1
    if ay >= az:
        return 2 if y > 0 else 3
    return 4 if z > 0 else 5


@njit(**_INLINE)
def _cube_st(side, x, y, z):
    """Coordinates 0..1 of a direction on one side of a cube map (OpenGL's table of major axes)."""
    if side == 0:
        s, t, m = -z, -y, x
    elif side == 1:
        s, t, m = z, -y, -x
    elif side == 2:
        s, t, m = x, z, y
    elif side == 3:
        s, t, m = x, -z, -y
    elif side == 4:
        s, t, m = x, -y, z
    else:
        s, t, m = -x, -y, -z
    m = max(m, 1e-12)
    return 0.5 * (s / m + 1.0), 0.5 * (t / m + 1.0)


@njit(**_INLINE)
def _texture(scene, texture, here, right, below):
    """Texture value at a coordinate [3]; its neighbours one pixel right and below choose the mip level."""
    size = float(scene.level[texture, 0, 1])
    rows = float(scene.level[texture, 0, 2])
    if scene.texture[texture, 0] == 0:
        sx, tx = (right[0] - here[0]) * size, (right[1] - here[1]) * rows
        sy, ty = (below[0] - here[0]) * size, (below[1] - here[1]) * rows
        span = math.sqrt(max(sx * sx + tx * tx, sy * sy + ty * ty))
        return _trilinear(scene, texture, 0, here[0], here[1], span, True)
    side = _cube_side(here[0], here[1], here[2])
    s, t = _cube_st(side, here[0], here[1], here[2])
    s1, t1 = _cube_st(side, right[0], right[1], right[2])
    s2, t2 = _cube_st(side, below[0], below[1], below[2])
    span = size * math.sqrt(max((s1 - s) ** 2 + (t1 - t) ** 2, (s2 - s) ** 2 + (t2 - t) ** 2))
    return _trilinear(scene, texture, side, s, t, span, False)


@njit(**_INLINE)
def _edge(a, b, x, y):
    """Triple product of two camera-frame corners and the ray (x, y, 1), in double precision."""
    a0, a1, a2, b0, b1, b2 = float(a[0]), float(a[1]), float(a[2]), float(b[0]), float(b[1]), float(b[2])
    return (a1 * b2 - a2 * b1) * x + (a2 * b0 - a0 * b2) * y + (a0 * b1 - a1 * b0)


@njit(**_INLINE)
def _weights(cam_pos, i, j, k, x, y):
    """Perspective-correct barycentric weights where the ray (x, y, 1) meets the plane of a triangle."""
    a, b, c = cam_pos[i], cam_pos[j], cam_pos[k]
    q0, q1, q2 = _edge(b, c, x, y), _edge(c, a, x, y), _edge(a, b, x, y)
    total = q0 + q1 + q2
    inv = 1.0 / total if total != 0.0 else 0.0
    return q0 * inv, q1 * inv, q2 * inv


@njit(**_INLINE)
def _uvw(scene, face, work, x, y, out):
    q0, q1, q2 = _weights(work.cam_pos, scene.face_pos[face, 0], scene.face_pos[face, 1], scene.face_pos[face, 2], x, y)
    a, b, c = scene.face_corner[face]
    for n in range(3):
        out[n] = q0 * scene.uvw[a, n] + q1 * scene.uvw[b, n] + q2 * scene.uvw[c, n]


@njit(**_INLINE)
def _unshadowed(px, py, pz, shadow, shadow_view):
    """Share of the shadow-casting light that reaches a world point, 0..1 (four shadow-map samples)."""
    r0, r1, r2, d0, d1, d2, f0, f1, f2 = camera_axes(shadow_view)
    x, y, z = px - shadow_view.pos[0], py - shadow_view.pos[1], pz - shadow_view.pos[2]
    depth = f0 * x + f1 * y + f2 * z
    if depth <= shadow_view.near:
        return 1.0
    u = shadow_view.cx + shadow_view.fx * (r0 * x + r1 * y + r2 * z) / depth - 0.5
    v = shadow_view.cy + shadow_view.fy * (d0 * x + d1 * y + d2 * z) / depth - 0.5
    size = shadow.shape[0]
    if u < 1 or v < 1 or u >= size - 2 or v >= size - 2:
        return 1.0
    i, j = int(u), int(v)
    fu, fv = u - i, v - j
    # A texel's own size on the surface, twice, so that no surface shadows itself.
    limit = 1.0 / max(depth - 2.5 * depth / shadow_view.fx - 0.002, 1e-6)
    a = (1 - fu) * (shadow[j, i] <= limit) + fu * (shadow[j, i + 1] <= limit)
    b = (1 - fu) * (shadow[j + 1, i] <= limit) + fu * (shadow[j + 1, i + 1] <= limit)
    return (1 - fv) * a + fv * b


@njit(**_INLINE)
def _shade_face(scene, face, x, y, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, buf):
    """Colour 0..1 of one face where the ray (x, y, 1) meets it -> buf[0, :3]."""
    part = scene.face_part[face]
    geom = scene.part_geom[part]
    a, b, c = scene.face_corner[face]
    i, j, k = scene.face_pos[face]
    q0, q1, q2 = _weights(work.cam_pos, i, j, k, x, y)
    shadows = shadow_view.width > 1
    plane = scene.part_plane[part] > 0
    px = py = pz = 0.0
    if plane or shadows:
        z = q0 * work.cam_pos[i, 2] + q1 * work.cam_pos[j, 2] + q2 * work.cam_pos[k, 2]
        r0, r1, r2, d0, d1, d2, f0, f1, f2 = camera_axes(view)
        px = view.pos[0] + z * (r0 * x + d0 * y + f0)
        py = view.pos[1] + z * (r1 * x + d1 * y + f1)
        pz = view.pos[2] + z * (r2 * x + d2 * y + f2)
    lit = buf[1]
    if plane:  # lit at every pixel: a plane is two triangles here, however large
        m = xmat[geom]
        _light_at(px, py, pz, m[2], m[5], m[8], lights, ambient, view, scene.part_lit[part], rgba[geom], lit)
    else:
        for corner in (a, b, c):
            _light_corner(scene, corner, part, xpos[geom], xmat[geom], lights, ambient, view, rgba[geom], work)
        for n in range(6 if shadows else 3):
            lit[n] = q0 * work.lit[a, n] + q1 * work.lit[b, n] + q2 * work.lit[c, n]
    share = 0.0
    if shadows and lit[3] + lit[4] + lit[5] > 0.0:
        share = _unshadowed(px, py, pz, work.shadow, shadow_view)
    for n in range(3):
        buf[0, n] = lit[n] + share * lit[n + 3]
    texture = scene.part_texture[part]
    if texture >= 0:
        for n in range(3):
            buf[2, n] = q0 * scene.uvw[a, n] + q1 * scene.uvw[b, n] + q2 * scene.uvw[c, n]
        _uvw(scene, face, work, x + 1.0 / view.fx, y, buf[3])
        _uvw(scene, face, work, x, y + 1.0 / view.fy, buf[4])
        tr, tg, tb = _texture(scene, texture, buf[2], buf[3], buf[4])
        buf[0, 0], buf[0, 1], buf[0, 2] = buf[0, 0] * tr, buf[0, 1] * tg, buf[0, 2] * tb
    for n in range(3):
        buf[0, n] = min(1.0, max(0.0, buf[0, n]))


@njit(**_INLINE)
def _sky_direction(view, x, y, out):
    """World direction of the ray (x, y, 1) in the sky box's axes."""
    r0, r1, r2, d0, d1, d2, f0, f1, f2 = camera_axes(view)
    out[0], out[1], out[2] = r0 * x + d0 * y + f0, r2 * x + d2 * y + f2, -(r1 * x + d1 * y + f1)


@njit(**_INLINE)
def _sky(scene, x, y, view, buf):
    """Background colour along a ray -> buf[0, :3]; black without a sky box."""
    buf[0, 0] = buf[0, 1] = buf[0, 2] = 0.0
    if scene.skybox < 0:
        return
    _sky_direction(view, x, y, buf[2])
    _sky_direction(view, x + 1.0 / view.fx, y, buf[3])
    _sky_direction(view, x, y + 1.0 / view.fy, buf[4])
    buf[0, 0], buf[0, 1], buf[0, 2] = _texture(scene, scene.skybox, buf[2], buf[3], buf[4])


@njit(**_FAST)
def shade_image(scene, samples, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, use_static, out):
    """Colour every pixel of out [H,W,3] uint8 from `work.ids`; `samples` per pixel side, `view` in samples."""
    height, width = out.shape[0], out.shape[1]
    buf = np.empty((5, 6))
    total = samples * samples
    half = 0.5 * samples
    scale = 255.0 / total
    for row in range(height):
        for column in range(width):
            y0, x0 = row * samples, column * samples
            same, static = True, use_static
            for n in range(total):
                y, x = y0 + n // samples, x0 + n % samples
                same = same and work.ids[y, x] == work.ids[y0, x0]
                static = static and work.ids[y, x] == work.static_ids[y, x]
            if static:
                for c in range(3):
                    out[row, column, c] = work.static_rgb[row, column, c]
                continue
            r = g = b = 0.0
            last = np.int32(-1)
            for n in range(1 if same else total):
                mark = work.ids[y0 + n // samples, x0 + n % samples]
                if mark != last:
                    sx = x0 + (half if same else n % samples + 0.5)
                    sy = y0 + (half if same else n // samples + 0.5)
                    x, y = (sx - view.cx) / view.fx, (sy - view.cy) / view.fy
                    if mark == 0:
                        _sky(scene, x, y, view, buf)
                    else:
                        _shade_face(
                            scene, mark - 1, x, y, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, buf
                        )
                    last = mark
                weight = total if same else 1
                r, g, b = r + weight * buf[0, 0], g + weight * buf[0, 1], b + weight * buf[0, 2]
            out[row, column, 0] = np.uint8(r * scale + 0.5)
            out[row, column, 1] = np.uint8(g * scale + 0.5)
            out[row, column, 2] = np.uint8(b * scale + 0.5)


@njit(**_FAST)
def shade_layer(scene, samples, alpha, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out):
    """Blend the transparent surface in `work.layer_ids` over out [H,W,3] uint8."""
    buf = np.empty((5, 6))
    total = samples * samples
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            mark, count = np.int32(0), 0
            for n in range(total):
                here = work.layer_ids[row * samples + n // samples, column * samples + n % samples]
                if here > 0:
                    mark, count = here, count + 1
            if count == 0:
                continue
            x, y = ((column + 0.5) * samples - view.cx) / view.fx, ((row + 0.5) * samples - view.cy) / view.fy
            _shade_face(scene, mark - 1, x, y, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, buf)
            cover = alpha * count / total
            for c in range(3):
                value = (1.0 - cover) * out[row, column, c] + 255.0 * cover * buf[0, c]
                out[row, column, c] = np.uint8(value + 0.5)
