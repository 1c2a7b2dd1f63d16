"""`robolearn reproduce NAME`: run one published row again."""

from collections.abc import Sequence

from robolearn.cli.arguments import Arguments, parse_arguments
from robolearn.cli.compose import choices, compose_config, jobs
from robolearn.cli.rl import run_rl
from robolearn.cli.train import run_training
from robolearn.errors import ConfigError, suggest

__all__ = ["main"]

_USAGE = """usage: robolearn reproduce NAME [seed=0] [data.path=FILE] [out=DIR] [-m]

Trains and evaluates one row of the published results; each is one file in configs/experiment/.
`robolearn list experiments` names them."""


def main(arguments: Sequence[str]) -> int:
    """Train and evaluate one experiment."""
    given = parse_arguments(arguments, _USAGE, names=1)
    known = choices("experiment", given.config_dir)
    if not given.names or given.names[0] not in known:
        name = given.names[0] if given.names else ""
        raise ConfigError(f"Unknown experiment '{name}'.", expected=suggest(name, known))
    for number, single in jobs(given):
        overrides = (f"experiment={given.names[0]}", *single.overrides)
        root, run = ("rl", run_rl) if given.names[0].startswith("rl/") else ("train", run_training)
        plain = compose_config(root, Arguments((), overrides, False, given.config_dir))
        status = run(plain, number, verb="reproduce")
        if status:
            return status
    return 0
