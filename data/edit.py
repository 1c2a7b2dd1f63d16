"""Editing a dataset: a new one is written beside it, verified against the plan, and only then takes its place.

Episodes are numbered as they are before the edit. The order is: pick, cut, resample, rename, relabel.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.config import parse
from robolearn.contracts import EpisodeSource
from robolearn.data.detect import OpenOptions, detect
from robolearn.data.exports import write_lerobot
from robolearn.data.files import positive
from robolearn.data.lerobot_v2 import write_v2
from robolearn.data.lerobot_writer import WriterOptions
from robolearn.data.verify import verify_source
from robolearn.data.views import Span, View, succeeded, whole
from robolearn.errors import ConfigError, DataError
from robolearn.files import fsync_folder
from robolearn.seeding import generator

__all__ = ["EditOptions", "edit"]

_FORMER = ".before-edit"


@dataclass(frozen=True)
class EditOptions(OpenOptions):
    """What is changed. Without `out` the result takes the place of the dataset, which is kept as NAME.before-edit.

    `split` is name → share: each part becomes the folder OUT/name. `crop` is episode → [start, stop) frames,
    `trim_s` seconds taken off both ends of every episode. `rename` is new name → old name.
    """

    out: str = ""
    dry_run: bool = False
    merge: tuple[str, ...] = ()
    keep: tuple[int, ...] | None = None
    delete: tuple[int, ...] = ()
    success: bool | None = None
    min_frames: int = 1
    max_frames: int | None = None
    crop: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    trim_s: tuple[float, float] = (0.0, 0.0)
    resample_hz: float | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    relabel: Mapping[str, str] = field(default_factory=dict)
    split: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    images: Literal["video", "image"] = "video"


def edit(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Delete, keep, split, merge, rename, crop, resample, relabel or filter episodes; dry_run=true only plans."""
    given = parse(EditOptions, arguments, where="data edit")
    path = Path(given.path)
    sources = (given.open(), *(OpenOptions(other, given.kind, given.options).open() for other in given.merge))
    view = _view(sources, given)
    parts = _parts(view, given)
    target = Path(given.out) if given.out else path
    before = sum(len(source.lengths) for source in sources)
    result = {
        "path": str(target),
        "episodes": f"{before} → {sum(len(part.spans) for part in parts.values())}",
        "frames": f"{sum(int(s.lengths.sum()) for s in sources)} → {sum(int(p.lengths.sum()) for p in parts.values())}",
        "rate_hz": view.spec.rate_hz,
        "observations": sorted(view.spec.observations),
        "parts": {name: len(part.spans) for name, part in parts.items() if name},
        "dry_run": given.dry_run,
    }
    kind = detect(path) if given.kind == "auto" else given.kind
    _require_target(given, target, kind)
    if given.dry_run:
        return result
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.edit")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, part in parts.items():
        _write(part, temporary / name if name else temporary, kind if not given.out else "lerobot", given.images)
    result["former"] = _swap(temporary, target) if not given.out else None
    if given.out:
        os.replace(temporary, target)
        fsync_folder(target.parent)
    return result


def _view(sources: tuple[EpisodeSource, ...], given: EditOptions) -> View:
    spans = whole(sources)
    for number in (*given.delete, *(given.keep or ()), *map(_number, given.crop)):
        if not 0 <= number < len(spans):
            raise DataError(f"There is no episode {number}.", expected=f"0 … {len(spans) - 1}")
    kept = []
    for number, span in enumerate(spans):
        cut = _cut(span, given.crop.get(str(number)), given.trim_s, sources[0].spec.rate_hz, number)
        length = cut.stop - cut.start
        wanted = given.success is None or succeeded(sources[span.source], span.episode) == given.success
        wanted &= number not in given.delete and (given.keep is None or number in given.keep)
        wanted &= given.min_frames <= length and (given.max_frames is None or length <= given.max_frames)
        kept += [cut] if wanted else []
    if not kept:
        raise DataError("The edit would leave no episode.", found=f"0 of {len(spans)}", do="check the filters")
    rate = None if given.resample_hz is None else positive(given.resample_hz, "resample_hz")
    return View(sources, tuple(kept), given.rename, given.drop, given.relabel, rate)


