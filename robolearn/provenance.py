"""Where a result comes from: versions of the libraries that matter, git revision, machine."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from robolearn import __version__

__all__ = ["git_revision", "machine", "provenance", "versions"]

_LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "safetensors",
    "mujoco",
    "gymnasium",
    "gym-pusht",
    "robosuite",
    "metaworld",
    "diffusers",
    "transformers",
    "lerobot",
    "pyarrow",
    "av",
    "zarr",
    "hydra-core",
)


def versions() -> dict[str, str]:
    """Return the installed versions of the libraries that decide results; none is imported."""
    found = {"robolearn": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Return the commit of this checkout, "+changes" when it is edited; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def machine() -> dict[str, Any]:
    """Return cores, memory and platform of this machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 1e9, 1),
    }


def provenance() -> dict[str, Any]:
    """Return what every result and run folder records about where it was made."""
    return {"versions": versions(), "git_revision": git_revision(), "machine": machine()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
