"""Pictures per second and likeness to MuJoCo's own pixels, on robosuite's Lift with the gripper near the cube.

A second process records 100 frames of robosuite (fifty with --quick) with the pictures it made itself by
OpenGL; here the same states are drawn again. PSNR is the mean over frames. Speeds are wall time of one
process each, taken in turns; the peer of every speed is MuJoCo's renderer with its default effects.
The full run also writes docs/images/raster_vs_opengl.png.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import mujoco
import numpy as np

from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.envs.opengl import OpenGL, OpenGLOptions, choose_backend
from robolearn.envs.raster import Rasteriser, RasterOptions
from robolearn.errors import MissingLibraryError

CAMERAS = {"agentview": 28.0, "robot0_eye_in_hand": 24.0}  # and the PSNR they should reach [dB]
GROUPS = (1, 2)  # robosuite hides its collision geoms
SIZE, LARGE = 84, 320  # pixels a side: measured, shown
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "raster_vs_opengl.png"


def record(folder: Path, frames: int) -> None:
    """Save robosuite's model, states and pictures of a noisy scripted lift; needs $MUJOCO_GL."""
    import robosuite

    env = robosuite.make(
        "Lift", robots="Panda", has_renderer=False, has_offscreen_renderer=True, use_camera_obs=False,
        horizon=10_000, hard_reset=False,
    )  # fmt: skip
    np.random.seed(0)  # noqa: NPY002 - robosuite draws from the global generator
    noise = np.random.default_rng(0)
    qpos: list[np.ndarray] = []
    images: dict[str, list[np.ndarray]] = {camera: [] for camera in CAMERAS}
    while len(qpos) < frames:
        given = env.reset()
        for step in range(60):
            action = _script(given, step) + np.concatenate([noise.normal(0, 0.1, 3), noise.normal(0, 0.15, 3), [0]])
            given, *_ = env.step(action)
            if step >= 20 and step % 2 == 0:
                env.sim.forward()  # robosuite's own camera observations lag its joint positions by a physics step
                qpos.append(np.array(env.sim.data._data.qpos))
                for camera, kept in images.items():
                    kept.append(env.sim.render(SIZE, SIZE, camera_name=camera)[::-1].copy())
    mujoco.mj_saveModel(env.sim.model._model, str(folder / "lift.mjb"), None)
    np.savez(
        folder / "frames.npz",
        qpos=np.array(qpos[:frames]),
        agentview=np.array(images["agentview"][:frames]),
        robot0_eye_in_hand=np.array(images["robot0_eye_in_hand"][:frames]),
    )


def _script(given: dict[str, np.ndarray], step: int) -> np.ndarray:
    """Above the cube, down, close, up."""
    to_cube = given["cube_pos"] - given["robot0_eef_pos"] + [0, 0, 0.05 if step < 20 else 0]
    action = np.zeros(7)
    action[:3] = 0.8 * np.clip(8 * to_cube, -1, 1)
    if step > 38:
        action[2] = 0.6
    action[6] = -1 if step < 32 else 1
    return action


