"""Frozen typed configs from plain data: strict keys, strict types, one error that says where.

Hydra composes YAML in the command line; everything behind it is plain data that `parse` turns into
frozen dataclasses. A union of dataclasses is told apart by its `name` field; without one it is the first.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from robolearn.errors import ConfigError, suggest

__all__ = ["config_hash", "parse", "to_dict"]


def parse[T](cls: type[T], data: Any, where: str = "config") -> T:
    """Build the dataclass `cls` from plain data.

    Raises `ConfigError` with the path of the field for an unknown key (did you mean?), a missing
    key, a wrong type or a value that the class itself refuses.
    """
    return _convert(cls, data, where)


def to_dict(config: Any) -> dict[str, Any]:
    """Return `config` as plain JSON data; `parse` reads it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def config_hash(config: Any) -> str:
    """Return 12 hex digits that identify `config` by content."""
    plain = to_dict(config) if dataclasses.is_dataclass(config) else config
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    if origin in (Union, types.UnionType):
        return _union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(
                f"{where} is not one of its values.",
                found=repr(value),
                expected=suggest(str(value), map(str, arguments)),
            )
        return value
    if origin is tuple:
        return _tuple(arguments, value, where)
    if origin in (dict, Mapping) or kind in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} has the wrong type.", found=repr(value), expected="a mapping")
        inner = arguments[1] if arguments else Any
        return {str(key): _convert(inner, item, f"{where}.{key}") for key, item in value.items()}
    return _scalar(kind, value, where)


def _dataclass(cls: Any, value: Any, where: str) -> Any:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} has the wrong type.", found=repr(value), expected=f"a mapping of {cls.__name__}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in value:
        if key not in fields:
            raise ConfigError(f"Unknown key '{where}.{key}'.", expected=suggest(str(key), fields))
    missing = [
        name
        for name, field in fields.items()
        if name not in value and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}.", expected=f"the keys of {cls.__name__}")
    return cls(**{name: _convert(hints[name], value[name], f"{where}.{name}") for name in fields if name in value})


def _union(options: tuple, value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    named = {_name_of(option): option for option in options if dataclasses.is_dataclass(option)}
    if isinstance(value, Mapping) and len(named) > 1:
        name = value.get("name", next(iter(named)))
        if name not in named:
            raise ConfigError(f"{where}.name is unknown.", found=repr(name), expected=suggest(str(name), named))
        return _convert(named[name], value, where)
    problems = []
    for option in options:
        try:
            return _convert(option, value, where)
        except ConfigError as error:
            problems.append(error)
    raise problems[0]


def _name_of(cls: Any) -> str:
    return next((str(field.default) for field in dataclasses.fields(cls) if field.name == "name"), cls.__name__)


def _tuple(arguments: tuple, value: Any, where: str) -> tuple:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where} has the wrong type.", found=repr(value), expected="a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ConfigError(f"{where} has the wrong length.", found=len(value), expected=len(arguments))
    return tuple(
        _convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    accepted = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    if not accepted:
        raise ConfigError(
            f"{where} has the wrong type.", found=f"{value!r} ({type(value).__name__})", expected=kind.__name__
        )
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{where} is not finite.", found=value, expected="a finite number")
    return value
