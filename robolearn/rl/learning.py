"""A module in training with its optimizer, and the critics of temporal-difference learning."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.checkpoint import check_weights
from robolearn.errors import NumericsError
from robolearn.rl.critics import CriticConfig

__all__ = ["Critics", "Trained"]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Trained:
    """A module, AdamW over what of it is trainable, a slow copy if `tau` > 0, and its exact state under one name.

    Weights lie in one vector, of which the module's parameters are views: on a CPU a step over each small
    tensor costs more than its arithmetic.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        rate: float,
        weight_decay: float = 0.0,
        clip_norm: float = 10.0,
        tau: float = 0.0,
    ):
        self.name, self.module, self._clip, self._tau = name, module, clip_norm, tau
        self.slow = copy.deepcopy(module).requires_grad_(False) if tau else module
        trained = {key: value for key, value in module.named_parameters() if value.requires_grad}
        self._parameters = list(trained.values())
        self._slow = _joined([self.slow.get_parameter(key) for key in trained]) if tau else None
        self._weights = nn.Parameter(_joined(self._parameters))
        self._optimizer: Any = torch.optim.AdamW([self._weights], lr=rate, weight_decay=weight_decay, fused=True)

    def step(self, loss: Tensor) -> None:
        """Descend `loss`; raises `NumericsError` when it or its gradient is not finite."""
        gradients = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        gradient = torch.cat([part.flatten() for part in gradients])
        norm = torch.linalg.vector_norm(gradient).item()
        if not math.isfinite(norm):
            raise NumericsError(
                f"Learning '{self.name}' is not finite.",
                found=f"loss {loss.item():.4g}, gradient norm {norm:.4g}",
                do="lower its learning rate",
            )
        self._weights.grad = gradient.mul_(min(1.0, self._clip / (norm + 1e-6)))
        self._optimizer.step()
        if self._slow is not None:
            self._slow.lerp_(self._weights.detach(), self._tau)

    def state(self) -> dict[str, Tensor]:
        """Return weights, their slow copy and moments."""
        found = {f"{self.name}/weights/{key}": value.detach() for key, value in self.module.state_dict().items()}
        if self._tau:
            found |= {f"{self.name}/slow/{key}": value for key, value in self.slow.state_dict().items()}
        moments = self._optimizer.state.get(self._weights, {})
        return found | {f"{self.name}/{kind}": entry for kind, entry in moments.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Bring back what `state` held."""
        self._load(state, "weights", self.module)
        if self._tau:
            self._load(state, "slow", self.slow)
        if f"{self.name}/step" in state:
            moments = {kind: state[f"{self.name}/{kind}"].clone() for kind in _MOMENTS}
            self._optimizer.state[self._weights] = moments

    def _load(self, state: Mapping[str, Tensor], kind: str, module: nn.Module) -> None:
        own, prefix = module.state_dict(), f"{self.name}/{kind}/"
        weights = {key: state[f"{prefix}{key}"] for key in own if f"{prefix}{key}" in state}
        check_weights(own, weights)
        module.load_state_dict(weights)


class Critics:
    """An ensemble of Q heads with a slow copy for its targets.

    `bounds` are what returns can be; targets are kept within them.
    """

    def __init__(
        self,
        config: CriticConfig,
        inputs: int,
        rate: float,
        tau: float,
        bounds: tuple[float, float] | None = None,
    ):
        self.config, self._bounds = config, bounds
        self.online = config.build(inputs)
        self._trained = Trained("critics", self.online, rate, tau=tau)
        self.target: Any = self._trained.slow

    def update(
        self, x: Tensor, reward: Tensor, discount: Tensor, following: Tensor, extra: Tensor | float = 0.0
    ) -> dict[str, Tensor]:
        """Regress Q(x) [B] on reward + discount · `following`, all [B]; returns detached metrics.

        `extra` is what else the heads descend, a scalar.
        """
        target = reward + discount * following
        if self._bounds is not None:
            target = target.clamp(*self._bounds)
        loss, value = self.online.loss(x, target)
        self._trained.step(loss + extra)
        return {"critic_loss": loss.detach(), "value": value}

    def draw(self) -> Tensor:
        """Return the numbers of a random subset of the heads."""
        return torch.randperm(self.config.heads)[: self.config.subset]

    def least(self, x: Tensor) -> Tensor:
        """Return the least value [B] of a random subset of the target heads."""
        return self.target.value(x, self.draw()).amin(0)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean value [B] of a random subset of the online heads, for the actor's gradient."""
        return self.online.value(x, self.draw()).mean(0)

    def state(self) -> dict[str, Tensor]:
        """Return everything `restore` needs."""
        return self._trained.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Bring back what `state` held."""
        self._trained.restore(state)


def _joined(parameters: Sequence[Tensor]) -> Tensor:
    """Move parameters into one vector and return it; what they are does not change."""
    whole = torch.cat([value.detach().flatten() for value in parameters])
    for value, part in zip(parameters, whole.split([value.numel() for value in parameters]), strict=True):
        value.data = part.view_as(value)
    return whole
