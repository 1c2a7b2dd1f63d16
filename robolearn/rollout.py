"""The one rollout loop: evaluation, demonstrations, RL collection and videos all run through it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robolearn.buffer import ObservationBuffer
from robolearn.contracts import Actor, Controller, Corrector, Expert, Observations, VectorEnv
from robolearn.errors import EnvError
from robolearn.past import PAST_ACTION
from robolearn.plan import BlendedPlan, ChunkPlan, Execution
from robolearn.seeding import derive_seed, generator, policy_noise

__all__ = [
    "Disturbance",
    "ExpertController",
    "Outcome",
    "PolicyController",
    "RandomController",
    "SmoothNoise",
    "StepRecord",
    "episode_seed",
    "reset_rows",
    "rollout",
    "steps",
]


@dataclass(frozen=True)
class Outcome:
    """How one episode ended."""

    episode: int
    seed: int
    success: bool
    total_reward: float
    max_reward: float
    length: int
    diverged: bool = False
    task: str = ""  # where several environments are evaluated together


@dataclass(frozen=True)
class StepRecord:
    """One environment step of all rows; `obs` is what the actions were chosen from."""

    episode: np.ndarray  # [E] episode number, -1 on idle rows
    active: np.ndarray  # [E] rows that took this step
    obs: Observations
    action: np.ndarray  # [E,A] what the controller asked for
    executed: np.ndarray  # [E,A] what the environment was given: `action` with its disturbance
    reward: np.ndarray  # [E]
    terminated: np.ndarray  # [E]
    truncated: np.ndarray  # [E]
    success: np.ndarray  # [E]
    next_obs: Observations  # the true last observation on rows that are done
    finished: tuple[Outcome, ...]


class Disturbance(Protocol):
    """Noise between the controller and the environment; recorded labels stay clean."""

    def begin(self, rows: np.ndarray, episodes: np.ndarray) -> None:
        """Start `episodes` on `rows`."""

    def apply(self, action: np.ndarray) -> np.ndarray:
        """Return the disturbed actions [E,A]."""


def episode_seed(seed: int, episode: int) -> int:
    """Return the environment seed (31 bit) of one episode; nothing else decides how it starts."""
    return derive_seed(seed, "episode", episode) & 0x7FFFFFFF


def rollout(
    env: VectorEnv,
    controller: Controller,
    episodes: Sequence[int],
    seed: int,
    on_step: Callable[[StepRecord], None] | None = None,
    disturbance: Disturbance | None = None,
) -> list[Outcome]:
    """Run `episodes` to their end and return their outcomes in the order of `episodes`.

    Rows take the next waiting episode as soon as they are free; an outcome depends on
    (seed, episode) and the controller only, never on how many rows there are.
    """
    outcomes: dict[int, Outcome] = {}
    for record in steps(env, controller, episodes, seed, disturbance):
        outcomes.update({outcome.episode: outcome for outcome in record.finished})
        if on_step is not None:
            on_step(record)
    return [outcomes[episode] for episode in episodes]


def steps(
    env: VectorEnv,
    controller: Controller,
    episodes: Sequence[int],
    seed: int,
    disturbance: Disturbance | None = None,
) -> Iterator[StepRecord]:
    """Yield one `StepRecord` per environment step until all `episodes` are over."""
    waiting = list(episodes)[::-1]
    current = np.full(env.num_envs, -1)
    tally = _Tally(env.num_envs)
    obs, done = None, np.ones(env.num_envs, bool)
    while True:
        fresh = np.flatnonzero(done)[: len(waiting)]
        current[done] = -1
        if len(fresh):
            current[fresh] = [waiting.pop() for _ in fresh]
            obs = reset_rows(env, fresh, current, seed)
            tally.clear(fresh)
            controller.begin(fresh, current[fresh], obs)
            if disturbance is not None:
                disturbance.begin(fresh, current[fresh])
        active = current >= 0
        if obs is None or not active.any():
            return
        action = controller.act(obs, active)
        executed = action if disturbance is None else disturbance.apply(action)
        next_obs, reward, terminated, truncated, info = env.step(executed)
        success, diverged = _flag(info, "success", active), _flag(info, "diverged", active)
        tally.add(active, reward, success, diverged)
        done = (terminated | truncated) & active
        finished = tuple(tally.outcome(row, int(current[row]), seed) for row in np.flatnonzero(done))
        yield StepRecord(
            episode=current.copy(),
            active=active,
            obs=obs,
            action=action,
            executed=executed,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            success=success,
            next_obs=next_obs,
            finished=finished,
        )
        obs, done = next_obs, done | ~active


def reset_rows(env: VectorEnv, fresh: np.ndarray, current: np.ndarray, seed: int) -> Observations:
    """Start the episodes `current[fresh]` on the rows `fresh` and return the observations of all rows."""
    mask = np.zeros(env.num_envs, bool)
    mask[fresh] = True
    seeds = [episode_seed(seed, int(episode)) if start else None for episode, start in zip(current, mask, strict=True)]
    obs, _ = env.reset(seed=seeds, options={"reset_mask": mask, "episode": current.copy()})
    return obs


class PolicyController:
    """Drives rows with an actor: observation history in, time-indexed chunks out.

    Steps are counted in each row's episode. Noise is a function of (seed, episode, decision). An actor that
    can `correct` corrects the action due in every step, from the newest observation.
    """

    def __init__(self, actor: Actor, rows: int, how: Execution, seed: int):
        spec = actor.spec
        self.actor, self.execute, self.seed = actor, how.execute, seed
        self.delay_steps, self.temperature = how.delay_steps, np.float32(how.temperature)
        self._period_s = 1.0 / spec.rate_hz
        self._buffer = ObservationBuffer(rows, spec.history, self._period_s)
        self._correct = actor.correct if isinstance(actor, Corrector) else None
        self._told = how.told(spec.chunk)
        plan = BlendedPlan if how.continuity == "blend" else ChunkPlan
        self._plan = plan(rows, spec.chunk, spec.action.dim, self._period_s)
        self._episode = np.full(rows, -1)
        self._step = np.zeros(rows, np.int64)
        self._past = np.zeros((rows, spec.action.dim + 1), np.float32)
        self._late: dict[int, tuple[int, np.ndarray]] = {}  # row → (step it was asked at, its chunk)

    def begin(self, rows: np.ndarray, episodes: np.ndarray, obs: Observations) -> None:
        self._buffer.restart(rows)
        self._plan.restart(rows)
        self._episode[rows], self._step[rows], self._past[rows] = episodes, 0, 0.0
        for row in rows:
            self._late.pop(int(row), None)

    def act(self, obs: Observations, active: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(active)
        now_s = self._step * self._period_s
        self._see(rows, obs)
        self._deliver(rows)
        asking = rows[self._step[rows] % self.execute == 0]
        if len(asking):
            self._decide(asking)
        action = self._plan.action(now_s)
        if self._correct is not None:
            action[rows] = self._correct(self.window(rows), action[rows])
        self._step[rows] += 1
        self._past[rows, :-1], self._past[rows, -1] = action[rows], 1.0
        return action

    def window(self, rows: np.ndarray) -> Observations:
        """Return the histories [n,T,…] that the last actions of `rows` were chosen from."""
        return self._buffer.window(rows)

    def outlook(self, rows: np.ndarray, obs: Observations) -> tuple[Observations, np.ndarray]:
        """Return histories [n,T,…] that end at `obs`, and what the running chunks [n,A] would do there.

        For rows whose episode is over: values of a truncated episode go on from here.
        """
        self._see(rows, obs)
        return self.window(rows), self._plan.action(self._step * self._period_s)[rows]

    def noise(self, rows: np.ndarray) -> np.ndarray:
        """Return the noise [n,*noise_shape] of the decisions that `rows` are about to take."""
        numbers = self._step // self.execute
        draws = [policy_noise(self.seed, int(self._episode[i]), int(numbers[i]), self.actor.noise_shape) for i in rows]
        return self.temperature * np.stack(draws)

    def _see(self, rows: np.ndarray, obs: Observations) -> None:
        now_s = self._step[rows] * self._period_s
        seen = {**obs, PAST_ACTION: self._past}
        self._buffer.append(rows, now_s, {key: seen[key][rows] for key in self.actor.spec.observations})

    def _decide(self, rows: np.ndarray) -> None:
        noise = self.noise(rows)
        now_s = self._step * self._period_s
        running = (self._plan.index(now_s)[rows] >= 0) & (self._told > 0)
        for told in (True, False):
            part = rows[running == told]
            if len(part):
                prefix = self._plan.remaining(part, now_s)[:, : self._told] if told else None
                chunks = self.actor.act(self._buffer.window(part), noise[running == told], prefix)
                for row, chunk in zip(part, chunks, strict=True):
                    self._late[int(row)] = (int(self._step[row]), chunk)
        self._deliver(rows)

    def _deliver(self, rows: np.ndarray) -> None:
        for row in rows:
            if int(row) not in self._late:
                continue
            asked, chunk = self._late[int(row)]
            if asked == 0 or self._step[row] - asked >= self.delay_steps:  # an episode starts with a chunk
                self._plan.splice(np.array([row]), np.array([asked * self._period_s]), chunk[None])
                del self._late[int(row)]


class ExpertController:
    """Drives rows with an environment's scripted expert."""

    def __init__(self, expert: Expert, seed: int):
        self.expert, self.seed = expert, seed

    def begin(self, rows: np.ndarray, episodes: np.ndarray, obs: Observations) -> None:
        self.expert.reset(rows, [episode_seed(self.seed, int(episode)) for episode in episodes])

    def act(self, obs: Observations, active: np.ndarray) -> np.ndarray:
        return self.expert.act()


