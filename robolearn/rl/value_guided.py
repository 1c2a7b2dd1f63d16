"""Value guidance: a value learned offline picks among samples of a frozen policy (V-GPS, arXiv 2410.13816).

The clone is never trained: it deploys as `ranked`, by the score of a `valued` policy. Values are IQL's (arXiv
2110.06169) or Cal-QL's (arXiv 2303.05479) over the executed part of chunks, of demonstrations and of episodes of
the clone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.config import to_dict
from robolearn.contracts import Batch
from robolearn.errors import ConfigError
from robolearn.registry import configure
from robolearn.rl.algorithm import Problem, improved
from robolearn.rl.chunks import window_of
from robolearn.rl.collect import Trajectory
from robolearn.rl.learning import Critics, Trained
from robolearn.rl.values import DataConfig, ExpectileValues, FromData, Rows, chunk_vector
from robolearn.seeding import generator

__all__ = ["ValueGuided", "ValueGuidedConfig", "conservative_gap"]


@dataclass(frozen=True)
class ValueGuidedConfig(DataConfig):
    """`samples` chunks are drawn in every decision, the one of the highest value is executed.

    Cal-QL compares with `proposals` chunks of the clone in every state; `conservatism` weighs that.
    """

    name: Literal["value_guided"] = "value_guided"
    value: Literal["iql", "cal_ql"] = "iql"
    samples: int = 8
    proposals: int = 4
    conservatism: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.samples < 2 or self.proposals < 1 or self.conservatism < 0:
            raise ConfigError("There is nothing to choose from.", found=self, expected="samples >= 2, proposals >= 1")

    def build(self, problem: Problem) -> "ValueGuided":
        """Return the algorithm; raises `ConfigError` for a deterministic clone."""
        return ValueGuided(self, problem)


class ValueGuided(FromData):
    """a = argmax of Q(s, ·) over samples of the clone."""

    config: ValueGuidedConfig

    def __init__(self, config: ValueGuidedConfig, problem: Problem):
        super().__init__(config, problem)
        self.values = ExpectileValues(config, problem)
        valued = {"name": "valued", "base": problem.clone.config["policy"], "critics": to_dict(config.critics)}
        valued |= {"rows": self.values.rows}
        self._plain = {"name": "ranked", "policy": valued, "samples": config.samples, "by": "score"}
        options = configure("policy", self._plain, "policy")
        self.net: Any = improved(options.build(problem.inner), problem.clone, "policy.base.")
        self.net.policy.critics = self.values.critics.online  # what is deployed chooses by what was learned

    def rows(self, trajectory: Trajectory) -> dict[str, np.ndarray]:
        rows = super().rows(trajectory)
        kept = {key: rows[key] for key in ("state", "chunk", "reward", "discount", "next_state", "return")}
        return kept | (self._proposals(trajectory) if self.config.value == "cal_ql" else {})

    def learn(self, batch: Rows) -> dict[str, Tensor]:
        return self.values.update(batch) if self.config.value == "iql" else self._learn_calibrated(batch)

    def update(self, steps: int, round_over: bool) -> Mapping[str, float]:
        metrics = super().update(steps, round_over)
        self.net.policy.ready.fill_(float(self.updates > 0))
        return metrics

    def policy(self) -> tuple[Mapping[str, Any], nn.Module]:
        return self._plain, self.net

    def networks(self) -> tuple[nn.Module, ...]:
        return self.values.networks

    def parts(self) -> tuple[Trained | Critics, ...]:
        return self.values.critics, self.values.value

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        super().restore(tensors, counters)
        self.net.policy.ready.fill_(float(self.updates > 0))

    def _learn_calibrated(self, batch: Rows) -> dict[str, Tensor]:
        critics, rows = self.values.critics, self.values.rows

        def value(network: Any, state: Tensor, chunks: Tensor) -> Tensor:
            count = chunks.shape[1]
            x = chunk_vector(state.repeat_interleave(count, 0), chunks.flatten(0, 1), rows)
            return network.value(x).unflatten(-1, (len(state), count))  # [heads,B,N]

        with torch.no_grad():
            following = value(critics.target, batch["next_state"], batch["next_proposals"]).amin(0).amax(1)
        x = chunk_vector(batch["state"], batch["chunk"], rows)
        proposed = value(critics.online, batch["state"], batch["proposals"])
        gap = conservative_gap(proposed, critics.online.value(x), batch["return"])
        extra = self.config.conservatism * gap.mean(1).sum()
        return critics.update(x, batch["reward"], batch["discount"], following, extra) | {"gap": gap.detach().mean()}

    def _proposals(self, trajectory: Trajectory) -> dict[str, np.ndarray]:
        """Return chunks of the clone [L,N,K,A] in every state, and after the executed part of each."""
        count, length = self.config.proposals, len(trajectory)
        clone = self.problem.actor.policy
        with torch.no_grad():
            obs = self.problem.actor.encode(window_of(trajectory, np.arange(length + 1)))
            wide: Batch = {k: v.repeat_interleave(count, 0) for k, v in obs.items() if torch.is_tensor(v)}
            random = generator(self.problem.seed, "proposals", trajectory.episode, length)
            noise = random.standard_normal(((length + 1) * count, *clone.noise_shape), dtype=np.float32)
            chunks = clone.sample(wide, torch.from_numpy(noise)).unflatten(0, (length + 1, count)).numpy()
        ahead = np.minimum(np.arange(length) + self.problem.eval.execute, length)
        return {"proposals": chunks[:-1], "next_proposals": chunks[ahead]}


def conservative_gap(proposed: Tensor, taken: Tensor, returns: Tensor) -> Tensor:
    """Return how far proposals [E,B,N] are valued above what was done [E,B], never pushing below what it earned [B].

    log-mean-exp of max(Q(s, a'), return) minus Q(s, a) (Cal-QL, arXiv 2303.05479, eq. 5.1).
    """
    bounded = torch.maximum(proposed, returns[:, None])
    return bounded.logsumexp(-1) - math.log(proposed.shape[-1]) - taken
