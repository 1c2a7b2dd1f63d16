"""What an algorithm is given, and what it offers to the one loop."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.actor import PolicyActor
from robolearn.checkpoint import Checkpoint
from robolearn.contracts import Batch, Observations
from robolearn.errors import EnvError
from robolearn.evaluation import EvalConfig
from robolearn.rl.collect import Explorer, Trajectory
from robolearn.rl.networks import state_of, state_size
from robolearn.rollout import PolicyController
from robolearn.spec import Spec

__all__ = ["AlgorithmConfig", "Algorithm", "Problem", "improved"]


@dataclass(frozen=True)
class Problem:
    """A cloned policy to improve in an environment."""

    clone: Checkpoint
    actor: PolicyActor  # the clone, ready to act; never trained
    spec: Spec  # of the environment
    eval: EvalConfig  # how chunks are executed: the same in collection and evaluation
    steps: int  # environment steps to spend
    seed: int
    sparse: bool  # rewards are 0, and 1 with success: returns lie in [0, 1]
    group: int = 1  # episodes in a row that start alike
    demonstrated: bool = False  # demonstrations come before the first step

    @property
    def inner(self) -> Spec:
        """The spec after the clone's transforms."""
        return self.actor.policy.spec

    @property
    def state_size(self) -> int:
        """D of `encode`."""
        return state_size(self.actor.policy)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest action [A] in real units; raises `EnvError` where the environment states none."""
        low, high = self.spec.action.low, self.spec.action.high
        if low is None or high is None:
            raise EnvError("Corrections need action bounds.", found="none in the action spec", do="state low and high")
        return torch.tensor(low), torch.tensor(high)

    @property
    def returns(self) -> tuple[float, float] | None:
        """What a return can be, where that is known."""
        return (0.0, 1.0) if self.sparse else None

    def controller(self, rows: int, seed: int) -> PolicyController:
        """Return a controller of the clone."""
        return PolicyController(self.actor, rows, self.eval, seed)

    def encode(self, window: Observations) -> np.ndarray:
        """Return the state [n,D] (`networks.state_of`) that ends histories [n,T,…]."""
        with torch.inference_mode():
            return state_of(self.actor.policy, self.actor.encode(window)).cpu().numpy()

    def batch(self, window: Observations, chunk: np.ndarray, pad: np.ndarray) -> Batch:
        """Return histories [n,T,…] and raw chunks [n,K,A], of which `pad` [n,K] is padding, as in training."""
        actions = {"action": torch.as_tensor(chunk, dtype=torch.float32), "action_is_pad": torch.as_tensor(pad)}
        with torch.no_grad():
            return self.actor.encode(window, actions)


class Algorithm(Protocol):
    """One way to improve a clone. Everything random is drawn from a seed and a number, so that runs resume."""

    def explorer(self, rows: int, seed: int) -> Explorer:
        """Return who collects; asked for at the start of every round."""

    def demonstrate(self, trajectory: Trajectory) -> None:
        """Take a recorded episode, before the first step."""

    def observe(self, trajectory: Trajectory) -> None:
        """Take an episode that just ended."""

    def update(self, steps: int, round_over: bool) -> Mapping[str, float]:
        """Learn what is due after `steps` environment steps; called after every step of all rows.

        Returns the means over the updates done, or nothing. On-policy algorithms wait for `round_over`.
        """

    def policy(self) -> tuple[Mapping[str, Any], nn.Module]:
        """Return the present policy: plain options of its registered config, and the module."""

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return tensors and JSON counters, everything but the clone; asked for between rounds."""

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""


class AlgorithmConfig(Protocol):
    """Frozen options of one algorithm, registered in the group `algo`."""

    name: str

    def build(self, problem: Problem) -> Algorithm:
        """Return the algorithm for `problem`; raises where the clone lacks what it needs."""


def improved(policy: nn.Module, clone: Checkpoint, prefix: str = "base.") -> nn.Module:
    """Load the clone's weights into the part of `policy` named by `prefix`, and freeze them."""
    weights = {f"{prefix}{key}": value for key, value in clone.weights.items()}
    policy.load_state_dict({**policy.state_dict(), **weights})
    for name, value in policy.named_parameters():
        if name.startswith(prefix):
            value.requires_grad_(False)
    return policy
