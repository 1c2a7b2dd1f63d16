"""Split a verb's arguments into flags, names and Hydra overrides."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from robolearn.errors import ConfigError, suggest

__all__ = ["Arguments", "parse_arguments"]

_FLAGS = ("--config-dir", "--help", "--multirun", "-h", "-m")
_OVERRIDE = re.compile(r"^[+~]{0,2}[\w@/.\-]+(=|$)")


@dataclass(frozen=True)
class Arguments:
    """What stands behind a verb: plain names, overrides `key=value`, and the common flags."""

    names: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    multirun: bool = False
    config_dir: str | None = None

    def value(self, key: str, default: str = "") -> str:
        """Return the last value given to `key`."""
        return next(
            (item.partition("=")[2] for item in reversed(self.overrides) if item.startswith(key + "=")), default
        )

    def accept(self, *keys: str) -> Self:
        """Return the arguments; raises `ConfigError` for an override of anything but `keys`."""
        for item in self.overrides:
            key = item.partition("=")[0]
            if key not in keys:
                raise ConfigError(f"Unknown key '{key}'.", expected=suggest(key, keys))
        return self


def parse_arguments(arguments: Sequence[str], usage: str, names: int = 0) -> Arguments:
    """Split `arguments`; prints `usage` and exits for --help.

    At most `names` plain words are accepted; everything else is an override.
    """
    words, overrides, config_dir, multirun = [], [], None, False
    rest = list(arguments)
    while rest:
        item = rest.pop(0)
        if item in ("-h", "--help"):
            sys.stdout.write(usage.strip() + "\n")
            raise SystemExit(0)
        if item in ("-m", "--multirun"):
            multirun = True
        elif item == "--config-dir" or item.startswith("--config-dir="):
            config_dir = item.partition("=")[2] or (rest.pop(0) if rest else "")
            if not config_dir:
                raise ConfigError("--config-dir needs a folder.", do="write --config-dir DIR")
        elif item.startswith("--"):
            raise ConfigError(f"Unknown flag '{item}'.", expected=suggest(item, _FLAGS), do="options are key=value")
        elif "=" in item or item.startswith(("+", "~")):
            overrides.append(_override(item))
        elif len(words) < names:
            words.append(item)
        else:
            raise ConfigError(f"'{item}' is not an override.", expected="key=value", do=usage.strip().splitlines()[0])
    return Arguments(tuple(words), tuple(overrides), multirun, config_dir)


def _override(item: str) -> str:
    if not _OVERRIDE.match(item):
        raise ConfigError(f"'{item}' is not an override.", expected="key=value, for example train.steps=20000")
    return item
