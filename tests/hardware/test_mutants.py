"""Mutants of the filter and the watchdog are killed by the tests; see mutation.py beside this file."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("mutation.py")
ROOT = SCRIPT.parents[2]


@pytest.fixture(scope="module")
def mutation(script):
    return script(SCRIPT)


def test_there_are_many_mutants_and_each_differs(mutation):
    assert sum(mutation.count(module) for module in mutation.MODULES) > 400
    braking = list(mutation.mutants("braking"))
    assert len({mutant.source for mutant in braking}) > 0.97 * len(braking)


@pytest.mark.parametrize("name", ["NaN accepted", "no jerk limit"])
def test_marked_mutants_are_killed(mutation, name, tmp_path):
    """Two that would be dangerous, by their text; the full sample runs with the long tests."""
    source = (mutation.ROOT / "hardware" / "safety.py").read_text()
    change = {
        "NaN accepted": ('return "not_finite"', 'return ""'),
        "no jerk limit": (
            "if (np.abs(rate) > bound * _SLACK).any():",
            "if order < 2 and (np.abs(rate) > bound).any():",
        ),
    }[name]
    assert change[0] in source
    mutant = mutation.Mutant("safety", name, source.replace(*change))
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import mutation\n"
        "mutant = mutation.Mutant('safety', '', pathlib.Path(sys.argv[2]).read_text())\n"
        "print(mutation.verdict(mutant))"
    )
    path = tmp_path / "mutant.py"
    path.write_text(mutant.source)
    run = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT.parent), str(path)], capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "killed", run.stdout + run.stderr


@pytest.mark.long
def test_a_hundred_mutants_are_killed():
    """Survivors are allowed only with a reason, in `EQUIVALENT` of mutation.py."""
    out = ["--out", str(ROOT / "outputs" / "mutants.txt")]  # a run that ends early goes on from there
    command = [sys.executable, str(SCRIPT), "--count", "120", *out]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout.count("\n") > 120, run.stderr
    survivors = [line for line in run.stdout.splitlines() if line.startswith("SURVIVED")]
    assert survivors == []
