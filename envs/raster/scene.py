"""A model's geoms as flat triangle arrays with their materials, textures and lights."""

from typing import Any

import mujoco
import numpy as np

from robolearn.envs.raster import shapes
from robolearn.envs.raster.shading import LIGHT
from robolearn.envs.raster.simplify import share_faces
from robolearn.envs.raster.texturing import LANE
from robolearn.envs.raster.visibility import OPAQUE, Scene

__all__ = ["build_scene", "geom_rgba", "light_table", "static_geoms"]

_GEOM = mujoco.mjtGeom
_ROLE = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
_PIECE = 128  # faces
_DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1.0])


def geom_rgba(model: mujoco.MjModel) -> np.ndarray:
    """Colours [G,4] as drawn: a geom's own where it was set, else its material's."""
    rgba = np.array(model.geom_rgba, np.float64)
    material = np.asarray(model.geom_matid)
    plain = (material >= 0) & np.all(np.abs(rgba - _DEFAULT_RGBA) < 1e-6, axis=1)
    rgba[plain] = model.mat_rgba[material[plain]]
    return rgba


def static_geoms(model: mujoco.MjModel) -> np.ndarray:
    """True [G] for geoms that no joint or mocap body moves."""
    body = model.geom_bodyid
    return (model.body_weldid[body] == 0) & (model.body_mocapid[model.body_rootid[body]] < 0)


def light_table(model: mujoco.MjModel, xpos: np.ndarray, xdir: np.ndarray) -> np.ndarray:
    """Lights [L,22] (columns: `shading.LIGHT`) at world positions xpos [L,3] and directions xdir [L,3]."""
    rows = []
    head = model.vis.headlight
    if head.active:
        rows.append(_light(2.0, np.zeros(3), np.zeros(3), head.ambient, head.diffuse, head.specular))
    for i in range(model.nlight):
        kind = int(model.light_type[i])
        if not model.light_active[i] or kind > 1:
            continue
        row = _light(
            float(kind), xpos[i], xdir[i], model.light_ambient[i], model.light_diffuse[i], model.light_specular[i]
        )
        row[LIGHT["attenuation"]] = model.light_attenuation[i]
        cutoff = float(model.light_cutoff[i])
        row[LIGHT["cos_cutoff"]] = -1.0 if cutoff >= 180 else np.cos(np.radians(cutoff))
        row[LIGHT["exponent"]] = model.light_exponent[i]
        row[LIGHT["shadow"]] = float(model.light_castshadow[i])
        rows.append(row)
    return np.array(rows).reshape(-1, 22)


def _light(kind: float, pos: Any, direction: Any, ambient: Any, diffuse: Any, specular: Any) -> np.ndarray:
    row = np.zeros(22)
    row[LIGHT["kind"]], row[LIGHT["pos"]], row[LIGHT["dir"]] = kind, pos, direction
    row[LIGHT["ambient"]], row[LIGHT["diffuse"]], row[LIGHT["specular"]] = ambient, diffuse, specular
    row[LIGHT["attenuation"]] = (1, 0, 0)
    row[LIGHT["cos_cutoff"]] = -1.0
    return row


def _shape(model: mujoco.MjModel, geom: int) -> shapes.Shape | None:
    """Triangles of one geom; None for types that have no surface of their own here."""
    kind, size, data = model.geom_type[geom], np.array(model.geom_size[geom]), model.geom_dataid[geom]
    quality = model.vis.quality
    slices, stacks = int(quality.numslices), int(quality.numstacks)
    if kind in (_GEOM.mjGEOM_MESH, _GEOM.mjGEOM_SDF):
        return shapes.mesh(model, data)
    if kind == _GEOM.mjGEOM_PLANE:
        far = model.vis.map.zfar * model.stat.extent
        return shapes.plane(*(s if s > 0 else far for s in size[:2]), quads=1)
    if kind == _GEOM.mjGEOM_BOX:
        return shapes.box(size, int(quality.numquads))
    if kind == _GEOM.mjGEOM_SPHERE:
        return shapes.ellipsoid(np.full(3, size[0]), slices, stacks)
    if kind == _GEOM.mjGEOM_ELLIPSOID:
        return shapes.ellipsoid(size, slices, stacks)
    if kind == _GEOM.mjGEOM_CYLINDER:
        return shapes.cylinder(size[0], size[1], slices, 4)
    if kind == _GEOM.mjGEOM_CAPSULE:
        return shapes.capsule(size[0], size[1], slices, stacks)
    if kind == _GEOM.mjGEOM_HFIELD:
        return shapes.heightfield(model, data)
    return None


