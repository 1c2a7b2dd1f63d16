"""`robolearn eval`: a checkpoint in closed loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robolearn.actor import load
from robolearn.cli.arguments import Arguments, parse_arguments
from robolearn.cli.compose import compose_config, jobs
from robolearn.cli.film import choose, film
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import progress, say, table
from robolearn.config import parse, to_dict
from robolearn.contracts import Actor, Controller, VectorEnv
from robolearn.errors import ConfigError
from robolearn.evaluation import EvalConfig, EvalResult, evaluate
from robolearn.metrics import read_metrics
from robolearn.registry import resolve
from robolearn.report import write_report
from robolearn.rollout import PolicyController, StepRecord

__all__ = ["EvalJob", "build_env", "evaluate_with_bar", "main", "show_result"]

_USAGE = """usage: robolearn eval ckpt=DIR [episodes=N] [env=NAME] [eval.execute=8] [policy.steps=4] [out=DIR] [-m]

Runs a checkpoint (or the newest one of a run folder) in closed loop on seeds that training never
saw. The environment is the one it was trained with unless env= names another. Leaves
result.json, report.html and videos. Groups: env, eval. `policy.KEY=` overrides options that do not
change the weights."""


@dataclass(frozen=True)
class EvalJob:
    """The resolved config of `robolearn eval`."""

    ckpt: str
    env: Mapping[str, Any] | None = None
    eval: EvalConfig = field(default_factory=EvalConfig)
    policy: Mapping[str, Any] | None = None
    device: str = "cpu"
    out: str | None = None


def main(arguments: Sequence[str]) -> None:
    """Evaluate one checkpoint, or one per value of a sweep."""
    given = parse_arguments(arguments, _USAGE)
    for number, single in enumerate(jobs(given)):
        _run(single, f"{number:03d}" if given.multirun else "")


def _run(given: Arguments, number: str) -> None:
    plain = compose_config("eval", given)
    plain["eval"] = {**plain["eval"], "episodes": plain.pop("episodes")}
    config = parse(EvalJob, plain, where="config")
    actor = load(config.ckpt, config.device, policy=config.policy)
    options = config.env or _trained_in(config.ckpt)
    out = out_folder("eval", str(Path(config.out) / number) if config.out and number else config.out)
    job = Job("eval", out, {**to_dict(replace(config, out=None)), "env": dict(options)})
    with job.stage("evaluation"):
        result = evaluate_with_bar(actor, options, config.eval)
    with job.stage("video"):
        videos = film_policy(actor, options, config.eval, result, out)
    content = job.finish(result.to_dict())
    metrics = read_metrics(Path(config.ckpt))
    report = write_report(out / "report.html", f"{options['name']}: {Path(config.ckpt).name}", content, metrics, videos)
    show_result(result, [*videos, report, out / "result.json"])


def build_env(options: Mapping[str, Any], num_envs: int) -> VectorEnv:
    """Build the environment that the plain config `options` names."""
    if not isinstance(options.get("name"), str):
        raise ConfigError("env has no name.", found=dict(options), expected="name: …", do="pick one: env=NAME")
    return parse(resolve("env", options["name"]), options, where="env").build(num_envs)


def evaluate_with_bar(actor: Actor, options: Mapping[str, Any], config: EvalConfig) -> EvalResult:
    """Evaluate with a progress bar over episodes."""
    env = build_env(options, min(config.num_envs, config.episodes))
    try:
        with progress("evaluate", config.episodes, "episodes") as advance:
            return evaluate(actor, env, config, on_step=EpisodeCounter(advance))
    finally:
        env.close()


class EpisodeCounter:
    """Moves a bar by the episodes that ended, with the success rate so far."""

    def __init__(self, advance: Any, word: str = "success"):
        self._advance, self._word, self._done, self._good = advance, word, 0, 0

    def __call__(self, record: StepRecord) -> None:
        if record.finished:
            self._done += len(record.finished)
            self._good += sum(outcome.success for outcome in record.finished)
            self._advance(self._done, f"{self._word} {self._good / self._done:.0%}")


def film_policy(
    actor: Actor, options: Mapping[str, Any], config: EvalConfig, result: EvalResult, out: Path
) -> list[Path]:
    """Film `config.videos` episodes of the evaluation, a success first."""
    chosen = choose(result.outcomes, config.videos)
    if not chosen:
        return []
    env = build_env(options, 1)

    def controller(env: VectorEnv) -> Controller:
        return PolicyController(
            actor, 1, config.execute, config.seed, config.delay_steps, config.temperature, config.continuity
        )

    try:
        return film(env, controller, chosen, config.seed, out)
    finally:
        env.close()


def show_result(result: EvalResult, files: Sequence[Path], more: Sequence[tuple[str, str]] = ()) -> None:
    """Print the final table and where everything lies."""
    rows = [
        ("success rate", f"{result.success.value:.1%}"),
        ("95 % Wilson interval", f"[{result.success.low:.1%}, {result.success.high:.1%}]"),
        ("episodes", str(len(result.outcomes))),
        ("mean return", f"{result.mean_return:.3f}"),
        ("score (mean best reward)", f"{result.score.value:.3f} [{result.score.low:.3f}, {result.score.high:.3f}]"),
        ("environment steps/s", f"{result.env_steps_per_s:,.0f}"),
        *more,
    ]
    table("", ("result", ""), rows)
    for path in files:
        say(f"{path.suffix.lstrip('.') or 'folder'}: {path}")


def _trained_in(ckpt: str) -> Mapping[str, Any]:
    from robolearn import checkpoint

    env = checkpoint.load(ckpt).config.get("env")
    if not isinstance(env, Mapping):
        raise ConfigError("The checkpoint names no environment.", do="pick one: env=NAME (see robolearn list env)")
    return env
