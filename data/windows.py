"""Training windows over episodes held in memory: whole batches are gathered at memory speed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.contracts import Batch, EpisodeSource
from robolearn.errors import DataError
from robolearn.spec import Spec

if TYPE_CHECKING:
    import torch

__all__ = ["Windows", "build_windows"]


@dataclass(frozen=True)
class Windows:
    """A `WindowSource` over flat arrays [frames,…]; one window per recorded step.

    The history of a step ends at it, `spec.history` frames long; the chunk starts `past` actions before it,
    `spec.chunk` actions long. The episode's first and last frame are repeated at the edges.
    """

    spec: Spec
    arrays: Mapping[str, np.ndarray]  # observations and "action", episodes one after the other
    starts: np.ndarray  # first frame of each episode, int64 [episodes]
    stops: np.ndarray
    episodes: np.ndarray  # the source's number of each episode
    texts: Mapping[str, tuple[np.ndarray, tuple[str, ...]]] = field(default_factory=dict)  # int32 [frames] into strings
    images: Mapping[str, np.ndarray] = field(default_factory=dict)  # of all episodes of the source
    image_offsets: np.ndarray | None = None  # what to add to a frame to find it in `images`, by slot
    past: int = 0  # actions of the chunk that lie before its step

    def __len__(self) -> int:
        return int(self.stops[-1])

    def slot_of(self, index: np.ndarray) -> np.ndarray:
        """Return the position in `episodes` of the episode that holds each window."""
        return np.searchsorted(self.stops, index, side="right")

    def episode_of(self, index: np.ndarray) -> np.ndarray:
        """Return the source's episode number of each window."""
        return self.episodes[self.slot_of(np.asarray(index))]

    def frame_of(self, index: np.ndarray) -> np.ndarray:
        """Return the frame within its episode of each window."""
        return np.asarray(index) - self.starts[self.slot_of(np.asarray(index))]

    def __getstate__(self) -> dict[str, Any]:
        mapped = {k: str(v.filename) for k, v in self.images.items() if isinstance(v, np.memmap)}
        held = {key: frames for key, frames in self.images.items() if key not in mapped}
        return {**self.__dict__, "images": held, "mapped": mapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open memory maps again instead of carrying their content between processes."""
        mapped = {key: np.load(name, mmap_mode="r") for key, name in state.pop("mapped").items()}
        self.__dict__.update(state, images={**state["images"], **mapped})

    def gather(self, index: np.ndarray) -> Batch:
        """Return the windows `index` [B] as torch tensors over raw units."""
        index = np.asarray(index, np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise DataError(
                "A window number is out of range.", found=f"{index.min()} … {index.max()}", expected=len(self)
            )
        slot = self.slot_of(index)
        first, last = self.starts[slot][:, None], self.stops[slot][:, None] - 1
        past = np.maximum(index[:, None] + np.arange(1 - self.spec.history, 1), first)
        ahead = index[:, None] + np.arange(-self.past, self.spec.chunk - self.past)
        batch: Batch = {key: _take(self.arrays[key], past) for key in self.arrays if key != "action"}
        for key, frames in self.images.items():
            offsets = 0 if self.image_offsets is None else self.image_offsets[slot][:, None]
            batch[key] = _take(frames, past + offsets)
        batch["action"] = _take(self.arrays["action"], np.clip(ahead, first, last))
        batch["action_is_pad"] = _tensor((ahead < first) | (ahead > last))
        for key, (codes, strings) in self.texts.items():
            batch[key] = [strings[i] for i in codes[index]]
        return batch


def build_windows(
    source: EpisodeSource,
    history: int = 1,
    chunk: int = 1,
    keys: Sequence[str] | None = None,
    episodes: Sequence[int] | None = None,
    past: int = 0,
    images: Mapping[str, np.ndarray] | None = None,
) -> Windows:
    """Load `episodes` (all when None) of `source` into memory and return their windows.

    `keys` are the observations to load (all of the spec when None); of the `chunk` actions `past` lie before
    the step, as Diffusion Policy's history - 1 do; `images` are pictures that are at hand already, [frames of
    all episodes,H,W,C], perhaps memory-mapped. Raises `DataError` naming the
    episode and frame of a value that is not finite.
    """
    wanted = tuple(source.spec.observations) if keys is None else tuple(key for key in keys if key != "action")
    spec = replace(source.spec.select(wanted), history=history, chunk=chunk)
    _check_sizes(history, chunk, past)
    numbers = np.arange(len(source.lengths)) if episodes is None else np.asarray(episodes, np.int64)
    if not len(numbers):
        raise DataError("There are no episodes to make windows of.", do="check the dataset and the episode filter")
    lengths = np.asarray(source.lengths)[numbers]
    stops = np.cumsum(lengths)
    texts = [key for key in wanted if spec.observations[key].kind == "text"]
    loaded = [key for key in wanted if spec.observations[key].kind != "text"] + ["action"]
    given = dict(images or {})
    arrays = _load(source, [key for key in loaded if key not in given], numbers, stops, whole=episodes is None)
    for key, values in given.items():
        feature = replace(spec.observations[key], shape=values.shape[1:])
        spec = replace(spec, observations={**spec.observations, key: feature})
    offsets = np.concatenate([[0], np.cumsum(source.lengths)])[numbers] - (stops - lengths) if given else None
    windows = Windows(spec, arrays, stops - lengths, stops, numbers, images=given, image_offsets=offsets, past=past)
    for key, values in arrays.items():
        _require_finite(windows, key, values)
    return replace(windows, texts={key: _texts(source, key, numbers) for key in texts})


def _check_sizes(history: int, chunk: int, past: int) -> None:
    if history < 1 or chunk < 1 or not 0 <= past < chunk:
        raise DataError(
            "A window has at least one frame of history and one action from its step on.",
            found=f"history {history}, chunk {chunk}, past {past}",
            expected="history ≥ 1, chunk ≥ 1, 0 ≤ past < chunk",
        )


def _load(
    source: EpisodeSource, keys: Sequence[str], numbers: np.ndarray, stops: np.ndarray, whole: bool
) -> dict[str, np.ndarray]:
    signals = [k for k in keys if k == "action" or source.spec.observations[k].kind not in ("image", "depth")]
    read_all = getattr(source, "read_all", None)
    arrays: dict[str, np.ndarray] = dict(read_all(signals)) if whole and read_all is not None else {}
    rest = [key for key in keys if key not in arrays]
    for slot, episode in enumerate(numbers if rest else ()):
        frames = source.read(int(episode), rest)
        length = int(stops[slot]) - (int(stops[slot - 1]) if slot else 0)
        for key, values in frames.items():
            if len(values) != length:
                raise DataError(f"Episode {episode}: '{key}' has a wrong length.", found=len(values), expected=length)
            if key not in arrays:
                arrays[key] = np.empty((int(stops[-1]), *values.shape[1:]), values.dtype)
            arrays[key][stops[slot] - length : stops[slot]] = values
    return {key: _as_vector(arrays[key]) for key in keys}


def _as_vector(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    return np.ascontiguousarray(values[:, None] if values.ndim == 1 else values)


def _require_finite(windows: Windows, key: str, values: np.ndarray) -> None:
    if values.dtype.kind != "f":
        return
    for begin in range(0, len(values), 1 << 20):
        block = values[begin : begin + (1 << 20)]
        bad = ~np.isfinite(block).reshape(len(block), -1).all(1)
        if bad.any():
            frame = np.array([begin + int(bad.argmax())])
            raise DataError(
                f"'{key}' is not finite in episode {windows.episode_of(frame)[0]}, frame {windows.frame_of(frame)[0]}.",
                found=values[frame[0]],
                do="remove the episode (`robolearn data edit`) or repair the recording",
            )


def _texts(source: EpisodeSource, key: str, numbers: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    known: dict[str, int] = {}
    parts = []
    for episode in numbers:
        texts, inverse = np.unique(source.read(int(episode), [key])[key], return_inverse=True)
        codes = np.array([known.setdefault(str(text), len(known)) for text in texts], np.int32)
        parts.append(codes[inverse])
    return np.concatenate(parts), tuple(known)


def _take(array: np.ndarray, index: np.ndarray) -> "torch.Tensor":
    return _tensor(np.take(array, index.ravel(), axis=0).reshape(*index.shape, *array.shape[1:]))


def _tensor(array: np.ndarray) -> "torch.Tensor":
    import torch

    return torch.from_numpy(array)
