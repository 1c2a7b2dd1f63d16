"""Several processes, started by `torchrun` or `accelerate launch`: DDP, or FSDP2 shards.

A step is cut into numbered slices, whose randomness depends on (seed, step, slice); processes share
the slices out, so two processes with one slice each compute what one process with two does.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError

__all__ = ["SINGLE", "Processes", "full", "join", "like", "local"]


@dataclass(frozen=True)
class Processes:
    """This process among `count`."""

    rank: int = 0
    count: int = 1
    shard: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def slices(self, total: int) -> range:
        """Return the numbers of the slices that this process runs; raises unless all run as many."""
        if total % self.count:
            raise ConfigError(
                "The slices of a step do not go round.",
                found=f"train.accumulate={total} for {self.count} processes",
                do=f"set train.accumulate to a multiple of {self.count}",
            )
        return range(self.rank, total, self.count)

    def wrap(self, policy: Any, device: torch.device) -> nn.Module:
        """Return a module whose forward is the policy's loss, with gradients averaged over the processes."""
        if self.count == 1:
            return _Loss(policy)
        if self.shard:
            from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

            mesh = dist.init_device_mesh(device.type, (self.count,))
            for block in getattr(policy, "blocks", list)():
                fully_shard(block, mesh=mesh)
            fully_shard(policy, mesh=mesh)
            register_fsdp_forward_method(policy, "loss")
            register_fsdp_forward_method(policy, "sample")
            return _Loss(policy)
        devices = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(_Loss(policy), device_ids=devices)

    def forget_gathered(self, policy: nn.Module) -> None:
        """Drop whole copies of shards that a forward without backward left, before their shards change."""
        for module in policy.modules() if self.shard else ():
            reshard = getattr(module, "reshard", None)
            if reshard is not None:
                reshard()

    def unsynchronised(self, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Return a context in which gradients stay local unless this is the `last` slice of the step."""
        if last or not isinstance(module, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return module.no_sync()

    def whole_norm(self, norm: Tensor) -> Tensor:
        """Return the norm of all shards from that of this process's."""
        if self.count == 1 or not self.shard:
            return norm
        square = norm.square()
        dist.all_reduce(square)
        return square.sqrt()

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the means of `values` over the processes."""
        if self.count == 1 or not values:
            return dict(values)
        sums = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(sums)
        return dict(zip(values, (sums / self.count).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Return whether any process raises its flag."""
        if self.count == 1:
            return flag
        raised = torch.tensor([float(flag)])
        dist.all_reduce(raised)
        return bool(raised)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        """End the group."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()


SINGLE = Processes()


def join(device: torch.device, shard: bool = False) -> tuple[Processes, torch.device]:
    """Join the group that the launcher's environment describes; alone without one."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return SINGLE, device
    rank = int(os.environ["RANK"])
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=count)
    return Processes(rank, count, shard), device


def full(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return whole tensors of shards; every process must ask."""
    return {name: value.full_tensor() if _is_shard(value) else value for name, value in tensors.items()}


def like(shard: Any, whole: Tensor) -> Tensor:
    """Return `whole` cut as `shard` is."""
    if not _is_shard(shard):
        return whole.to(shard.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole.to(shard.device), shard.device_mesh, shard.placements)


def local(tensors: Iterable[Any]) -> list[Tensor]:
    """Return what this process holds of each tensor, without gradient."""
    return [(item.to_local() if _is_shard(item) else item).detach() for item in tensors]


def _is_shard(tensor: Any) -> bool:
    return hasattr(tensor, "to_local")  # a DTensor, whose module takes long to import


class _Loss(nn.Module):
    """A policy whose forward is its loss, as data-parallel wrappers expect."""

    def __init__(self, policy: Any):
        super().__init__()
        self.policy = policy

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.policy.loss(batch)
