"""Batches as a pure function of (seed, step): stateless sampling, with or without loader workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from robolearn.api import open_dataset
from robolearn.contracts import Batch, EpisodeSource, WindowSource
from robolearn.errors import DataError, SpecError, suggest
from robolearn.interventions import intervention_weights
from robolearn.padding import members_of
from robolearn.past import PAST_ACTION, PastActions
from robolearn.registry import resolve
from robolearn.run import DataConfig, RunConfig
from robolearn.seeding import generator, shuffled_index
from robolearn.spec import Feature, Spec
from robolearn.transforms import Pipeline

__all__ = ["TrainingData", "batches", "cached", "open_training_data", "sample_index", "to_device", "validation_index"]


@dataclass(frozen=True)
class TrainingData:
    """Windows to learn from, windows of held-out episodes, and the fitted pipeline."""

    windows: WindowSource
    validation: WindowSource | None
    pipeline: Pipeline
    spec: Spec  # raw, with history and chunk


def open_training_data(config: RunConfig, pipeline: Pipeline | None = None) -> TrainingData:
    """Open the dataset of `config`; fits the transforms unless a fitted `pipeline` is given."""
    source = open_dataset(config.data.path, config.data.kind, config.data.options)
    source = _Renamed(source, config.data.rename) if config.data.rename else source
    keys = config.data.keys or tuple(source.spec.observations)
    if getattr(config.policy, "past_actions", False):
        source, keys = PastActions(source), (*keys, PAST_ACTION)
    source.spec.select(keys)
    observed, answer = keys, getattr(config.policy, "answer", "")
    _require_actions(source.spec, answer)
    if answer:
        source, keys = _Answering(source, answer), (*keys, answer)
    train, held_out = split_episodes(source, config.data, config.seed)
    windows = _windows(config, source, keys, train)
    validation = _windows(config, source, keys, held_out) if held_out else None
    spec = windows.spec.select(observed)
    if pipeline is None:
        pipeline = _build(config, spec)
        # Pictures are not read for statistics.
        lean = tuple(key for key in keys if source.spec.observations[key].kind not in ("image", "depth"))
        learned = windows if lean == keys else _windows(config, source, lean, train)
        pipeline = pipeline.fit(getattr(learned, "to_fit", learned))
    if config.data.weights is not None:
        windows = _Weighted(windows, intervention_weights(source, train, config.data.weights))
    return TrainingData(windows, validation, pipeline, spec)


def split_episodes(source: EpisodeSource, data: DataConfig, seed: int) -> tuple[list[int], list[int]]:
    """Return the episodes to learn from and those held out, by seed."""
    episodes = list(range(len(source.lengths))) if data.episodes is None else list(data.episodes)
    unknown = [episode for episode in episodes if not 0 <= episode < len(source.lengths)]
    if unknown or not episodes:
        raise DataError(
            "data.episodes names episodes that do not exist.", found=unknown, expected=f"0 to {len(source.lengths) - 1}"
        )
    count = round(len(episodes) * data.validation_fraction)
    if data.validation_fraction > 0:
        count = min(max(count, 1), len(episodes) - 1)
    held_out = set(generator(seed, "validation").permutation(len(episodes))[:count].tolist())
    return (
        [episode for i, episode in enumerate(episodes) if i not in held_out],
        [episode for i, episode in enumerate(episodes) if i in held_out],
    )


def sample_index(size: int, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Return the windows of optimizer step `step` (0-based): consecutive places of endless shuffled epochs."""
    first = step * batch_size
    epochs = range(first // size, (first + batch_size - 1) // size + 1)
    order = np.concatenate([_order(size, seed, epoch) for epoch in epochs])
    start = first - epochs[0] * size
    return order[start : start + batch_size]


def validation_index(size: int, batch_size: int, limit: int = 64) -> Iterator[np.ndarray]:
    """Yield at most `limit` batches that cover all windows evenly, always the same ones."""
    count = min(limit, -(-size // batch_size))
    spread = np.linspace(0, size - 1, min(size, count * batch_size)).astype(np.int64)
    yield from np.array_split(spread, count)


def cached(data: TrainingData, budget_mb: int, device: torch.device) -> TrainingData:
    """Return `data` with its transformed windows in the memory of `device`, without pictures and within the budget.

    The transforms work row by row, so a row is the same whether it is computed once or every time.
    """
    if len(data.windows) == 0:
        raise DataError("There is nothing to learn from.", found="0 windows", expected="at least one episode")
    features = data.pipeline.transform_spec(data.windows.spec).observations.values()
    if any(feature.kind not in ("signal", "text") for feature in features):
        return data
    probe = data.pipeline.forward(data.windows.gather(np.arange(1)))
    row = sum(value.nbytes for value in probe.values() if torch.is_tensor(value))
    if row * len(data.windows) > budget_mb * 2**20:
        return data
    return TrainingData(_Cached(data.windows, data.pipeline, device), data.validation, data.pipeline, data.spec)


def batches(
    data: TrainingData, config: RunConfig, slices: Sequence[int], first: int, last: int, device: torch.device
) -> Iterator[list[Batch]]:
    """Yield, for the steps [first, last), the `slices` of the step's batch that this process runs.

    They come transformed on `device`: what is only tensor operations runs there, the rest in the workers.
    """
    workers, pin = config.train.workers, device.type == "cuda"
    host, rest = data.pipeline.split() if pin else (data.pipeline, Pipeline())
    if isinstance(data.windows, _Cached):
        host = rest = Pipeline()
        workers, pin = 0, False  # one index operation: handing it to another process would cost more
    steps = _Steps(data.windows, host, config, tuple(slices))
    for pieces in _loaded(steps, workers, pin, first, last):
        yield [rest.forward(to_device(piece, device)) for piece in pieces]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on `device`."""
    return {key: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for key, v in batch.items()}


def _loaded(steps: "_Steps", workers: int, pin: bool, first: int, last: int) -> Iterator[list[Batch]]:
    if workers == 0 and not pin:
        yield from (steps[step] for step in range(first, last))
        return
    loader = torch.utils.data.DataLoader(
        steps,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        collate_fn=_same,
        pin_memory=pin,
        prefetch_factor=2 if workers else None,
        generator=torch.Generator(),  # workers draw nothing, and the global generator is not touched
    )
    yield from loader


class _Steps(torch.utils.data.Dataset):
    """Step number → list of slices."""

    def __init__(self, windows: WindowSource, pipeline: Pipeline, config: RunConfig, slices: tuple[int, ...]):
        self._windows, self._pipeline, self._slices = windows, pipeline, slices
        self._seed, self._batch_size = config.seed, config.train.batch_size
        self._size = config.train.batch_size // config.train.accumulate

    def __getitem__(self, index: int) -> list[Batch]:
        rows = sample_index(len(self._windows), self._seed, index, self._batch_size)
        pieces = (rows[i * self._size : (i + 1) * self._size] for i in self._slices)
        return [self._pipeline.forward(self._windows.gather(piece)) for piece in pieces]


class _Cached:
    """All windows of a source, transformed once."""

    def __init__(self, windows: WindowSource, pipeline: Pipeline, device: torch.device, piece: int = 4096):
        self.spec = pipeline.transform_spec(windows.spec)
        size = len(windows)
        self._all: dict[str, torch.Tensor] = {}
        for start in range(0, size, piece):
            stop = min(start + piece, size)
            for key, value in pipeline.forward(windows.gather(np.arange(start, stop))).items():
                if torch.is_tensor(value):
                    store = self._all.setdefault(key, value.new_empty((size, *value.shape[1:])))
                    store[start:stop] = value
        self._size, self._device = size, device
        self._all = {key: value.to(device) for key, value in self._all.items()}

    def __len__(self) -> int:
        return self._size

    def gather(self, index: np.ndarray) -> Batch:
        rows = torch.as_tensor(index).to(self._device)
        return {key: value.index_select(0, rows) for key, value in self._all.items()}


class _Weighted:
    """Windows that say how much they count in the loss."""

    def __init__(self, windows: WindowSource, weights: np.ndarray):
        self.spec, self._windows, self._weights = windows.spec, windows, torch.as_tensor(weights)

    def __len__(self) -> int:
        return len(self._windows)

    def gather(self, index: np.ndarray) -> Batch:
        return self._windows.gather(index) | {"weight": self._weights[torch.as_tensor(np.asarray(index, np.int64))]}


class _Renamed:
    """A source whose observations go by other names."""

    def __init__(self, source: EpisodeSource, rename: dict[str, str] | Any):
        known = source.spec.observations
        for name in rename.values():
            if name not in known:
                raise SpecError(f"data.rename: the dataset has no '{name}'.", expected=suggest(name, known))
        back = {old: new for new, old in rename.items()}
        observations: dict[str, Feature] = {back.get(key, key): feature for key, feature in known.items()}
        if len(observations) != len(known):
            raise SpecError("data.rename gives two observations one name.", found=dict(rename))
        self._source, self._rename = source, dict(rename)
        self.spec = replace(source.spec, observations=observations)

    @property
    def lengths(self) -> np.ndarray:
        return self._source.lengths

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        names = {key: self._rename.get(key, key) for key in keys}
        frames = self._source.read(episode, list(names.values()), start, stop)
        return {key: frames[name] for key, name in names.items()}


class _Answering:
    """A source whose text column `key`, which acting does without, can be asked for like an observation."""

    def __init__(self, source: EpisodeSource, key: str):
        known = getattr(source, "keys", None)  # a reader that does not list what it has refuses by itself
        if known is not None and key not in known:
            raise DataError(
                f"The dataset has no text '{key}' to learn to say.",
                expected=suggest(key, known),
                do="collect with an expert that says what it does, or name another column",
            )
        self.source, self.root = source, getattr(source, "root", None)
        self.spec = replace(source.spec, observations={**source.spec.observations, key: Feature("text", dtype="str")})

    @property
    def lengths(self) -> np.ndarray:
        return self.source.lengths

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        return self.source.read(episode, keys, start, stop)


def _require_actions(spec: Spec, answer: str) -> None:
    """Raise `DataError` for data without actions that would teach nothing: alone, or without words to learn."""
    still = [name for name, member in members_of(spec).items() if not member.action.dim]
    if not spec.action.dim:
        raise DataError(
            "The dataset has no actions, so that no policy can learn to act from it.",
            found=f"pairs of pictures and text{f' ({", ".join(still)})' if still else ''}",
            expected="a mixture with a robot's demonstrations",
            do="data=mixture data.options.members.robot.path=DATASET, the pairs as a member beside it",
        )
    if still and not answer:
        raise DataError(
            "Members of the mixture without actions would teach nothing.",
            found=f"{', '.join(still)}, and a policy that learns no words",
            expected="a policy that learns to say the text beside the pictures",
            do="policy=vla policy.reasoning.key=reasoning, or leave the member out",
        )


def _windows(config: RunConfig, source: EpisodeSource, keys: Sequence[str], episodes: Sequence[int]) -> WindowSource:
    build = resolve("loader", config.data.loader)
    return build(source, config.policy.history, config.policy.chunk, tuple(keys), list(episodes))


def _build(config: RunConfig, spec: Spec) -> Pipeline:
    """Return the unfitted transforms: those of the data, then the policy's."""
    before = Pipeline.from_plain(list(config.data.transforms)).bind(spec)
    between = before.transform_spec(spec)
    after = Pipeline(tuple(config.policy.transforms(between))).bind(between)
    return Pipeline((*before.transforms, *after.transforms))


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> np.ndarray:
    return shuffled_index(size, seed, epoch)


def _same(value: Any) -> Any:
    return value
