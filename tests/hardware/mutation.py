"""Mutants of the safety filter and the watchdog: every one must be killed by a test.

    python tests/hardware/mutation.py [--count N] [--seed S] [--list] [--out FILE] [--minutes M] [--json FILE]

A mutant changes one comparison, sign, constant or statement of one module. It is killed when the
tests of the filter and the executor fail or do not end. Verdicts go to FILE, and a run goes on with the mutants that
it does not have yet; those that no test can tell from the original are listed below with the reason.
"""

import argparse
import ast
import copy
import importlib
import importlib.util
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy  # noqa: F401 imported before the forks, once
import pytest

import robolearn.hardware.limits  # likewise, and not made of what is mutated
import robolearn.hardware.ring
import robolearn.robots.panda  # noqa: F401
from robolearn.evaluation import write_json
from robolearn.provenance import provenance

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("safety", "braking", "executor")
TESTS = ("tests/hardware/test_safety.py", "tests/hardware/test_executor.py")
QUICK = "not no_joint and not fuzz and not splices and not blending and not torn and not latency"
_MEMORY_BYTES = 3 << 30  # a motion that never ends fills it
_OTHER = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip
_SIGN = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


# Mutants that no test can tell from the original, and why: "module: what | line".
EQUIVALENT: dict[str, str] = {
    "safety: delete Return at line 220 | def _command_problem(limits: Limits, state: SafetyState, command: Command, "
    "now_ns: int) -> str:": "None is as false as the empty text.",
    "safety: delete Return at line 268 | if (np.abs(change) > limits.jerk_rad_s3 * _SLACK).any():": "A shortcut before "
    "the way to rest is computed; `_within` sees the same change again as its first jerk.",
    "safety: Lt→LtE | if (tool[1:] < low).any() or (tool[1:] > high).any():": "A tool on the very border, in double "
    "precision; both answers keep it inside.",
    "safety: LtE→Lt | return bool((speed <= limits.options.tool_m_s * _SLACK).all())": "A tool at the very limit, in "
    "double precision; both answers keep it.",
    "braking: 1.0→3.0 | share = time_s / duration_s if duration_s > 0 else 1.0": "At the end of a motion or past it, "
    "nothing is left of a gap.",
    "executor: Gt→GtE | if before_left > 0 and after_left > 0:": "On the right: a new chunk that ends just when it "
    "comes; there is no target then, whatever fades.",
    "executor: Gt→GtE | if late > period_ns:": "A tick late by one period to the nanosecond counts as missed or not; "
    "nothing but the count differs.",
}


@dataclass(frozen=True)
class Mutant:
    """One changed module."""

    module: str
    name: str  # where and what
    source: str


def mutants(module: str) -> Iterator[Mutant]:
    """Yield every mutant of a module of the hardware room."""
    text = (ROOT / "hardware" / f"{module}.py").read_text()
    tree = ast.parse(text)
    for index, node in enumerate(ast.walk(tree)):
        for label, change in _changes(node):
            copied = copy.deepcopy(tree)
            twin = next(each for i, each in enumerate(ast.walk(copied)) if i == index)
            change(twin)
            line = getattr(node, "lineno", 0)
            yield Mutant(
                module, f"{module}:{line}: {label} | {text.splitlines()[line - 1].strip()}", ast.unparse(copied)
            )


def count(module: str) -> int:
    """Return how many mutants a module has."""
    tree = ast.parse((ROOT / "hardware" / f"{module}.py").read_text())
    return sum(1 for node in ast.walk(tree) for _ in _changes(node))


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    if isinstance(node, ast.Compare):
        for other in _OTHER.get(type(node.ops[0]), ()):
            yield f"{type(node.ops[0]).__name__}→{other.__name__}", lambda n, other=other: n.ops.__setitem__(0, other())
    elif isinstance(node, ast.BinOp) and type(node.op) in _SIGN:
        other = _SIGN[type(node.op)]
        yield f"{type(node.op).__name__}→{other.__name__}", lambda n: setattr(n, "op", other())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "USub→UAdd", lambda n: setattr(n, "op", ast.UAdd())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "drop not", lambda n: setattr(n, "op", ast.UAdd())
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value}→{node.value * 2 + 1}", lambda n: setattr(n, "value", n.value * 2 + 1)
    elif isinstance(node, ast.FunctionDef | ast.If | ast.For | ast.While):
        for i, statement in enumerate(node.body):
            kind = type(statement).__name__
            if kind in ("Assign", "AugAssign", "Return", "Raise", "If") or _is_call(statement):
                yield f"delete {kind} at line {statement.lineno}", lambda n, i=i: n.body.__setitem__(i, ast.Pass())


