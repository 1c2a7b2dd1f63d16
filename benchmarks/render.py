"""Pictures per second and likeness to MuJoCo's own pixels, on robosuite's Lift with the gripper near the cube.

A second process records 100 frames of robosuite (fifty with --quick) with the pictures it made itself by
OpenGL; here the same poses are drawn again. PSNR is the mean over frames. Speeds are those of one core:
frames per second of processor time, so that other work on the machine does not count; OpenGL's are wall time.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import mujoco
import numpy as np

from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.envs.opengl import OpenGL, OpenGLOptions, choose_backend
from robolearn.envs.raster import Rasteriser, RasterOptions
from robolearn.errors import MissingLibraryError

CAMERAS = {"agentview": 28.0, "robot0_eye_in_hand": 24.0}  # and the PSNR they should reach [dB]
GROUPS = (1, 2)  # robosuite hides its collision geoms
SIZE = 84


def record(folder: Path, frames: int) -> None:
    """Save robosuite's model, states and pictures of a noisy scripted lift; needs $MUJOCO_GL."""
    import robosuite

    env = robosuite.make(
        "Lift", robots="Panda", has_renderer=False, has_offscreen_renderer=True, use_camera_obs=True,
        camera_names=list(CAMERAS), camera_heights=SIZE, camera_widths=SIZE, horizon=10_000, hard_reset=False,
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
                qpos.append(np.array(env.sim.data._data.qpos))
                for camera, kept in images.items():
                    kept.append(given[f"{camera}_image"][::-1].copy())
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


def _per_second(work: Callable[[], object], frames: int, clock: Callable[[], float], repeats: int) -> float:
    work()
    rates = []
    for _ in range(repeats):
        start_s = clock()
        work()
        rates.append(frames / (clock() - start_s))
    return median(rates)


def _psnr_db(images: np.ndarray, reference: np.ndarray) -> float:
    error = np.mean((images.astype(np.float64) - reference) ** 2, axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / error)))


def _camera_rows(model: mujoco.MjModel, stored: dict[str, np.ndarray], camera: str, repeats: int) -> list[Row]:
    """The rasteriser's and OpenGL's rows of one camera."""
    qpos, reference = stored["qpos"], stored[camera]
    poses = _poses(model, qpos, camera)
    gl = {
        name: OpenGL(model, camera, SIZE, SIZE, options)
        for name, options in (("opengl", OpenGLOptions(GROUPS)), ("opengl_fast", OpenGLOptions.fast(GROUPS)))
    }
    drawn = {name: picture.render_batch(qpos) for name, picture in gl.items()}
    rates = {
        name: _per_second(lambda p=picture: p.render_batch(qpos), len(qpos), time.perf_counter, repeats)
        for name, picture in gl.items()
    }
    for picture in gl.values():
        picture.close()
    slow = rates["opengl"]
    rows = [
        Row(f"{camera}_opengl_fps", "frames/s", slow, note="MuJoCo's pixels, wall time"),
        Row(f"{camera}_opengl_fast_fps", "frames/s", rates["opengl_fast"], slow, rates["opengl_fast"] / slow),
        Row(f"{camera}_opengl_psnr_db", "dB", min(_psnr_db(drawn["opengl"], reference), 99.0), note="own process"),
        Row(f"{camera}_opengl_fast_psnr_db", "dB", _psnr_db(drawn["opengl_fast"], reference)),
    ]
    for samples in (1, 2):
        raster = Rasteriser(model, camera, SIZE, SIZE, RasterOptions(GROUPS, samples=samples))
        images = raster.render_batch(*poses)["rgb"]
        rate = _per_second(lambda r=raster: r.render_batch(*poses), len(qpos), time.process_time, repeats)
        note = f"{raster.faces} faces, {samples}x{samples} samples"
        rows.append(Row(f"{camera}_raster{samples}_fps", "frames/s/core", rate, slow, rate / slow, note))
        target = f"{note}, at least {CAMERAS[camera]:g}" if samples == 2 else note
        rows.append(Row(f"{camera}_raster{samples}_psnr_db", "dB", _psnr_db(images, reference), note=target))
    return rows


def _video_row(model: mujoco.MjModel, qpos: np.ndarray, repeats: int) -> Row:
    raster = Rasteriser(model, "agentview", 480, 360, RasterOptions(GROUPS, samples=2))
    poses = tuple(array[:20] for array in _poses(model, qpos[:20], "agentview"))
    rate = _per_second(lambda: raster.render_batch(*poses), 20, time.process_time, repeats)
    return Row("video_480x360_fps", "frames/s/core", rate, note=f"{raster.faces} faces, 2x2 samples")


def measure(options: Options) -> list[Row]:
    """Record, draw, compare."""
    frames, repeats = (50, 3) if options.quick else (100, 7)
    with tempfile.TemporaryDirectory() as folder:
        model, stored = _recorded(Path(folder), frames)
    rows = [row for camera in CAMERAS for row in _camera_rows(model, stored, camera, repeats)]
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
