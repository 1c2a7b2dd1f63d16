"""Several datasets as one: other cameras, rates and action spaces, shares by weight, statistics of each.

The common spec has every camera and signal of any member; what a member lacks is zero and marked as padding
in the batch: `<key>_is_pad` [B], `action_dim_is_pad` [B,A]; `dataset_index` [B] says where a window is from.
A member whose action has no dimension, as pairs of pictures and text, has no actions: all of `action_is_pad` is set.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.api import locate_data
from robolearn.config import parse
from robolearn.contracts import Batch, EpisodeSource, WindowSource
from robolearn.data.frames import extras
from robolearn.data.stats import signal_stats
from robolearn.data.views import View, whole
from robolearn.errors import ConfigError, DataError, SpecError, suggest
from robolearn.padding import MEMBERS, blank, fitted
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Feature, Spec

__all__ = [
    "Member",
    "Mixture",
    "MixtureOptions",
    "MixtureWindows",
    "build_mixture_windows",
    "describe",
    "open_dataset",
]


@dataclass(frozen=True)
class Member:
    """One dataset of a mixture. `weight` is its share of the windows, relative to the others' (frames without one)."""

    path: str
    kind: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: float | None = None
    rename: Mapping[str, str] = field(default_factory=dict)  # new name → name in the dataset


@dataclass(frozen=True)
class MixtureOptions:
    """The members by name, and what they share: the rate they are resampled to, the size of all pictures."""

    members: Mapping[str, Member] = field(default_factory=dict)
    rate_hz: float | None = None  # the lowest of the members' without one
    image_px: tuple[int, int] | None = None  # height, width
    loader: Literal["windows", "stream"] = "windows"


def open_dataset(path: Path, options: Mapping[str, Any]) -> "Mixture":
    """Open the members that `options` name; relative paths start at `path`."""
    return Mixture(path, parse(MixtureOptions, options, where="data.options"))


