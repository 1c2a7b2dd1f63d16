"""What policies around a frozen one share; all of them are learned by `robolearn rl`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from robolearn.config import parse
from robolearn.contracts import Batch, Transform
from robolearn.errors import ConfigError
from robolearn.registry import resolve
from robolearn.spec import Spec

__all__ = ["AroundConfig", "AroundPolicy"]


@dataclass(frozen=True)
class AroundConfig:
    """`base` holds the options of the frozen policy; what is learned has `depth` layers of `width`."""

    base: dict[str, Any] = field(default_factory=lambda: {"name": "flow"})
    width: int = 128
    depth: int = 2

    def __post_init__(self):
        if "name" not in self.base or self.width < 1 or self.depth < 1:
            raise ConfigError("There is nothing to build around.", found=self, expected="a base and positive sizes")
        self.inner()  # refuse bad options now

    @property
    def history(self) -> int:
        """History of the frozen policy."""
        return self.inner().history

    @property
    def chunk(self) -> int:
        """Chunk of the frozen policy."""
        return self.inner().chunk

    def transforms(self, spec: Spec) -> Sequence[Transform]:
        """Return the transforms of the frozen policy."""
        return self.inner().transforms(spec)

    def inner(self) -> Any:
        """Return the config of the frozen policy."""
        return parse(resolve("policy", self.base["name"]), self.base, where="policy.base")


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