class SmoothNoise:
    """First-order autoregressive noise on the actions: x' = decay x + scale e, e ~ N(0, 1).

    Demonstrations executed under it visit states off the expert's path while their labels lead
    back to it (Laskey et al. 2017, DART). `scale` [A] is in action units; 0 leaves an entry alone.
    With chance `jam` [A] a step, an entry is carried out as 1 for the next `JAM_STEPS`: a gripper that
    closes too early, which clean demonstrations never show.
    """

    JAM_STEPS = 12

    def __init__(self, rows: int, scale: Sequence[float], seed: int, decay: float = 0.8, jam: Sequence[float] = ()):
        self._scale, self._seed, self._decay = np.asarray(scale, float), seed, decay
        self._noise = np.zeros((rows, len(self._scale)))
        self._jam, self._jammed = np.asarray(jam, float), np.zeros((rows, len(jam)), int)  # steps left
        self._generators = [generator(seed, "disturbance", -1)] * rows

    def begin(self, rows: np.ndarray, episodes: np.ndarray) -> None:
        self._noise[rows], self._jammed[rows] = 0.0, 0
        for row, episode in zip(rows, episodes, strict=True):
            self._generators[row] = generator(self._seed, "disturbance", int(episode))

    def apply(self, action: np.ndarray) -> np.ndarray:
        draws = np.stack([draw.standard_normal(len(self._scale)) for draw in self._generators])
        self._noise = self._decay * self._noise + self._scale * draws
        if len(self._jam):
            begins = np.stack([draw.random(len(self._jam)) for draw in self._generators]) < self._jam
            self._jammed = np.where(begins, self.JAM_STEPS, np.maximum(self._jammed - 1, 0))
            action = np.where(self._jammed > 0, 1.0, action)
        return action + self._noise


