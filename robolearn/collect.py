"""Demonstrations: what a rollout did becomes episodes of a dataset."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robolearn.contracts import Controller, EpisodeSink, Narrator, Observations, VectorEnv
from robolearn.errors import ConfigError, DataError
from robolearn.pace import Paced
from robolearn.rollout import Disturbance, Outcome, StepRecord, rollout

__all__ = ["CollectConfig", "EpisodeRecorder", "collect"]

Frame = dict[str, Any]


@dataclass(frozen=True)
class CollectConfig:
    """How many demonstrations are made, and how they are disturbed."""

    episodes: int = 200
    num_envs: int = 32
    seed: int = 0
    noise: tuple[float, ...] = ()  # per action entry, in its unit; labels stay clean
    jam: tuple[float, ...] = ()  # per action entry, chance a step that it is carried out as 1 for a while
    pace_m_s: float = 0.0  # of the tool's targets, as an arm may move; 0: as the controller is
    pace_rad_s: float = 1.0
    only_successes: bool = True
    say: str = ""  # the text column for what the expert says of each frame; "": it is not asked

    def __post_init__(self):
        for name in ("episodes", "num_envs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"collect.{name} is too small.", found=getattr(self, name), expected="at least 1")
        if self.pace_m_s < 0 or self.pace_rad_s <= 0:
            found = f"{self.pace_m_s} m/s, {self.pace_rad_s} rad/s"
            raise ConfigError("collect.pace_m_s is a speed.", found=found, expected="above 0, or pace_m_s=0 for none")


class EpisodeRecorder:
    """Turns the steps of a rollout into episodes of a sink, in the order of their numbers.

    A frame holds the observation, the action the controller asked for (not its disturbance), the
    reward and the success of one step, and what `said` gives of each row [E] under its name.
    The dataset does not depend on how many rows ran.
    """

    def __init__(
        self,
        sink: EpisodeSink,
        episodes: Sequence[int],
        only_successes: bool = True,
        said: Mapping[str, Callable[[], np.ndarray]] | None = None,
    ):
        self.saved, self._said = 0, said or {}
        self._sink, self._only_successes = sink, only_successes
        self._waiting = list(episodes)[::-1]
        self._running: dict[int, list[Frame]] = {}
        self._finished: dict[int, tuple[Outcome, list[Frame]]] = {}

    def __call__(self, record: StepRecord) -> None:
        """Take one step of all rows."""
        said = {name: texts() for name, texts in self._said.items()}
        for row in np.flatnonzero(record.active):
            frame = _frame(record, int(row)) | {name: str(texts[row]) for name, texts in said.items()}
            self._running.setdefault(int(record.episode[row]), []).append(frame)
        for outcome in record.finished:
            self._finished[outcome.episode] = (outcome, self._running.pop(outcome.episode))
        while self._waiting and self._waiting[-1] in self._finished:
            self._save(*self._finished.pop(self._waiting.pop()))

    def _save(self, outcome: Outcome, frames: list[Frame]) -> None:
        if outcome.diverged or (self._only_successes and not outcome.success):
            return
        for frame in frames:
            self._sink.add_frame(frame)
        self._sink.save_episode(asdict(outcome))
        self.saved += 1


def collect(
    env: VectorEnv,
    controller: Controller,
    sink: EpisodeSink,
    config: CollectConfig,
    *,
    disturbance: Disturbance | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
) -> list[Outcome]:
    """Record `config.episodes` rollouts of `controller` into `sink`; returns all outcomes.

    The caller closes the sink. Raises `DataError` when no episode was worth saving.
    """
    episodes = range(config.episodes)
    told = _Told(controller) if config.say else None
    said = {config.say: lambda: told.said} if told else {}
    driver = told or controller
    if config.pace_m_s:
        driver = Paced(driver, env, config.pace_m_s, config.pace_rad_s)
    recorder = EpisodeRecorder(sink, episodes, config.only_successes, said)

    def both(record: StepRecord) -> None:
        recorder(record)
        if on_step is not None:
            on_step(record)

    outcomes = rollout(env, driver, episodes, config.seed, both, disturbance)
    if not recorder.saved:
        raise DataError(
            "No demonstration succeeded.",
            found=f"0 of {config.episodes} episodes",
            expected="at least one success",
            do="check the controller, or set collect.only_successes=false",
        )
    return outcomes


class _Told:
    """A controller that keeps what its expert said of the state that it acted in."""

    def __init__(self, controller: Controller):
        expert = getattr(controller, "expert", None)
        if not isinstance(expert, Narrator):
            raise ConfigError(
                "Nobody says what the demonstrations do.",
                found=type(expert or controller).__name__,
                expected="an expert with `say`",
                do="leave collect.say empty",
            )
        self._controller, self._expert, self.said = controller, expert, np.array([], str)

    def begin(self, rows: np.ndarray, episodes: np.ndarray, obs: Observations) -> None:
        self._controller.begin(rows, episodes, obs)

    def act(self, obs: Observations, active: np.ndarray) -> np.ndarray:
        self.said = self._expert.say()
        return self._controller.act(obs, active)


def _frame(record: StepRecord, row: int) -> Frame:
    observed: Mapping[str, np.ndarray] = record.obs
    frame: Frame = {key: value[row] for key, value in observed.items()}
    frame["action"] = record.action[row].astype(np.float32)
    frame["next.reward"] = np.float32(record.reward[row])
    frame["next.success"] = bool(record.success[row])
    return frame
