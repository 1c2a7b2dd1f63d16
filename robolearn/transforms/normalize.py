"""Normalisation with statistics from the data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from robolearn.contracts import Batch
from robolearn.errors import ConfigError, SpecError, suggest
from robolearn.spec import Spec
from robolearn.stats import Accumulator, lookup

__all__ = ["Normalize"]

Mode = Literal["min_max", "mean_std", "quantile", "identity"]
_CENTRE_AND_EDGES = {"min_max": ("min", "max"), "quantile": ("q01", "q99")}


@dataclass(frozen=True)
class Normalize:
    """Scale each key: `min_max` and `quantile` (1 % to 99 %) to [-1, 1], `mean_std` to unit variance.

    `modes` names every signal and the action; "*" stands for all that are not named. Nothing is
    passed through by accident: a signal without a mode is an error. A dimension that moves by less
    than `floor` (half range or deviation, raw units) is constant and only centred.
    """

    modes: Mapping[str, Mode]
    floor: float = 1e-4
    name: str = "normalize"
    stats: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        if not self.floor > 0:
            raise ConfigError("The floor of normalize is positive.", found=self.floor, expected="> 0")
        affine = {key: _affine(key, mode, self.stats, self.floor) for key, mode in self._learned() if self.stats}
        object.__setattr__(self, "_affine", affine)

    @property
    def fitted(self) -> bool:
        return bool(self.stats) or not any(self._learned())

    def bind(self, spec: Spec) -> "Normalize":
        signals = [key for key, feature in spec.observations.items() if feature.kind == "signal"] + ["action"]
        modes = {key: mode for key, mode in self.modes.items() if key != "*"}
        for key in modes:
            if key not in signals:
                raise SpecError(f"normalize has no signal '{key}'.", expected=suggest(key, signals))
        for key in signals:
            if key not in modes and "*" not in self.modes:
                raise SpecError(
                    f"normalize has no mode for '{key}'.",
                    found=", ".join(modes) or "none",
                    do=f"add '{key}: identity', another mode, or '*' for all",
                )
        return replace(self, modes={key: modes[key] if key in modes else self.modes["*"] for key in signals})

    def fit(self, batches: Iterable[Batch]) -> "Normalize":
        accumulators = {key: Accumulator(key) for key, _ in self._learned()}
        for batch in batches if accumulators else ():
            for key, accumulator in accumulators.items():
                accumulator.update(_rows(key, batch).numpy())
        results = {key: accumulator.result() for key, accumulator in accumulators.items()}
        names = ("min", "max", "mean", "std", "q01", "q99", "count")
        stats = {
            f"{key}/{name}": torch.as_tensor(getattr(result, name)) for key, result in results.items() for name in names
        }
        return replace(self, stats=stats)

    def forward(self, batch: Batch) -> Batch:
        result = dict(batch)
        for key, _ in self._learned():
            if key in batch or key != "action":
                centre, scale = self._pair(key)
                value = lookup(batch, key)
                result[key] = (value - centre.to(value.device)) / scale.to(value.device)
        return result

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        if self.modes.get("action", "identity") == "identity":
            return action
        centre, scale = self._pair("action")
        return action * scale.to(action.device) + centre.to(action.device)

    def transform_spec(self, spec: Spec) -> Spec:
        learned = dict(self._learned())
        observations = {
            key: replace(feature, unit="") if key in learned else feature for key, feature in spec.observations.items()
        }
        action = replace(spec.action, unit="", low=None, high=None) if "action" in learned else spec.action
        return replace(spec, observations=observations, action=action)

    def _learned(self) -> Iterable[tuple[str, Mode]]:
        return ((key, mode) for key, mode in self.modes.items() if mode != "identity")

    def _pair(self, key: str) -> tuple[torch.Tensor, torch.Tensor]:
        affine: dict[str, tuple[torch.Tensor, torch.Tensor]] = getattr(self, "_affine")  # noqa: B009
        if key not in affine:
            raise SpecError(
                f"normalize has no statistics for '{key}'.", expected=suggest(key, affine), do="fit it on the data"
            )
        return affine[key]


def _affine(key: str, mode: Mode, stats: Mapping[str, Any], floor: float) -> tuple[torch.Tensor, torch.Tensor]:
    def stat(name: str) -> torch.Tensor:
        value = lookup(stats, f"{key}/{name}")
        if not torch.isfinite(value).all():
            raise ConfigError(f"A statistic of '{key}' is not finite.", found=f"{name} {value}", do="fit it again")
        return value

    if mode == "mean_std":
        centre, scale = stat("mean"), stat("std")
    else:
        low, high = (stat(name) for name in _CENTRE_AND_EDGES[mode])
        centre, scale = (low + high) / 2, (high - low) / 2
    return centre, torch.where(scale < floor, torch.ones_like(scale), scale)


def _rows(key: str, batch: Batch) -> torch.Tensor:
    """Return what counts of one key as rows [n, *shape]: padded actions do not."""
    value = lookup(batch, key)
    if key == "action" and "action_is_pad" in batch:
        return value[~batch["action_is_pad"]]
    return value.flatten(0, 1)
