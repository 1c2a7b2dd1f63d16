"""Windows decoded on demand: for what fits neither memory nor a cache.

Pictures are decoded in blocks of consecutive frames, several at a time, and kept within a budget of
bytes, the least recently used block dropped first. Blocks are long where all of them fit the budget, so
that every frame is decoded once, and short where they do not, because most are dropped before they serve
again. Signals are in memory.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from robolearn.contracts import Batch, EpisodeSource
from robolearn.data.windows import Windows, build_windows
from robolearn.spec import Spec

__all__ = ["StreamWindows", "build_stream_windows"]

_LONG_FRAMES, _SHORT_FRAMES = 256, 4
_BUDGET_BYTES = 2 * 2**30


def build_stream_windows(
    source: EpisodeSource,
    history: int = 1,
    chunk: int = 1,
    keys: Sequence[str] | None = None,
    episodes: Sequence[int] | None = None,
    past: int = 0,
) -> "StreamWindows":
    """Return windows that decode pictures when they are asked for."""
    return StreamWindows(source, history, chunk, keys, episodes, past)


class StreamWindows:
    """A `WindowSource` that decodes blocks of pictures on demand, within `budget_bytes`."""

    def __init__(
        self,
        source: EpisodeSource,
        history: int = 1,
        chunk: int = 1,
        keys: Sequence[str] | None = None,
        episodes: Sequence[int] | None = None,
        past: int = 0,
        budget_bytes: int = _BUDGET_BYTES,
        block_frames: int | None = None,
    ):
        wanted = tuple(source.spec.observations) if keys is None else tuple(keys)
        kinds = {key: source.spec.observations[key].kind for key in source.spec.select(wanted).observations}
        self._images = tuple(key for key in wanted if kinds[key] == "image")
        self._source, self._budget = source, budget_bytes
        signals = [key for key in wanted if key not in self._images]
        self._windows: Windows = build_windows(source, history, chunk, signals, episodes, past)
        frame_bytes = sum(math.prod(source.spec.observations[key].shape) for key in self._images)
        fits = len(self._windows) * frame_bytes <= budget_bytes
        self._block = block_frames or (_LONG_FRAMES if fits else max(_SHORT_FRAMES, history))
        self.spec: Spec = replace(source.spec.select(wanted), history=history, chunk=chunk)
        self._blocks: OrderedDict[tuple[int, int], dict[str, np.ndarray]] = OrderedDict()
        self._held_bytes = 0
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._windows)

    def episode_of(self, index: np.ndarray) -> np.ndarray:
        """Return the source's episode number of each window."""
        return self._windows.episode_of(index)

    def gather(self, index: np.ndarray) -> Batch:
        """Return the windows `index` [B] as torch tensors over raw units."""
        import torch

        index = np.asarray(index, np.int64)
        batch = self._windows.gather(index)
        slot = self._windows.slot_of(index)
        first = self._windows.starts[slot][:, None]
        frames = np.maximum(index[:, None] + np.arange(1 - self.spec.history, 1), first) - first  # within the episode
        episodes = np.broadcast_to(self._windows.episodes[slot][:, None], frames.shape)
        places = np.stack([episodes, frames // self._block], -1).reshape(-1, 2)
        needed, which = np.unique(places, axis=0, return_inverse=True)
        blocks = self._load([(int(e), int(b)) for e, b in needed])
        for key in self._images:
            shape = self.spec.observations[key].shape
            result = np.empty((frames.size, *shape), np.uint8)
            for number, block in enumerate(blocks):
                rows = np.flatnonzero(which.ravel() == number)
                result[rows] = block[key][frames.ravel()[rows] % self._block]
            batch[key] = torch.from_numpy(result.reshape(*frames.shape, *shape))
        return batch

    def _load(self, wanted: Sequence[tuple[int, int]]) -> list[dict[str, np.ndarray]]:
        missing = [place for place in wanted if place not in self._blocks]
        if len(missing) > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(2, thread_name_prefix="decode")
        decoded = (
            self._pool.map(self._decode, missing) if len(missing) > 1 and self._pool else map(self._decode, missing)
        )
        fresh = dict(zip(missing, decoded, strict=True))
        result = [self._blocks[place] if place in self._blocks else fresh[place] for place in wanted]
        for place in wanted:
            if place in self._blocks:
                self._blocks.move_to_end(place)
        for place, block in fresh.items():
            self._blocks[place] = block
            self._held_bytes += sum(value.nbytes for value in block.values())
        while self._held_bytes > self._budget and self._blocks:
            _, block = self._blocks.popitem(last=False)
            self._held_bytes -= sum(value.nbytes for value in block.values())
        return result

    def _decode(self, place: tuple[int, int]) -> dict[str, np.ndarray]:
        episode, block = place
        start = block * self._block
        stop = min(start + self._block, int(self._source.lengths[episode]))
        return self._source.read(episode, list(self._images), start, stop)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": OrderedDict(), "_held_bytes": 0, "_pool": None}
