"""Colours of visible samples: MuJoCo's fixed-function lights, textures, shadows, transparency, sky.

Light is computed at the corners of faces and interpolated (Gouraud), as MuJoCo's own renderer does; a
corner is lit when the first pixel needs it. Formulas: OpenGL 1.5 specification, section 2.14.
"""

import math

import numpy as np

from robolearn.envs.raster.compiled import compiled, inlined
from robolearn.envs.raster.texturing import mip_level, texture_value
from robolearn.envs.raster.visibility import camera_axes

__all__ = ["LIGHT", "shade_image"]

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

_RUN = 16  # pixels between which the mip level is interpolated


@compiled
def _light_at(px, py, pz, nx, ny, nz, lights, ambient, view, material, red, green, blue):
    """Light at a world point with a unit normal: (r, g, b, and r, g, b of the shadow-casting light)."""
    emission, specular, exponent = material[0], material[1], material[2]
    ex, ey, ez = view.pos[0] - px, view.pos[1] - py, view.pos[2] - pz
    inv = 1.0 / math.sqrt(ex * ex + ey * ey + ez * ez + 1e-30)
    ex, ey, ez = ex * inv, ey * inv, ez * inv
    base = emission + ambient
    r, g, b, sr, sg, sb = base * red, base * green, base * blue, 0.0, 0.0, 0.0
    for i in range(lights.shape[0]):
        gain = 1.0
        if lights[i, 0] == 0.0:
            lx, ly, lz = lights[i, 1] - px, lights[i, 2] - py, lights[i, 3] - pz
            dist = math.sqrt(lx * lx + ly * ly + lz * lz) + 1e-30
            inv = 1.0 / dist
            lx, ly, lz = lx * inv, ly * inv, lz * inv
            cos_spot = -(lx * lights[i, 4] + ly * lights[i, 5] + lz * lights[i, 6])
            if cos_spot < lights[i, 19]:
                continue
            if lights[i, 20] > 0.0:
                gain = math.exp(lights[i, 20] * math.log(max(cos_spot, 1e-30)))
            gain /= lights[i, 16] + lights[i, 17] * dist + lights[i, 18] * dist * dist
        elif lights[i, 0] == 2.0:
            lx, ly, lz = view.mat[2], view.mat[5], view.mat[8]
        else:
            lx, ly, lz = -lights[i, 4], -lights[i, 5], -lights[i, 6]
        cosine = max(0.0, nx * lx + ny * ly + nz * lz)
        glint = 0.0
        if cosine > 0.0 and specular > 0.0:
            hx, hy, hz = lx + ex, ly + ey, lz + ez
            half = (nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-30)
            if half > 0.0:
                glint = gain * specular * math.exp(exponent * math.log(half))
        dr = gain * red * (lights[i, 7] + cosine * lights[i, 10]) + glint * lights[i, 13]
        dg = gain * green * (lights[i, 8] + cosine * lights[i, 11]) + glint * lights[i, 14]
        db = gain * blue * (lights[i, 9] + cosine * lights[i, 12]) + glint * lights[i, 15]
        if lights[i, 21] > 0.0:
            sr, sg, sb = sr + dr, sg + dg, sb + db
        else:
            r, g, b = r + dr, g + dg, b + db
    return min(1.0, r), min(1.0, g), min(1.0, b), min(1.0, sr), min(1.0, sg), min(1.0, sb)


@inlined
def _rotate(m, g, x, y, z):
    """Row g of rotation matrices m [G,9] times a vector."""
    return (
        m[g, 0] * x + m[g, 1] * y + m[g, 2] * z,
        m[g, 3] * x + m[g, 4] * y + m[g, 5] * z,
        m[g, 6] * x + m[g, 7] * y + m[g, 8] * z,
    )


@inlined
def _light_corner(scene, corner, part, xpos, xmat, lights, ambient, view, rgba, work):
    """Light one face corner for this frame."""
    work.lit_stamp[corner] = work.stamp[0]
    at, geom = scene.corner_pos[corner], scene.part_geom[part]
    px, py, pz = _rotate(xmat, geom, scene.pos[at, 0], scene.pos[at, 1], scene.pos[at, 2])
    nx, ny, nz = _rotate(xmat, geom, scene.normal[corner, 0], scene.normal[corner, 1], scene.normal[corner, 2])
    px, py, pz = px + xpos[geom, 0], py + xpos[geom, 1], pz + xpos[geom, 2]
    lit = _light_at(
        px, py, pz, nx, ny, nz, lights, ambient, view, scene.part_lit[part], rgba[geom, 0], rgba[geom, 1], rgba[geom, 2]
    )
    for c in range(6):
        work.lit[corner, c] = lit[c]


