"""Classifier-free guidance over goals: any observation can be a goal that training sometimes hides.

One network learns with and without its goals (arXiv 2207.12598); sampling mixes both predictions. For
policies this is BESO's goal-conditioned and goal-free mode (arXiv 2304.02532, section IV-C).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError, SpecError, suggest
from robolearn.spec import Spec

__all__ = ["Condition", "GoalConfig", "Goals"]

Condition = tuple[Tensor, ...]


@dataclass(frozen=True)
class GoalConfig:
    """`keys` are hidden in a part `drop` of the samples; `guidance` is 0 without goals, 1 with them, more for more."""

    keys: tuple[str, ...] = ()
    drop: float = 0.1
    guidance: float = 1.0

    def __post_init__(self):
        if not 0 <= self.drop <= 1 or (self.keys and self.guidance != 1 and not self.drop):
            raise ConfigError(
                "Guidance needs a network that was trained without goals, too.",
                found=f"drop {self.drop}, guidance {self.guidance}",
                expected="0 < drop <= 1",
            )
        if not self.keys and self.guidance != 1:
            raise ConfigError(
                "Guidance needs goals.",
                found=f"guidance {self.guidance} and no goal keys",
                expected="the observations that are goals in goals.keys",
            )


class Goals(nn.Module):
    """Learned stand-ins for hidden goals, and the guided mixture of two predictions."""

    def __init__(self, config: GoalConfig, spec: Spec):
        super().__init__()
        self.config = config
        for key in config.keys:
            if key not in spec.observations:
                raise SpecError(f"There is no goal '{key}'.", expected=suggest(key, spec.observations))
        self._times = [() if spec.observations[key].kind == "text" else (spec.history,) for key in config.keys]
        self.hidden = nn.ParameterList(nn.Parameter(torch.zeros(spec.observations[key].shape)) for key in config.keys)

    def hide(self, batch: Batch, rows: Tensor) -> Batch:
        """Return `batch` with the goals of `rows` (bool [B]) replaced by their stand-ins."""
        changed = {}
        for key, hidden in zip(self.config.keys, self.hidden, strict=True):
            goal = self._goal(batch, key)
            mask = rows.view(-1, *[1] * (goal.ndim - 1))
            changed[key] = torch.where(mask, hidden.to(goal.dtype), goal)
        return batch | changed

    def augment(self, batch: Batch, count: int, device: torch.device) -> Batch:
        """Hide the goals of a random part `drop` of the batch, for training."""
        if not self.config.keys:
            return batch
        return self.hide(batch, torch.rand(count, device=device) < self.config.drop)

    def conditions(
        self, batch: Batch, encode: Callable[[Batch], Condition], count: int
    ) -> list[tuple[float, Condition]]:
        """Return (weight, condition) pairs whose weighted sum of predictions is the guided one (eq. 6)."""
        guidance = self.config.guidance
        if guidance == 1 or not self.config.keys:
            return [(1.0, encode(batch))]
        filled = dict(batch)
        if guidance == 0:  # goals are not needed then
            for key, hidden, times in zip(self.config.keys, self.hidden, self._times, strict=True):
                filled.setdefault(key, hidden.expand(count, *times, *hidden.shape))
        device = self.hidden[0].device
        without = encode(self.hide(filled, torch.ones(count, dtype=torch.bool, device=device)))
        return [(1.0, without)] if guidance == 0 else [(guidance, encode(batch)), (1 - guidance, without)]

    def _goal(self, batch: Batch, key: str) -> Tensor:
        if key not in batch:
            raise SpecError(
                f"The policy needs its goal '{key}'.",
                found=f"a batch of {', '.join(batch)}",
                expected="every goal, or goals.guidance=0 for the mode without goals",
            )
        return batch[key]
