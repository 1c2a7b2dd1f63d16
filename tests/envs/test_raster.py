"""The rasteriser against geometry that can be worked out by hand."""

from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np
import pytest

from robolearn.envs.raster import FreeCamera, Rasteriser, RasterOptions
from robolearn.envs.raster import scene as scenes
from robolearn.envs.raster.decimate import decimate
from robolearn.errors import ConfigError, EnvError

_CAMERA = "<camera name='top' pos='0 0 2' fovy='60'/>"
_DARK = "<visual><headlight ambient='.1 .1 .1' diffuse='.5 .5 .5' specular='0 0 0'/></visual>"


def _scene(
    geoms: str, assets: str = "", light: str = "", camera: str = _CAMERA
) -> tuple[mujoco.MjModel, mujoco.MjData]:
    xml = f"<mujoco>{_DARK}<asset>{assets}</asset><worldbody>{light}{camera}{geoms}</worldbody></mujoco>"
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def test_silhouette_of_a_sphere():
    model, data = _scene("<geom size='0.3'/>")
    seen = Rasteriser(model, "top", 201, 201).segmentation(data) == 0
    focal = 100.5 / np.tan(np.radians(30))
    radius = focal * 0.3 / np.sqrt(2.0**2 - 0.3**2)
    assert seen.sum() == pytest.approx(np.pi * radius**2, rel=0.02)  # a ball of 28 slices
    assert np.array_equal(seen, seen[::-1])
    assert np.array_equal(seen, seen[:, ::-1])


@pytest.mark.parametrize("samples", [1, 2])
def test_depth_of_a_tilted_endless_plane(samples):
    camera = "<camera name='low' pos='0 0 0.5' xyaxes='1 0 0 0 0.5 1' fovy='70'/>"
    model, data = _scene("<geom type='plane' size='0 0 1'/>", camera=camera)
    raster = Rasteriser(model, "low", 64, 48, RasterOptions(samples=samples))
    depth_m, points_m = raster.depth(data), raster.point_cloud(data)
    below = np.isfinite(points_m[..., 2])
    assert below[30:].all()
    assert not below[:5].any()
    np.testing.assert_allclose(points_m[below & (depth_m < 30)][:, 2], 0, atol=2e-4)
    assert np.all(np.diff(depth_m[below.all(axis=1)], axis=0) < 0)  # nearer towards the bottom


def test_depth_lies_on_the_optical_axis():
    model, data = _scene("<geom type='box' size='3 3 .25'/>")
    depth_m = Rasteriser(model, "top", 32, 32).depth(data)
    np.testing.assert_allclose(depth_m, 1.75, rtol=1e-6)


_SHAPES = {
    "plane": "type='plane' size='.2 .2 1'",
    "sphere": "type='sphere' size='.2'",
    "capsule": "type='capsule' size='.1 .2'",
    "ellipsoid": "type='ellipsoid' size='.1 .2 .3'",
    "cylinder": "type='cylinder' size='.2 .1'",
    "box": "type='box' size='.2 .1 .3'",
    "mesh": "type='mesh' mesh='tetra'",
    "hfield": "type='hfield' hfield='hill'",
}
_TOP_M = {"plane": 0, "sphere": 0.2, "capsule": 0.3, "ellipsoid": 0.3, "cylinder": 0.1, "box": 0.3, "hfield": 0.15}
_ASSETS = (
    "<mesh name='tetra' vertex='-.2 -.2 0  .2 -.2 0  0 .2 0  0 0 .3'/>"
    "<hfield name='hill' nrow='3' ncol='3' size='.2 .2 .15 .1' elevation='0 0 0 0 1 0 0 0 0'/>"
)


@pytest.mark.parametrize("shape", _SHAPES)
def test_every_geom_type_is_where_it_should_be(shape):
    model, data = _scene(f"<geom {_SHAPES[shape]} rgba='.2 .6 .9 1'/>", _ASSETS)
    raster = Rasteriser(model, "top", 65, 65)
    ids, depth_m, image = raster.segmentation(data), raster.depth(data), raster.render(data)
    assert ids[32, 32] == 0
    assert set(np.unique(ids)) == {-1, 0}
    assert (ids[:4] == -1).all()
    if shape in _TOP_M:
        assert depth_m[32, 32] == pytest.approx(2 - _TOP_M[shape], abs=5e-3)
    assert image[ids == -1].max() == 0
    shades = len(np.unique(image[ids == 0], axis=0))
    assert shades > 3 if shape in ("sphere", "capsule", "ellipsoid") else shades >= 1
    blue, red = image[ids == 0][:, 2].astype(int), image[ids == 0][:, 0].astype(int)
    assert (blue > red).all()