def _is_call(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)


def verdict(mutant: Mutant, limit_s: float = 60.0) -> str:
    """Run the tests over a mutant, each part for `limit_s` of the processor at most; the quick tests first.

    Returns "killed", "timeout" or "SURVIVED".
    """
    for picked in (QUICK, f"not ({QUICK})"):
        status = _fork(mutant, picked, limit_s)
        if status != 0:
            return "timeout" if status is None else "killed"
    return "SURVIVED"


def _fork(mutant: Mutant, picked: str, limit_s: float) -> int | None:
    """Run the picked tests in a forked process; returns its status, None when it does not end."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (round(limit_s), round(limit_s) + 1))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        os._exit(_run(mutant, picked))
    end = time.monotonic() + 10 * limit_s  # one that only waits
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(status)
            return None if status == -signal.SIGXCPU else status
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _run(mutant: Mutant, picked: str) -> int:
    package = importlib.import_module("robolearn.hardware")
    spec = importlib.util.spec_from_loader(f"robolearn.hardware.{mutant.module}", None, origin="mutant")
    if spec is None:
        return 3
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    setattr(package, mutant.module, module)
    try:
        exec(compile(mutant.source, f"{mutant.module}.py", "exec"), module.__dict__)  # noqa: S102 our own source
    except Exception:  # noqa: BLE001 a module that cannot be imported is noticed
        return 1
    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # others' plugins take longer to import than most mutants live
    tests = reversed(TESTS) if mutant.module == "executor" else TESTS
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not long", "-k", picked, *tests]))


def chosen(count: int, seed: int) -> list[Mutant]:
    """Return `count` mutants drawn evenly from all modules; all of them for 0."""
    every = [mutant for module in MODULES for mutant in mutants(module)]
    random.Random(seed).shuffle(every)
    return every[:count] if count else every


def reason(mutant: Mutant) -> str:
    """Return why a mutant may survive; empty when nobody has said so."""
    module, _, rest = mutant.name.partition(":")
    return EQUIVALENT.get(f"{module}: {rest.partition(': ')[2]}", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--out", type=Path, help="where the verdicts of earlier runs are, and this one's go")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no mutant after these")
    parser.add_argument("--json", type=Path, help="gets the counts and the survivors with their reasons")
    options = parser.parse_args()
    end_s = time.monotonic() + 60 * options.minutes
    known = options.out.read_text().splitlines() if options.out and options.out.is_file() else []
    verdicts = {line.partition(" ")[2].strip(): line.partition(" ")[0] for line in known if " " in line}
    counts: Counter[str] = Counter()
    survivors: list[dict[str, str]] = []
    if not options.list and verdict(Mutant("safety", "", (ROOT / "hardware" / "safety.py").read_text())) != "SURVIVED":
        raise SystemExit("The tests fail without any mutant; they must pass first.")
    for mutant in chosen(options.count, options.seed):
        result = "listed" if options.list else verdicts.get(mutant.name, "")
        if not result:
            if time.monotonic() > end_s:
                counts["not yet"] += 1
                continue
            result = verdict(mutant)
            if options.out:
                with options.out.open("a") as out:
                    out.write(f"{result:8} {mutant.name}\n")
        if result == "SURVIVED":
            result = "equivalent" if reason(mutant) else result
            survivors.append({"mutant": mutant.name, "reason": reason(mutant)})
        counts[result] += 1
        sys.stdout.write(
            f"{result:10} {mutant.name}\n" + (f"         {reason(mutant)}\n" if result == "equivalent" else "")
        )
        sys.stdout.flush()
    sys.stdout.write(f"{dict(counts)}\n")
    if options.json:
        total = sum(count(module) for module in MODULES)
        write_json(options.json, {**provenance(), "mutants": total, "verdicts": dict(counts), "survivors": survivors})


if __name__ == "__main__":
    main()
