"""`robolearn list [GROUP]`: what can be named on the command line."""

from collections.abc import Sequence

from robolearn import registry
from robolearn.cli.arguments import parse_arguments
from robolearn.cli.compose import choices
from robolearn.cli.show import table
from robolearn.errors import ConfigError, suggest

__all__ = ["main"]

_USAGE = """usage: robolearn list [GROUP] [--config-dir DIR]

Lists what is registered (plug-ins included) and what `configs/` offers, by group:
policy, env, data, transform, robot, train, eval, experiment, …"""

_CONFIG_GROUPS = ("experiment", "train", "eval", "protocol", "task")


def main(arguments: Sequence[str]) -> None:
    """Print one table: group, names."""
    given = parse_arguments(arguments, _USAGE, names=1)
    known = sorted({*registry.groups(), *_CONFIG_GROUPS})
    wanted = [_group(given.names[0], known)] if given.names else known
    rows = [(group, ", ".join(names)) for group in wanted if (names := _names(group, given.config_dir))]
    if not rows:
        rows = [(group, "nothing yet") for group in wanted]
    if wanted == ["backbone"]:
        table("", ("backbone", "sizes", "weights that fit"), _backbones())
        return
    table("", ("group", "names"), rows)


def _backbones() -> list[tuple[str, str, str]]:
    """Return each family of backbones, its sizes beside the small one, and the published weights it reads."""
    families = ((name, registry.resolve("backbone", name)) for name in registry.names("backbone"))
    return [(name, ", ".join(size for size in family.SIZES if size), family.WEIGHTS) for name, family in families]


def _group(word: str, known: Sequence[str]) -> str:
    for group in known:
        if word in (group, group + "s", group[:-1] + "ies"):
            return group
    raise ConfigError(f"Unknown group '{word}'.", expected=suggest(word, known))


def _names(group: str, config_dir: str | None) -> list[str]:
    registered = registry.names(group) if group in registry.groups() else ()
    return sorted({*registered, *choices(group, config_dir)})