class RandomController:
    """Draws actions uniformly within the action bounds, by (seed, episode)."""

    def __init__(self, env: VectorEnv, seed: int):
        action = env.spec.action
        if action.low is None or action.high is None:
            raise EnvError("Random actions need bounds.", found="none in the action spec", do="state low and high")
        self._low, self._high = np.array(action.low), np.array(action.high)
        self._seed = seed
        self._generators = [generator(seed, "random", -1) for _ in range(env.num_envs)]

    def begin(self, rows: np.ndarray, episodes: np.ndarray, obs: Observations) -> None:
        for row, episode in zip(rows, episodes, strict=True):
            self._generators[row] = generator(self._seed, "random", int(episode))

    def act(self, obs: Observations, active: np.ndarray) -> np.ndarray:
        return np.stack([draw.uniform(self._low, self._high) for draw in self._generators])


class _Tally:
    """Running totals of the episodes in flight."""

    def __init__(self, rows: int):
        self._total, self._best = np.zeros(rows), np.full(rows, -np.inf)
        self._length, self._success, self._diverged = np.zeros(rows, int), np.zeros(rows, bool), np.zeros(rows, bool)

    def clear(self, rows: np.ndarray) -> None:
        self._total[rows], self._best[rows], self._length[rows] = 0.0, -np.inf, 0
        self._success[rows] = self._diverged[rows] = False

    def add(self, active: np.ndarray, reward: np.ndarray, success: np.ndarray, diverged: np.ndarray) -> None:
        self._total += np.where(active, reward, 0.0)
        self._best = np.where(active, np.maximum(self._best, reward), self._best)
        self._length += active
        self._success |= success
        self._diverged |= diverged

    def outcome(self, row: int, episode: int, seed: int) -> Outcome:
        return Outcome(
            episode=episode,
            seed=episode_seed(seed, episode),
            success=bool(self._success[row] and not self._diverged[row]),
            total_reward=float(self._total[row]),
            max_reward=float(self._best[row]),
            length=int(self._length[row]),
            diverged=bool(self._diverged[row]),
        )


def _flag(info: dict, name: str, active: np.ndarray) -> np.ndarray:
    value = info.get(name)
    if value is None:
        return np.zeros(len(active), bool)
    return np.asarray(value, bool) & active
