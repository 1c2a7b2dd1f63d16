"""Values of mip-mapped textures, flat and on cubes, and the mip level that a sample asks for."""

import math

from robolearn.envs.raster.compiled import compiled, inlined

__all__ = ["LANE", "mip_level", "texture_value"]

LANE = 21  # bits of one colour of a texel: eight of its value, thirteen of a weight
_WHOLE = 8192.0  # a weight of one


@inlined
def _bilinear(texels, first, width, height, u, v, wrap, weight):
    """Sum of the four texels around (u, v) inside the image, repeated or clamped at its border, times `weight`."""
    u, v = u - 0.5, v - 0.5
    x, y = math.floor(u), math.floor(v)
    fu, fv = u - x, v - y
    if wrap:
        x0, y0 = x + width if x < 0 else x, y + height if y < 0 else y
        x1, y1 = 0 if x0 + 1 >= width else x0 + 1, 0 if y0 + 1 >= height else y0 + 1
    else:
        x0, x1 = min(max(x, 0), width - 1), min(max(x + 1, 0), width - 1)
        y0, y1 = min(max(y, 0), height - 1), min(max(y + 1, 0), height - 1)
    a, b = first + y0 * width, first + y1 * width
    low, high = weight * (1 - fv), weight * fv
    return (
        int(low * (1 - fu) + 0.5) * texels[a + x0]
        + int(low * fu + 0.5) * texels[a + x1]
        + int(high * (1 - fu) + 0.5) * texels[b + x0]
        + int(high * fu + 0.5) * texels[b + x1]
    )


@inlined
def _trilinear(scene, texture, side, s, t, mip, wrap):
    """Texture value at (s, t) in 0..1, mixed from the two levels beside `mip`: three colours in one integer."""
    faces, low = scene.texture[texture, 1], int(mip)
    mix = mip - low
    total = 0
    for step in range(2):
        weight = _WHOLE * (mix if step else 1.0 - mix)
        if weight > 0.0:
            first = scene.level[texture, low + step, 0]
            width, height = scene.level[texture, low + step, 1], scene.level[texture, low + step, 2]
            first += (side if faces == 6 else 0) * width * height
            total += _bilinear(scene.texels, first, width, height, s * width, t * height, wrap, weight)
    k, mask = 1.0 / (255.0 * _WHOLE), (1 << LANE) - 1
    return k * (total & mask), k * ((total >> LANE) & mask), k * (total >> 2 * LANE)


@inlined
def _cube_side(x, y, z):
    ax, ay, az = abs(x), abs(y), abs(z)
    if ax >= ay and ax >= az:
        return 0 if x > 0 else 1
    if ay >= az:
        return 2 if y > 0 else 3
    return 4 if z > 0 else 5


@inlined
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


@compiled
def _mip(kind, levels, size, rows, here, right, below):
    """Mip level, with fraction, of coordinates [3] here and one sample right and below."""
    if kind == 0:
        sx, tx = (right[0] - here[0]) * size, (right[1] - here[1]) * rows
        sy, ty = (below[0] - here[0]) * size, (below[1] - here[1]) * rows
    else:
        side = _cube_side(here[0], here[1], here[2])
        s, t = _cube_st(side, here[0], here[1], here[2])
        s1, t1 = _cube_st(side, right[0], right[1], right[2])
        s2, t2 = _cube_st(side, below[0], below[1], below[2])
        sx, tx, sy, ty = size * (s1 - s), size * (t1 - t), size * (s2 - s), size * (t2 - t)
    texels = math.sqrt(max(sx * sx + tx * tx, sy * sy + ty * ty))  # of the base image, in one sample
    return min(max(0.0, math.log2(max(texels, 1e-9))), levels - 1.0)


@inlined
def mip_level(scene, texture, here, right, below):
    """Mip level of one of the scene's textures."""
    size, rows = float(scene.level[texture, 0, 1]), float(scene.level[texture, 0, 2])
    return _mip(scene.texture[texture, 0], scene.texture[texture, 2], size, rows, here, right, below)


@inlined
def texture_value(scene, texture, here, mip):
    """Texture value at a coordinate [3]."""
    if scene.texture[texture, 0] == 0:
        return _trilinear(scene, texture, 0, here[0] - math.floor(here[0]), here[1] - math.floor(here[1]), mip, True)
    side = _cube_side(here[0], here[1], here[2])
    s, t = _cube_st(side, here[0], here[1], here[2])
    return _trilinear(scene, texture, side, s, t, mip, False)
