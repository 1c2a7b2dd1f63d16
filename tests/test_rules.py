"""The rules of the house, held by walking the syntax tree of every file."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("envs", "policies", "data", "hardware")
LINKS = {ROOT / "robolearn" / name for name in (*ROOMS, "configs")}
# Modules of the core that may compose rooms; everything else reaches them through the registry.
COMPOSERS = ("robolearn.cli",)


def _files() -> list[Path]:
    folders = [ROOT / name for name in ("robolearn", *ROOMS, "configs")]
    found = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return [path for path in found if not any(link in path.parents for link in LINKS)]


def _module(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "robolearn" else ["robolearn", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "core"


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    package = _module(path) if path.name == "__init__.py" else _module(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, origin
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def _where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def dependency_violations(path: Path) -> list[str]:
    """List the imports of `path` that go against the direction: rooms → core, never room → room."""
    module = _module(path)
    if module.startswith(COMPOSERS):
        return []
    found = []
    for line, name in _imports(path):
        target = _room(name) if name.startswith("robolearn.") else "core"
        reaches_cli = name.startswith("robolearn.cli")
        if reaches_cli or (target != "core" and target != _room(module)):
            found.append(f"{_where(path, line)} {module} imports {name}")
        if name.split(".")[0] in (*ROOMS, "configs", "tests", "benchmarks"):
            found.append(f"{_where(path, line)} bare import of {name}")
    return found


def test_rooms_import_the_core_and_never_each_other():
    assert len(_files()) > 20
    assert [violation for path in _files() for violation in dependency_violations(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from robolearn.policies import flow",
        "import robolearn.data.files",
        "from robolearn.cli import main",
        "import envs",
    ],
)
def test_dependency_check_finds_a_wrong_direction(line, monkeypatch):
    path = ROOT / "envs" / "__init__.py"
    monkeypatch.setattr(Path, "read_text", lambda self, *rest: f"def f():\n    {line}\n")
    assert dependency_violations(path)


def test_no_constructor_takes_arbitrary_keywords():
    found = [
        _where(path, node.lineno)
        for path in _files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name in ("__init__", "__new__", "build") and node.args.kwarg
    ]
    assert found == []


def test_no_assert_guards_logic():
    found = [
        _where(path, node.lineno)
        for path in _files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "__import__",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "hydra.utils.instantiate",
}
# The only files that import modules by a name they compute, each from a table in code: the lazy public names, the
# registry, the command tables, the own tasks, gymnasium's packages, the input devices, the message types of ROS.
IMPORTERS = {
    *("robolearn/__init__.py", "robolearn/registry.py", "robolearn/cli/__init__.py"),
    *("envs/suite.py", "envs/gym.py", "hardware/rcl.py", "hardware/teleop.py"),
}


def execution_violations(path: Path) -> list[str]:
    """List what could execute data: pickles, eval, unsafe loaders, imports by computed name."""
    found = [
        f"{_where(path, line)} import of {name}"
        for line, name in _imports(path)
        if name.split(".")[0] in FORBIDDEN_MODULES
    ]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name, keywords = ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in FORBIDDEN_CALLS:
            found.append(f"{_where(path, node.lineno)} {name}")
        if name == "torch.load" and keywords.get("weights_only") != "True":
            found.append(f"{_where(path, node.lineno)} torch.load without weights_only=True")
        if name in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False":
            found.append(f"{_where(path, node.lineno)} np.load with pickles")
        computed = not (node.args and isinstance(node.args[0], ast.Constant))
        importer = name.rsplit(".", 1)[-1] == "import_module" and computed
        if importer and str(path.relative_to(ROOT)) not in IMPORTERS:
            found.append(f"{_where(path, node.lineno)} import by computed name")
    return found


def test_nothing_that_is_read_can_execute():
    assert [violation for path in _files() for violation in execution_violations(path)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "eval(text)",
        "import yaml\nyaml.load(text)",
        "import torch\ntorch.load(path)",
        "import importlib\nimportlib.import_module(name)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_execution_check_finds_each_hole(code, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda self, *rest: code)
    assert execution_violations(ROOT / "envs" / "__init__.py")


def _public(tree: ast.Module) -> set[str]:
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return {name for name in names if not name.startswith("_")}


def test_every_module_states_its_public_names():
    problems = []
    for path in _files():
        tree = ast.parse(path.read_text())
        stated = next(
            (
                ast.literal_eval(node.value)
                for node in tree.body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            ),
            None,
        )
        if stated is None:
            if _public(tree) and not path.name.startswith("_"):
                problems.append(f"{path.relative_to(ROOT)} has no __all__")
            continue
        defined = set(_names_bound(tree))
        missing = [name for name in stated if name not in defined and "__getattr__" not in defined]
        problems += [f"{path.relative_to(ROOT)}: __all__ names {name}, which is not there" for name in missing]
    assert problems == []


def _names_bound(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.TypeAlias):
            yield ast.unparse(node.name)


def test_public_python_verbs():
    import robolearn

    assert robolearn.__all__ == ["__version__", "evaluate", "load", "make_env", "open_dataset", "register", "train"]
    for name in robolearn.__all__:
        assert getattr(robolearn, name)
    with pytest.raises(AttributeError, match="evaluate"):
        _ = robolearn.evalute  # ty: ignore[unresolved-attribute]


@pytest.mark.parametrize("room", [*ROOMS, "configs"])
def test_a_room_has_one_import_name(room, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(ImportError, match=rf"import robolearn\.{room}"):
        importlib.import_module(room)


def test_registered_names_point_at_what_exists():
    from robolearn import registry

    for group in registry.groups():
        for name, target in registry._group(group).items():
            module = target.partition(":")[0].split(".")
            stem = ROOT.joinpath(*(module[1:] if module[1] in ROOMS else module))
            assert stem.with_suffix(".py").exists() or (stem / "__init__.py").exists(), (group, name, target)


def _run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


FOLDERS = ("robolearn", *ROOMS, "configs", "tests", "benchmarks")


def test_ruff_finds_nothing():
    assert _run("ruff", "check", *FOLDERS) == ""
    assert _run("ruff", "format", "--check", *FOLDERS) == ""


def test_types_check():
    assert _run("ty", "check") == ""
