"""A ring of transitions with exact save and restore, and symmetric sampling from several rings."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from robolearn.errors import CheckpointError
from robolearn.rl.advantages import n_step
from robolearn.rl.collect import Trajectory

__all__ = ["Replay", "symmetric", "transitions", "visited"]

Transitions = dict[str, np.ndarray]


class Replay:
    """Rows of named float32 tensors; the oldest make room. What a row holds is the first `add`'s choice."""

    def __init__(self, capacity: int):
        self.capacity, self._size, self._next = capacity, 0, 0
        self._rings: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return self._size

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Append rows [n,…]."""
        count = len(next(iter(rows.values())))
        if not self._rings:
            self._rings = {key: torch.zeros(self.capacity, *value.shape[1:]) for key, value in rows.items()}
        where = torch.arange(self._next, self._next + count) % self.capacity
        for key, value in rows.items():
            self._rings[key][where] = torch.as_tensor(value, dtype=torch.float32)
        self._next = (self._next + count) % self.capacity
        self._size = min(self._size + count, self.capacity)

    def gather(self, index: np.ndarray) -> dict[str, Tensor]:
        """Return the rows `index` [B]."""
        where = torch.as_tensor(index)
        return {key: ring.index_select(0, where) for key, ring in self._rings.items()}

    def column(self, key: str) -> Tensor:
        """Return one value of all rows [n,…]."""
        return self._rings[key][: self._size]

    def state(self, prefix: str) -> dict[str, Tensor]:
        """Return everything `restore` needs, under names that begin with `prefix`."""
        rings = {f"{prefix}/rows/{key}": ring[: self._size].clone() for key, ring in self._rings.items()}
        return {**rings, f"{prefix}/place": torch.tensor([self._size, self._next])}

    def restore(self, state: Mapping[str, Tensor], prefix: str) -> None:
        """Bring back what `state` held."""
        if f"{prefix}/place" not in state:
            raise CheckpointError(f"There is no replay '{prefix}'.", do="resume from a checkpoint of an rl run")
        rows = {key.removeprefix(f"{prefix}/rows/"): value for key, value in state.items() if f"{prefix}/rows/" in key}
        size, following = (int(value) for value in state[f"{prefix}/place"])
        if size > self.capacity:
            raise CheckpointError("The replay is too small.", found=f"{self.capacity} rows", expected=f"{size} or more")
        self._size, self._next = size, following
        self._rings = {key: torch.zeros(self.capacity, *value.shape[1:]) for key, value in rows.items()}
        for key, value in rows.items():
            self._rings[key][:size] = value


def symmetric(replays: Sequence[Replay], size: int, random: np.random.Generator) -> dict[str, Tensor]:
    """Return `size` rows, equal shares from every ring that is not empty (RLPD, arXiv 2302.02948, section 4.1)."""
    filled = [replay for replay in replays if len(replay)]
    edges = np.linspace(0, size, len(filled) + 1).astype(int)
    parts = [
        replay.gather(random.integers(0, len(replay), stop - start))
        for replay, start, stop in zip(filled, edges[:-1], edges[1:], strict=True)
    ]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def visited(replays: Sequence[Replay]) -> Tensor:
    """Return the states [n,D] of all rows of several rings."""
    return torch.cat([replay.column("state") for replay in replays if len(replay)])


def transitions(trajectory: Trajectory, gamma: float, steps: int) -> Transitions:
    """Return an episode's n-step transitions [L,…].

    Keys: "action", "reward" and "discount" of the n-step return, every note of the step, and the
    same notes of the step (or last observation) it bootstraps from, as "next_…".
    """
    ahead = n_step(trajectory.reward, gamma, steps, trajectory.terminated)
    rows = {"action": trajectory.action, "reward": ahead.reward, "discount": ahead.discount}
    for key, value in trajectory.notes.items():
        rows[key] = value
        rows[f"next_{key}"] = np.concatenate([value, trajectory.final[key][None]])[ahead.step]
    return rows
