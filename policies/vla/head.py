"""What an action head is: it may extend the backbone's tokens, then reads the backbone's memory."""

from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.nets.backbones import Memory, Tokens
from robolearn.spec import Spec

__all__ = ["Head"]


class Head(nn.Module):
    """Base of the heads. `spec` is the policy's, with the chunk that the head predicts."""

    spec: Spec
    reads_states = True  # False: only keys and values, so what follows them in the last layer is not trained

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one decision; none unless a head says otherwise."""
        return (0,)

    def extend(self, tokens: Tokens, batch: Batch) -> Tokens:
        """Return the prefix followed by what the head wants to read states of."""
        return tokens

    def loss(self, memory: Memory, state: Tensor | None, batch: Batch) -> Tensor:
        """Return the per-sample loss [B]; `state` [B,T,S] is given to heads that take it."""
        raise NotImplementedError

    def sample(self, memory: Memory, state: Tensor | None, noise: Tensor, prefix: Tensor | None) -> Tensor:
        """Return chunks [B,K,A] from `noise` [B,*noise_shape] and committed actions `prefix` [B,P,A]."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks, for sharding."""
        return []
