"""Transforms of the action chunk: relative, delta, absolute, padded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch.nn.functional import pad

from robolearn.contracts import Batch
from robolearn.errors import ConfigError, SpecError, suggest
from robolearn.spec import Spec
from robolearn.stats import lookup

__all__ = ["AbsoluteAction", "DeltaAction", "Pad", "RelativeAction"]

Entry = int | str


@dataclass(frozen=True)
class RelativeAction:
    """Subtract the newest observation from the whole chunk, entry by entry.

    `entries` pairs an action entry with the entry of `key` that it is relative to, each an index or
    a name of the spec; other action entries stay absolute. Differences of `angles` (action entries,
    [rad]) are wrapped to [-pi, pi): the inverse returns the angle nearest to the observed one.
    """

    entries: tuple[tuple[Entry, Entry], ...]
    key: str = "observation.state"
    angles: tuple[Entry, ...] = ()
    name: str = "relative_action"

    on_device: ClassVar[bool] = True

    def bind(self, spec: Spec) -> "RelativeAction":
        entries, angles = _bind(self.name, self.entries, self.angles, self.key, spec)
        return replace(self, entries=entries, angles=angles)

    def forward(self, batch: Batch) -> Batch:
        if "action" not in batch:
            return batch
        columns = _indices(entry for entry, _ in self.entries)
        action = batch["action"].clone()
        action[..., columns] -= _reference(self.entries, self.key, batch).unsqueeze(1)
        return batch | {"action": _wrap(action, self.angles)}

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        columns = _indices(entry for entry, _ in self.entries)
        result = action.clone()
        result[..., columns] += _reference(self.entries, self.key, batch).unsqueeze(1).to(action)
        return result

    def transform_spec(self, spec: Spec) -> Spec:
        return replace(spec, action=replace(spec.action, low=None, high=None))


@dataclass(frozen=True)
class DeltaAction:
    """Turn absolute targets into steps: each action minus the one before it, the first minus the
    newest observation. Fields as in `RelativeAction`."""

    entries: tuple[tuple[Entry, Entry], ...]
    key: str = "observation.state"
    angles: tuple[Entry, ...] = ()
    name: str = "delta_action"

    on_device: ClassVar[bool] = True

    def bind(self, spec: Spec) -> "DeltaAction":
        entries, angles = _bind(self.name, self.entries, self.angles, self.key, spec)
        return replace(self, entries=entries, angles=angles)

    def forward(self, batch: Batch) -> Batch:
        return _with_action(batch, _differences, self.entries, self.key, self.angles)

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        return _sums(action, self.entries, self.key, self.angles, batch)

    def transform_spec(self, spec: Spec) -> Spec:
        kind = _kind(spec.action.kind, {"joint_position": "joint_delta", "ee_pose": "ee_delta"})
        action = replace(spec.action, kind=kind, reference="previous_target", low=None, high=None)
        return replace(spec, action=action)


@dataclass(frozen=True)
class AbsoluteAction:
    """Turn recorded steps into absolute targets: the inverse of `DeltaAction`, as a forward.

    Exact for steps from the previous target; for steps from the measured pose it is where the
    chunk would lead without tracking error.
    """

    entries: tuple[tuple[Entry, Entry], ...]
    key: str = "observation.state"
    angles: tuple[Entry, ...] = ()
    name: str = "absolute_action"

    on_device: ClassVar[bool] = True

    def bind(self, spec: Spec) -> "AbsoluteAction":
        entries, angles = _bind(self.name, self.entries, self.angles, self.key, spec)
        return replace(self, entries=entries, angles=angles)

    def forward(self, batch: Batch) -> Batch:
        return _with_action(batch, _sums, self.entries, self.key, self.angles)

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        return _differences(action, self.entries, self.key, self.angles, batch)

    def transform_spec(self, spec: Spec) -> Spec:
        kind = _kind(spec.action.kind, {"joint_delta": "joint_position", "ee_delta": "ee_pose"})
        return replace(spec, action=replace(spec.action, kind=kind, reference="", low=None, high=None))


@dataclass(frozen=True)
class Pad:
    """Append zeros to the last dimension of `key` ("action" or a signal) up to `size`.

    The inverse drops them again. `width` is the size before, found by `bind`.
    """

    key: str
    size: int
    width: int | None = None
    name: str = "pad"

    on_device: ClassVar[bool] = True

    def bind(self, spec: Spec) -> "Pad":
        width = _width(self.key, spec)
        if width > self.size:
            raise SpecError(f"'{self.key}' is wider than its padding.", found=width, expected=f"at most {self.size}")
        return replace(self, width=width)

    def forward(self, batch: Batch) -> Batch:
        if self.key == "action" and "action" not in batch:
            return batch
        value = lookup(batch, self.key)
        return batch | {self.key: pad(value, (0, self.size - value.shape[-1]))}

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        if self.key != "action":
            return action
        if self.width is None:
            raise ConfigError("pad does not know the width before it.", do="bind the pipeline to a spec")
        return action[..., : self.width]

    def transform_spec(self, spec: Spec) -> Spec:
        if self.key == "action":
            return replace(spec, action=replace(spec.action, dim=self.size, names=(), low=None, high=None))
        feature = spec.observations[self.key]
        padded = replace(feature, shape=(*feature.shape[:-1], self.size), names=())
        return replace(spec, observations={**spec.observations, self.key: padded})


def _with_action(batch: Batch, change, entries, key: str, angles) -> Batch:
    return batch | {"action": change(batch["action"], entries, key, angles, batch)} if "action" in batch else batch


def _differences(action: torch.Tensor, entries, key: str, angles, batch: Batch) -> torch.Tensor:
    columns = _indices(entry for entry, _ in entries)
    before = torch.cat([_reference(entries, key, batch).unsqueeze(1).to(action), action[:, :-1, columns]], 1)
    result = action.clone()
    result[..., columns] -= before
    return _wrap(result, angles)


def _sums(action: torch.Tensor, entries, key: str, angles, batch: Batch) -> torch.Tensor:
    columns = _indices(entry for entry, _ in entries)
    result = action.clone()
    result[..., columns] = result[..., columns].cumsum(1) + _reference(entries, key, batch).unsqueeze(1).to(action)
    return result


def _reference(entries: Sequence[tuple[Entry, Entry]], key: str, batch: Batch) -> torch.Tensor:
    """Return the newest observed value of each entry [B,n]."""
    return lookup(batch, key)[:, -1][..., _indices(entry for _, entry in entries)]


def _wrap(action: torch.Tensor, angles: Sequence[Entry]) -> torch.Tensor:
    if angles:
        columns = _indices(angles)
        action[..., columns] = torch.remainder(action[..., columns] + torch.pi, 2 * torch.pi) - torch.pi
    return action


def _indices(entries) -> list[int]:
    entries = list(entries)
    named = [entry for entry in entries if isinstance(entry, str)]
    if named:
        raise ConfigError("A transform still holds names.", found=", ".join(named), do="bind the pipeline to a spec")
    return entries


def _bind(name: str, entries, angles, key: str, spec: Spec) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    if key not in spec.observations:
        raise SpecError(f"{name} has no observation '{key}'.", expected=suggest(key, spec.observations))
    observed = spec.observations[key]
    pairs = tuple(
        (
            _position(name, entry, spec.action.names, spec.action.dim, "action"),
            _position(name, source, observed.names, observed.shape[-1], key),
        )
        for entry, source in entries
    )
    return pairs, tuple(_position(name, angle, spec.action.names, spec.action.dim, "action") for angle in angles)


def _position(name: str, entry: Entry, names: tuple[str, ...], size: int, where: str) -> int:
    if isinstance(entry, str):
        if entry not in names:
            raise SpecError(f"{name}: {where} has no entry '{entry}'.", expected=suggest(entry, names))
        return names.index(entry)
    if not 0 <= entry < size:
        raise SpecError(f"{name}: {where} has no entry {entry}.", expected=f"0 to {size - 1}")
    return entry


def _width(key: str, spec: Spec) -> int:
    if key == "action":
        return spec.action.dim
    if key not in spec.observations:
        raise SpecError(f"pad has no '{key}'.", expected=suggest(key, [*spec.observations, "action"]))
    return spec.observations[key].shape[-1]


def _kind(kind: str, after: Mapping[str, Literal["joint_delta", "ee_delta", "joint_position", "ee_pose"]]):
    if kind and kind not in after:
        raise SpecError("The kind of action does not fit this transform.", found=kind, expected=" or ".join(after))
    return after.get(kind, "")
