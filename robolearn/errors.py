"""Errors that say what was found, what was expected and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EnvError",
    "HardwareError",
    "MissingLibraryError",
    "NumericsError",
    "RegistryError",
    "RobolearnError",
    "SpecError",
    "WireError",
    "suggest",
]


class RobolearnError(Exception):
    """Base of every error this library raises on purpose."""

    def __init__(self, what: str, *, found: object = None, expected: object = None, do: str = ""):
        self.what, self.found, self.expected, self.do = what, found, expected, do
        parts = [what]
        parts += [f"found: {found}"] if found is not None else []
        parts += [f"expected: {expected}"] if expected is not None else []
        parts += [f"do: {do}"] if do else []
        super().__init__("\n  ".join(parts))


class SpecError(RobolearnError):
    """Two specs that should fit do not."""


class ConfigError(RobolearnError):
    """A config has an unknown key, a wrong type or an impossible value."""


class RegistryError(RobolearnError, LookupError):
    """A name is not registered, or is registered twice."""


class DataError(RobolearnError):
    """A dataset is damaged or holds something that must not be trained on."""


class CheckpointError(RobolearnError):
    """A checkpoint is damaged, incomplete, of an unknown schema or for another policy."""


class NumericsError(RobolearnError):
    """A loss, gradient, weight or action is not finite."""


class EnvError(RobolearnError):
    """An environment cannot be built or broke its contract."""


class HardwareError(RobolearnError):
    """A robot, transport or safety precondition does not hold."""


class WireError(RobolearnError):
    """A message on the wire is malformed, too large or not what the other side expects."""


class MissingLibraryError(RobolearnError, ImportError):
    """An optional library is needed here and not installed."""


def suggest(name: str, options: Iterable[str]) -> str:
    """Return the did-you-mean sentence for `name` among `options`."""
    names = sorted(options)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    listing = ", ".join(names) if len(names) <= 24 else ", ".join(names[:24]) + f", … ({len(names)} in all)"
    return (f"did you mean '{close[0]}'? " if close else "") + f"known: {listing or 'none'}"
