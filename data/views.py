"""Datasets seen another way, without touching them: episodes picked, cut, resampled, renamed, relabelled, joined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robolearn.contracts import EpisodeSource
from robolearn.data.frames import metadata_of
from robolearn.errors import DataError, SpecError, suggest
from robolearn.spec import Spec, check

__all__ = ["Span", "View", "resampled_frames", "succeeded", "whole"]


@dataclass(frozen=True)
class Span:
    """Frames [start, stop) of one episode of one source."""

    source: int
    episode: int
    start: int
    stop: int


@dataclass
class View:
    """An `EpisodeSource` of `spans` of `sources`.

    `rename` is new name → name in the sources; `tasks` is old instruction → new one, "*" for all that are not
    named. With `rate_hz` every tick takes the last frame before it.
    """

    sources: tuple[EpisodeSource, ...]
    spans: tuple[Span, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    rate_hz: float | None = None
    spec: Spec = field(init=False)

    def __post_init__(self):
        first = self.sources[0].spec
        for number, source in enumerate(self.sources[1:], start=1):
            differences = check(source.spec, first) + check(first, source.spec)
            if differences:
                raise SpecError(
                    f"Dataset {number} does not fit the first.", found="; ".join(dict.fromkeys(differences))
                )
        for name in (*self.rename.values(), *self.drop):
            if name not in first.observations:
                raise SpecError(f"There is no observation '{name}'.", expected=suggest(name, first.observations))
        if self.rate_hz is not None and first.action.kind in ("joint_delta", "ee_delta"):
            raise SpecError(
                "Steps cannot be resampled: their size belongs to their rate.",
                found=f"action kind {first.action.kind}, {first.rate_hz:g} → {self.rate_hz:g} Hz",
                do="make the actions absolute first (absolute_action)",
            )
        back = {old: new for new, old in self.rename.items()}
        kept = {back.get(key, key): item for key, item in first.observations.items() if key not in self.drop}
        if len(kept) != len(first.observations) - len(set(self.drop)):
            raise SpecError("Two observations would have one name.", found=dict(self.rename))
        self.spec = replace(first, observations=kept, rate_hz=self.rate_hz or first.rate_hz)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(self._frames(span)) for span in self.spans], np.int64)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that `read` knows."""
        back = {old: new for new, old in self.rename.items()}
        known = getattr(self.sources[0], "keys", ())
        return tuple(back.get(key, key) for key in known if key not in self.drop)

    def metadata(self, episode: int) -> dict[str, Any]:
        """Return what was recorded about the episode it comes from."""
        span = self.spans[episode]
        return metadata_of(self.sources[span.source], span.episode)

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return frames [start, stop) of `keys` of one episode."""
        span = self.spans[episode]
        frames = self._frames(span)[start:stop]
        names = {key: self.rename.get(key, key) for key in keys if key not in _COUNTED}
        low, high = (int(frames[0]), int(frames[-1]) + 1) if len(frames) else (span.start, span.start)
        columns = self.sources[span.source].read(span.episode, list(names.values()), low, high)
        result = {key: columns[name][frames - low] for key, name in names.items()}
        if "task" in result and self.tasks:
            other = self.tasks.get("*")
            result["task"] = np.array(
                [self.tasks.get(str(t), str(t) if other is None else other) for t in result["task"]]
            )
        return {key: result[key] if key in result else self._counted(key, episode, start, len(frames)) for key in keys}

    def _counted(self, key: str, episode: int, start: int, count: int) -> np.ndarray:
        numbers = np.arange(start, start + count)
        if key == "episode_index":
            return np.full(count, episode)
        if key == "index":
            return int(self.lengths[:episode].sum()) + numbers
        return numbers if key == "frame_index" else (numbers / self.spec.rate_hz).astype(np.float32)

    def _frames(self, span: Span) -> np.ndarray:
        """Return the source's frame of every frame of `span`."""
        if self.rate_hz is None:
            return np.arange(span.start, span.stop)
        return span.start + resampled_frames(span.stop - span.start, self.sources[0].spec.rate_hz, self.rate_hz)


_COUNTED = ("timestamp", "frame_index", "episode_index", "index")


def resampled_frames(length: int, old_hz: float, new_hz: float) -> np.ndarray:
    """Return, for every tick of the new rate, the last of `length` frames before it."""
    count = max(int((length - 1) * new_hz / old_hz + 1e-6), 0) + 1
    return np.minimum((np.arange(count) * old_hz / new_hz + 1e-6).astype(np.int64), length - 1)


def whole(sources: Sequence[EpisodeSource]) -> list[Span]:
    """Return every episode of `sources`, one after the other."""
    return [
        Span(number, episode, 0, int(length))
        for number, source in enumerate(sources)
        for episode, length in enumerate(np.asarray(source.lengths).tolist())
    ]


def succeeded(source: EpisodeSource, episode: int) -> bool:
    """Return whether an episode says that it succeeded: in its metadata, else in its frames."""
    stated = metadata_of(source, episode).get("success")
    if isinstance(stated, bool):
        return stated
    if "next.success" in getattr(source, "keys", ()):
        return bool(source.read(episode, ["next.success"])["next.success"].any())
    raise DataError(f"Episode {episode} does not say whether it succeeded.", expected="next.success, or metadata")
