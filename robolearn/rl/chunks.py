"""Learning by the chunk: who decides what from which noise, what a decision earns, chunks as training windows.

The critic of a chunk looks ahead as many steps as are executed of it; discounts count environment steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from robolearn.actor import PolicyActor
from robolearn.contracts import Batch, Observations
from robolearn.evaluation import EvalConfig
from robolearn.rl.advantages import by_decision, n_step
from robolearn.rl.algorithm import Problem
from robolearn.rl.collect import Notes, Trajectory
from robolearn.rollout import PolicyController

__all__ = [
    "ChunkExplorer",
    "Decisions",
    "action_chunks",
    "chunk_transitions",
    "cloning_batch",
    "decisions",
    "executed_rows",
    "window_of",
]

_WINDOW = "window/"
_OBSERVATION = "obs/"

Draw = Callable[[Observations, np.ndarray], np.ndarray]  # (histories [n,T,…], noise [n,…]) → the noise to use


class ChunkExplorer:
    """Drives by whole chunks of `actor`, the clone without one; see `rl.collect.Explorer`.

    Notes: "decided" (1 in the steps that began a chunk), "noise" of the running chunk, and the histories
    under "window/…". `draw` may replace the noise of a decision.
    """

    def __init__(
        self, problem: Problem, rows: int, seed: int, actor: PolicyActor | None = None, draw: Draw | None = None
    ):
        self._inner = _Deciding(actor or problem.actor, rows, seed, problem.eval, draw)
        self._windows: Observations = {}
        self._rows = rows

    def begin(self, rows: np.ndarray, episodes: np.ndarray, obs: Observations) -> None:
        self._inner.begin(rows, episodes, obs)

    def act(self, obs: Observations, active: np.ndarray) -> np.ndarray:
        self._inner.decided[:] = False
        action = self._inner.act(obs, active)
        rows = np.flatnonzero(active)
        for key, value in self._inner.window(rows).items():
            if key not in self._windows:
                kind = object if value.dtype.kind == "U" else value.dtype  # texts differ in length
                self._windows[key] = np.zeros((self._rows, *value.shape[1:]), kind)
            self._windows[key][rows] = value
        return action

    def notes(self) -> Notes:
        windows = {f"{_WINDOW}{key}": value for key, value in self._windows.items()}
        return {"decided": self._inner.decided, "noise": self._inner.drawn, **windows}

    def outlook(self, rows: np.ndarray, obs: Observations) -> Notes:
        window, _ = self._inner.outlook(rows, obs)
        windows = {f"{_WINDOW}{key}": value for key, value in window.items()}
        return {"decided": self._inner.decided[rows], "noise": self._inner.drawn[rows], **windows}


class _Deciding(PolicyController):
    """A controller that knows when it decided, and from which noise."""

    def __init__(self, actor: PolicyActor, rows: int, seed: int, how: EvalConfig, draw: Draw | None):
        super().__init__(actor, rows, how, seed)
        self._draw = draw
        self.decided = np.zeros(rows, bool)
        self.drawn = np.zeros((rows, *actor.noise_shape), np.float32)

    def noise(self, rows: np.ndarray) -> np.ndarray:
        noise = super().noise(rows)
        if self._draw is not None:
            noise = self._draw(self.window(rows), noise)
        self.decided[rows], self.drawn[rows] = True, noise
        return noise


class Decisions(NamedTuple):
    """The D decisions of an episode."""

    step: np.ndarray  # [D] that they began with
    reward: np.ndarray  # [D] discounted, over the steps they lasted
    discount: np.ndarray  # [D] of what comes after, 0 where the episode terminated


def decisions(trajectory: Trajectory, gamma: float) -> Decisions:
    """Return what each decision of an episode earned; `gamma` is per environment step."""
    first = np.flatnonzero(trajectory.notes["decided"])
    reward, discount = by_decision(trajectory.reward, first, gamma)
    if trajectory.terminated:
        discount[-1] = 0.0
    return Decisions(first, reward, discount)


def window_of(trajectory: Trajectory, steps: np.ndarray) -> Observations:
    """Return the histories [n,T,…] of numbered steps; step L is the observation that the episode ended with."""
    keys = [key for key in trajectory.notes if key.startswith(_WINDOW)]
    whole = {key: np.concatenate([trajectory.notes[key], trajectory.final[key][None]]) for key in keys}
    return {key.removeprefix(_WINDOW): value[steps] for key, value in whole.items()}


def action_chunks(action: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the actions [L,K,A] from each step of [L,A] on, and what of them is padding [L,K].

    The end repeats the last action.
    """
    ahead = np.arange(len(action))[:, None] + np.arange(chunk)
    return action[np.minimum(ahead, len(action) - 1)], ahead >= len(action)


def executed_rows(problem: Problem) -> int:
    """Return how many rows of the network's chunk say what is executed: all where rows are not actions."""
    rows, same = problem.inner.chunk, problem.inner.chunk == problem.actor.spec.chunk
    return min(problem.eval.execute, rows) if same else rows


def chunk_transitions(problem: Problem, trajectory: Trajectory, gamma: float) -> dict[str, np.ndarray]:
    """Return every step of an episode as the beginning of a chunk [L,…], for rings of `rl.replay`.

    "obs/…" histories and "chunk" [K,A] as the policy is given them, "pad" [K], "state" [D]; "reward" and
    "discount" over the executed steps, "next_state" after them, and "return", the discounted return.
    """
    length = len(trajectory)
    raw, pad = action_chunks(trajectory.action, problem.actor.spec.chunk)
    batch = problem.batch(window_of(trajectory, np.arange(length)), raw, pad)
    state = problem.encode(window_of(trajectory, np.arange(length + 1)))
    ahead = n_step(trajectory.reward, gamma, problem.eval.execute, trajectory.terminated)
    observations = {f"{_OBSERVATION}{key}": batch[key].numpy() for key in problem.inner.observations if key in batch}
    return {
        **observations,
        "chunk": batch["action"].numpy(),
        "pad": batch["action_is_pad"].numpy(),
        "state": state[:length],
        "reward": ahead.reward,
        "discount": ahead.discount,
        "next_state": state[ahead.step],
        "return": n_step(trajectory.reward, gamma, length, True).reward,
    }


def cloning_batch(rows: dict[str, Tensor]) -> Batch:
    """Return rows of `chunk_transitions` as the batch of a policy's loss."""
    batch: Batch = {
        key.removeprefix(_OBSERVATION): value for key, value in rows.items() if key.startswith(_OBSERVATION)
    }
    return batch | {"action": rows["chunk"], "action_is_pad": rows["pad"] > 0.5}
