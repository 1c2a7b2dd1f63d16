"""`robolearn data SUB PATH`: the data room's verbs with tables and result files."""

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from robolearn.api import locate_data
from robolearn.cli.arguments import parse_arguments
from robolearn.cli.compose import merge
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import say, table
from robolearn.data.commands import COMMANDS, OPTIONS
from robolearn.data.detect import OpenOptions
from robolearn.errors import ConfigError, suggest

__all__ = ["main"]

_WRITES = ("compare", "convert", "edit", "view")  # they take the place of what is new; the others take out=DIR


def main(arguments: Sequence[str]) -> int:
    """Run one sub-command; `verify` returns 1 when it found something."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage() + "\n")
        return 0
    verb, *rest = arguments
    if verb not in COMMANDS:
        raise ConfigError(f"Unknown sub-command 'data {verb}'.", expected=suggest(verb, COMMANDS))
    rest = [item.removeprefix("data.") for item in rest]  # the same options as a training's
    given = parse_arguments(rest, _usage_of(verb), names=2 if verb in _WRITES else 1)
    plain = merge({}, given)
    out = plain.pop("out", None) if verb not in _WRITES else None
    plain |= dict(zip(("path", "out"), given.names, strict=False))
    if verb == "mixture":
        plain.setdefault("path", ".")
    if "path" not in plain:
        raise ConfigError("A path is missing.", expected=f"robolearn data {verb} PATH")
    plain["path"] = str(locate_data(plain["path"]))
    job = Job(f"data {verb}", out_folder("data", str(out)), plain) if out else None
    result = COMMANDS[verb](plain)
    _show(verb, result)
    if job is not None:
        job.finish(result)
        say(f"result: {job.out / 'result.json'}")
    return int(result.get("good") is False)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {_summary(work.__doc__)}" for name, work in sorted(COMMANDS.items())]
    usage = "usage: robolearn data SUB PATH [kind=auto] [out=DIR]; robolearn data convert PATH NEW [to=lerobot]"
    return "\n".join([usage, "", *lines, "", "robolearn data SUB --help lists its options."])


def _usage_of(verb: str) -> str:
    """Return what one verb does and its options with their defaults."""
    options = OPTIONS.get(verb, OpenOptions)
    named = [item for item in fields(options) if item.name not in ("path", "out")]
    lines = [f"  {item.name}: {_type(item)}{_default(item)}" for item in named]
    new = " [NEW]" if verb in _WRITES else ""
    usage = f"usage: robolearn data {verb} PATH{new} [key=value ...]"
    texts = [inspect.cleandoc(text or "") for text in (COMMANDS[verb].__doc__, options.__doc__)]
    return "\n\n".join([usage, *texts, "\n".join(lines)])


def _type(item: Field) -> str:
    return inspect.formatannotation(item.type).replace("collections.abc.", "").replace("typing.", "")


def _default(item: Field) -> str:
    value = item.default if item.default_factory is MISSING else item.default_factory()
    return "" if value is MISSING else f" = {json.dumps(value)}"


def _summary(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def _show(verb: str, result: Mapping[str, Any]) -> None:
    rest = dict(result)
    spec = rest.pop("spec", None)
    if verb == "stats":
        names = ("min", "max", "mean", "std", "q01", "q50", "q99")
        table("", ("signal", *names), [row for key, item in rest.items() for row in _entries(key, item, names)])
        frames = {count for item in rest.values() for count in item["count"]}
        say(f"{max(frames, default=0)} frames")
        return
    problems = rest.pop("problems", ())
    nested = {key: rest.pop(key) for key in ("members", "episodes") if isinstance(rest.get(key), dict)}
    table(
        "", (f"data {verb}", ""), [(key, _words(value)) for key, value in rest.items() if value not in (None, {}, [])]
    )
    for key, items in nested.items():
        names = [name for name, value in next(iter(items.values())).items() if not isinstance(value, dict)]
        table(
            "", (key, *names), [(item, *(_words(facts.get(name)) for name in names)) for item, facts in items.items()]
        )
    if spec is not None:
        facts = [(key, f["kind"], _words(f["shape"]), f["dtype"], f["unit"]) for key, f in spec["observations"].items()]
        action = spec["action"]
        facts.append(("action", action["kind"] or "signal", f"[{action['dim']}]", "float32", action["unit"]))
        table("", (f"at {spec['rate_hz']:g} Hz", "kind", "shape", "dtype", "unit"), facts)
    for problem in problems:
        say(problem)


def _entries(key: str, item: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return one row for every entry of a signal."""
    size = len(item[names[0]])
    short = key.removeprefix("observation.")
    labels = [short if size == 1 else f"{short}[{i}]" for i in range(size)]
    return [(label, *(f"{item[name][i]:.4g}" for name in names)) for i, label in enumerate(labels)]


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and value and all(isinstance(item, float) for item in value):
        return " ".join(f"{item:.4g}" for item in value)
    return json.dumps(value)
