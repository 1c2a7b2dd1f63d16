"""`robolearn collect`: demonstrations of any environment that has a scripted expert."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robolearn.cli.arguments import parse_arguments
from robolearn.cli.compose import compose_config
from robolearn.cli.evaluate import EpisodeCounter, build_env
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import progress, say
from robolearn.collect import CollectConfig, collect
from robolearn.config import parse, to_dict
from robolearn.contracts import EpisodeSink, Expert, VectorEnv
from robolearn.errors import ConfigError, EnvError
from robolearn.evaluation import EvalResult, summarise
from robolearn.protocol import Protocol
from robolearn.registry import resolve
from robolearn.rollout import ExpertController, Outcome, SmoothNoise

__all__ = ["CollectJob", "demonstrate", "main", "rates"]

_USAGE = """usage: robolearn collect env=NAME [collect.episodes=200] [collect.seed=0] [collect.noise=[...]] [out=DIR]
       robolearn collect protocol=NAME [collect.episodes=25] [out=DIR]

Rolls out the scripted expert of an environment and writes its successes as a LeRobot v3 dataset,
DIR/dataset, that `robolearn train data.path=DIR/dataset` learns from. collect.noise
disturbs what is carried out (one size per action entry), never what is recorded; collect.jam, one
chance per entry, closes a gripper out of turn. collect.pace_m_s=0.2 keeps tool targets to a speed
that an arm may have. collect.say=NAME adds a text column with what the
expert says of each frame, for policy.reasoning.key=NAME.
env.cameras=[front,wrist] adds pictures. With a protocol, every one of its tasks is demonstrated
collect.episodes times. Groups: env, protocol."""


@dataclass(frozen=True)
class CollectJob:
    """The resolved config of `robolearn collect`."""

    env: Mapping[str, Any] | None = None
    protocol: Protocol | None = None
    collect: CollectConfig = field(default_factory=CollectConfig)
    out: str | None = None


def main(arguments: Sequence[str]) -> None:
    """Collect one dataset."""
    config = parse(CollectJob, compose_config("collect", parse_arguments(arguments, _USAGE)), where="config")
    envs = [config.env] if config.env else [task.config for task in config.protocol.tasks] if config.protocol else []
    if not envs or (config.env and config.protocol):
        raise ConfigError("What is to be demonstrated?", expected="an environment or a protocol", do="env=NAME")
    out = out_folder("collect", config.out)
    job = Job("collect", out, {**to_dict(config), "out": None})
    with job.stage("demonstrations"):
        found = demonstrate(envs, config.collect, out / "dataset")
    job.finish(found)
    say(f"saved {found['saved']} of {found['episodes']} episodes in {job.wall_s['demonstrations']:.1f} s")
    say(f"dataset: {out / 'dataset'}")


def demonstrate(envs: Sequence[Mapping[str, Any]], config: CollectConfig, folder: Path) -> dict[str, Any]:
    """Write demonstrations of each environment into one dataset, and return how their experts did."""
    sink: EpisodeSink | None = None
    outcomes: list[Outcome] = []
    saved = 0
    try:
        with progress("demonstrate", config.episodes * len(envs), "episodes") as advance:
            counter = EpisodeCounter(advance)
            for options in envs:
                env = build_env(options, min(config.num_envs, config.episodes))
                try:
                    expert = ExpertController(_expert(env, str(options["name"])), config.seed)
                    sink = sink or resolve("sink", "lerobot")(folder, env.spec, {})
                    disturbance = _disturbance(env, config)
                    found = collect(env, expert, sink, config, disturbance=disturbance, on_step=counter)
                finally:
                    env.close()
                outcomes += [replace(outcome, task=str(options["name"])) for outcome in found]
                saved += sum(outcome.success or not config.only_successes for outcome in found)
    finally:
        if sink is not None:
            sink.close()
    return {**rates(summarise(outcomes, 1.0)), "saved": saved}


def _disturbance(env: VectorEnv, config: CollectConfig) -> SmoothNoise | None:
    for name, sizes in (("noise", config.noise), ("jam", config.jam)):
        if sizes and len(sizes) != env.spec.action.dim:
            raise ConfigError(
                f"collect.{name} has one number per action entry.", found=len(sizes), expected=env.spec.action.dim
            )
    scale = config.noise or (0.0,) * len(config.jam)
    return SmoothNoise(env.num_envs, scale, config.seed, jam=config.jam) if scale else None


def _expert(env: Any, name: str) -> Expert:
    if not hasattr(env, "expert"):
        raise EnvError(f"'{name}' has no scripted expert.", do="pick an environment that has one")
    return env.expert()


def rates(result: EvalResult) -> dict[str, Any]:
    """Return the success rate of a result, its interval and its episodes."""
    found = result.to_dict()
    return {key: found[key] for key in ("success_rate", "ci_low", "ci_high", "episodes")}
