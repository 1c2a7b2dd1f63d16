"""A module in training with its optimizer, and the critics of temporal-difference learning."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.checkpoint import check_weights
from robolearn.errors import NumericsError
from robolearn.rl.critics import CriticConfig

__all__ = ["Critics", "Trained"]

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Trained:
    """A module, AdamW over what of it is trainable, and its exact state under one name."""

    def __init__(self, name: str, module: nn.Module, rate: float, weight_decay: float = 0.0, clip_norm: float = 10.0):
        self.name, self.module, self._clip = name, module, clip_norm
        self._parameters = {key: value for key, value in module.named_parameters() if value.requires_grad}
        self._optimizer: Any = torch.optim.AdamW(
            self._parameters.values(), lr=rate, weight_decay=weight_decay, fused=True
        )

    def step(self, loss: Tensor) -> None:
        """Descend `loss`; raises `NumericsError` when it or its gradient is not finite."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), self._clip)
        if not torch.isfinite(norm):
            raise NumericsError(
                f"Learning '{self.name}' is not finite.",
                found=f"loss {loss.item():.4g}, gradient norm {norm.item():.4g}",
                do="lower its learning rate",
            )
        self._optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Return weights and moments."""
        found = {f"{self.name}/weights/{key}": value.detach() for key, value in self.module.state_dict().items()}
        for key, value in self._parameters.items():
            for kind, entry in self._optimizer.state.get(value, {}).items():
                found[f"{self.name}/{kind}/{key}"] = entry
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Bring back what `state` held."""
        own = self.module.state_dict()
        weights = {key: state[f"{self.name}/weights/{key}"] for key in own if f"{self.name}/weights/{key}" in state}
        check_weights(own, weights)
        self.module.load_state_dict(weights)
        for key, value in self._parameters.items():
            if f"{self.name}/step/{key}" in state:
                moments = {kind: state[f"{self.name}/{kind}/{key}"].clone() for kind in ("step", *_MOMENTS)}
                self._optimizer.state[value] = moments


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
        self.config, self._tau, self._bounds = config, tau, bounds
        self.online = config.build(inputs)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self._trained = Trained("critics", self.online, rate)

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
        own = [p.detach() for p in self.online.parameters()]
        torch._foreach_lerp_(list(self.target.parameters()), own, self._tau)
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
        slow = {f"critics/target/{key}": value for key, value in self.target.state_dict().items()}
        return {**self._trained.state(), **slow}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Bring back what `state` held."""
        self._trained.restore(state)
        prefix = "critics/target/"
        slow = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        check_weights(self.target.state_dict(), slow)
        self.target.load_state_dict(slow)
