"""L1 regression of a chunk: the deterministic baseline (the loss of ACT, arXiv 2304.13705, without its CVAE)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robolearn.contracts import Batch
from robolearn.policies.common import ChunkConfig, ChunkPolicy, check_prefix, chunk_mean, pin_prefix
from robolearn.spec import Spec

__all__ = ["RegressionConfig", "RegressionPolicy"]


@dataclass(frozen=True)
class RegressionConfig(ChunkConfig):
    """Options of the regression baseline."""

    name: Literal["regression"] = "regression"

    def build(self, spec: Spec) -> "RegressionPolicy":
        """Return the policy for `spec`."""
        return RegressionPolicy(self, spec)


class RegressionPolicy(ChunkPolicy):
    """One evaluation of the network at a chunk of zeros."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """No noise is needed."""
        return (0,)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the absolute error [B]."""
        action = batch["action"]
        loss = chunk_mean((self._predict(batch, len(action)) - action).abs(), batch)
        return loss, {"action_l1": loss.detach().mean()}

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return chunks [B,K,A]; `noise` [B,0] only says how many."""
        check_prefix(self.spec, prefix)
        return pin_prefix(self._predict(obs, len(noise)), prefix)

    def _predict(self, batch: Batch, count: int) -> Tensor:
        condition = self.encoder(batch)
        device = condition[0].device
        zeros = torch.zeros(count, self.spec.chunk, self.spec.action.dim, device=device)
        return self.network(zeros, zeros.new_zeros(count), condition).float()
