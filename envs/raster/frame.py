"""Whole frames and batches of frames in one compiled call."""

import numpy as np

from robolearn.envs.raster.compiled import allocating, pasted
from robolearn.envs.raster.shading import shade_image
from robolearn.envs.raster.visibility import OPAQUE, View, draw_parts

__all__ = ["render_frames"]


@allocating
def _changed(key, parts, scene, view, xpos, xmat, rgba, lights):
    """Compare everything the static picture depends on with `key`, and remember it there."""
    at, changed = 0, False
    for source in (view.pos, view.mat, lights.reshape(-1)):
        for value in source:
            changed = changed or key[at] != value
            key[at] = value
            at += 1
    for part in parts:
        geom = scene.part_geom[part]
        for source in (xpos[geom], xmat[geom], rgba[geom]):
            for value in source:
                changed = changed or key[at] != value
                key[at] = value
                at += 1
    return changed


@allocating
def _opaque(parts, scene, rgba):
    keep = np.empty(parts.shape[0], np.bool_)
    for i in range(parts.shape[0]):
        keep[i] = rgba[scene.part_geom[parts[i]], 3] >= OPAQUE
    return parts[keep]


@pasted
def _shadow_map(scene, parts, xpos, xmat, shadow_view, work):
    work.shadow[:] = 0
    draw_parts(scene, parts, xpos, xmat, shadow_view, work, work.shadow_ids, work.shadow)


@pasted
def _blend_layers(scene, samples, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out):
    """Transparent geoms over the picture: front to back, then back to front, as MuJoCo does."""
    count = scene.part_geom.shape[0]
    part_of, distance = np.empty(count, np.int32), np.empty(count)
    n = 0
    for part in range(count):
        geom = scene.part_geom[part]
        if 0.0 < rgba[geom, 3] < OPAQUE:
            away = np.sqrt(np.sum((xpos[geom] - view.pos) ** 2)) - scene.part_radius[part]
            part_of[n], distance[n] = part, 1e10 if scene.part_plane[part] > 0 else away
            n += 1
    order, hidden = np.argsort(distance[:n]), np.zeros(n, np.bool_)
    for step in range(2 * n):
        at = order[step if step < n else 2 * n - 1 - step]
        if hidden[at]:
            continue
        part = part_of[at]
        work.layer_ids[:] = 0
        work.layer_inv_z[:] = work.inv_z
        one = np.full(1, part, np.int32)
        draw_parts(scene, one, xpos, xmat, view, work, work.layer_ids, work.layer_inv_z)
        hidden[at] = not work.layer_ids.any()
        if not hidden[at]:
            shade_image(
                scene, samples, work.layer_ids, rgba[scene.part_geom[part], 3], np.bool_(False),
                view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out,
            )  # fmt: skip


@pasted
def _frame(scene, static, moving, samples, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out):
    """Draw one picture into out [H,W,3]; what never moves is taken from the cache while nothing of it changed."""
    shadows = shadow_view.width > 1
    work.stamp[0] += 1
    solid_static, solid_moving = _opaque(static, scene, rgba), _opaque(moving, scene, rgba)
    if shadows:
        _shadow_map(scene, solid_static, xpos, xmat, shadow_view, work)
        draw_parts(scene, solid_moving, xpos, xmat, shadow_view, work, work.shadow_ids, work.shadow)
    if _changed(work.static_key, static, scene, view, xpos, xmat, rgba, lights) or shadows:
        work.static_ids[:] = 0
        work.static_inv_z[:] = 0
        draw_parts(scene, solid_static, xpos, xmat, view, work, work.static_ids, work.static_inv_z)
        work.static_state[0] = 1
    elif work.static_state[0] == 1:
        shade_image(
            scene, samples, work.static_ids, 1.0, np.bool_(False),
            view, xpos, xmat, rgba, lights, ambient, shadow_view, work, work.static_rgb,
        )  # fmt: skip
        work.static_state[0] = 2
    work.ids[:] = work.static_ids
    work.inv_z[:] = work.static_inv_z
    draw_parts(scene, solid_moving, xpos, xmat, view, work, work.ids, work.inv_z)
    if out.shape[0] > 0:
        cached = work.static_state[0] == 2
        if cached:
            out[:] = work.static_rgb
        shade_image(
            scene, samples, work.ids, 1.0, cached, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out
        )
        _blend_layers(scene, samples, view, xpos, xmat, rgba, lights, ambient, shadow_view, work, out)


@allocating
def render_frames(
    scene, static, moving, samples, lens, cam_pos, cam_mat, xpos, xmat, rgba, lights, ambient, shadow_view, work,
    rgb, depth, segmentation,
):  # fmt: skip
    """Render n frames: cameras [n,3] [n,9], geom poses [n,G,3] [n,G,9], colours [n or 1,G,4].

    Outputs rgb [n,H,W,3] uint8, depth [n,H,W] m along the optical axis (far where nothing is seen) and
    segmentation [n,H,W] geom numbers (-1 where nothing is seen); an output with H = 0 is skipped.
    """
    for n in range(xpos.shape[0]):
        view = View(
            cam_pos[n], cam_mat[n], lens.fx, lens.fy, lens.cx, lens.cy, lens.near, lens.far, lens.width, lens.height
        )
        colours = rgba[n] if rgba.shape[0] > 1 else rgba[0]
        _frame(
            scene, static, moving, samples, view, xpos[n], xmat[n], colours, lights, ambient, shadow_view, work, rgb[n]
        )
        _geometry(scene, samples, view, work, depth[n], segmentation[n])


@pasted
def _geometry(scene, samples, view, work, depth, segmentation):
    middle = samples // 2
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            w = work.inv_z[row * samples + middle, column * samples + middle]
            depth[row, column] = min(view.far, 1.0 / w) if w > 0 else view.far
    for row in range(segmentation.shape[0]):
        for column in range(segmentation.shape[1]):
            mark = work.ids[row * samples + middle, column * samples + middle]
            segmentation[row, column] = scene.part_geom[scene.face_part[mark - 1]] if mark > 0 else -1
