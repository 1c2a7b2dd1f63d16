"""Whole episodes for learning, out of the one rollout loop or out of recorded data."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from robolearn.contracts import Controller, EpisodeSource, Observations, VectorEnv
from robolearn.errors import DataError
from robolearn.rollout import StepRecord, episode_seed
from robolearn.spec import Spec

__all__ = ["REWARDS", "Explorer", "GroupedStarts", "Notes", "Reward", "Trajectories", "Trajectory", "demonstrations"]

Notes = dict[str, np.ndarray]


class Explorer(Controller, Protocol):
    """A controller that says what it wants remembered of its decisions: features, base actions, noise, …"""

    def notes(self) -> Notes:
        """Return what belongs to the last `act`, each [E,…]; rows that were not active may hold anything."""

    def outlook(self, rows: np.ndarray, obs: Observations) -> Notes:
        """Return the same keys [n,…] for the observations that the episodes of `rows` ended with."""


@dataclass(frozen=True)
class Trajectory:
    """One episode: L steps and what they led to."""

    notes: Notes  # [L,…]
    final: Notes  # […] of the observation the episode ended with
    action: np.ndarray  # [L,A] what was asked for, in real units
    reward: np.ndarray  # [L]
    terminated: bool  # False: cut off by the clock; the value of `final` continues it
    success: bool
    episode: int = -1

    def __len__(self) -> int:
        return len(self.reward)


Reward = Callable[[StepRecord], np.ndarray]

# name → reward of a step of all rows [E]
REWARDS: dict[str, Reward] = {
    "sparse": lambda record: record.success.astype(float),  # 1 in the step that succeeds
    "dense": lambda record: record.reward,  # what the environment says
}


class Trajectories:
    """Turns step records into whole episodes; an episode is over with its first success.

    Call it once after every step of the loop: it asks `explorer` for its notes and returns the
    episodes that just ended, in the order of their rows. Diverged episodes are left out.
    """

    def __init__(self, explorer: Explorer, reward: Reward):
        self._explorer, self._reward = explorer, reward
        self._running: dict[int, list[tuple[Notes, np.ndarray, float]]] = {}
        self._over: set[int] = set()  # episodes that go on after their success

    def __call__(self, record: StepRecord) -> list[Trajectory]:
        notes, reward = self._explorer.notes(), self._reward(record)
        done = record.terminated | record.truncated | record.success
        diverged = {outcome.episode for outcome in record.finished if outcome.diverged}
        found = []
        for row in np.flatnonzero(record.active):
            episode = int(record.episode[row])
            if episode in self._over:
                continue
            steps = self._running.setdefault(episode, [])
            noted = {key: value[row].copy() for key, value in notes.items()}
            steps.append((noted, record.action[row].copy(), float(reward[row])))
            if done[row]:
                del self._running[episode]
                self._over.add(episode)
                if episode not in diverged:
                    found.append(self._trajectory(steps, record, int(row)))
        return found

    def _trajectory(self, steps: list[tuple[Notes, np.ndarray, float]], record: StepRecord, row: int) -> Trajectory:
        success = bool(record.success[row])
        final = self._explorer.outlook(np.array([row]), record.next_obs)
        return _trajectory(steps, final, bool(record.terminated[row]) or success, success, int(record.episode[row]))


class GroupedStarts:
    """A `contracts.VectorEnv` in which `group` episodes in a row start alike: as the one numbered episode // group."""

    def __init__(self, env: VectorEnv, group: int, seed: int):
        self._env, self._group, self._seed = env, group, seed
        self.spec, self.num_envs, self.max_episode_steps = env.spec, env.num_envs, env.max_episode_steps

    def reset(
        self, *, seed: Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        told = dict(options or {})
        number = np.asarray(told["episode"]) // self._group
        seeds = [
            episode_seed(self._seed, int(start)) if fresh else None
            for start, fresh in zip(number, told["reset_mask"], strict=True)
        ]
        return self._env.reset(seed=seeds, options=told | {"episode": number})

    def step(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        return self._env.step(actions)

    def render(self, row: int = 0) -> np.ndarray:
        return self._env.render(row)

    def close(self) -> None:
        self._env.close()


def demonstrations(
    source: EpisodeSource, explorer: Explorer, spec: Spec, episodes: Iterable[int], dense: bool = False
) -> Iterator[Trajectory]:
    """Yield recorded episodes as the trajectories of a one-row `explorer` that watched them.

    Actions are the recorded ones. An episode without recorded success succeeded with its last step:
    people keep the demonstrations that worked. `dense` takes the recorded reward.
    """
    row, active = np.zeros(1, np.int64), np.ones(1, bool)
    for episode in episodes:
        frames = source.read(episode, [*spec.observations, "action"])
        success, reward = _recorded(source, episode, dense)
        length = int(np.argmax(success)) + 1 if success.any() else len(success)
        steps = []
        for step in range(length):
            obs = {key: np.asarray(frames[key][step])[None] for key in spec.observations}
            if step == 0:
                explorer.begin(row, np.array([episode]), obs)
            explorer.act(obs, active)
            noted = {key: value[0].copy() for key, value in explorer.notes().items()}
            steps.append((noted, np.asarray(frames["action"][step], float), float(reward[step])))
        final = {key: value[None] for key, value in steps[-1][0].items()}  # the observation after it was not recorded
        yield _trajectory(steps, final, bool(success.any()), bool(success.any()), int(episode))


def _recorded(source: EpisodeSource, episode: int, dense: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return success and reward of every step [L] of a recorded episode."""
    length = int(source.lengths[episode])
    success = _optional(source, episode, "next.success")
    success = np.arange(length) == length - 1 if success is None else success.reshape(length).astype(bool)
    if not dense:
        return success, success.astype(float)
    reward = _optional(source, episode, "next.reward")
    if reward is None:
        raise DataError(
            "The demonstrations have no reward.", found=f"episode {episode}", expected="next.reward", do="reward=sparse"
        )
    return success, reward.reshape(length).astype(float)


def _optional(source: EpisodeSource, episode: int, key: str) -> np.ndarray | None:
    try:
        return source.read(episode, [key])[key]
    except DataError:
        return None


def _trajectory(
    steps: list[tuple[Notes, np.ndarray, float]],
    final: Mapping[str, np.ndarray],
    terminated: bool,
    success: bool,
    episode: int,
) -> Trajectory:
    notes, actions, rewards = zip(*steps, strict=True)
    return Trajectory(
        notes={key: np.stack([noted[key] for noted in notes]) for key in notes[0]},
        final={key: value[0] for key, value in final.items()},
        action=np.stack(actions),
        reward=np.array(rewards),
        terminated=terminated,
        success=success,
        episode=episode,
    )
