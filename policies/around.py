"""What policies around a frozen one share; all of them are learned by `robolearn rl`."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.common import WrapperConfig
from robolearn.registry import configure

__all__ = ["AroundConfig", "AroundPolicy"]


@dataclass(frozen=True)
class AroundConfig(WrapperConfig):
    """`base` holds the options of the frozen policy; what is learned has `depth` layers of `width`."""

    base: dict[str, Any] = field(default_factory=lambda: {"name": "flow"})
    width: int = 128
    depth: int = 2

    def __post_init__(self):
        self.inner()
        if self.width < 1 or self.depth < 1:
            found = f"width {self.width}, depth {self.depth}"
            raise ConfigError("A network of this size cannot be built.", found=found, expected="1 or more of each")

    def inner(self) -> Any:
        """Return the config of the frozen policy."""
        return configure("policy", self.base, "policy.base")


class AroundPolicy(nn.Module):
    """Samples the frozen policy; subclasses choose among its samples, where they start, or correct them."""

    def __init__(self, base: Any):
        super().__init__()
        self.base, self.spec = base, base.spec

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The frozen policy's noise."""
        return self.base.noise_shape

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Raise `ConfigError`: it learns by `robolearn rl`."""
        raise ConfigError(f"{type(self).__name__} is not cloned.", do="clone its base, then robolearn rl ckpt=RUN")

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return the frozen policy's chunks [B,K,A]."""
        return self.base.sample(obs, noise, prefix)
