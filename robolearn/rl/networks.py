"""What actors and critics of reinforcement learning see, and the small networks they are."""

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import SpecError
from robolearn.spec import Spec

__all__ = ["flat_state", "mlp", "state_size"]

_FAR = 5.0  # deviations: learning visits states that no demonstration did


def flat_state(batch: Batch, spec: Spec) -> Tensor:
    """Return the newest normalised signals [B,D] of histories [B,T,…], in the order of the spec, clipped to ±5."""
    parts = [batch[key][:, -1].flatten(1) for key in _signals(spec)]
    return torch.cat(parts, 1).clamp(-_FAR, _FAR)


def state_size(spec: Spec) -> int:
    """Return D of `flat_state` for a spec after the transforms; raises `SpecError` without signals."""
    signals = _signals(spec)
    if not signals:
        raise SpecError("There is no signal to learn values from.", found=", ".join(spec.observations) or "nothing")
    return sum(torch.Size(spec.observations[key].shape).numel() for key in signals)


def mlp(inputs: int, width: int, depth: int, outputs: int) -> nn.Sequential:
    """Return `depth` hidden layers with layer norm; the last layer begins near zero."""
    layers: list[nn.Module] = []
    for size in [inputs, *[width] * (depth - 1)]:
        layers += [nn.Linear(size, width), nn.LayerNorm(width), nn.ReLU()]
    last = nn.Linear(width, outputs)
    nn.init.uniform_(last.weight, -1e-3, 1e-3)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _signals(spec: Spec) -> list[str]:
    return [key for key, feature in spec.observations.items() if feature.kind == "signal"]