def test_light_of_a_surface_that_faces_the_camera():
    model, data = _scene("<geom type='box' size='3 3 .25' rgba='1 .5 .25 1'/>")
    image = Rasteriser(model, "top", 16, 16).render(data)
    expected = 255 * 0.6 * np.array([1, 0.5, 0.25])  # ambient .1, diffuse .5 straight from the camera
    assert np.abs(image[8, 8] - expected).max() <= 1


def test_checkered_texture_and_its_orientation():
    texture = "<texture name='t' type='2d' builtin='checker' rgb1='1 1 1' rgb2='0 0 0' width='64' height='64'/>"
    material = "<material name='m' texture='t' texrepeat='1 1' specular='0'/>"
    model, data = _scene("<geom type='plane' size='1 1 1' material='m'/>", texture + material)
    image = Rasteriser(model, "top", 60, 60).render(data)
    quarters = [image[a][:, b].mean() for a in (slice(5, 25), slice(35, 55)) for b in (slice(5, 25), slice(35, 55))]
    bright = 255 * 0.6
    assert sorted(np.round(quarters)) == pytest.approx([0, 0, bright, bright], abs=2)
    assert abs(quarters[0] - quarters[3]) < 1


def test_shadow_falls_straight_down():
    sun = "<light pos='0 0 3' dir='0 0 -1' directional='true' diffuse='.4 .4 .4' specular='0 0 0' castshadow='true'/>"
    geoms = "<geom type='plane' size='1 1 1'/><geom type='box' size='.2 .2 .02' pos='0 0 .5'/>"
    camera = "<camera name='side' pos='0 -1.2 1' xyaxes='1 0 0 0 1 1.2' fovy='60'/>"
    model, data = _scene(geoms, light=sun, camera=camera)
    plain = Rasteriser(model, "side", 120, 120)
    shaded = Rasteriser(model, "side", 120, 120, RasterOptions(shadows=True))
    points_m, ids = plain.point_cloud(data), plain.segmentation(data)
    under = (ids == 0) & (np.abs(points_m[..., :2]).max(-1) < 0.17)
    apart = (ids == 0) & (np.abs(points_m[..., :2]).max(-1) > 0.23)
    lit, dark = plain.render(data).astype(int), shaded.render(data).astype(int)
    assert under.sum() > 20
    assert (lit[under] - dark[under]).min() > 30
    assert np.abs(lit[apart] - dark[apart]).max() <= 1


def test_transparent_geoms_let_the_ground_through():
    geoms = "<geom type='plane' size='2 2 1' rgba='1 0 0 1'/><geom type='box' size='.3 .3 .1' rgba='0 0 1 .5'/>"
    model, data = _scene(geoms)
    raster = Rasteriser(model, "top", 64, 64)
    image = raster.render(data).astype(int)
    assert image[2, 2, 2] == 0
    assert 0 < image[32, 32, 0] < image[2, 2, 0]
    assert image[32, 32, 2] > 0


def _moving() -> tuple[mujoco.MjModel, np.ndarray, np.ndarray, Rasteriser]:
    """A scene with still and moving geoms, its poses [n,G,3] [n,G,9] in 12 states, and a renderer."""
    checker = "<texture name='c' type='2d' builtin='checker' rgb1='1 0 0' rgb2='0 1 1' width='64' height='64'/>"
    assets = f"{checker}<material name='m' texture='c' texrepeat='9 9'/>"
    geoms = "<geom type='plane' size='1 1 1' material='m'/>" + "".join(
        f"<body><freejoint/><geom type='{kind}' size='.1 .15 .2' rgba='{red} .5 .3 1'/></body>"
        for kind, red in (("box", 0.2), ("capsule", 0.5), ("ellipsoid", 0.9))
    )
    model, data = _scene(geoms, assets)
    rng = np.random.default_rng(3)
    xpos, xmat = np.empty((12, model.ngeom, 3)), np.empty((12, model.ngeom, 9))
    for n in range(12):
        data.qpos[:] = rng.normal(0, 0.3, model.nq)
        mujoco.mj_kinematics(model, data)
        xpos[n], xmat[n] = data.geom_xpos, data.geom_xmat
    return model, xpos, xmat, Rasteriser(model, "top", 84, 84, RasterOptions(samples=2))