def _number(text: str) -> int:
    if not text.isdigit():
        raise ConfigError(
            "crop is a mapping from episode to [start, stop).", found=text, expected="crop={3: [10, 200]}"
        )
    return int(text)


def _cut(span: Span, crop: tuple[int, int] | None, trim_s: tuple[float, float], rate_hz: float, number: int) -> Span:
    start, stop = crop if crop is not None else (span.start, span.stop)
    if not 0 <= start < stop <= span.stop:
        raise DataError(f"crop does not fit episode {number}.", found=crop, expected=f"0 ≤ start < stop ≤ {span.stop}")
    first, last = start + round(trim_s[0] * rate_hz), stop - round(trim_s[1] * rate_hz)
    return Span(span.source, span.episode, first, max(last, first))


def _parts(view: View, given: EditOptions) -> dict[str, View]:
    """Return the views of a split by name, or the whole view under ""."""
    if not given.split:
        return {"": view}
    shares = np.array(list(given.split.values()))
    plain = all(name and "/" not in name and not name.startswith(".") for name in given.split)
    if (shares <= 0).any() or shares.sum() > 1 + 1e-9 or not given.out or not plain:
        raise ConfigError(
            "split is a mapping of names to shares, with out=FOLDER.",
            found=dict(given.split),
            expected="shares above 0 whose sum is at most 1",
        )
    order = generator(given.seed, "split").permutation(len(view.spans))
    ends = np.rint(np.cumsum(shares) * len(order)).astype(int)
    picked = {
        name: sorted(part.tolist())
        for name, part in zip(given.split, np.split(order, ends)[: len(shares)], strict=True)
    }
    empty = [name for name, part in picked.items() if not part]
    if empty:
        raise DataError(f"The part '{empty[0]}' would be empty.", found=f"{len(order)} episodes")
    facts = {item: getattr(view, item) for item in ("sources", "rename", "drop", "tasks", "rate_hz")}
    return {name: View(spans=tuple(view.spans[i] for i in part), **facts) for name, part in picked.items()}


def _require_target(given: EditOptions, target: Path, kind: str) -> None:
    if given.out and target.exists():
        raise DataError(f"{target} exists.", do="pick another path")
    if not given.out and kind not in ("lerobot", "lerobot_v2"):
        raise DataError(f"A dataset of the kind {kind} is not replaced.", do="give out=NEW: a LeRobot v3 folder")
    former = target.with_name(target.name + _FORMER)
    if not given.out and former.exists():
        raise DataError(f"{former} exists.", do="remove what an earlier edit kept, or give out=NEW")


def _write(part: View, target: Path, kind: str, images: Literal["video", "image"]) -> None:
    if kind == "lerobot_v2":
        write_v2(part, target)
    else:
        write_lerobot(part, target, WriterOptions(images=images))
    written = OpenOptions(str(target), kind).open()
    problems = verify_source(written)
    if problems or not np.array_equal(written.lengths, part.lengths):
        raise DataError("The edited dataset does not verify; nothing was replaced.", found=problems[:3])
    keys = [key for key, feature in part.spec.observations.items() if feature.kind == "signal"] + ["action", "task"]
    for episode in range(len(part.spans)):
        wanted, got = part.read(episode, keys), written.read(episode, keys)
        wrong = [key for key in keys if not np.array_equal(wanted[key].astype(got[key].dtype), got[key])]
        if wrong:
            raise DataError(f"Episode {episode} was not written as planned; nothing was replaced.", found=wrong)


def _swap(temporary: Path, target: Path) -> str:
    """Put the verified folder in the place of `target`; returns where the former one is kept."""
    former = target.with_name(target.name + _FORMER)
    os.replace(target, former)
    os.replace(temporary, target)
    fsync_folder(target.parent)
    return str(former)
