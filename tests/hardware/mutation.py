"""Mutants of the safety filter and the watchdog: every one must be killed by a test.

    python tests/hardware/mutation.py [--count N] [--seed S] [--list]

A mutant changes one comparison, sign, constant or statement of one module. It is killed when the
tests of the filter and the executor fail or do not end.
"""

import argparse
import ast
import copy
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("safety", "braking", "executor")
TESTS = ("tests/hardware/test_safety.py", "tests/hardware/test_executor.py", "tests/hardware/test_watchdog.py")
_OTHER = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip
_SIGN = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
_RUN = """
import sys, importlib, importlib.util, pathlib
name, source = sys.argv[1], pathlib.Path(sys.argv[2]).read_text()
package = importlib.import_module("robolearn.hardware")
spec = importlib.util.spec_from_loader("robolearn.hardware." + name, None, origin="mutant")
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
setattr(package, name, module)
exec(compile(source, name + ".py", "exec"), module.__dict__)
import pytest
sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not long", *sys.argv[3:]]))
"""


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


def killed(mutant: Mutant, folder: Path, limit_s: float = 300.0) -> bool:
    """Run the tests over a mutant; True when they notice."""
    path = folder / "mutant.py"
    path.write_text(mutant.source)
    command = [sys.executable, "-c", _RUN, mutant.module, str(path), *(t for t in TESTS if (ROOT / t).exists())]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return True
    return run.returncode == 1 or b"rror" in run.stdout[-2000:] or run.returncode > 1


def chosen(count: int, seed: int) -> list[Mutant]:
    """Return `count` mutants drawn evenly from all modules; all of them for 0."""
    every = [mutant for module in MODULES for mutant in mutants(module)]
    random.Random(seed).shuffle(every)
    return every[:count] if count else every


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    survivors = 0
    picked = chosen(options.count, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        for mutant in picked:
            noticed = options.list or killed(mutant, Path(folder))
            survivors += not noticed
            sys.stdout.write(f"{'listed ' if options.list else 'killed ' if noticed else 'SURVIVED'} {mutant.name}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(picked) - survivors}/{len(picked)} killed\n")


if __name__ == "__main__":
    main()