def _camera(raster: Rasteriser, n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.tile([0.0, 0.0, 2.0], (n, 1)), np.tile(np.eye(3).reshape(9), (n, 1))


@pytest.mark.parametrize("samples", [1, 2])
def test_frames_do_not_depend_on_threads_order_or_cache(samples):
    model, xpos, xmat, _ = _moving()
    raster = Rasteriser(model, "top", 84, 84, RasterOptions(samples=samples))
    outputs = ("rgb", "depth", "segmentation")
    whole = raster.render_batch(xpos, xmat, *_camera(raster, 12), outputs=outputs)

    def one(n: int) -> dict[str, np.ndarray]:
        return raster.render_batch(xpos[n : n + 1], xmat[n : n + 1], *_camera(raster, 1), outputs=outputs)

    with ThreadPoolExecutor(4) as pool:
        order = [7, 1, 1, 11, 0, 5, 3, 2, 9, 10, 4, 8, 6] * 3
        for n, frame in zip(order, pool.map(one, order), strict=True):
            for key in outputs:
                assert np.array_equal(frame[key][0], whole[key][n]), (n, key)
    for n in range(12):
        fresh = Rasteriser(model, "top", 84, 84, RasterOptions(samples=samples))
        alone = fresh.render_batch(xpos[n : n + 1], xmat[n : n + 1], *_camera(raster, 1))
        assert np.array_equal(alone["rgb"][0], whole["rgb"][n])
    assert len(np.unique(whole["rgb"].reshape(12, -1), axis=0)) == 12


@pytest.mark.parametrize("up_m", [0.25, 0.6, 1.5])
def test_pieces_of_a_mesh_that_are_out_of_sight_change_no_picture(up_m, monkeypatch):
    """From inside a crowd, near enough that some geoms are cut by every side of the picture."""
    _, xpos, xmat, raster = _moving()
    pose = np.tile([0.1, -0.05, up_m], (12, 1)), np.tile(np.eye(3).reshape(9), (12, 1))
    outputs = ("rgb", "depth", "segmentation")
    assert len(raster.scene.part_geom) > raster.model.ngeom
    pieces = raster.render_batch(xpos, xmat, *pose, outputs=outputs)
    monkeypatch.setattr(scenes, "_PIECE", 10**9)
    uncut = Rasteriser(raster.model, "top", 84, 84, RasterOptions(samples=2))
    uncut.scene.part_box[:, 3:] = 1e6  # nothing is left out
    whole = uncut.render_batch(xpos, xmat, *pose, outputs=outputs)
    assert len(np.unique(whole["segmentation"])) > 2
    assert np.array_equal(pieces["segmentation"], whole["segmentation"])
    assert np.allclose(pieces["depth"], whole["depth"], rtol=1e-5)
    assert np.mean(np.abs(pieces["rgb"].astype(int) - whole["rgb"]) > 2) < 0.02  # only where a pixel sees an edge


def test_moving_the_camera_or_the_still_scene_redraws_it():
    _model, xpos, xmat, raster = _moving()
    position, matrix = _camera(raster, 1)
    before = raster.render_batch(xpos[:1], xmat[:1], position, matrix)["rgb"]
    raster.render_batch(xpos[:1], xmat[:1], position, matrix)
    moved = raster.render_batch(xpos[:1], xmat[:1], position + np.array([0.5, 0, 0]), matrix)["rgb"]
    ground = xpos[:1].copy()
    ground[0, 0] += [0.5, 0, 0]
    shifted = raster.render_batch(ground, xmat[:1], position, matrix)["rgb"]
    assert not np.array_equal(before, moved)
    assert not np.array_equal(before, shifted)
    assert np.array_equal(before, raster.render_batch(xpos[:1], xmat[:1], position, matrix)["rgb"])


def test_colours_per_environment():
    _model, xpos, xmat, raster = _moving()
    rgba = np.repeat(raster.rgba[None], 2, axis=0)
    rgba[1, 0, :3] = (0, 1, 0)
    images = raster.render_batch(xpos[[0, 0]], xmat[[0, 0]], *_camera(raster, 2), rgba=rgba)["rgb"]
    assert np.array_equal(images[0], raster.render_batch(xpos[:1], xmat[:1], *_camera(raster, 1))["rgb"][0])
    assert images[0, ..., 0].max() > 100  # the checker's red squares
    assert images[1, :20, :20, 0].max() == 0


def test_free_camera_agrees_with_the_same_fixed_camera():
    model, data = _scene("<geom type='box' size='.3 .2 .1'/>")
    free = FreeCamera(lookat_m=(0, 0, 0), distance_m=2, azimuth_deg=90, elevation_deg=-90, fovy_deg=60)
    fixed, turned = Rasteriser(model, "top", 40, 40).render(data), Rasteriser(model, free, 40, 40).render(data)
    assert np.abs(fixed.astype(int) - turned).max() <= 1


def test_fewer_faces_keep_the_shape():
    angle, height = np.meshgrid(np.linspace(0, 2 * np.pi, 40, endpoint=False), np.linspace(-1, 1, 30))
    ring = np.sqrt(1 - height**2)
    vert = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], -1).reshape(-1, 3)
    number = np.arange(1200).reshape(30, 40)
    right, up = np.roll(number, -1, axis=1)[:-1], number[1:]
    lower = np.stack([number[:-1], right, up], -1).reshape(-1, 3)
    upper = np.stack([right, np.roll(up, -1, axis=1), up], -1).reshape(-1, 3)
    face = np.concatenate([lower, upper])
    less_vert, less_face, source = decimate(vert, face, 600)
    assert 300 < len(less_face) <= 600
    assert len(source) == len(less_vert)
    middle = less_vert[less_face].mean(1)
    assert np.abs(np.linalg.norm(middle, axis=1) - 1).max() < 0.06
    again = decimate(vert, face, 600)
    assert all(np.array_equal(a, b) for a, b in zip(again, (less_vert, less_face, source), strict=True))


