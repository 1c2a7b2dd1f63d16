"""sdist → wheel → file list → clean environment: what is installed is what git holds."""

import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("envs", "policies", "data", "hardware", "configs")


def _files_in_git(*folders: str) -> set[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return {name for name in done.stdout.splitlines() if (ROOT / name).is_file()}


def _build(source: Path, target: str, out: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(out.glob("*.tar.gz" if target == "sdist" else "*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    sdist = _build(ROOT, "sdist", folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return _build(next(folder.glob("robolearn-*")), "wheel", folder / "wheel")


def test_the_wheel_holds_what_git_holds(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    core = _files_in_git("robolearn")
    rooms = {f"robolearn/{name}" for name in _files_in_git(*ROOMS)}
    assert packed == core | rooms


def test_the_wheel_installs_and_every_room_has_its_name(wheel, tmp_path):
    venv.create(tmp_path, with_pip=True)
    python = tmp_path / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    modules = ", ".join(f"robolearn.{room}" for room in ROOMS)
    program = f"import robolearn, {modules}; from importlib.resources import files; "
    program += "print(robolearn.__file__, files('robolearn.configs').joinpath('demo.yaml').is_file())"
    done = subprocess.run([str(python), "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(next(tmp_path.glob("lib/*/site-packages")) / "robolearn/__init__.py"), "True"]
    done = subprocess.run([str(tmp_path / "bin/robolearn"), "--help"], capture_output=True, text=True, check=True)
    assert "demo" in done.stdout


def test_the_links_lead_to_the_rooms():
    for room in ROOMS:
        link = ROOT / "robolearn" / room
        assert link.is_symlink()
        assert link.readlink() == Path("..") / room


def test_the_extras_are_the_ones_documented():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) == {"sim", "vla", "ros", "scale", "dev"}


def test_the_lock_has_hashes_no_index_and_no_source_package_that_needs_a_compiler():
    text = (ROOT / "requirements.lock").read_text()
    assert "index-url" not in text
    assert "://" not in text
    names = [line.split("==")[0] for line in text.splitlines() if "==" in line and not line.startswith((" ", "#"))]
    assert "evdev" not in names
    assert {"torch", "mujoco", "lerobot", "robosuite", "hydra-core"} <= set(names)
    assert text.count("--hash=sha256:") >= len(names) > 100


@pytest.mark.long
def test_the_set_up_needs_no_compiler_and_is_a_no_op_the_second_time(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {**os.environ, "CC": "/bin/false", "CXX": "/bin/false"}
    first = subprocess.run(["./run", "setup"], cwd=clone, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    second = subprocess.run(["./run", "setup"], cwd=clone, env=environment, capture_output=True, text=True, check=True)
    assert "skipped" in second.stdout
    help_text = subprocess.run([".venv/bin/robolearn", "--help"], cwd=clone, capture_output=True, text=True, check=True)
    assert "demo" in help_text.stdout
