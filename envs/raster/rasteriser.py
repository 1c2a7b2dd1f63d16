"""The rasteriser's public face: one model, one camera, pictures of any state."""

from dataclasses import dataclass
from queue import Empty, SimpleQueue

import mujoco
import numpy as np

from robolearn.envs.raster.frame import render_frames
from robolearn.envs.raster.scene import build_scene, geom_rgba, light_table, static_geoms
from robolearn.envs.raster.shading import LIGHT
from robolearn.envs.raster.visibility import Scene, View, Workspace
from robolearn.errors import ConfigError, EnvError, suggest

__all__ = ["FreeCamera", "RasterOptions", "Rasteriser", "point_cloud"]


@dataclass(frozen=True)
class RasterOptions:
    """How pictures are drawn.

    groups: geom groups that are visible. samples: samples per pixel side (2 smooths edges like 4x
    multisampling). max_faces: triangles that all untextured meshes share, None for the meshes as they
    are. textures, shadows: whether to draw them. shadow_size: texels per side of the shadow map.
    """

    groups: tuple[int, ...] = (0, 1, 2)
    samples: int = 1
    max_faces: int | None = 20_000
    textures: bool = True
    shadows: bool = False
    shadow_size: int = 1024

    def __post_init__(self) -> None:
        if self.samples not in (1, 2, 3, 4):
            raise ConfigError("Too many or too few samples.", found=self.samples, expected="samples: 1, 2, 3 or 4")
        if self.max_faces is not None and self.max_faces < 100:
            raise ConfigError("Too few faces for a mesh.", found=self.max_faces, expected="max_faces >= 100 or None")
        if not 16 <= self.shadow_size <= 8192:
            raise ConfigError("Impossible shadow map.", found=self.shadow_size, expected="16 <= shadow_size <= 8192")

    @classmethod
    def video(cls, groups: tuple[int, ...] = (0, 1, 2)) -> "RasterOptions":
        """Return what recorded videos use: smooth edges, shadows, finer meshes."""
        return cls(groups=groups, samples=2, max_faces=80_000, shadows=True)


@dataclass(frozen=True)
class FreeCamera:
    """A camera that looks at a point [m] from a distance, as in MuJoCo's viewer."""

    lookat_m: tuple[float, float, float]
    distance_m: float
    azimuth_deg: float = 90.0
    elevation_deg: float = -30.0
    fovy_deg: float = 45.0

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Return position [3] and MuJoCo's camera matrix [9]."""
        azimuth, elevation = np.radians(self.azimuth_deg), np.radians(self.elevation_deg)
        ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
        forward, up = np.array([ce * ca, ce * sa, se]), np.array([-se * ca, -se * sa, ce])
        mat = np.stack([np.cross(forward, up), up, -forward], axis=1)
        return np.array(self.lookat_m) - self.distance_m * forward, mat.reshape(9)


