"""`robolearn convert`: a published policy's folder as a checkpoint of our own."""

from collections.abc import Sequence

from robolearn.cli.arguments import parse_arguments
from robolearn.cli.show import say
from robolearn.errors import ConfigError

__all__ = ["main"]

_USAGE = """usage: robolearn convert FOLDER out=DIR rate_hz=RATE [backbone=FOLDER] [unnorm_key=NAME]

Writes a published policy as a checkpoint: weights, normalisation and prompt. SmolVLA and pi0, as LeRobot saves them,
need backbone=, the folder of the vision-language model they stand on (its config.json and tokenizer.json are used, its
weights are not). OpenVLA needs unnorm_key=, the data set whose actions it is to give. rate_hz= is the control rate,
which none of them states."""
_KEYS = ("out", "rate_hz", "backbone", "unnorm_key")


def main(arguments: Sequence[str]) -> None:
    """Convert one folder."""
    given = parse_arguments(arguments, _USAGE, names=1).accept(*_KEYS)
    missing = [f"{key}=" for key in _KEYS[:2] if not given.value(key)]
    if not given.names or missing:
        raise ConfigError("Something is missing.", found=", ".join(missing) or "no folder", expected=_rest(_USAGE))
    try:
        rate_hz = float(given.value("rate_hz"))
    except ValueError as error:
        raise ConfigError("rate_hz is a number.", found=given.value("rate_hz")) from error
    from robolearn.policies.vla.published import convert  # torch, which a mistake above does not wait for

    folder = convert(given.names[0], given.value("out"), rate_hz, given.value("backbone"), given.value("unnorm_key"))
    say(f"converted into {folder}")


def _rest(usage: str) -> str:
    return usage.splitlines()[0].removeprefix("usage: ")