def _recorded(folder: Path, frames: int) -> tuple[mujoco.MjModel, dict[str, np.ndarray]]:
    environment = {**os.environ, "MUJOCO_GL": choose_backend()}
    command = [sys.executable, __file__, "--record", str(folder), str(frames)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    with np.load(folder / "frames.npz", allow_pickle=False) as stored:
        return mujoco.MjModel.from_binary_path(str(folder / "lift.mjb")), dict(stored)


def _poses(model: mujoco.MjModel, qpos: np.ndarray, camera: str) -> tuple[np.ndarray, ...]:
    """Geom and camera poses of every state, as `Rasteriser.render_batch` takes them."""
    data, number = mujoco.MjData(model), model.camera(camera).id
    rows = []
    for state in qpos:
        data.qpos[:] = state
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        rows.append(
            [np.array(a) for a in (data.geom_xpos, data.geom_xmat, data.cam_xpos[number], data.cam_xmat[number])]
        )
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def _per_second(works: dict[str, tuple[Callable[[], object], int]], repeats: int) -> dict[str, float]:
    """Median frames per second of every (work, frames), run in turns so that they share the machine's moods."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, (work, frames) in works.items():
            start_s = time.perf_counter()
            work()
            if turn:  # the first turn compiles and starts processes
                rates[name].append(frames / (time.perf_counter() - start_s))
    return {name: median(values) for name, values in rates.items()}


def _psnr_db(images: np.ndarray, reference: np.ndarray) -> float:
    error = np.maximum(np.mean((images.astype(np.float64) - reference) ** 2, axis=(1, 2, 3)), 1e-9)
    return float(np.mean(10 * np.log10(255**2 / error)))


def _camera_rows(model: mujoco.MjModel, stored: dict[str, np.ndarray], camera: str, repeats: int) -> list[Row]:
    """The rows of one camera: MuJoCo's renderer, its fast mode, the rasteriser with and without smooth edges."""
    qpos, reference = stored["qpos"], stored[camera]
    poses, few = _poses(model, qpos, camera), qpos[:10]
    default = OpenGL(model, camera, SIZE, SIZE, OpenGLOptions(GROUPS))
    fast = OpenGL(model, camera, SIZE, SIZE, OpenGLOptions.fast(GROUPS))
    rasters = {n: Rasteriser(model, camera, SIZE, SIZE, RasterOptions(GROUPS, samples=n)) for n in (1, 2)}
    drawn = {"opengl": default.render_batch(qpos), "opengl_fast": fast.render_batch(qpos)}
    drawn |= {f"raster{n}": raster.render_batch(*poses)["rgb"] for n, raster in rasters.items()}
    works: dict[str, tuple[Callable[[], object], int]] = {
        "opengl": (lambda: default.render_batch(few), len(few)),
        "opengl_fast": (lambda: fast.render_batch(qpos), len(qpos)),
        "raster1": (lambda: rasters[1].render_batch(*poses), len(qpos)),
        "raster2": (lambda: rasters[2].render_batch(*poses), len(qpos)),
    }
    rates = _per_second(works, repeats)
    default.close()
    fast.close()
    notes = {f"raster{n}": f"{raster.faces} faces, {n}x{n} samples" for n, raster in rasters.items()}
    rows = []
    for name, rate in rates.items():
        peer, note = (
            rates["opengl"],
            notes.get(name, "effects off, 20k faces" if name == "opengl_fast" else "all effects"),
        )
        likeness_db = min(_psnr_db(drawn[name], reference), 99.0)
        own = name == "opengl"
        rows.append(
            Row(f"{camera}_{name}_fps", "frames/s", rate, None if own else peer, None if own else rate / peer, note)
        )
        aim = f"{note}; at least {CAMERAS[camera]:g}" if name == "raster2" else note
        rows.append(Row(f"{camera}_{name}_psnr_db", "dB", likeness_db, note=aim))
    return rows


def _video_row(model: mujoco.MjModel, qpos: np.ndarray, repeats: int) -> Row:
    raster = Rasteriser(model, "agentview", 480, 360, RasterOptions(GROUPS, samples=2))
    poses = _poses(model, qpos[:20], "agentview")
    rate = _per_second({"video": (lambda: raster.render_batch(*poses), 20)}, repeats)["video"]
    return Row("video_480x360_fps", "frames/s", rate, note=f"{raster.faces} faces, 2x2 samples, one core")


def _write_picture(model: mujoco.MjModel, qpos: np.ndarray) -> None:
    """Save one state side by side: MuJoCo's pixels above, the rasteriser's below, one column a camera."""
    rows = []
    for name in ("MuJoCo, OpenGL", "rasteriser"):
        pictures = []
        for camera in CAMERAS:
            if name == "rasteriser":
                options = RasterOptions(GROUPS, samples=2, max_faces=80_000, shadows=True)
                raster = Rasteriser(model, camera, LARGE, LARGE, options)
                pictures.append(raster.render_batch(*_poses(model, qpos[None], camera))["rgb"][0])
            else:
                opengl = OpenGL(model, camera, LARGE, LARGE, OpenGLOptions(GROUPS))
                pictures.append(opengl.render_batch(qpos[None])[0])
                opengl.close()
        row = np.ascontiguousarray(np.concatenate(pictures, axis=1))
        rows.append(cv2.putText(row, name, (LARGE + 8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA))
    cv2.imwrite(str(PICTURE), np.concatenate(rows)[..., ::-1])


def measure(options: Options) -> list[Row]:
    """Record, draw, compare."""
    frames, repeats = (50, 3) if options.quick else (100, 7)
    with tempfile.TemporaryDirectory() as folder:
        model, stored = _recorded(Path(folder), frames)
    rows = [row for camera in CAMERAS for row in _camera_rows(model, stored, camera, repeats)]
    if not options.quick:
        _write_picture(model, stored["qpos"][len(stored["qpos"]) // 2])
    return [*rows, _video_row(model, stored["qpos"], repeats)]


def main() -> None:
    if sys.argv[1:2] == ["--record"]:
        record(Path(sys.argv[2]), int(sys.argv[3]))
        return
    options = parse_options(__doc__ or "")
    try:
        rows = measure(options)
    except MissingLibraryError as problem:
        print(problem)
        sys.exit(2)
    finish(rows, options)


if __name__ == "__main__":
    main()
