"""Normalisation with statistics from the data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch

from robolearn.contracts import Batch
from robolearn.errors import ConfigError, SpecError, suggest
from robolearn.padding import with_actions
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
    _affine: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    on_device: ClassVar[bool] = True

    def __post_init__(self):
        if not self.floor > 0:
            raise ConfigError("The floor of normalize is positive.", found=self.floor, expected="> 0")
        for key, mode in self._learned() if self.stats else ():
            self._affine[key] = _affine(key, mode, self.stats, self.floor)

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
        for key, (centre, _) in self._affine.items():
            shape = (spec.action.dim,) if key == "action" else spec.observations[key].shape
            if centre.shape != (shape or (1,)):
                raise SpecError(f"Statistics do not fit '{key}'.", found=tuple(centre.shape), expected=shape)
        return replace(self, modes={key: modes[key] if key in modes else self.modes["*"] for key in signals})

    def fit(self, batches: Iterable[Batch]) -> "Normalize":
        accumulators = {key: Accumulator(key) for key, _ in self._learned()}
        for batch in map(with_actions, batches if accumulators else ()):
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
                value = lookup(batch, key)
                centre, scale = self.affine(key, value.device)
                result[key] = (value - centre) / scale
        return result

    def inverse(self, action: torch.Tensor, batch: Batch) -> torch.Tensor:
        if self.modes.get("action", "identity") == "identity":
            return action
        centre, scale = self.affine("action", action.device)
        return action * scale + centre

    def transform_spec(self, spec: Spec) -> Spec:
        learned = dict(self._learned())
        observations = {
            key: replace(feature, unit="") if key in learned else feature for key, feature in spec.observations.items()
        }
        action = replace(spec.action, unit="", low=None, high=None) if "action" in learned else spec.action
        return replace(spec, observations=observations, action=action)

    def _learned(self) -> Iterable[tuple[str, Mode]]:
        return ((key, mode) for key, mode in self.modes.items() if mode != "identity")

    def affine(self, key: str, device: torch.device | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return centre and scale of a key: forward is (value - centre) / scale."""
        if key not in self._affine:
            known = [name for name in self._affine if isinstance(name, str)]
            raise SpecError(
                f"normalize has no statistics for '{key}'.", expected=suggest(key, known), do="fit it on the data"
            )
        if device is None or device.type == "cpu":
            return self._affine[key]
        if (key, device) not in self._affine:  # copied once, not in every step
            centre, scale = self._affine[key]
            self._affine[key, device] = (centre.to(device), scale.to(device))
        return self._affine[key, device]


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
