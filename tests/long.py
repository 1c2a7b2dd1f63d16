"""`./run test-long [AREA …] [--fresh] [--out DIR]`: the tests marked `long`, area by area.

Leaves `DIR/results.json` (outputs/test-long by default) after every area. An area that passed at
the same revision is not run again, so an interrupted run goes on where it was.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from robolearn.cli.show import say
from robolearn.evaluation import write_json
from robolearn.provenance import git_revision, provenance

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left and return 0 when every area passed."""
    parser = argparse.ArgumentParser(prog="./run test-long", description=__doc__)
    parser.add_argument("areas", nargs="*", help="names of areas; all without one")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "test-long")
    given = parser.parse_args(arguments)
    results_file = given.out / "results.json"
    areas = find_areas()
    unknown = sorted(set(given.areas) - set(areas))
    if unknown:
        parser.error(f"no area {', '.join(unknown)}; there are {', '.join(areas) or 'none'}")
    done = {} if given.fresh else earlier(results_file)
    for name in given.areas or list(areas):
        if done.get(name, {}).get("passed"):
            say(f"{name}: passed before, skipped")
            continue
        done[name] = run_area(name, areas[name], given.out)
        write_json(results_file, {**provenance(), "areas": done})
        say(f"{name}: {'passed' if done[name]['passed'] else 'FAILED'} in {done[name]['wall_s']:.0f} s")
    say(f"results: {results_file}")
    return 0 if all(done[name]["passed"] for name in given.areas or areas) else 1


def find_areas() -> dict[str, list[str]]:
    """Return the files with long tests by area: the folder below tests/, or the file's own name."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "long", "-p", "no:randomly"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode not in (0, 5):  # 5: nothing collected
        raise SystemExit(listed.stdout + listed.stderr)
    files = sorted({line.partition("::")[0] for line in listed.stdout.splitlines() if "::" in line})
    areas: dict[str, list[str]] = {}
    for file in files:
        parts = Path(file).parts
        areas.setdefault(parts[1] if len(parts) > 2 else Path(file).stem.removeprefix("test_"), []).append(file)
    return areas


def earlier(results_file: Path) -> dict[str, Any]:
    """Return the areas of an earlier run of this very revision."""
    if not results_file.is_file():
        return {}
    content = json.loads(results_file.read_text())
    return content["areas"] if content.get("git_revision") == git_revision() else {}


def run_area(name: str, files: Sequence[str], out: Path) -> dict[str, Any]:
    """Run one area and return its outcome with that of every test."""
    out.mkdir(parents=True, exist_ok=True)
    record = out / f"{name}.xml"
    start_s = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-m", "long", f"--junitxml={record}", *files]
    status = subprocess.run(command, cwd=ROOT).returncode
    tests = read_tests(record) if record.is_file() else {}
    return {"passed": status == 0, "wall_s": round(time.monotonic() - start_s, 1), "tests": tests}


def read_tests(record: Path) -> dict[str, dict[str, Any]]:
    """Return outcome and seconds of each test of a JUnit file."""
    tests = {}
    for case in ElementTree.parse(record).iter("testcase"):
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        tests[f"{case.get('classname')}::{case.get('name')}"] = {
            "outcome": outcome,
            "wall_s": float(case.get("time", 0)),
        }
    return tests


if __name__ == "__main__":
    sys.exit(main())