class Rasteriser:
    """Draws one camera's pictures of a model; may be used by several threads at once."""

    def __init__(
        self,
        model: mujoco.MjModel,
        camera: str | int | FreeCamera,
        width: int,
        height: int,
        options: RasterOptions | None = None,
    ):
        if not (1 <= width <= 8192 and 1 <= height <= 8192):
            raise ConfigError("Impossible picture size.", found=f"{width}x{height}", expected="1 to 8192 pixels a side")
        self.model, self.width, self.height = model, width, height
        self.options = options or RasterOptions()
        self.camera = camera if isinstance(camera, FreeCamera) else _camera_number(model, camera)
        self.lens = _sampled(_lens(model, self.camera, width, height), self.options.samples)
        self.scene: Scene = build_scene(model, self.options.groups, self.options.max_faces, self.options.textures)
        still = static_geoms(model)[self.scene.part_geom]
        parts = np.arange(len(self.scene.part_geom), dtype=np.int32)
        self._static, self._moving = parts[still], parts[~still]
        self.rgba = geom_rgba(model)
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        self.set_lights(data)
        self._spare: SimpleQueue[Workspace] = SimpleQueue()

    @property
    def faces(self) -> int:
        """Number of triangles in the scene."""
        return len(self.scene.face_pos)

    def set_lights(self, data: mujoco.MjData) -> None:
        """Take the lights' poses from a state; pictures are lit by those of the model's initial state until then."""
        self._lights = light_table(self.model, data.light_xpos, data.light_xdir)
        self._ambient = 0.0 if len(self._lights) else 0.3  # MuJoCo's, for a scene without lights
        casting = np.flatnonzero(self._lights[:, LIGHT["shadow"]])
        keep = casting[:1] if self.options.shadows else casting[:0]  # the other lights shine through everything
        self._lights[:, LIGHT["shadow"]] = np.isin(np.arange(len(self._lights)), keep)
        self._shadow_view = _shadow_view(self.model, self._lights, self.options)

    def camera_pose(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        """Return the camera's position [3] and matrix [9] in a state."""
        if isinstance(self.camera, FreeCamera):
            return self.camera.pose()
        return data.cam_xpos[self.camera], data.cam_xmat[self.camera]

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return the picture [H,W,3] uint8 of a state whose positions are up to date."""
        return self._one(data, ("rgb",))["rgb"]

    def depth(self, data: mujoco.MjData) -> np.ndarray:
        """Return distances along the optical axis [H,W] in m, float32; the far plane where nothing is seen."""
        return self._one(data, ("depth",))["depth"]

    def segmentation(self, data: mujoco.MjData) -> np.ndarray:
        """Return geom numbers [H,W] int32, -1 where nothing is seen; transparent geoms are looked through."""
        return self._one(data, ("segmentation",))["segmentation"]

    def point_cloud(self, data: mujoco.MjData) -> np.ndarray:
        """Return the world positions [H,W,3] in m of what every pixel sees, NaN where nothing is seen."""
        depth_m = self.depth(data)
        pos, mat = self.camera_pose(data)
        points = point_cloud(depth_m, self.lens, self.options.samples) @ mat.reshape(3, 3).T + pos
        points[depth_m >= self.lens.far] = np.nan
        return points

    def _one(self, data: mujoco.MjData, outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        pos, mat = self.camera_pose(data)
        frames = self.render_batch(data.geom_xpos[None], data.geom_xmat[None], pos[None], mat[None], outputs=outputs)
        return {name: array[0] for name, array in frames.items()}

    def render_batch(
        self,
        geom_xpos: np.ndarray,
        geom_xmat: np.ndarray,
        cam_xpos: np.ndarray,
        cam_xmat: np.ndarray,
        *,
        rgba: np.ndarray | None = None,
        outputs: tuple[str, ...] = ("rgb",),
    ) -> dict[str, np.ndarray]:
        """Draw n states: geom poses [n,G,3] and [n,G,9], camera poses [n,3] and [n,9], colours [n,G,4] or the model's.

        Returns the asked-for arrays: "rgb" [n,H,W,3] uint8, "depth" [n,H,W] float32 m, "segmentation" [n,H,W] int32.
        """
        n, geoms = len(geom_xpos), self.model.ngeom
        if np.shape(geom_xpos) != (n, geoms, 3) or np.shape(geom_xmat) != (n, geoms, 9):
            found = (np.shape(geom_xpos), np.shape(geom_xmat))
            raise EnvError("Poses do not fit the model.", found=found, expected=f"[n,{geoms},3] and [n,{geoms},9]")
        unknown = set(outputs) - {"rgb", "depth", "segmentation"}
        if unknown:
            options = suggest(sorted(unknown)[0], ("rgb", "depth", "segmentation"))
            raise ConfigError("Unknown picture kind.", found=sorted(unknown), do=options)
        size = (self.height, self.width)
        frames = {
            "rgb": np.empty((n, *(size if "rgb" in outputs else (0, 0)), 3), np.uint8),
            "depth": np.empty((n, *(size if "depth" in outputs else (0, 0))), np.float32),
            "segmentation": np.empty((n, *(size if "segmentation" in outputs else (0, 0))), np.int32),
        }
        work = self._borrow()
        render_frames(
            self.scene, self._static, self._moving, self.options.samples, self.lens,
            *(np.ascontiguousarray(a, np.float64) for a in (cam_xpos, np.reshape(cam_xmat, (n, 9)))),
            *(np.ascontiguousarray(a, np.float64) for a in (geom_xpos, geom_xmat)),
            self.rgba[None] if rgba is None else np.ascontiguousarray(rgba, np.float64),
            self._lights, self._ambient, self._shadow_view, work,
            frames["rgb"], frames["depth"], frames["segmentation"],
        )  # fmt: skip
        self._spare.put(work)
        return {name: frames[name] for name in outputs}

    def _borrow(self) -> Workspace:
        """Take scratch memory that no other thread uses now."""
        try:
            return self._spare.get_nowait()
        except Empty:
            return self._workspace()

    def _workspace(self) -> Workspace:
        scene, s = self.scene, self.options.samples
        sampled = (self.height * s, self.width * s)
        positions, corners = len(scene.pos), len(scene.normal)
        shadow = (self._shadow_view.height, self._shadow_view.width)
        return Workspace(
            cam_pos=np.zeros((positions, 3), np.float32),
            screen=np.zeros((positions, 3), np.float32),
            polygon=np.zeros((2, 10, 3), np.float64),
            ids=np.zeros(sampled, np.int32),
            inv_z=np.zeros(sampled, np.float32),
            static_ids=np.zeros(sampled, np.int32),
            static_inv_z=np.zeros(sampled, np.float32),
            static_rgb=np.zeros((self.height, self.width, 3), np.uint8),
            static_key=np.full(12 + 22 * (self.model.nlight + 1) + 16 * len(self._static), np.nan),
            static_state=np.zeros(1, np.int64),
            lit=np.zeros((corners, 6), np.float64),
            lit_stamp=np.zeros(corners, np.int64),
            stamp=np.zeros(1, np.int64),
            layer_ids=np.zeros(sampled, np.int32),
            layer_inv_z=np.zeros(sampled, np.float32),
            shadow=np.zeros(shadow, np.float32),
            shadow_ids=np.zeros(shadow, np.int32),
        )


def point_cloud(depth_m: np.ndarray, lens: View, samples: int = 1) -> np.ndarray:
    """Return points [H,W,3] in m in MuJoCo's camera frame (x right, y up, z backward) of a depth picture [H,W]."""
    height, width = depth_m.shape
    middle = samples // 2 + 0.5
    x = (np.arange(width) * samples + middle - lens.cx) / lens.fx
    y = (np.arange(height) * samples + middle - lens.cy) / lens.fy
    depth_m = depth_m.astype(np.float64)
    return np.stack([depth_m * x[None], -depth_m * y[:, None], -depth_m], axis=-1)


def _camera_number(model: mujoco.MjModel, camera: str | int) -> int:
    if isinstance(camera, str):
        number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        if number < 0:
            names = [model.camera(i).name for i in range(model.ncam)]
            raise EnvError("The model has no such camera.", found=camera, do=suggest(camera, names))
        return number
    if not 0 <= camera < model.ncam:
        raise EnvError("The model has no such camera.", found=camera, expected=f"0 to {model.ncam - 1}")
    return camera


def _lens(model: mujoco.MjModel, camera: int | FreeCamera, width: int, height: int) -> View:
    """The camera without its pose, in samples."""
    fovy_deg = camera.fovy_deg if isinstance(camera, FreeCamera) else float(model.cam_fovy[camera])
    fx = fy = 0.5 * height / np.tan(np.radians(fovy_deg) / 2)
    cx, cy = 0.5 * width, 0.5 * height
    if not isinstance(camera, FreeCamera):
        if model.cam_projection[camera] != mujoco.mjtProjection.mjPROJ_PERSPECTIVE:
            raise EnvError("Orthographic cameras are not drawn.", found=camera, do="use a perspective camera")
        sensor_m, intrinsic_m = model.cam_sensorsize[camera], model.cam_intrinsic[camera]
        if sensor_m[1] > 0:
            fx, fy = intrinsic_m[0] / sensor_m[0] * width, intrinsic_m[1] / sensor_m[1] * height
            cx, cy = cx - intrinsic_m[2] / sensor_m[0] * width, cy + intrinsic_m[3] / sensor_m[1] * height
    near, far = model.vis.map.znear * model.stat.extent, model.vis.map.zfar * model.stat.extent
    return View(np.zeros(3), np.zeros(9), fx, fy, cx, cy, near, far, width, height)


def _sampled(lens: View, samples: int) -> View:
    """The same lens counted in samples instead of pixels."""
    return lens._replace(
        fx=lens.fx * samples, fy=lens.fy * samples, cx=lens.cx * samples, cy=lens.cy * samples,
        width=lens.width * samples, height=lens.height * samples,
    )  # fmt: skip


def _shadow_view(model: mujoco.MjModel, lights: np.ndarray, options: RasterOptions) -> View:
    """The first shadow-casting light as a camera; one texel wide when there are no shadows."""
    casting = [row for row in lights if row[LIGHT["shadow"]] > 0]
    if not casting:
        return View(np.zeros(3), np.eye(3).reshape(9), 1.0, 1.0, 0.5, 0.5, 0.01, 1.0, 1, 1)
    light = casting[0]
    size, forward = options.shadow_size, light[4:7] / np.linalg.norm(light[4:7])
    side = np.cross(forward, [0.0, 0.0, 1.0] if abs(forward[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    mat = np.stack([side, np.cross(side, forward), -forward], axis=1).reshape(9)
    extent = float(model.stat.extent)
    if light[0] == 0.0:
        half_rad = np.arccos(light[19]) * model.vis.map.shadowscale if light[19] > -1 else np.radians(80)
        focal = 0.5 * size / np.tan(min(half_rad, np.radians(80)))
        return View(light[1:4], mat, focal, focal, size / 2, size / 2, 0.01 * extent, 100 * extent, size, size)
    # A directional light is a spot very far away.
    away = 50.0 * extent
    focal = 0.5 * size * away / (extent * model.vis.map.shadowclip)
    start = np.array(model.stat.center) - away * forward
    return View(start, mat, focal, focal, size / 2, size / 2, 1.0, 100 * extent, size, size)
