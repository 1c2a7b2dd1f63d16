"""Consistency distillation of a trained flow, diffusion or score policy to one or two steps.

The student jumps along the teacher's probability-flow ODE from any time t to any later r, as in
Consistency Trajectory Models (arXiv 2310.02279, eq. 9 to 12) and Consistency Policy (arXiv 2405.07503): a
jump from t to r must land where a short teacher step followed by a jump of the student lands.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from robolearn import checkpoint
from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.policies.common import ChunkConfig, ChunkPolicy, check_prefix, chunk_mean, prefix_path
from robolearn.policies.goals import Condition
from robolearn.policies.samplers import Velocity, jump
from robolearn.spec import Spec

__all__ = ["ConsistencyConfig", "ConsistencyPolicy", "Teacher"]

_SLOW = 0.1  # of the time features, so that neighbouring times agree


class Teacher(Protocol):
    """A policy that samples along an ODE from noise at t=0 to actions at t=1."""

    spec: Spec

    def flow_field(self, obs: Batch, count: int) -> Velocity:
        """Return the velocity (x [B,K,A], time [B]) → dx/dt given `count` observations."""


@dataclass(frozen=True)
class ConsistencyConfig(ChunkConfig):
    """`teacher` is the checkpoint to distil, trained on the same data; `grid` times divide its path."""

    name: Literal["consistency"] = "consistency"
    teacher: str = ""
    steps: int = 1
    grid: int = 20

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1 or self.grid < 2:
            raise ConfigError(
                "Consistency options are out of range.",
                found=f"steps {self.steps}, grid {self.grid}",
                expected="steps >= 1 and grid >= 2",
            )

    def build(self, spec: Spec) -> "ConsistencyPolicy":
        """Return the student for `spec`; the teacher is loaded by the first `loss`."""
        return ConsistencyPolicy(self, spec)


class ConsistencyPolicy(ChunkPolicy):
    """Average-velocity network between two times, trained by a teacher."""

    def __init__(self, config: ConsistencyConfig, spec: Spec):
        super().__init__(config, spec, times=2)
        self.config = config
        self._teacher: tuple[Teacher, ...] = ()  # in a tuple, so that its weights are not the student's

    def teach(self, teacher: Teacher) -> None:
        """Distil `teacher`; raises `ConfigError` unless it has a path to follow and the same chunk."""
        if not hasattr(teacher, "flow_field"):
            raise ConfigError(
                "This teacher has no probability-flow ODE.",
                found=type(teacher).__name__,
                expected="a flow, diffusion or beso policy",
            )
        sizes = [(s.history, s.chunk, s.action.dim, tuple(s.observations)) for s in (teacher.spec, self.spec)]
        if sizes[0] != sizes[1]:
            raise ConfigError("Teacher and student differ.", found=sizes[1], expected=f"as the teacher: {sizes[0]}")
        self._teacher = (teacher,)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the squared disagreement of one jump and of a teacher step with the rest of the jump [B]."""
        if not self._teacher:
            self.teach(_load(self.config, batch["action"].device))
        action, grid = batch["action"], self.config.grid
        count, device = len(action), action.device
        first = torch.randint(grid, (count,), device=device)
        last = first + 1 + (torch.rand(count, device=device) * (grid - first)).long()
        start, middle, stop = first / grid, (first + 1) / grid, last / grid
        x = torch.lerp(torch.randn_like(action), action, start[:, None, None])
        condition = self.encoder(batch)
        with torch.no_grad():
            x_middle = _heun(self._teacher[0].flow_field(batch, count), x, start, middle)
            rest = self._average(x_middle, middle, stop, condition)
            target = (x_middle - x + (stop - middle)[:, None, None] * rest) / (stop - start)[:, None, None]
        average = self._average(x, start, stop, condition)
        loss = chunk_mean((average - target).square(), batch)
        return loss, {"consistency_mse": loss.detach().mean()}

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return chunks [B,K,A] from `noise` [B,K,A] in equal jumps."""
        check_prefix(self.spec, prefix)
        average = partial(self._average, condition=self.encoder(obs))
        return jump(average, noise, self.config.steps, prefix_path(noise, prefix))

    def _average(self, x: Tensor, start: Tensor, stop: Tensor, condition: Condition) -> Tensor:
        return self.network(x, _SLOW * torch.stack([start, stop - start], 1), condition).float()


def _heun(velocity: Velocity, x: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    size = (stop - start)[:, None, None]
    slope = velocity(x, start)
    return x + size * (slope + velocity(x + size * slope, stop)) / 2


def _load(config: ConsistencyConfig, device: torch.device) -> Any:
    if not config.teacher or not Path(config.teacher).exists():
        raise ConfigError(
            "Distillation needs a teacher.",
            found=repr(config.teacher),
            expected="the folder of a trained checkpoint",
            do="set policy.teacher=FOLDER",
        )
    found = checkpoint.load(config.teacher)
    theirs = found.policy_config()
    for name in ("observation_norm", "action_norm", "embed_images", "spline"):
        wanted, given = getattr(theirs, name, None), getattr(config, name)
        if wanted != given:
            raise ConfigError(
                "Teacher and student must be given the same numbers.",
                found=f"policy.{name} {given}",
                expected=f"as the teacher's: {wanted}",
            )
    return found.build().to(device).requires_grad_(False)