@inlined
def _cross(cam_pos, a, b):
    """Cross product of two camera-frame corners, in double precision."""
    a0, a1, a2 = float(cam_pos[a, 0]), float(cam_pos[a, 1]), float(cam_pos[a, 2])
    b0, b1, b2 = float(cam_pos[b, 0]), float(cam_pos[b, 1]), float(cam_pos[b, 2])
    return a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0


@inlined
def _facing(scene, face, cam_pos):
    """Coefficients of the weights e_n = a_n x + b_n y + c_n at which the ray (x, y, 1) meets a face's plane."""
    i, j, k = scene.face_pos[face, 0], scene.face_pos[face, 1], scene.face_pos[face, 2]
    return _cross(cam_pos, j, k), _cross(cam_pos, k, i), _cross(cam_pos, i, j)


@inlined
def _weights(facing, x, y):
    """Barycentric weights where the ray (x, y, 1) meets a face."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = facing
    e0, e1, e2 = ax * x + ay * y + az, bx * x + by * y + bz, cx * x + cy * y + cz
    total = e0 + e1 + e2
    inv = 1.0 / total if total != 0.0 else 0.0
    return e0 * inv, e1 * inv, e2 * inv


@inlined
def _uvw(scene, face, q):
    """Texture coordinate of a face at barycentric weights."""
    a, b, c = scene.face_corner[face, 0], scene.face_corner[face, 1], scene.face_corner[face, 2]
    return (
        q[0] * scene.uvw[a, 0] + q[1] * scene.uvw[b, 0] + q[2] * scene.uvw[c, 0],
        q[0] * scene.uvw[a, 1] + q[1] * scene.uvw[b, 1] + q[2] * scene.uvw[c, 1],
        q[0] * scene.uvw[a, 2] + q[1] * scene.uvw[b, 2] + q[2] * scene.uvw[c, 2],
    )


@inlined
def _face_mip(scene, face, facing, x, y, step, view):
    """Mip level of a face's texture at the ray (x, y, 1); a pixel spans `step` samples."""
    here = _uvw(scene, face, _weights(facing, x, y))
    right = _uvw(scene, face, _weights(facing, x + step / view.fx, y))
    below = _uvw(scene, face, _weights(facing, x, y + step / view.fy))
    return mip_level(scene, scene.part_texture[scene.face_part[face]], here, right, below)


@inlined
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


@inlined
def _tiny(screen, i, j, k, limit):
    """True if a triangle in front of the camera is smaller than `limit` samples."""
    if min(screen[i, 2], min(screen[j, 2], screen[k, 2])) < 0.0:
        return False
    x = max(abs(screen[i, 0] - screen[j, 0]), abs(screen[i, 0] - screen[k, 0]))
    y = max(abs(screen[i, 1] - screen[j, 1]), abs(screen[i, 1] - screen[k, 1]))
    return max(x, y) < limit


@inlined
def _lit_corners(scene, face, facing, x, y, step, view, xpos, xmat, rgba, lights, ambient, work):
    """The corners between which light is interpolated; a face smaller than a pixel has its nearest one thrice."""
    i, j, k = scene.face_pos[face, 0], scene.face_pos[face, 1], scene.face_pos[face, 2]
    a, b, c = scene.face_corner[face, 0], scene.face_corner[face, 1], scene.face_corner[face, 2]
    if _tiny(work.screen, i, j, k, step):
        q0, q1, q2 = _weights(facing, x, y)
        a = a if q0 >= q1 and q0 >= q2 else b if q1 >= q2 else c
        b = c = a
    for corner in (a, b, c):
        if work.lit_stamp[corner] != work.stamp[0]:
            _light_corner(scene, corner, scene.face_part[face], xpos, xmat, lights, ambient, view, rgba, work)
    return a, b, c


@inlined
def _surface(scene, face, x, y, step, view, xpos, xmat, rgba, lights, ambient, work):
    """What colours a face at the ray (x, y, 1): its plane, the corners that light it, its texture's mip level."""
    part, corners, mip = scene.face_part[face], (0, 0, 0), 0.0
    facing = _facing(scene, face, work.cam_pos)
    if scene.part_plane[part] == 0:
        corners = _lit_corners(scene, face, facing, x, y, step, view, xpos, xmat, rgba, lights, ambient, work)
    if scene.part_texture[part] >= 0:
        mip = _face_mip(scene, face, facing, x, y, step, view)
    return facing, corners, mip