def _material(model: mujoco.MjModel, geom: int) -> tuple[np.ndarray, int]:
    """(emission, specular, shininess exponent, 0) and the texture's number or -1."""
    material = model.geom_matid[geom]
    if material < 0:
        return np.array([0.0, 0.5, 64.0, 0.0]), -1
    lit = [model.mat_emission[material], model.mat_specular[material], 128.0 * model.mat_shininess[material], 0.0]
    texture = int(model.mat_texid[material, _ROLE])
    return np.array(lit), texture if texture >= 0 and model.tex_nchannel[texture] >= 3 else -1


def _texture_coordinates(model: mujoco.MjModel, geom: int, shape: shapes.Shape, texture: int) -> np.ndarray:
    """Coordinates [C,3] of a textured geom, generated from positions unless its mesh has its own."""
    kind, size = model.geom_type[geom], np.array(model.geom_size[geom], np.float64)
    is_mesh, is_plane = kind == _GEOM.mjGEOM_MESH, kind == _GEOM.mjGEOM_PLANE
    if is_mesh and model.mesh_texcoordadr[model.geom_dataid[geom]] >= 0:
        return shape.uvw
    material = model.geom_matid[geom]
    uniform = bool(model.mat_texuniform[material])
    if kind in (_GEOM.mjGEOM_SPHERE, _GEOM.mjGEOM_CAPSULE, _GEOM.mjGEOM_CYLINDER):
        size = np.array([size[0], size[0], size[0] if kind == _GEOM.mjGEOM_SPHERE else size[1]])
    if model.tex_type[texture] != mujoco.mjtTexture.mjTEXTURE_2D:
        return shape.uvw * size if uniform else shape.uvw
    scale = np.array(model.mat_texrepeat[material], np.float64)
    known = size[:2] > 0
    if is_mesh or is_plane:
        scale[known] /= size[:2][known]
    if uniform:
        scale[known] *= size[:2][known]
    uv = shape.uvw[:, :2] * (0.5 * scale * [1, -1]) - 0.5
    return np.concatenate([uv, np.zeros((len(uv), 1))], axis=1)


def build_scene(model: mujoco.MjModel, groups: tuple[int, ...], max_faces: int | None, textures: bool) -> Scene:
    """Collect the geoms of the given groups; untextured meshes share `max_faces` faces."""
    found: dict[int, shapes.Shape] = {}
    simple: list[int] = []
    for geom in range(model.ngeom):
        if model.geom_group[geom] not in groups or geom_rgba(model)[geom, 3] <= 0:
            continue
        shape = _shape(model, geom)
        if shape is None or not len(shape.face_pos):
            continue
        found[geom] = shape
        if model.geom_type[geom] == _GEOM.mjGEOM_MESH and (not textures or _material(model, geom)[1] < 0):
            simple.append(geom)
    if max_faces is not None:
        reduced = share_faces([found[g] for g in simple], max_faces)
        found = {g: s for g, s in {**found, **dict(zip(simple, reduced, strict=True))}.items() if s is not None}
    return _assemble(model, found, textures)


