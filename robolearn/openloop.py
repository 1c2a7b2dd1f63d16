"""Predicted chunks beside the demonstrated ones: the error of every action entry at every step ahead."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robolearn.contracts import Actor, Batch, WindowSource
from robolearn.errors import DataError, SpecError
from robolearn.loading import open_training_data
from robolearn.run import RunConfig
from robolearn.seeding import policy_noise
from robolearn.spec import Spec, require

__all__ = ["OpenLoopResult", "openloop", "recorded_windows"]

_PIECE = 64  # windows that are read at a time


@dataclass(frozen=True)
class OpenLoopResult:
    """Errors of predicted actions in their own units, padded steps left out.

    `spread` is the mean distance of the demonstrated actions from their mean at each step: what a policy
    that always says the same would err by.
    """

    names: tuple[str, ...]  # of the A action entries
    error: np.ndarray  # [K,A] mean absolute error
    spread: np.ndarray  # [K,A]
    windows: int
    examples: tuple[tuple[np.ndarray, np.ndarray], ...]  # (demonstrated, predicted) chunks [K,A], NaN where padded

    @property
    def relative(self) -> float:
        """The error over all steps and entries, as a share of the spread."""
        moving = self.spread > 1e-9
        return float((self.error[moving] / self.spread[moving]).mean()) if moving.any() else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        error = {name: self.error[:, index].tolist() for index, name in enumerate(self.names)}
        spread = {name: self.spread[:, index].tolist() for index, name in enumerate(self.names)}
        return {"windows": self.windows, "relative_error": self.relative, "error": error, "spread": spread}


def recorded_windows(config: RunConfig, actor: Actor) -> tuple[WindowSource, bool]:
    """Return windows of the episodes that a run held out, and whether it did; else those it learned from."""
    data = open_training_data(config)
    windows = data.windows if data.validation is None else data.validation
    require(windows.spec, actor.spec, ("dataset", "policy"))
    return windows, data.validation is not None


def openloop(
    actor: Actor,
    windows: WindowSource,
    limit: int = 512,
    seed: int = 0,
    temperature: float = 1.0,
    examples: int = 3,
    on_window: Callable[[int], None] | None = None,
) -> OpenLoopResult:
    """Compare the chunks of `actor` with those of at most `limit` windows, spread evenly over them."""
    if len(windows) == 0:
        raise DataError("There is nothing to compare with.", found="0 windows", expected="an episode at least")
    spec, size = actor.spec, min(limit, len(windows))
    chosen = np.linspace(0, len(windows) - 1, size).astype(np.int64)
    said = np.zeros((size, spec.chunk, spec.action.dim))
    shown = np.zeros_like(said)
    for start in range(0, size, _PIECE):
        part = chosen[start : start + _PIECE]
        batch = windows.gather(part)
        where = slice(start, start + len(part))
        noise = np.stack([policy_noise(seed, int(window), 0, actor.noise_shape) for window in part])
        said[where] = actor.act(_observations(batch, spec), np.float32(temperature) * noise)
        shown[where] = _demonstrated(batch)
        if on_window is not None:
            on_window(start + len(part))
    here = ~np.isnan(shown)
    count = np.maximum(here.sum(0), 1)
    known = np.where(here, shown, 0.0)
    mean = known.sum(0) / count
    error = np.where(here, np.abs(said - known), 0.0).sum(0) / count
    spread = np.where(here, np.abs(known - mean), 0.0).sum(0) / count
    names = spec.action.names or tuple(f"action{index}" for index in range(spec.action.dim))
    picks = np.linspace(0, size - 1, min(examples, size)).astype(int)
    return OpenLoopResult(tuple(names), error, spread, size, tuple((shown[i], said[i]) for i in picks))


def _observations(batch: Batch, spec: Spec) -> dict[str, np.ndarray]:
    found = {}
    for key, feature in spec.observations.items():
        if key not in batch:
            raise SpecError(f"The recorded windows have no '{key}'.", expected=", ".join(sorted(batch)))
        value = batch[key]
        found[key] = np.array(value) if feature.kind == "text" else _array(value)
    return found


def _demonstrated(batch: Batch) -> np.ndarray:
    """Return the recorded chunks [n,K,A]; NaN after the end of an episode."""
    action = _array(batch["action"]).astype(np.float64)
    action[_array(batch["action_is_pad"]).astype(bool)] = np.nan
    return action


def _array(value: Any) -> np.ndarray:
    return value.numpy() if torch.is_tensor(value) else np.asarray(value)
