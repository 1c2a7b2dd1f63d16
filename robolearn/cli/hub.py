"""`robolearn push` and `robolearn pull`."""

from collections.abc import Sequence
from pathlib import Path

from robolearn.cli.arguments import Arguments, parse_arguments
from robolearn.cli.show import say
from robolearn.errors import ConfigError, suggest
from robolearn.hub import pull as fetch
from robolearn.hub import push as send

__all__ = ["pull", "push"]

_PUSH = """usage: robolearn push DIR to=TARGET [private=true]

Sends a checkpoint or dataset folder with its card to the hub (user/name) or to a folder (./name)."""
_PULL = """usage: robolearn pull SOURCE to=DIR [kind=model|dataset] [revision=REV]

Fetches a checkpoint or dataset from the hub (user/name) or from a folder (./name) into a new folder."""


def push(arguments: Sequence[str]) -> None:
    """Send one folder."""
    given = parse_arguments(arguments, _PUSH, names=1).accept("to", "private")
    folder, target = _name(given, _PUSH), _to(given, _PUSH)
    private = given.value("private", "true")
    if private not in ("true", "false"):
        raise ConfigError("private is true or false.", found=private)
    say(f"sent to {send(Path(folder), target, private == 'true')}")


def pull(arguments: Sequence[str]) -> None:
    """Fetch one folder."""
    given = parse_arguments(arguments, _PULL, names=1).accept("to", "kind", "revision")
    kind = given.value("kind", "model")
    if kind not in ("model", "dataset"):
        raise ConfigError(f"Unknown kind '{kind}'.", expected=suggest(kind, ("model", "dataset")))
    source, folder = _name(given, _PULL), Path(_to(given, _PULL))
    say(f"fetched into {fetch(source, folder, given.value('revision') or None, kind)}")


def _name(given: Arguments, usage: str) -> str:
    if not given.names:
        raise ConfigError("A name is missing.", expected=usage.splitlines()[0])
    return given.names[0]


def _to(given: Arguments, usage: str) -> str:
    if not given.value("to"):
        raise ConfigError("to= is missing.", expected=usage.splitlines()[0])
    return given.value("to")