@inlined
def _shade(scene, face, facing, corners, mip, x, y, view, xmat, rgba, lights, ambient, shadow_view, work):
    """Colour 0..1 of one face where the ray (x, y, 1) meets it."""
    part, q = scene.face_part[face], _weights(facing, x, y)
    geom, shadows, plane = scene.part_geom[part], shadow_view.width > 1, scene.part_plane[part] > 0
    px = py = pz = 0.0
    if plane or shadows:
        i, j, k = scene.face_pos[face, 0], scene.face_pos[face, 1], scene.face_pos[face, 2]
        z = q[0] * work.cam_pos[i, 2] + q[1] * work.cam_pos[j, 2] + q[2] * work.cam_pos[k, 2]
        r0, r1, r2, d0, d1, d2, f0, f1, f2 = camera_axes(view)
        px = view.pos[0] + z * (r0 * x + d0 * y + f0)
        py = view.pos[1] + z * (r1 * x + d1 * y + f1)
        pz = view.pos[2] + z * (r2 * x + d2 * y + f2)
    if plane:  # lit at every pixel: a plane is two triangles here, however large
        nx, ny, nz = xmat[geom, 2], xmat[geom, 5], xmat[geom, 8]
        red, green, blue = rgba[geom, 0], rgba[geom, 1], rgba[geom, 2]
        lit = _light_at(px, py, pz, nx, ny, nz, lights, ambient, view, scene.part_lit[part], red, green, blue)
        r, g, b, sr, sg, sb = lit
    else:
        u, v, w = work.lit[corners[0]], work.lit[corners[1]], work.lit[corners[2]]
        r, g, b = _mixed(q, u, v, w, 0), _mixed(q, u, v, w, 1), _mixed(q, u, v, w, 2)
        sr = sg = sb = 0.0
        if shadows:
            sr, sg, sb = _mixed(q, u, v, w, 3), _mixed(q, u, v, w, 4), _mixed(q, u, v, w, 5)
    if shadows and sr + sg + sb > 0.0:
        share = _unshadowed(px, py, pz, work.shadow, shadow_view)
        r, g, b = r + share * sr, g + share * sg, b + share * sb
    texture = scene.part_texture[part]
    if texture >= 0:
        tr, tg, tb = texture_value(scene, texture, _uvw(scene, face, q), mip)
        r, g, b = r * tr, g * tg, b * tb
    return min(1.0, max(0.0, r)), min(1.0, max(0.0, g)), min(1.0, max(0.0, b))


@inlined
def _mixed(q, u, v, w, n):
    return q[0] * u[n] + q[1] * v[n] + q[2] * w[n]


@inlined
def _sky_direction(view, x, y):
    """World direction of the ray (x, y, 1) in the sky box's axes."""
    r0, r1, r2, d0, d1, d2, f0, f1, f2 = camera_axes(view)
    return r0 * x + d0 * y + f0, r2 * x + d2 * y + f2, -(r1 * x + d1 * y + f1)


@inlined
def _sky(scene, x, y, step, view):
    """Background colour along a ray; black without a sky box."""
    if scene.skybox < 0:
        return 0.0, 0.0, 0.0
    here = _sky_direction(view, x, y)
    right, below = _sky_direction(view, x + step / view.fx, y), _sky_direction(view, x, y + step / view.fy)
    return texture_value(scene, scene.skybox, here, mip_level(scene, scene.skybox, here, right, below))


@inlined
def _equal(ids, others, y0, x0, samples):
    """True if a pixel's samples are the same in two pictures."""
    for y in range(y0, y0 + samples):
        for x in range(x0, x0 + samples):
            if ids[y, x] != others[y, x]:
                return False
    return True


@inlined
def _uniform(ids, y0, x0, samples):
    """True if all samples of a pixel lie on one face."""
    for y in range(y0, y0 + samples):
        for x in range(x0, x0 + samples):
            if ids[y, x] != ids[y0, x0]:
                return False
    return True


@inlined
def _same_part(scene, ids, y0, x0, samples):
    """True if all samples of a pixel lie on one part."""
    first = ids[y0, x0]
    if first == 0:
        return False
    part = scene.face_part[first - 1]
    for y in range(y0, y0 + samples):
        for x in range(x0, x0 + samples):
            if ids[y, x] == 0 or scene.face_part[ids[y, x] - 1] != part:
                return False
    return True


@inlined
def _put(out, row, column, r, g, b, cover):
    """Write a colour 0..1, over what is there where `cover` is less than all."""
    scale = 255.0 * cover
    r, g, b = r * scale, g * scale, b * scale
    if cover < 1.0:
        keep = 1.0 - cover
        r, g, b = r + keep * out[row, column, 0], g + keep * out[row, column, 1], b + keep * out[row, column, 2]
    out[row, column, 0] = np.uint8(r + 0.5)
    out[row, column, 1] = np.uint8(g + 0.5)
    out[row, column, 2] = np.uint8(b + 0.5)


