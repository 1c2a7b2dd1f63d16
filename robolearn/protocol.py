"""Frozen protocols: what an evaluation measures, in one file with one hash.

Two results may stand in one table when their hashes are equal: same tasks, seeds, horizons, execution,
observations, rates and libraries.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from robolearn.config import config_hash
from robolearn.contracts import Actor, Observations, VectorEnv
from robolearn.errors import ConfigError
from robolearn.evaluation import EvalConfig, EvalResult, evaluate, summarise
from robolearn.outcomes import OutcomeLog
from robolearn.plan import Execution
from robolearn.provenance import versions
from robolearn.rollout import StepRecord, reset_rows

__all__ = ["PeerResets", "Protocol", "ProtocolTask", "ResetRanges", "evaluate_protocol"]

Build = Callable[[Mapping[str, Any], int], VectorEnv]
_DECIDE = ("mujoco", "gymnasium", "gym-pusht", "robosuite", "metaworld", "numpy")  # libraries that move a result


@dataclass(frozen=True)
class PeerResets:
    """How wide the peer's resets of a task are: entry of an observation → width in its unit."""

    name: str
    widths: Mapping[str, float]


@dataclass(frozen=True)
class ProtocolTask:
    """One environment with its horizon [control steps]; `options` are those of its config."""

    env: str
    horizon: int
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: PeerResets | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The environment's plain config."""
        return {**self.options, "name": self.env, "max_steps": self.horizon}


@dataclass(frozen=True, kw_only=True)
class Protocol(Execution):
    """Which episodes count, when they succeed, and how a policy is executed in them.

    `success`, `resets` and `source` say it in words; what decides are `tasks` and the numbers.
    `execute` actions of each chunk are executed, fewer where the policy's chunk is shorter.
    """

    name: str
    source: str
    success: str
    resets: str
    tasks: tuple[ProtocolTask, ...]
    episodes: int  # per task
    seed: int = 100_000

    def __post_init__(self):
        super().__post_init__()
        if not self.tasks or self.episodes < 1:
            found = f"{len(self.tasks)} tasks, {self.episodes} episodes"
            raise ConfigError(f"Protocol '{self.name}' is empty.", found=found, expected="at least one of each")
        names = [task.env for task in self.tasks]
        if len(set(names)) < len(names):
            raise ConfigError(f"Protocol '{self.name}' names a task twice.", found=", ".join(sorted(names)))

    @property
    def definition_hash(self) -> str:
        """12 hex digits of what the file says, whatever libraries run it."""
        return config_hash(self)

    def eval_config(self, chunk: int, num_envs: int = 32) -> EvalConfig:
        """Return how a policy with chunks of `chunk` actions is executed."""
        return EvalConfig(
            episodes=self.episodes,
            num_envs=num_envs,
            seed=self.seed,
            execute=max(1, min(self.execute, chunk - self.delay_steps)),
            delay_steps=self.delay_steps,
            temperature=self.temperature,
            continuity=self.continuity,
            videos=0,
        )


class ResetRanges:
    """Watches a rollout for what episodes start from: the range of every named observation entry."""

    def __init__(self, env: VectorEnv):
        self._names = {key: feature.names for key, feature in env.spec.observations.items() if feature.kind == "signal"}
        self._seen: set[int] = set()
        self._starts: dict[str, list[float]] = {}

    def __call__(self, record: StepRecord) -> None:
        self._see(record.episode, record.obs)

    def again(self, env: VectorEnv, episodes: Sequence[int], seed: int) -> None:
        """See how `episodes`, which an earlier process ran, started."""
        for first in range(0, len(episodes), env.num_envs):
            part = episodes[first : first + env.num_envs]
            current = np.array([*part, *[-1] * (env.num_envs - len(part))])
            self._see(current, reset_rows(env, np.arange(len(part)), current, seed))

    def _see(self, episodes: np.ndarray, obs: Observations) -> None:
        for row in np.flatnonzero(episodes >= 0):
            if int(episodes[row]) in self._seen:
                continue
            self._seen.add(int(episodes[row]))
            for key, names in self._names.items():
                for name, value in zip(names, obs[key][row].tolist(), strict=False):
                    self._starts.setdefault(name, []).append(value)

    def widths(self) -> dict[str, float]:
        """Return the width of every entry's range, in its unit."""
        return {name: max(values) - min(values) for name, values in self._starts.items()}


def evaluate_protocol(
    actor: Actor,
    protocol: Protocol,
    build: Build,
    *,
    num_envs: int = 32,
    on_step: Callable[[StepRecord], None] | None = None,
    log: OutcomeLog | None = None,
) -> EvalResult:
    """Roll `actor` out in every task of `protocol`.

    The result's outcomes name their task; its facts hold the protocol with its hash, the result of
    each task and how wide the resets were. `build(config, num_envs)` makes an environment. Episodes
    that `log` holds are not run again.
    """
    config = protocol.eval_config(actor.spec.chunk, num_envs)
    results, tasks, specs = [], {}, []
    for task in protocol.tasks:
        env = build(task.config, min(num_envs, protocol.episodes))
        try:
            resets, before = ResetRanges(env), log.of(task.env) if log else None
            resets.again(env, list(before.done) if before else [], config.seed)
            result = evaluate(actor, env, config, on_step=_both(resets, on_step), log=before)
            specs.append(env.spec.to_dict())
        finally:
            env.close()
        results.append(replace(result, outcomes=tuple(replace(one, task=task.env) for one in result.outcomes)))
        tasks[task.env] = _row(result) | {"resets": _resets(task, resets.widths())}
    whole = summarise([one for result in results for one in result.outcomes], sum(r.wall_s for r in results))
    installed = versions()
    decided = {name: installed[name] for name in _DECIDE if name in installed}
    facts = asdict(protocol) | {
        "definition_hash": protocol.definition_hash,
        "hash": config_hash({"protocol": asdict(protocol), "specs": specs, "versions": decided}),
        "executed": config.execute,
    }
    restarts = sum(result.facts.get("worker_restarts", 0) for result in results)
    return replace(whole, facts={"protocol": facts, "tasks": tasks, "worker_restarts": restarts})


def _both(
    first: Callable[[StepRecord], None], second: Callable[[StepRecord], None] | None
) -> Callable[[StepRecord], None]:
    def both(record: StepRecord) -> None:
        first(record)
        if second is not None:
            second(record)

    return both


def _row(result: EvalResult) -> dict[str, Any]:
    return {
        "success_rate": result.success.value,
        "ci_low": result.success.low,
        "ci_high": result.success.high,
        "episodes": len(result.outcomes),
        "score": result.score.value,
    }


def _resets(task: ProtocolTask, widths: Mapping[str, float]) -> dict[str, Any]:
    """Return the widths beside the peer's; all of them where there is no peer."""
    if task.peer is None:
        return {"here": {name: round(width, 4) for name, width in widths.items() if width > 0}}
    absent = [name for name in task.peer.widths if name not in widths]
    if absent:
        raise ConfigError(
            f"The protocol compares resets of {task.env} by entries that it does not observe.",
            found=", ".join(absent),
            expected=", ".join(widths),
        )
    return {
        "peer": task.peer.name,
        "here": {name: round(widths[name], 4) for name in task.peer.widths},
        "there": dict(task.peer.widths),
    }
