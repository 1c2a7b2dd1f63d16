"""`robolearn convert`: a published policy's folder as a checkpoint of our own."""

from collections.abc import Sequence

from robolearn.cli.arguments import parse_arguments
from robolearn.cli.show import say
from robolearn.errors import ConfigError, suggest

__all__ = ["main"]

_USAGE = """usage: robolearn convert FOLDER out=DIR backbone=FOLDER rate_hz=RATE

Writes the SmolVLA or pi0 policy that LeRobot saved in FOLDER as a checkpoint: weights, normalisation and prompt.
backbone= is the folder of the vision-language model it stands on (its config.json and tokenizer.json are used, its
weights are not); rate_hz= is the control rate, which LeRobot's folder does not state."""
_KEYS = ("out", "backbone", "rate_hz")


def main(arguments: Sequence[str]) -> None:
    """Convert one folder."""
    given = parse_arguments(arguments, _USAGE, names=1)
    for item in given.overrides:
        key = item.partition("=")[0]
        if key not in _KEYS:
            raise ConfigError(f"Unknown key '{key}'.", expected=suggest(key, _KEYS))
    missing = [f"{key}=" for key in _KEYS if not given.value(key)]
    if not given.names or missing:
        raise ConfigError("Something is missing.", found=", ".join(missing) or "no folder", expected=_rest(_USAGE))
    try:
        rate_hz = float(given.value("rate_hz"))
    except ValueError as error:
        raise ConfigError("rate_hz is a number.", found=given.value("rate_hz")) from error
    from robolearn.policies.vla.published import convert_lerobot  # torch, which a mistake above does not wait for

    folder = convert_lerobot(given.names[0], given.value("out"), given.value("backbone"), rate_hz)
    say(f"converted into {folder}")


def _rest(usage: str) -> str:
    return usage.splitlines()[0].removeprefix("usage: ")