def test_bad_input_is_refused():
    model, data = _scene("<geom size='.1'/>")
    with pytest.raises(EnvError, match="did you mean 'top'"):
        Rasteriser(model, "topp", 8, 8)
    with pytest.raises(EnvError, match="0 to 0"):
        Rasteriser(model, 3, 8, 8)
    with pytest.raises(ConfigError, match="picture size"):
        Rasteriser(model, "top", 0, 8)
    with pytest.raises(ConfigError, match="samples"):
        RasterOptions(samples=9)
    raster = Rasteriser(model, "top", 8, 8)
    with pytest.raises(EnvError, match="fit the model"):
        raster.render_batch(np.zeros((1, 2, 3)), np.zeros((1, 2, 9)), np.zeros((1, 3)), np.zeros((1, 9)))
    with pytest.raises(ConfigError, match="did you mean 'depth'"):
        raster.render_batch(data.geom_xpos[None], data.geom_xmat[None], *_camera(raster, 1), outputs=("depht",))


def test_faces_without_area_are_left_out_of_decimation(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBOLEARN_CACHE", str(tmp_path))
    size = 12
    x, y = np.meshgrid(np.arange(size, dtype=float), np.arange(size, dtype=float))
    vert = np.stack([x.ravel(), y.ravel(), 0.1 * np.sin(x * y).ravel()], 1)
    corner = (np.arange(size - 1)[:, None] * size + np.arange(size - 1)).ravel()
    halves = ([corner, corner + 1, corner + size], [corner + 1, corner + size + 1, corner + size])
    whole = np.concatenate([np.stack(half, 1) for half in halves])
    flat = np.concatenate([whole, [[5, 5, 9], [7, 8, 7], [3, 3, 3]]])
    for one, other in zip(decimate(vert, whole, 100), decimate(vert, flat, 100), strict=True):
        assert np.array_equal(one, other)
