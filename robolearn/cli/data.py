"""`robolearn data SUB PATH`: look at datasets."""

import sys
from collections.abc import Sequence

import numpy as np

from robolearn.api import locate_data, open_dataset
from robolearn.cli import load
from robolearn.cli.arguments import parse_arguments
from robolearn.cli.show import table
from robolearn.errors import ConfigError, suggest

__all__ = ["COMMANDS", "info", "main"]

# sub-command → ("module:function" taking the remaining arguments, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "info": ("robolearn.cli.data:info", "what a dataset holds: episodes, rate, features, tasks"),
}


def main(arguments: Sequence[str]) -> int:
    """Run one sub-command."""
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
        sys.stdout.write(f"usage: robolearn data SUB PATH [key=value ...]\n\n{lines}\n")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise ConfigError(f"Unknown sub-command 'data {name}'.", expected=suggest(name, COMMANDS))
    return load(COMMANDS[name][0])(rest) or 0


def info(arguments: Sequence[str]) -> None:
    """Print what the dataset at a path holds."""
    given = parse_arguments(arguments, "usage: robolearn data info PATH [kind=auto]", names=1)
    if not given.names:
        raise ConfigError("A path is missing.", expected="robolearn data info PATH")
    path = locate_data(given.names[0])
    source = open_dataset(path, given.value("kind", "auto"))
    spec, lengths = source.spec, np.asarray(source.lengths)
    action = (
        f"{spec.action.dim} entries, {spec.action.kind or 'kind not stated'}, {spec.action.unit or 'unit not stated'}"
    )
    facts = [
        ("episodes", f"{len(lengths):,}"),
        ("frames", f"{int(lengths.sum()):,}"),
        (
            "frames per episode",
            f"{lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}" if len(lengths) else "–",
        ),
        ("rate", f"{spec.rate_hz:g} Hz"),
        ("robot", spec.robot or "not stated"),
        ("action", action),
    ]
    table(str(path), ("fact", ""), facts)
    rows = [(key, f.kind, str(tuple(f.shape)), f.dtype, f.unit) for key, f in spec.observations.items()]
    table("", ("observation", "kind", "shape", "dtype", "unit"), rows)
