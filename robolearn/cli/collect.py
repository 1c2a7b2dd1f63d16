"""`robolearn collect`: demonstrations of any environment that has a scripted expert."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robolearn.cli.arguments import parse_arguments
from robolearn.cli.compose import compose_config
from robolearn.cli.evaluate import EpisodeCounter, build_env
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import progress, say
from robolearn.collect import CollectConfig, collect
from robolearn.config import parse, to_dict
from robolearn.errors import EnvError
from robolearn.evaluation import EvalResult, summarise
from robolearn.registry import resolve
from robolearn.rollout import ExpertController, SmoothNoise

__all__ = ["CollectJob", "demonstrate", "main", "rates"]

_USAGE = """usage: robolearn collect env=NAME [collect.episodes=200] [collect.seed=0] [collect.noise=[...]] [out=DIR]

Rolls out the scripted expert of an environment and writes its successes as a LeRobot v3 dataset,
DIR/dataset, that `robolearn train data=auto data.path=DIR/dataset` learns from. collect.noise
disturbs what is carried out (one size per action entry), never what is recorded.
env.cameras=[front,wrist] adds pictures. Group: env."""


@dataclass(frozen=True)
class CollectJob:
    """The resolved config of `robolearn collect`."""

    env: Mapping[str, Any]
    collect: CollectConfig = field(default_factory=CollectConfig)
    out: str | None = None


def main(arguments: Sequence[str]) -> None:
    """Collect one dataset."""
    config = parse(CollectJob, compose_config("collect", parse_arguments(arguments, _USAGE)), where="config")
    out = out_folder("collect", config.out)
    job = Job("collect", out, {**to_dict(config), "out": None})
    with job.stage("demonstrations"):
        found = demonstrate(config.env, config.collect, out / "dataset")
    job.finish(found)
    say(f"saved {found['saved']} of {found['episodes']} episodes in {job.wall_s['demonstrations']:.1f} s")
    say(f"dataset: {out / 'dataset'}")


def demonstrate(options: Mapping[str, Any], config: CollectConfig, folder: Path) -> dict[str, Any]:
    """Write demonstrations of the environment that `options` name, and return how its expert did."""
    env = build_env(options, min(config.num_envs, config.episodes))
    expert = getattr(env, "expert", None)
    if expert is None:
        env.close()
        raise EnvError(f"'{options['name']}' has no scripted expert.", do="pick an environment that has one")
    disturbance = SmoothNoise(env.num_envs, config.noise, config.seed) if config.noise else None
    sink = resolve("sink", "lerobot")(folder, env.spec, {})
    try:
        with progress("demonstrate", config.episodes, "episodes") as advance:
            outcomes = collect(
                env,
                ExpertController(expert(), config.seed),
                sink,
                config,
                disturbance=disturbance,
                on_step=EpisodeCounter(advance),
            )
    finally:
        sink.close()
        env.close()
    saved = sum(outcome.success for outcome in outcomes) if config.only_successes else len(outcomes)
    return {**rates(summarise(outcomes, 1.0)), "saved": saved}


def rates(result: EvalResult) -> dict[str, Any]:
    """Return the success rate of a result, its interval and its episodes."""
    found = result.to_dict()
    return {key: found[key] for key in ("success_rate", "ci_low", "ci_high", "episodes")}
