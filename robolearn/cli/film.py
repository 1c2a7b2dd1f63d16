"""Videos of evaluation episodes: the episode is run again alone, which gives the same outcome."""

from collections.abc import Callable, Sequence
from pathlib import Path

from robolearn.contracts import Controller, VectorEnv
from robolearn.envs.video import write_video
from robolearn.rollout import Outcome, steps

__all__ = ["choose", "film"]


def choose(outcomes: Sequence[Outcome], count: int) -> list[Outcome]:
    """Pick the episodes worth watching: a success first, then failures, then more successes."""
    good = [outcome for outcome in outcomes if outcome.success]
    bad = [outcome for outcome in outcomes if not outcome.success]
    return [*good[:1], *bad, *good[1:]][:count]


def film(
    env: VectorEnv, controller: Callable[[VectorEnv], Controller], outcomes: Sequence[Outcome], seed: int, folder: Path
) -> list[Path]:
    """Run the episodes of `outcomes` again in the one-row `env` and write one mp4 each into `folder`."""
    return [
        write_video(
            folder / f"{_name(outcome)}.mp4",
            (env.render(0) for _ in steps(env, controller(env), [outcome.episode], seed)),
            env.spec.rate_hz,
        )
        for outcome in outcomes
    ]


def _name(outcome: Outcome) -> str:
    task = f"{outcome.task.replace('/', '_')}_" if outcome.task else ""
    return f"{task}{'success' if outcome.success else 'failure'}_{outcome.episode:04d}"
