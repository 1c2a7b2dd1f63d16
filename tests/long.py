"""`./run test-long [AREA …] [--minutes M] [--fresh] [--out DIR]`: the tests marked `long`, area by area.

Every outcome is entered in `DIR/results.json` (outputs/test-long by default) as soon as it is known, with the
figures that the test gave. A test that passed at the same revision is not run again, so an interrupted run
goes on where it was; `--minutes` interrupts it between two tests.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from robolearn.cli.show import say
from robolearn.evaluation import write_json
from robolearn.provenance import git_revision, provenance

ROOT = Path(__file__).resolve().parent.parent
GOOD = ("passed", "skipped")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left and return 0 when every test of the areas passed."""
    parser = argparse.ArgumentParser(prog="./run test-long", description=__doc__)
    parser.add_argument("areas", nargs="*", help="names of areas; all without one")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after the test that ends past them")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "test-long")
    given = parser.parse_args(arguments)
    results_file = given.out / "results.json"
    found = find_tests(given.areas)
    unknown = sorted(set(given.areas) - set(found))
    if unknown:
        parser.error(f"no area {', '.join(unknown)}; there are {', '.join(found) or 'none'}")
    areas = {name: found[name] for name in given.areas or found}
    for record in given.out.glob("*.jsonl") if given.fresh else ():
        record.unlink()
    done = {} if given.fresh else earlier(results_file)
    end_s = time.time() + 60 * given.minutes
    for name, tests in areas.items():
        outcomes = done.setdefault(name, {"tests": {}})["tests"]
        left = [test for test in tests if outcomes.get(test, {}).get("outcome") not in GOOD]
        say(f"{name}: {len(tests) - len(left)} of {len(tests)} passed before")
        if left and time.time() < end_s:
            run_tests(left, given.out / f"{name}.jsonl", end_s)
            outcomes.update(read_outcomes(given.out / f"{name}.jsonl"))
        good = [outcomes.get(test, {}).get("outcome") in GOOD for test in tests]
        spent_s = sum(item["wall_s"] for item in outcomes.values())
        done[name] = {"passed": all(good), "wall_s": round(spent_s, 1), "tests": outcomes}
        write_json(results_file, {**provenance(), "areas": done})
        say(f"{name}: {sum(good)} of {len(tests)} passed, {spent_s:.0f} s")
    say(f"results: {results_file}")
    return 0 if all(done[name]["passed"] for name in areas) else 1


def find_tests(wanted: Sequence[str]) -> dict[str, list[str]]:
    """Return the long tests by area: the folder below tests/, or the file's own name; others than `wanted` may miss."""
    folders = [f"tests/{area}" for area in wanted]
    places = folders if all((ROOT / folder).is_dir() for folder in folders) else []
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "long", "-p", "no:randomly", *places]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode not in (0, 5):  # 5: nothing collected
        raise SystemExit(listed.stdout + listed.stderr)
    areas: dict[str, list[str]] = {}
    for test in (line for line in listed.stdout.splitlines() if "::" in line):
        parts = Path(test.partition("::")[0]).parts
        areas.setdefault(parts[1] if len(parts) > 2 else Path(parts[-1]).stem.removeprefix("test_"), []).append(test)
    return areas


def earlier(results_file: Path) -> dict[str, Any]:
    """Return the areas of an earlier run of this very revision, what an interrupted one left included."""
    areas: dict[str, Any] = {}
    if results_file.is_file():
        content = json.loads(results_file.read_text())
        areas = content["areas"] if content.get("git_revision") == git_revision() else {}
    for path in results_file.parent.glob("*.jsonl"):
        areas.setdefault(path.stem, {"tests": {}})["tests"].update(read_outcomes(path))
    return areas


def run_tests(tests: Sequence[str], record: Path, end_s: float) -> None:
    """Run the tests in a process of their own."""
    record.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "record", str(record), str(end_s), *tests]
    subprocess.run(command, cwd=ROOT)


def read_outcomes(record: Path) -> dict[str, dict[str, Any]]:
    """Return the last outcome of every test that was recorded at this revision; a cut line counts for nothing."""
    outcomes, revision = {}, git_revision()
    for line in record.read_text().splitlines() if record.is_file() else ():
        try:
            facts = json.loads(line)
        except json.JSONDecodeError:
            continue
        if facts.pop("git_revision") == revision:
            outcomes[facts.pop("test")] = facts
    return outcomes


class Recording:
    """A pytest plugin: every outcome is appended to `record` at once; after `end_s` (of the epoch) no test starts."""

    def __init__(self, record: Path, end_s: float):
        self.record, self.end_s, self.revision = record, end_s, git_revision()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        facts: dict[str, Any] = {"git_revision": self.revision, "test": report.nodeid, "outcome": report.outcome}
        facts |= {"wall_s": round(report.duration, 1), **dict(report.user_properties)}
        with self.record.open("a") as file:
            file.write(json.dumps(facts) + "\n")

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if time.time() > self.end_s:
            item.session.shouldstop = "the time is over"


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"]:
        recording = Recording(Path(sys.argv[2]), float(sys.argv[3]))
        sys.exit(pytest.main(["-m", "long", *sys.argv[4:]], plugins=[recording]))
    sys.exit(main())
