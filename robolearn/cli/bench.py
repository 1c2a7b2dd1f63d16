"""`robolearn bench NAME`: run one of the checkout's benchmarks."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from robolearn.cli.show import table
from robolearn.errors import ConfigError, suggest

__all__ = ["main"]

_USAGE = """usage: robolearn bench [NAME] [--quick] [--json FILE]

Runs benchmarks/NAME.py of this checkout; without NAME it lists them."""


def main(arguments: Sequence[str]) -> int:
    """Run one benchmark with the remaining arguments and return its exit status."""
    if set(arguments) & {"-h", "--help"} and arguments[0].startswith("-"):
        sys.stdout.write(_USAGE + "\n")
        return 0
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    known = {path.stem: path for path in folder.glob("*.py") if not path.stem.startswith("_")}
    if not known:
        raise ConfigError("Benchmarks live in a checkout.", found=f"none in {folder}", do="clone the repository")
    if not arguments:
        table("", ("benchmark", "what it measures"), [(name, _summary(path)) for name, path in sorted(known.items())])
        return 0
    name, *rest = arguments
    if name not in known:
        raise ConfigError(f"Unknown benchmark '{name}'.", expected=suggest(name, known))
    return subprocess.run([sys.executable, str(known[name]), *rest], check=False).returncode


def _summary(path: Path) -> str:
    first = path.read_text().lstrip().splitlines()[0]
    return first.strip('" ')
