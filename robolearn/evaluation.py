"""Closed-loop evaluation: outcomes by episode, a success rate with its interval, a result on disk."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.contracts import Actor, Controller, VectorEnv
from robolearn.errors import ConfigError, RobolearnError
from robolearn.intervals import Interval, bootstrap_mean, wilson
from robolearn.outcomes import OutcomeLog
from robolearn.past import with_past
from robolearn.plan import Execution
from robolearn.rollout import Outcome, PolicyController, StepRecord, rollout
from robolearn.spec import require

__all__ = ["EvalConfig", "EvalResult", "evaluate", "evaluate_controller", "summarise", "write_json"]


@dataclass(frozen=True)
class EvalConfig(Execution):
    """Which episodes are run, and how a policy is executed in them."""

    episodes: int = 100
    num_envs: int = 32
    seed: int = 100_000  # evaluation seeds; training uses small ones
    videos: int = 1  # episodes to film

    def __post_init__(self):
        super().__post_init__()
        for name in ("episodes", "num_envs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"eval.{name} is too small.", found=getattr(self, name), expected="at least 1")

    def controller(self, actor: Actor, rows: int) -> PolicyController:
        """Return what drives `rows` environments with `actor` as these options say."""
        return PolicyController(actor, rows, self, self.seed)


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found."""

    outcomes: tuple[Outcome, ...]
    success: Interval
    mean_return: float
    score: Interval  # mean over episodes of the best reward of an episode
    env_steps: int
    env_steps_per_s: float
    wall_s: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def success_rate(self) -> float:
        return self.success.value

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `result.json`."""
        return {
            "success_rate": self.success.value,
            "ci_low": self.success.low,
            "ci_high": self.success.high,
            "episodes": len(self.outcomes),
            "mean_return": self.mean_return,
            "score": self.score._asdict(),
            "diverged": sum(outcome.diverged for outcome in self.outcomes),
            "env_steps": self.env_steps,
            "env_steps_per_s": self.env_steps_per_s,
            "wall_s": self.wall_s,
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            **self.facts,
        }


def evaluate(
    actor: Actor,
    env: VectorEnv,
    config: EvalConfig | None = None,
    *,
    episodes: Sequence[int] | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
    log: OutcomeLog | None = None,
) -> EvalResult:
    """Roll `actor` out in `env` and return its outcomes.

    Episode i is a function of (config.seed, i) only; those that `log` holds are not run again. Raises
    `SpecError` when the environment does not give what the policy expects.
    """
    config = config or EvalConfig()
    require(with_past(env.spec), actor.spec, ("environment", "policy"))
    controller = config.controller(actor, env.num_envs)
    return evaluate_controller(controller, env, config, episodes=episodes, on_step=on_step, log=log)


def evaluate_controller(
    controller: Controller,
    env: VectorEnv,
    config: EvalConfig,
    *,
    episodes: Sequence[int] | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
    log: OutcomeLog | None = None,
) -> EvalResult:
    """Roll any controller out over the episodes of `config` (or over `episodes`) that `log` does not hold."""
    numbers = range(config.episodes) if episodes is None else episodes
    outcomes = log.done if log else {}
    start_s = time.perf_counter() - (log.wall_s if log else 0.0)

    def seen(record: StepRecord) -> None:
        if log:
            log.add(record.finished, time.perf_counter() - start_s)
        if on_step:
            on_step(record)

    left = [number for number in numbers if number not in outcomes]
    outcomes |= {outcome.episode: outcome for outcome in rollout(env, controller, left, config.seed, seen)}
    result = summarise([outcomes[number] for number in numbers], time.perf_counter() - start_s)
    restarts = int(getattr(env, "restarts", 0))  # of worker processes, where the environment has some
    return replace(result, facts={"worker_restarts": restarts}) if restarts else result


def summarise(outcomes: Sequence[Outcome], wall_s: float) -> EvalResult:
    """Return the statistics of `outcomes`."""
    if not outcomes:
        raise RobolearnError("No episode was evaluated.", expected="at least one", do="set eval.episodes")
    env_steps = sum(outcome.length for outcome in outcomes)
    return EvalResult(
        outcomes=tuple(outcomes),
        success=wilson(sum(outcome.success for outcome in outcomes), len(outcomes)),
        mean_return=float(np.mean([outcome.total_reward for outcome in outcomes])),
        score=bootstrap_mean([outcome.max_reward for outcome in outcomes]),
        env_steps=env_steps,
        env_steps_per_s=env_steps / max(wall_s, 1e-9),
        wall_s=wall_s,
    )


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old or the new file, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)