@compiled
def _shade_run(
    scene, mark, row, run, first, end, samples, alpha, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out
):
    """Colour the pixels first..end of a row, which lie in a `run` (begin, end) of one face, or of the sky."""
    dx, y = samples / view.fx, ((row + 0.5) * samples - view.cy) / view.fy
    left = (0.5 * samples - view.cx) / view.fx
    if mark == 0:
        for column in range(first, end):
            r, g, b = _sky(scene, left + column * dx, y, samples, view)
            _put(out, row, column, r, g, b, alpha)
        return
    face, begin, length, rise = mark - 1, run[0], run[1] - run[0], 0.0
    facing, corners, mip = _surface(
        scene, face, left + begin * dx, y, samples, view, xpos, xmat, rgba, lights, ambient, work
    )
    if scene.part_texture[scene.face_part[face]] >= 0 and length > 1:  # a logarithm a pixel would cost more
        last = _face_mip(scene, face, facing, left + (run[1] - 1) * dx, y, samples, view)
        rise = (last - mip) / (length - 1)
    for column in range(first, end):
        x, level = left + column * dx, max(mip + (column - begin) * rise, 0.0)
        r, g, b = _shade(
            scene, face, facing, corners, level, x, y, view, xmat, rgba, lights, ambient, shadow_view, work
        )
        _put(out, row, column, r, g, b, alpha)


@inlined
def _run(ids, row, column, samples, mark):
    """The pixels (begin, end) about one that show the same face, inside a block of _RUN."""
    begin, end, stop = column, column + 1, min(ids.shape[1] // samples, (column // _RUN + 1) * _RUN)
    while begin > column // _RUN * _RUN and _shows(ids, row, begin - 1, samples, mark):
        begin -= 1
    while end < stop and _shows(ids, row, end, samples, mark):
        end += 1
    return begin, end


@inlined
def _shows(ids, row, column, samples, mark):
    """True if all samples of a pixel lie on one given face."""
    y0, x0 = row * samples, column * samples
    return ids[y0, x0] == mark and _uniform(ids, y0, x0, samples)


@compiled
def _shade_edge(
    scene, ids, row, column, samples, alpha, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out
):
    """Colour a pixel whose samples see several faces."""
    y0, x0, total = row * samples, column * samples, samples * samples
    # Inside one part, two opposite samples are as good as all of them.
    stride = total - 1 if _same_part(scene, ids, y0, x0, samples) else 1
    r = g = b = weight = tried = 0.0
    last, colour = np.int32(-1), (0.0, 0.0, 0.0)
    for n in range(0, total, stride):
        mark = ids[y0 + n // samples, x0 + n % samples]
        tried += 1.0
        if mark == 0 and alpha < 1.0:
            continue
        if mark != last:
            x, y = (x0 + n % samples + 0.5 - view.cx) / view.fx, (y0 + n // samples + 0.5 - view.cy) / view.fy
            if mark == 0:
                colour = _sky(scene, x, y, samples, view)
            else:
                facing, corners, mip = _surface(
                    scene, mark - 1, x, y, samples, view, xpos, xmat, rgba, lights, ambient, work
                )
                colour = _shade(
                    scene, mark - 1, facing, corners, mip, x, y, view, xmat, rgba, lights, ambient, shadow_view, work
                )
            last = mark
        weight += 1.0
        r, g, b = r + colour[0], g + colour[1], b + colour[2]
    part = 1.0 / max(weight, 1.0)
    _put(out, row, column, r * part, g * part, b * part, alpha * weight / tried)


@compiled
def shade_image(
    scene, samples, ids, alpha, use_static, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out
):
    """Colour out [H,W,3] uint8 from the faces `ids` sees; `samples` per pixel side, `view` counted in samples.

    With `use_static`, pixels that show what never moves are left as they are. With alpha < 1, faces are
    blended over `out` and nothing is drawn where there are none.
    """
    width = out.shape[1]
    for row in range(out.shape[0]):
        y0, end = row * samples, np.int64(0)  # a literal would be compiled once more
        while end < width:
            first, x0 = end, end * samples
            end, mark = first + 1, ids[y0, x0]
            if use_static and _equal(ids, work.static_ids, y0, x0, samples):
                continue
            if not _uniform(ids, y0, x0, samples):
                _shade_edge(
                    scene, ids, row, first, samples, alpha,
                    view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out,
                )  # fmt: skip
                continue
            if alpha < 1.0 and mark == 0:
                continue
            while end < width and end % _RUN and _shows(ids, row, end, samples, mark):
                end += 1
            # What never moves is coloured as if nothing stood before it, so that the cached picture is the same.
            behind = work.static_ids if work.static_ids[y0, x0] == mark else ids
            _shade_run(
                scene, mark, row, _run(behind, row, first, samples, mark), first, end, samples, alpha,
                view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out,
            )  # fmt: skip
