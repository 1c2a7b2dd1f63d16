"""A checkpoint that acts: the policy with its transforms, in real units."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn import checkpoint
from robolearn.contracts import Batch, Observations
from robolearn.device import pick_device
from robolearn.errors import CheckpointError, ConfigError, NumericsError, SpecError
from robolearn.spec import Feature, Spec
from robolearn.stats import lookup
from robolearn.transforms import Pipeline

__all__ = ["CorrectingActor", "PolicyActor", "load", "make_actor"]


Run = Callable[[Batch, torch.Tensor], torch.Tensor]


class PolicyActor:
    """Histories [n,T,…] and noise in, action chunks [n,K,A] out; implements `contracts.Actor`.

    Rows run in micro-batches of the constant size `microbatch`, the last one filled up by repeating
    a row: the same network gives other last bits at another batch size, and what a row gets must
    not depend on how many others ask. `pipeline` is fitted; `spec` is raw, with history and chunk.
    """

    def __init__(
        self,
        policy: Any,
        pipeline: Pipeline,
        spec: Spec,
        device: str | torch.device = "cpu",
        microbatch: int = 16,
    ):
        if microbatch < 1:
            raise ConfigError("A micro-batch has at least one row.", found=microbatch, expected="1 or more")
        if not pipeline.fitted:
            raise CheckpointError("The transforms have no statistics.", do="fit the pipeline on the data")
        self.spec, self.pipeline, self.microbatch = spec, pipeline, microbatch
        self.device = pick_device(device)
        self.policy = policy.to(self.device).eval()
        self.noise_shape: tuple[int, ...] = tuple(policy.noise_shape)

    def act(self, obs: Observations, noise: np.ndarray, prefix: np.ndarray | None = None) -> np.ndarray:
        """Return float32 chunks [n,K,A] in real units.

        `noise` is [n,*noise_shape]; `prefix` [n,P,A] are committed actions in real units. Raises
        `SpecError` for arrays unlike the spec and `NumericsError` for observations that are not finite.
        """
        batch = _batch(obs, self.spec)
        if noise.shape[1:] != self.noise_shape:
            raise SpecError("The noise has the wrong shape.", found=noise.shape[1:], expected=self.noise_shape)
        if prefix is not None:
            batch["action"] = torch.as_tensor(np.asarray(prefix), dtype=torch.float32)
        return self._in_microbatches(self._sample, batch, noise, (self.spec.chunk, self.spec.action.dim))

    def encode(self, obs: Observations, beside: Batch | None = None) -> Batch:
        """Return histories [n,T,…] as the policy is given them: normalised, on its device.

        `beside` may hold raw chunks "action" [n,K,A] and their "action_is_pad" [n,K], as in training.
        """
        return self._encode(_batch(obs, self.spec) | (beside or {}))[0]

    def _in_microbatches(self, run: Run, batch: Batch, beside: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return `run(rows of batch, rows of beside)` for all rows, float32 [n,*shape]."""
        rows = len(beside)
        wrong = [key for key, value in batch.items() if len(value) != rows]
        if wrong:
            raise SpecError("Inputs have different numbers of rows.", found=wrong, expected=rows)
        tensor = torch.as_tensor(np.asarray(beside), dtype=torch.float32)
        result = np.empty((rows, *shape), np.float32)
        with torch.inference_mode():
            for start in range(0, rows, self.microbatch):
                stop = min(start + self.microbatch, rows)
                index = np.minimum(np.arange(start, start + self.microbatch), stop - 1)
                piece = {key: _rows(value, index) for key, value in batch.items()}
                result[start:stop] = run(piece, tensor[index]).numpy()[: stop - start]
        return result

    def _encode(self, batch: Batch) -> tuple[Batch, tuple[Batch, ...]]:
        encoded, trace = self.pipeline.encode(batch)
        moved = {key: value.to(self.device) if torch.is_tensor(value) else value for key, value in encoded.items()}
        return moved, trace

    def _sample(self, batch: Batch, noise: torch.Tensor) -> torch.Tensor:
        encoded, trace = self._encode(batch)
        prefix = encoded.pop("action", None)
        action = self.policy.sample(encoded, noise.to(self.device), prefix)
        return self.pipeline.decode(action.to("cpu", torch.float32), trace)


class CorrectingActor(PolicyActor):
    """An actor whose policy corrects every action; implements `contracts.Corrector`."""

    def correct(self, obs: Observations, action: np.ndarray) -> np.ndarray:
        """Return float32 actions [n,A] in real units for the chunk's `action` [n,A]."""
        return self._in_microbatches(self._corrected, _batch(obs, self.spec), action, (self.spec.action.dim,))

    def _corrected(self, batch: Batch, action: torch.Tensor) -> torch.Tensor:
        encoded, _ = self._encode(batch)
        return self.policy.correct(encoded, action.to(self.device)).to("cpu", torch.float32)


def make_actor(
    policy: Any, pipeline: Pipeline, spec: Spec, device: str | torch.device = "cpu", microbatch: int = 16
) -> PolicyActor:
    """Return the actor of `policy`; it corrects when the policy has a `correct`."""
    kind = CorrectingActor if hasattr(policy, "correct") else PolicyActor
    return kind(policy, pipeline, spec, device, microbatch)


def load(
    path: str | Path, device: str | torch.device = "cpu", microbatch: int = 16, policy: Mapping[str, Any] | None = None
) -> PolicyActor:
    """Load a checkpoint folder, or the newest valid one of a run folder, to act with.

    `policy` overrides options of the policy that do not change its weights, such as solver steps.
    Raises `CheckpointError` for anything damaged or unknown.
    """
    found = checkpoint.load(path)
    if policy:
        found = found.with_policy(policy)
    return make_actor(found.build(), found.pipeline, found.spec, device, microbatch)


def _batch(obs: Observations, spec: Spec) -> Batch:
    """Return the observations of the spec as tensors, checked; text is its newest string."""
    batch: Batch = {}
    for key, feature in spec.observations.items():
        value = np.asarray(lookup(obs, key))
        batch[key] = _text(value) if feature.kind == "text" else _tensor(key, value, feature, spec.history)
    return batch


def _text(value: np.ndarray) -> list[str]:
    return [str(text) for text in (value[:, -1] if value.ndim == 2 else value)]


def _tensor(key: str, value: np.ndarray, feature: Feature, history: int) -> torch.Tensor:
    if value.shape[1:] != (history, *feature.shape):
        raise SpecError(
            f"'{key}' has the wrong shape.", found=value.shape, expected=f"[n, {history}, {feature.shape}], newest last"
        )
    if not np.issubdtype(value.dtype, np.floating):
        return torch.as_tensor(np.ascontiguousarray(value))
    tensor = torch.as_tensor(np.ascontiguousarray(value, np.float32))
    if not torch.isfinite(tensor).all():
        raise NumericsError(f"'{key}' is not finite.", expected="finite observations", do="check the sensor")
    return tensor


def _rows(value: Any, index: np.ndarray) -> Any:
    return value[index] if torch.is_tensor(value) else [value[i] for i in index]
