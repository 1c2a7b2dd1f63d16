"""What actors and critics of reinforcement learning see, and the small networks they are."""

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch, Policy
from robolearn.errors import SpecError
from robolearn.spec import Spec

__all__ = ["Standardised", "familiar", "mlp", "standardise", "state_of", "state_size"]

_FAR = 5.0  # deviations


def state_of(policy: Policy, obs: Batch) -> Tensor:
    """Return what is learned from [B,D]: the newest normalised signals of histories [B,T,…], in the order of the spec.

    Of a frozen `policy` that looks at more (pictures, words, points) also the chunk that it would begin now, without
    noise: what it makes of them, in few numbers, whatever it is built of.
    """
    signals = _signals(policy.spec)
    parts = [obs[key][:, -1].flatten(1) for key in signals]
    if _looks(policy.spec):
        noise = parts[0].new_zeros(len(parts[0]), *policy.noise_shape)
        parts.append(policy.sample(obs, noise).detach().flatten(1))
    return torch.cat(parts, 1)


def state_size(policy: Policy) -> int:
    """Return D of `state_of`; raises `SpecError` without signals."""
    spec, signals = policy.spec, _signals(policy.spec)
    if not signals:
        raise SpecError("There is no signal to learn values from.", found=", ".join(spec.observations) or "nothing")
    size = sum(spec.observations[key].size for key in signals)
    return size + (spec.chunk * spec.action.dim if _looks(spec) else 0)


def familiar(state: Tensor, most: float = 3.0) -> Tensor:
    """Return which normalised states [B,D] are at most `most` times as far from the demonstrations as the median, [B].

    What two demonstrations hardly vary, how a cube is tilted, is a thousand deviations away once it does. One such row
    moves the weights of a cloned network more than all others: it teaches them nothing.
    """
    distance = state.abs().amax(1)
    return distance <= most * distance.median()


class Standardised(nn.Module):
    """Inputs [B,I] in deviations of what was visited, cut at ±5; before `fit`, as they come.

    A few demonstrations vary in little: by their statistics most states that learning visits are far away, and
    look the same.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, inputs: int):
        super().__init__()
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))

    def fit(self, visited: Tensor) -> None:
        """Take the statistics of states [n,D] for the first D inputs; what never changed keeps its scale."""
        spread = visited.std(0)
        self.centre[: len(spread)] = visited.mean(0)
        self.spread[: len(spread)] = torch.where(spread > 1e-6, spread, torch.ones_like(spread))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.centre) / self.spread).clamp(-_FAR, _FAR)


def standardise(visited: Tensor, *modules: nn.Module) -> None:
    """Fit the inputs of all networks in `modules` to visited states [n,D]."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, Standardised):
                part.fit(visited)


def mlp(inputs: int, width: int, depth: int, outputs: int) -> nn.Sequential:
    """Return `depth` hidden layers with layer norm on standardised inputs; the last layer begins at zero."""
    layers: list[nn.Module] = [Standardised(inputs)]
    for size in [inputs, *[width] * (depth - 1)]:
        layers += [nn.Linear(size, width), nn.LayerNorm(width), nn.ReLU()]
    last = nn.Linear(width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _signals(spec: Spec) -> list[str]:
    return [key for key, feature in spec.observations.items() if feature.kind == "signal"]


def _looks(spec: Spec) -> bool:
    return any(feature.kind != "signal" for feature in spec.observations.values())
