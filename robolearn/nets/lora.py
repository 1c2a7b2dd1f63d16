"""Low-rank adapters (arXiv 2106.09685): y = Wx + (α/r)·B(Ax) beside frozen linear layers."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError

__all__ = ["LoRALinear", "add_lora", "is_adapter"]


class LoRALinear(nn.Linear):
    """A linear layer with the name and shape of the one it replaces, and a low-rank path beside it."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__(
            base.in_features, base.out_features, base.bias is not None, base.weight.device, base.weight.dtype
        )
        self.weight, self.bias = base.weight, base.bias
        device = base.weight.device
        self.lora_down = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.lora_up = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gives it
        """Map [*,in] to [*,out]."""
        return super().forward(input) + self.scale * F.linear(F.linear(input, self.lora_down), self.lora_up)


def add_lora(module: nn.Module, names: Sequence[str], rank: int, alpha: float) -> int:
    """Freeze `module` and put adapters beside its linear layers whose last name is one of `names`.

    Returns how many; raises `ConfigError` when there are none.
    """
    module.requires_grad_(False)
    found = list(_linear(module, names))
    for parent, name, layer in found:
        setattr(parent, name, LoRALinear(layer, rank, alpha))
    if not found:
        ends = {name.rpartition(".")[2] for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
        raise ConfigError("No layer takes an adapter.", found=list(names), expected=", ".join(sorted(ends)))
    return len(found)


def is_adapter(name: str) -> bool:
    """Return whether a weight of this name belongs to an adapter, not to what it adapts."""
    return name.rpartition(".")[2] in ("lora_down", "lora_up")


def _linear(module: nn.Module, names: Sequence[str]) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in module.modules():
        for name, layer in parent.named_children():
            if name in names and isinstance(layer, nn.Linear):
                yield parent, name, layer
