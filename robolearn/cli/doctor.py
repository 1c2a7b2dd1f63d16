"""`robolearn doctor`: what this machine has, what it lacks and what that costs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from robolearn.cli.arguments import parse_arguments
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import say, table
from robolearn.provenance import git_revision, machine

__all__ = ["main"]

_USAGE = """usage: robolearn doctor [out=DIR]

Checks Python, libraries, OpenGL, GPU, cores, memory and the data folder; says what is missing and
what its absence costs. With out=DIR it leaves DIR/result.json."""

# library → what is lost without it
_COST = {
    "torch": "no training and no policies",
    "mujoco": "no simulated environments",
    "robosuite": "no robot assets: pick_place and the robosuite tasks are missing",
    "gymnasium": "no adapters to gymnasium suites",
    "gym-pusht": "no Push-T environment",
    "numba": "environments step in plain numpy, several times slower",
    "diffusers": "no UniPC sampler of diffusion policies",
    "pyarrow": "no LeRobot datasets",
    "av": "no videos are read or written",
    "zarr": "no diffusion-policy zarr datasets",
    "lerobot": "no datasets from the public hub",
    "transformers": "no pretrained vision-language backbones",
    "metaworld": "no Meta-World tasks",
    "mujoco-warp": "no physics on a GPU",
    "cyclonedds": "no robots over DDS / ROS 2",
    "ray": "no rollouts on several machines",
    "tensorboard": "no TensorBoard logs (metrics.jsonl is always written)",
}

_GL_PROBE = """
import mujoco, numpy as np
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 3'/><geom size='1' rgba='1 0 0 1'/>"
    "<camera name='c' pos='0 -4 0' xyaxes='1 0 0 0 0 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data, "c")
    picture = renderer.render()
raise SystemExit(0 if picture[16, 16, 0] > 40 else 3)
"""


def main(arguments: Sequence[str]) -> None:
    """Print what was checked: thing, state, what it means."""
    given = parse_arguments(arguments, _USAGE).accept("out")
    rows = [_python(), *_machine(), _gpu(), *_opengl(), _data(), *_libraries()]
    table("", ("thing", "state", "what it means"), rows)
    if given.value("out"):
        job = Job("doctor", out_folder("doctor", given.value("out")), {})
        job.finish({"checks": [dict(zip(("thing", "state", "note"), row, strict=True)) for row in rows]})
        say(f"result: {job.out / 'result.json'}")


def _python() -> tuple[str, str, str]:
    here = f"{sys.version.split()[0]} at {sys.executable}"
    return ("python", here, f"git revision {(git_revision() or 'none: not a checkout')[:20]}")


def _machine() -> list[tuple[str, str, str]]:
    facts = machine()
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    return [
        ("processor", f"{facts['cores']} cores, {facts['processor']}", "environments step on one thread per core"),
        ("memory", f"{facts['memory_gb']} GB", "the demo needs up to 4 GB"),
        ("disk", f"{free_gb:.0f} GB free here", "outputs go to outputs/ unless out=DIR says otherwise"),
    ]


def _gpu() -> tuple[str, str, str]:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is None or done.returncode != 0 or not done.stdout.strip():
        return ("GPU", "none found", "training and inference run on the CPU; large networks will be slow")
    return ("GPU", "; ".join(done.stdout.strip().splitlines()), "device=auto uses it")


def _opengl() -> list[tuple[str, str, str]]:
    rows = []
    for backend in ("egl", "osmesa"):
        try:
            done = subprocess.run(
                [sys.executable, "-c", _GL_PROBE],
                capture_output=True,
                timeout=60,
                env={**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend},
            )
            works = done.returncode == 0
        except subprocess.TimeoutExpired:
            works = False
        state = "draws" if works else "does not draw"
        cost = (
            "MuJoCo's own pixels"
            if works
            else "videos are drawn without OpenGL; apt install "
            + ("libegl1 libgl1-mesa-dri" if backend == "egl" else "libosmesa6")
        )
        rows.append((f"OpenGL ({backend})", state, cost))
    return rows


def _data() -> tuple[str, str, str]:
    folder = os.environ.get("ROBOLEARN_DATA")
    if not folder:
        return ("data folder", "ROBOLEARN_DATA is not set", "data=pusht needs data.path=FILE")
    path = Path(folder)
    if not path.is_dir():
        return ("data folder", f"{folder} is not a folder", "set ROBOLEARN_DATA to one")
    return ("data folder", folder, f"{sum(1 for _ in path.iterdir())} entries")


def _libraries() -> list[tuple[str, str, str]]:
    rows = []
    for name, cost in _COST.items():
        try:
            rows.append((name, version(name), ""))
        except PackageNotFoundError:
            rows.append((name, "missing", cost))
    return rows
