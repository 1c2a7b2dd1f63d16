"""Rewards learned from demonstrations: what success looks like, and how far along a state is.

Both are small networks over the normalised state (`networks.state_of`), fitted before the first step and, to
the same weights, when a run resumes. Whether an episode succeeded is still the environment's word.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from robolearn.contracts import EpisodeSource, Observations
from robolearn.learner import reseed
from robolearn.rl.algorithm import Problem
from robolearn.rl.collect import Trajectory
from robolearn.rl.networks import mlp
from robolearn.rollout import StepRecord
from robolearn.seeding import derive_seed

__all__ = ["LEARNED", "LearnedReward", "progress_targets", "success_targets"]

LEARNED = ("classifier", "progress")

_UPDATES, _BATCH, _RATE, _WIDTH = 400, 128, 1e-3, 64
_NOISE = 0.05  # deviations: demonstrations are few, and states beside theirs mean the same


class LearnedReward:
    """A reward of a step of all rows [E] (`collect.Reward`).

    "classifier": 1 in steps that end in what demonstrations ended in (success classifiers: arXiv 1904.07854).
    "progress": 1 with success, and what the step adds to the share of a demonstration that is behind, as a
    potential (Ng, Harada and Russell 1999, discount 1).
    """

    def __init__(self, name: str, problem: Problem, source: EpisodeSource, episodes: Iterable[int]):
        self._name, self._problem, self._source = name, problem, source
        targets = {"classifier": success_targets, "progress": progress_targets}[name]
        states = [problem.encode(self._window(self._frames(episode))) for episode in episodes]
        wanted = np.concatenate([targets(len(state)) for state in states])
        reseed(derive_seed(problem.seed, "reward"), torch.device("cpu"))
        self._model = mlp(problem.state_size, _WIDTH, 2, 1)
        self._fit(torch.from_numpy(np.concatenate(states)), torch.from_numpy(wanted).float())

    def __call__(self, record: StepRecord) -> np.ndarray:
        after = self.rate(record.next_obs)
        if self._name == "classifier":
            return (after > 0.5).astype(float)
        return record.success + after - self.rate(record.obs)

    def rate(self, obs: Observations) -> np.ndarray:
        """Return the probability of success, or the progress, [n] of observations [n,…]."""
        with torch.inference_mode():
            state = torch.from_numpy(self._problem.encode(self._window(obs)))
            return self._model(state).sigmoid().squeeze(-1).numpy().astype(float)

    def relabelled(self, trajectory: Trajectory) -> Trajectory:
        """Return a demonstration with its progress in the rewards; successes keep the one they have."""
        if self._name == "classifier":
            return trajectory
        rated = self.rate(self._frames(trajectory.episode))[: len(trajectory)]
        return replace(trajectory, reward=trajectory.reward + np.diff(rated, append=rated[-1]))

    def _frames(self, episode: int) -> Observations:
        return self._source.read(episode, list(self._problem.actor.spec.observations))

    def _window(self, obs: Observations) -> Observations:
        """Return observations [n,…] as histories that always looked like that: only the newest is read."""
        spec = self._problem.actor.spec
        return {key: np.stack([np.asarray(obs[key])] * spec.history, 1) for key in spec.observations}

    def _fit(self, states: torch.Tensor, wanted: torch.Tensor) -> None:
        optimizer = torch.optim.AdamW(self._model.parameters(), lr=_RATE)
        late = wanted > 0.5
        share = torch.where(late, 1 / late.sum(), 1 / (~late).sum().clamp(min=1))  # ends are few, and count as much
        for _ in range(_UPDATES):
            index = torch.multinomial(share, _BATCH, replacement=True)
            near = states[index] + _NOISE * torch.randn(_BATCH, states.shape[1])
            loss = F.binary_cross_entropy_with_logits(self._model(near).squeeze(-1), wanted[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def success_targets(length: int) -> np.ndarray:
    """Return 1 for the last tenth of a demonstration [L], at least its last step."""
    return (np.arange(length) >= length - max(1, length // 10)).astype(float)


def progress_targets(length: int) -> np.ndarray:
    """Return which share of a demonstration is behind each of its steps [L]: 0 to 1."""
    return np.linspace(0, 1, length) if length > 1 else np.ones(1)
