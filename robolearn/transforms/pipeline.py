"""A sequence of paired transforms: encode, decode, fit, save, load."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from robolearn.config import parse, to_dict
from robolearn.contracts import Batch, Transform, WindowSource
from robolearn.errors import ConfigError
from robolearn.registry import resolve
from robolearn.spec import Spec

__all__ = ["Pipeline"]


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Transforms in the order of `forward`; `decode` runs their inverses backwards.

    A transform may also have `bind(spec)` (turns names into indices), `fit(batches)` (learns its
    `stats` from the data after the transforms before it), `fitted` (whether it has them), `pixels`
    (it only touches pictures, so fitting passes it by) and `on_device` (tensor operations only).
    """

    transforms: tuple[Transform, ...] = ()

    def forward(self, batch: Batch) -> Batch:
        """Return `batch` after every transform; the given batch stays as it is."""
        for transform in self.transforms:
            batch = transform.forward(batch)
        return batch

    def encode(self, batch: Batch) -> tuple[Batch, tuple[Batch, ...]]:
        """Return `forward(batch)` and the trace that `decode` needs."""
        trace = []
        for transform in self.transforms:
            trace.append(batch)
            batch = transform.forward(batch)
        return batch, tuple(trace)

    def decode(self, action: torch.Tensor, trace: Sequence[Batch]) -> torch.Tensor:
        """Return chunks [B,K,A] in raw units from chunks of the network."""
        for transform, given in zip(reversed(self.transforms), reversed(trace), strict=True):
            action = transform.inverse(action, given)
        return action

    def transform_spec(self, spec: Spec) -> Spec:
        """Return the spec of what `forward` gives for data of `spec`."""
        for transform in self.transforms:
            spec = transform.transform_spec(spec)
        return spec

    def split(self) -> tuple["Pipeline", "Pipeline"]:
        """Return the part for loader workers and the rest, which can run where the network is."""
        first = len(self.transforms)
        while first and getattr(self.transforms[first - 1], "on_device", False):
            first -= 1
        return Pipeline(self.transforms[:first]), Pipeline(self.transforms[first:])

    def bind(self, spec: Spec) -> "Pipeline":
        """Return the pipeline with names resolved against `spec`; raises `SpecError` for what it lacks."""
        bound = []
        for transform in self.transforms:
            binder = getattr(transform, "bind", None)
            bound.append(binder(spec) if binder else transform)
            spec = bound[-1].transform_spec(spec)
        return Pipeline(tuple(bound))

    @property
    def fitted(self) -> bool:
        """Whether every transform that learns has learned."""
        return all(getattr(transform, "fitted", True) for transform in self.transforms)

    def fit(
        self,
        windows: WindowSource,
        batch_size: int = 4096,
        progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    ) -> "Pipeline":
        """Return the pipeline with statistics of all `windows`, read in order.

        Each transform sees the data after those before it, so an action that is made relative is
        normalised by the statistics of relative chunks. Pictures are not needed.
        """
        fitted: list[Transform] = []
        for transform in self.transforms:
            learn = getattr(transform, "fit", None)
            if learn is not None:
                before = Pipeline(tuple(item for item in fitted if not getattr(item, "pixels", False)))
                transform = learn(before._batches(windows, batch_size, progress))
            fitted.append(transform)
        return Pipeline(tuple(fitted))

    def to_plain(self) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
        """Return JSON data and tensors; `from_plain` reads them back."""
        plain, tensors = [], {}
        for i, transform in enumerate(self.transforms):
            stats = getattr(transform, "stats", {})
            tensors.update({f"{i}/{key}": value for key, value in stats.items()})
            plain.append(_plain(transform))
        return plain, tensors

    @classmethod
    def from_plain(cls, plain: Any, tensors: Mapping[str, torch.Tensor] | None = None) -> "Pipeline":
        """Read a pipeline from `to_plain`, or from a config's list of transforms, strictly.

        Transforms are looked up by their registered name only.
        """
        if not isinstance(plain, list | tuple):
            raise ConfigError("Transforms are a list.", found=type(plain).__name__, expected="a list of mappings")
        tensors = dict(tensors or {})
        transforms = []
        for i, item in enumerate(plain):
            stats = {key.partition("/")[2]: tensors.pop(key) for key in list(tensors) if key.startswith(f"{i}/")}
            transforms.append(_transform(item, stats, f"transforms[{i}]"))
        if tensors:
            raise ConfigError("Statistics belong to no transform.", found=", ".join(sorted(tensors)))
        return cls(tuple(transforms))

    def _batches(
        self, windows: WindowSource, batch_size: int, progress: Callable[[Iterable[int]], Iterable[int]]
    ) -> Iterator[Batch]:
        for start in progress(range(0, len(windows), batch_size)):
            yield self.forward(windows.gather(np.arange(start, min(start + batch_size, len(windows)))))


def _plain(transform: Any) -> dict[str, Any]:
    """Return the options of a transform as JSON data: what it was constructed with, without statistics."""
    fields = [field.name for field in dataclasses.fields(transform) if field.init and field.name != "stats"]
    return json.loads(json.dumps({name: getattr(transform, name) for name in fields}, default=to_dict))


def _transform(item: Any, stats: Mapping[str, torch.Tensor], where: str) -> Transform:
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise ConfigError(f"{where} needs the name of a transform.", found=repr(item), expected="{name: …, …}")
    if "stats" in item:
        raise ConfigError(f"{where} may not state statistics.", do="they are fitted, or read from stats.safetensors")
    transform = parse(resolve("transform", item["name"]), item, where)
    return dataclasses.replace(transform, stats=stats) if stats else transform