def _assemble(model: mujoco.MjModel, found: dict[int, shapes.Shape], textures: bool) -> Scene:
    # Large meshes in pieces, most of which a close camera need not look at; layers are blended whole.
    opaque = geom_rgba(model)[:, 3] >= OPAQUE
    cut = {g: shapes.pieces(shape, _PIECE) if opaque[g] else [shape] for g, shape in found.items()}
    pairs = [(g, piece) for g in sorted(cut) for piece in cut[g]]
    geoms, parts = [g for g, _ in pairs], [s for _, s in pairs]
    materials = [_material(model, g) for g in geoms]
    texture_of = [t if textures else -1 for _, t in materials]
    uvw = [
        _texture_coordinates(model, g, s, t) if t >= 0 else s.uvw
        for g, s, t in zip(geoms, parts, texture_of, strict=True)
    ]
    pos_start = np.cumsum([0] + [len(s.pos_m) for s in parts])
    corner_start = np.cumsum([0] + [len(s.normal) for s in parts])
    face_count = [len(s.face_pos) for s in parts]
    endless = [
        0 if model.geom_type[g] != _GEOM.mjGEOM_PLANE else 2 if min(model.geom_size[g][:2]) <= 0 else 1 for g in geoms
    ]
    texels, texture, level, skybox = _textures(model, set(texture_of) if textures else set())
    return Scene(
        pos=_stack([s.pos_m for s in parts], np.float32),
        pos_start=pos_start.astype(np.int32),
        face_pos=_stack([s.face_pos + o for s, o in zip(parts, pos_start, strict=False)], np.int32),
        face_corner=_stack([s.face_corner + o for s, o in zip(parts, corner_start, strict=False)], np.int32),
        face_start=np.cumsum([0, *face_count]).astype(np.int32),
        face_part=np.repeat(np.arange(len(parts), dtype=np.int32), face_count),
        corner_pos=_stack([s.corner_pos[:, None] + o for s, o in zip(parts, pos_start, strict=False)], np.int32)[
            :, 0
        ].copy(),
        normal=_stack([s.normal for s in parts], np.float32),
        uvw=_stack(uvw, np.float32),
        part_geom=np.array(geoms, np.int32),
        part_radius=np.array([np.linalg.norm(s.pos_m, axis=1).max() for s in parts], np.float64),
        part_box=np.array([_box(s.pos_m) for s in parts], np.float64).reshape(-1, 6),
        part_lit=np.array([lit for lit, _ in materials]).reshape(-1, 4),
        part_texture=np.array(texture_of, np.int32),
        part_plane=np.array(endless, np.int32),
        texels=texels,
        texture=texture,
        level=level,
        skybox=skybox,
    )


def _box(pos_m: np.ndarray) -> np.ndarray:
    """Centre and half sizes [6] of positions [P,3], a hair wider than they are in single precision."""
    low, high = pos_m.min(0), pos_m.max(0)
    return np.concatenate([(low + high) / 2, (high - low) / 2 * (1 + 1e-6) + 1e-6])


def _stack(arrays: list[np.ndarray], dtype: Any) -> np.ndarray:
    """Concatenate [n,w] arrays; an empty scene still has one row width."""
    if not arrays:
        return np.zeros((0, 3), dtype)
    return np.ascontiguousarray(np.concatenate(arrays), dtype)


def _textures(model: mujoco.MjModel, used: set[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Mip-mapped texels [X], texture table [T,3], level table [T,L,3] and the sky box's number."""
    skies = [i for i in range(model.ntex) if model.tex_type[i] == mujoco.mjtTexture.mjTEXTURE_SKYBOX]
    skybox = skies[0] if skies else -1
    texels, table, start = [], np.zeros((max(model.ntex, 1), 3), np.int32), 0
    levels = np.zeros((max(model.ntex, 1), 16, 3), np.int32)
    for i in sorted((used | {skybox}) - {-1}):
        images = _faces(model, i)
        flat = model.tex_type[i] == mujoco.mjtTexture.mjTEXTURE_2D
        for depth in range(16):
            levels[i, depth] = start, images[0].shape[1], images[0].shape[0]
            table[i] = (0 if flat else 1, len(images), depth + 1)
            texels += [image.reshape(-1, 3) for image in images]
            start += sum(image.shape[0] * image.shape[1] for image in images)
            if images[0].shape[:2] == (1, 1):
                break
            images = [_half(image) for image in images]
    red, green, blue = _stack(texels, np.float64).round().astype(np.int64).T
    return red | green << LANE | blue << 2 * LANE, table, levels, skybox


def _faces(model: mujoco.MjModel, texture: int) -> list[np.ndarray]:
    """Images [h,w,3] 0..255 of a texture: one, or six for a cube with separate sides."""
    width, height, channels = model.tex_width[texture], model.tex_height[texture], model.tex_nchannel[texture]
    start = model.tex_adr[texture]
    data = np.asarray(model.tex_data[start : start + width * height * channels], np.float64)
    image = data.reshape(height, width, channels)[..., :3]
    if model.tex_type[texture] != mujoco.mjtTexture.mjTEXTURE_2D:
        return [image] if width == height else [image[i * width : (i + 1) * width] for i in range(6)]
    if model.tex_colorspace[texture] == mujoco.mjtColorSpace.mjCOLORSPACE_SRGB:
        unit = image / 255.0
        image = 255.0 * np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    return [image]


def _half(image: np.ndarray) -> np.ndarray:
    """The next mip level: every side halved, rounded down, sampled linearly at its texels' centres."""
    for axis in (0, 1):
        size = image.shape[axis]
        if size > 1:
            at = (np.arange(size // 2) + 0.5) * size / (size // 2) - 0.5
            low = np.floor(at).astype(int)
            share = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            high = np.minimum(low + 1, size - 1)
            image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image
