"""Hydra in front: groups and overrides become plain data; typed configs check it afterwards."""

import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robolearn import registry
from robolearn.cli.arguments import Arguments
from robolearn.errors import ConfigError, suggest

__all__ = ["choices", "compose_config", "jobs", "merge"]

_PLUG_IN = "custom"  # the option of a group that only takes a registered name
_NAMED_BY = {"data": "kind"}  # the key that takes it, where it is not "name"
_UNCHOSEN = re.compile(r"You must specify '(\w+)'")  # Hydra's words for a group without a choice


def compose_config(root: str, arguments: Arguments) -> dict[str, Any]:
    """Compose `configs/<root>.yaml` with the overrides and return plain data.

    Unknown keys are kept: the typed parser behind names them and what they were meant to be.
    Raises `ConfigError` for what Hydra refuses: unknown options, missing choices, bad syntax.
    """
    with _session(arguments.config_dir) as session, _one_error(session):
        overrides = OverridesParser.create().parse_overrides(list(arguments.overrides))
        words = {key for key in _texts(root) if session.options(key)}
        told = [override for override in overrides if override.key_or_group in words]
        lines = [line for override in overrides if override not in told for line in session.lines(override)]
        config = compose(root, [*session.search, *lines])
        for override in told:
            OmegaConf.update(config, override.key_or_group, override.value())
        _complete(root, OmegaConf.missing_keys(config))
        plain = OmegaConf.to_container(config, resolve=True)
    if not isinstance(plain, dict):
        raise ConfigError(f"configs/{root}.yaml is not a mapping.", found=type(plain).__name__)
    return {str(key): value for key, value in plain.items()}


def merge(plain: Mapping[str, Any], arguments: Arguments) -> dict[str, Any]:
    """Return the plain config with the overrides put over its keys."""
    with _one_error():
        overrides = OverridesParser.create().parse_overrides(list(arguments.overrides))
        config = OmegaConf.create(dict(plain))
        for override in overrides:
            OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
        result = OmegaConf.to_container(config, resolve=True)
    return {str(key): value for key, value in result.items()} if isinstance(result, dict) else {}


def choices(group: str, config_dir: str | None = None) -> list[str]:
    """List the options of one config group."""
    with _session(config_dir) as session, _one_error():
        return [option for option in session.options(group) if option != _PLUG_IN]


def jobs(arguments: Arguments) -> Iterator[tuple[str, Arguments]]:
    """Yield the number and the arguments of every job of a multirun (Hydra's lists, ranges and choices).

    A job that is not one of many has the number "".
    """
    if not arguments.multirun:
        yield "", arguments
        return
    with _one_error():
        axes = [
            [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            if override.is_sweep_override()
            else [str(override.input_line)]
            for override in OverridesParser.create().parse_overrides(list(arguments.overrides))
        ]
    for number, chosen in enumerate(product(*axes)):
        yield f"{number:03d}", Arguments(arguments.names, tuple(chosen), False, arguments.config_dir)


class _Session:
    """Hydra's loader over our configs and the user's own folder."""

    def __init__(self, loader: ConfigLoader, config_dir: str | None):
        self.search = [f"hydra.searchpath=[{_folder(config_dir)}]"] if config_dir else []
        self._loader = loader

    def options(self, group: str) -> list[str]:
        """Return the options of a group, those in folders below it by their path."""
        found = list(self._loader.get_group_options(group, overrides=self.search))
        for below in self._loader.get_group_options(group, ObjectType.GROUP, overrides=self.search):
            found += [f"{below}/{option}" for option in self.options(f"{group}/{below}")]
        return found

    def lines(self, override: Override) -> list[str]:
        """Return the override lines for Hydra: choices checked, values allowed to add keys."""
        line, key = str(override.input_line), override.key_or_group
        options = self.options(key)
        if not options:
            prefixed = line.startswith(("+", "~")) or key.startswith("hydra.")
            return [line if prefixed else f"++{line}"]
        value = override.value()
        if override.is_delete() or not isinstance(value, str) or value in options:
            return [line]
        if key in registry.groups() and _registered(key, value):
            return [f"{key}={_PLUG_IN}", f"++{key}.{_NAMED_BY.get(key, 'name')}={value}"]
        known = {*options, *(registry.names(key) if key in registry.groups() else ())} - {_PLUG_IN}
        raise ConfigError(f"Unknown {key} '{value}'.", expected=suggest(value, known))


@contextmanager
def _session(config_dir: str | None) -> Generator[_Session]:
    with initialize_config_module("robolearn.configs", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        if hydra is None:
            raise ConfigError("Hydra did not start.", do="check the installation: pip install hydra-core")
        yield _Session(hydra.config_loader, config_dir)


@contextmanager
def _one_error(session: _Session | None = None) -> Generator[None]:
    """Turn Hydra's and OmegaConf's errors into one of ours."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ if not str(error).strip() and error.__cause__ else error
        group = _UNCHOSEN.match(str(cause).strip())
        if group and session:
            known = {*session.options(group[1]), *registry.names(group[1])} - {_PLUG_IN}
            raise ConfigError(f"{group[1]} is missing.", expected=suggest("", known), do=f"{group[1]}=NAME") from error
        what, *rest = str(cause).strip().splitlines()
        details = "; ".join(line.strip() for line in rest if line.strip())
        raise ConfigError(f"This configuration cannot be composed: {what}", found=details or None) from error


def _texts(root: str) -> set[str]:
    """Return the keys of `configs/<root>.yaml` that hold text; Hydra takes them for groups of the same name."""
    plain = OmegaConf.to_container(OmegaConf.create(files("robolearn.configs").joinpath(f"{root}.yaml").read_text()))
    return {str(key) for key, value in plain.items() if isinstance(value, str)} if isinstance(plain, dict) else set()


def _complete(root: str, missing: set[str]) -> None:
    if missing:
        names = ", ".join(sorted(missing))
        raise ConfigError(f"{root} needs {names}.", do=" ".join(f"{name}=…" for name in sorted(missing)))


def _registered(group: str, name: str) -> bool:
    known = registry.names(group)
    return name in known or (name.split("/")[0] + "/*") in known


def _folder(path: str) -> str:
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError("--config-dir is not a folder.", found=str(folder), do="name a folder of Hydra groups")
    return f"file://{folder}"