class Mixture:
    """An `EpisodeSource` of all members' episodes, one member after the other, in one spec."""

    def __init__(self, path: Path, options: MixtureOptions):
        if not options.members:
            raise ConfigError("A mixture needs members.", do="data.options.members.NAME.path=DATASET")
        self.options, self.names = options, tuple(options.members)
        sources = [_open(Path(path), member) for member in options.members.values()]
        rate = options.rate_hz or min(spec.rate_hz for spec in _acting([source.spec for source in sources]))
        self.members = tuple(
            View(
                (source,),
                tuple(whole([source])),
                member.rename,
                rate_hz=None if source.spec.rate_hz == rate else rate,
            )
            for source, member in zip(sources, options.members.values(), strict=True)
        )
        self._first = np.cumsum([0, *(len(member.spans) for member in self.members)])
        self._lengths = np.concatenate([member.lengths for member in self.members])
        self.spec = self._spec(rate)

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that `read` knows."""
        return (*self.spec.observations, "action", "timestamp", "frame_index", *self.texts)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Text columns of any member that are no observations; where a member lacks one it is ""."""
        kinds: dict[str, set[str]] = {}
        for member in self.members:
            for key in extras(member) if member.spans else ():
                kinds.setdefault(key, set()).add(member.read(0, [key], 0, 1)[key].dtype.kind)
        return tuple(key for key, found in kinds.items() if found == {"U"} and key not in self.spec.observations)

    @property
    def weights(self) -> np.ndarray:
        """Share of each member, summing to one."""
        frames = [float(member.lengths.sum()) for member in self.members]
        given = [member.weight for member in self.options.members.values()]
        if any(weight is not None and not 0 < weight < 1e9 for weight in given):
            raise ConfigError("A weight is a positive number.", found=given)
        chosen = np.array([frame if weight is None else weight for frame, weight in zip(frames, given, strict=True)])
        return chosen / chosen.sum()

    def member_of(self, episode: np.ndarray) -> np.ndarray:
        """Return the number of the member that each episode belongs to."""
        return np.searchsorted(self._first, np.asarray(episode), side="right") - 1

    def metadata(self, episode: int) -> dict[str, Any]:
        """Return what was recorded about an episode, and the member it belongs to."""
        number = int(self.member_of(np.array(episode)))
        return {**self.members[number].metadata(episode - int(self._first[number])), "dataset": self.names[number]}

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys` of one episode; what the member lacks is zero."""
        if not 0 <= episode < len(self._lengths):
            raise DataError(f"No episode {episode} in the mixture.", expected=f"0 … {len(self._lengths) - 1}")
        number = int(self.member_of(np.array(episode)))
        member = self.members[number]
        known = {"action", "timestamp", "frame_index", *member.spec.observations}
        present = [key for key in keys if key in known or (key in self.texts and key in member.keys)]
        columns = member.read(episode - int(self._first[number]), present, start, stop)
        count = len(range(int(self._lengths[episode]))[start:stop])
        return {key: self._fitted(key, columns.get(key), count) for key in keys}

    def lacks(self, number: int, key: str) -> bool:
        """Return whether a member has no observation `key`."""
        return key not in self.members[number].spec.observations

    def _fitted(self, key: str, values: np.ndarray | None, count: int) -> np.ndarray:
        if key in ("timestamp", "frame_index") and values is not None:
            return values
        if key == "action":
            feature = Feature("signal", (self.spec.action.dim,))
        elif key in self.spec.observations:
            feature = self.spec.observations[key]
        elif key in self.texts:
            feature = Feature("text", dtype="str")
        else:
            raise DataError(f"No '{key}' in the mixture.", expected=suggest(key, self.keys))
        return blank(feature, (count,)) if values is None else fitted(values, feature)

    def _spec(self, rate_hz: float) -> Spec:
        specs = [member.spec for member in self.members]
        acting = _acting(specs)  # the others state no facts of a robot, and none of a camera that a robot has
        ordered = sorted(specs, key=lambda spec: not spec.action.dim)
        observations = {key: self._feature(key, ordered) for spec in specs for key in spec.observations}
        actions = [spec.action for spec in acting]
        widest = max(actions, key=lambda action: action.dim)
        facts = {name: _common(getattr(a, name) for a in actions) for name in ("kind", "unit", "rotation", "gripper")}
        robots = {spec.robot for spec in acting}
        return Spec(
            observations,
            ActionSpec(widest.dim, names=widest.names, **facts),
            rate_hz=rate_hz,
            robot=robots.pop() if len(robots) == 1 else "",
            metadata={MEMBERS: {name: spec.to_dict() for name, spec in zip(self.names, specs, strict=True)}},
        )

    def _feature(self, key: str, specs: Sequence[Spec]) -> Feature:
        found = [spec.observations[key] for spec in specs if key in spec.observations]
        if len({feature.kind for feature in found}) > 1:
            raise SpecError(f"'{key}' is not the same kind everywhere.", found=[feature.kind for feature in found])
        first, shapes = found[0], {feature.shape for feature in found}
        if first.kind == "image" and self.options.image_px is not None:
            return replace(first, shape=(*self.options.image_px, 3), camera=None)
        if len(shapes) == 1:
            return first
        if first.kind != "signal" or any(len(shape) != 1 for shape in shapes):
            raise SpecError(
                f"'{key}' has other shapes in other members.",
                found=sorted(shapes),
                do="give data.options.image_px=[H,W], or rename one",
            )
        return max(found, key=lambda feature: feature.shape)


def _acting(specs: Sequence[Spec]) -> Sequence[Spec]:
    """Return the specs of members with actions, all of them where there are none."""
    return [spec for spec in specs if spec.action.dim] or specs


def _common(values: Iterable[Any]) -> Any:
    """Return the one value that all share, "" otherwise."""
    different = set(values)
    return different.pop() if len(different) == 1 else ""


def _open(path: Path, member: Member) -> EpisodeSource:
    beside = path / member.path
    place = beside if beside.exists() else locate_data(member.path)
    return resolve("data", member.kind)(place, member.options)


# ---------------------------------------------------------------- windows


def build_mixture_windows(
    source: EpisodeSource,
    history: int = 1,
    chunk: int = 1,
    keys: Sequence[str] | None = None,
    episodes: Sequence[int] | None = None,
    past: int = 0,
) -> "MixtureWindows":
    """Return weighted windows of a mixture (`data.kind=mixture`)."""
    mixture = getattr(source, "source", source)  # training wraps it to add a text to learn to say
    if not isinstance(mixture, Mixture):
        raise ConfigError("The loader 'mixture' needs a mixture.", found=type(mixture).__name__, do="data.kind=mixture")
    windows = resolve("loader", mixture.options.loader)(source, history, chunk, keys, episodes, past)
    return MixtureWindows(mixture, windows)


class MixtureWindows:
    """A `WindowSource` in which every member has its share: those below it are repeated, none is thinned out.

    An epoch holds every window of the member that needs most room once, and of the others at least once; members
    without actions come last in it.
    """

    def __init__(self, source: Mixture, windows: Any):
        self.spec, self._windows = windows.spec, windows
        number = source.member_of(windows.episode_of(np.arange(len(windows))))
        dims = np.array([member.spec.action.dim for member in source.members])
        present = np.array(sorted(np.unique(number), key=lambda member: not dims[member]), np.int64)
        self._own = [np.flatnonzero(number == member) for member in present]
        weights, acting = source.weights[present], np.count_nonzero(dims[present])
        self._ends, self._number = np.cumsum(_counts(self._own, weights)), number
        counts = [*_counts(self._own[:acting], weights[:acting]), *map(len, self._own[acting:])]
        self._fit_ends = np.cumsum(counts)
        keys = [key for key, feature in self.spec.observations.items() if feature.kind != "text"]
        self._lacking = {key: np.array([source.lacks(n, key) for n in range(len(source.names))]) for key in keys}
        self._dim_is_pad = np.arange(self.spec.action.dim) >= dims[:, None]

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def to_fit(self) -> "MixtureWindows":
        """What statistics are of: an epoch without the members that have no actions, then each of theirs once."""
        result = copy(self)
        result._ends = self._fit_ends
        return result

    def place_of(self, index: np.ndarray) -> np.ndarray:
        """Return which recorded window each window of the mixture is."""
        index = np.asarray(index, np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise DataError("A window number is out of range.", found=f"{index.min()} … {index.max()}")
        slot = np.searchsorted(self._ends, index, side="right")
        offset = index - np.concatenate([[0], self._ends])[slot]
        result = np.empty(len(index), np.int64)
        for number, own in enumerate(self._own):
            here = slot == number
            result[here] = own[offset[here] % len(own)]
        return result

    def episode_of(self, index: np.ndarray) -> np.ndarray:
        """Return the mixture's episode number of each window."""
        return self._windows.episode_of(self.place_of(index))

    def gather(self, index: np.ndarray) -> Batch:
        """Return the windows `index` [B], with padding masks and the member of each."""
        import torch

        place = self.place_of(index)
        number = self._number[place]
        batch = self._windows.gather(place)
        batch["dataset_index"] = torch.from_numpy(number)
        batch["action_dim_is_pad"] = torch.from_numpy(self._dim_is_pad[number])
        batch["action_is_pad"] |= batch["action_dim_is_pad"].all(1, keepdim=True)
        for key, lacking in self._lacking.items():
            batch[f"{key}_is_pad"] = torch.from_numpy(lacking[number])
        return batch


def _counts(own: Sequence[np.ndarray], weights: np.ndarray) -> list[int]:
    """Return how many windows of an epoch are each member's, whose recorded ones are `own`, by weight."""
    shares = weights / weights.sum()
    size = max((len(places) / share for places, share in zip(own, shares, strict=True)), default=0)
    return [max(round(size * share), len(places)) for places, share in zip(own, shares, strict=True)]


# ---------------------------------------------------------------- the verb


def describe(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a mixture of datasets holds: shares, repeats, what is padded, statistics of each member."""
    given = dict(arguments)
    mixture = open_dataset(Path(given.pop("path", ".")), given)
    windows: WindowSource = build_mixture_windows(mixture, keys=[])
    drawn = np.bincount(windows.gather(np.arange(len(windows)))["dataset_index"].numpy())
    members = {}
    for number, (name, member) in enumerate(zip(mixture.names, mixture.members, strict=True)):
        frames = int(member.lengths.sum())
        actions = np.concatenate([member.read(i, ["action"])["action"] for i in range(len(member.spans))])
        statistics = signal_stats(actions)
        members[name] = {
            "episodes": len(member.spans),
            "frames": frames,
            "share": float(mixture.weights[number]),
            "repeats": float(drawn[number] / frames),
            "action_dim": member.spec.action.dim,
            "lacks": [key for key in mixture.spec.observations if mixture.lacks(number, key)],
            "action": {name: statistics[name].tolist() for name in ("mean", "std", "min", "max", "q01", "q99")},
        }
    return {"windows": len(windows), "members": members, "spec": mixture.spec.to_dict()}
