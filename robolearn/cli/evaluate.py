"""`robolearn eval`: a checkpoint in closed loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from robolearn.checkpoint import find
from robolearn.cli.arguments import Arguments, parse_arguments
from robolearn.cli.compose import compose_config, jobs
from robolearn.cli.film import choose, film
from robolearn.cli.job import Job, out_folder
from robolearn.cli.openloop import main as openloop
from robolearn.cli.show import progress, say, table
from robolearn.config import config_hash, parse, to_dict
from robolearn.contracts import Actor, VectorEnv
from robolearn.errors import ConfigError, suggest
from robolearn.evaluation import EvalConfig, EvalResult, evaluate
from robolearn.files import sha256
from robolearn.members import load_member
from robolearn.metrics import read_metrics
from robolearn.outcomes import OutcomeLog
from robolearn.policies.lerobot import is_lerobot, load_lerobot
from robolearn.protocol import Protocol, evaluate_protocol
from robolearn.provenance import versions
from robolearn.registry import configure
from robolearn.remote import evaluate_on_ray
from robolearn.report import write_report
from robolearn.rollout import StepRecord

__all__ = ["EvalJob", "build_env", "evaluate_with_bar", "main", "protocol_rows", "show_result"]

_USAGE = """usage: robolearn eval ckpt=DIR [episodes=N] [env=NAME] [eval.execute=8] [policy.steps=4] [out=DIR] [-m]
       robolearn eval ckpt=DIR protocol=NAME [env=ONE_OF_ITS_TASKS] [out=DIR]
       robolearn eval openloop ckpt=DIR [data.path=DATASET] [windows=512] [out=DIR]

Runs a checkpoint (or the newest one of a run folder) in closed loop on seeds that training never
saw. The environment is the one it was trained with unless env= names another. Leaves
result.json, report.html and videos. Groups: env, eval. `policy.KEY=` overrides options that do not
change the weights. member=NAME acts as one dataset of the mixture that was learned from.
ckpt= may also be a folder that LeRobot wrote; rename.THEIRS=OURS maps its observations.
backend=ray workers=N shares the episodes out over a Ray cluster. An evaluation that was interrupted goes
on with the same command, out=DIR included.

A protocol fixes tasks, episodes, seeds, horizons and execution, and carries a hash; without env=
all of its tasks are run. `robolearn list protocols` names them."""

_LOG = "outcomes.jsonl"  # of an unfinished evaluation
_FREE = ("ckpt", "device", "out", "policy", "protocol", "eval.num_envs", "eval.videos")  # beside a protocol


@dataclass(frozen=True)
class EvalJob:
    """The resolved config of `robolearn eval`."""

    ckpt: str
    env: Mapping[str, Any] | None = None
    eval: EvalConfig = field(default_factory=EvalConfig)
    protocol: Protocol | None = None
    policy: Mapping[str, Any] | None = None
    member: str = ""  # of the mixture that was learned from: the dataset to act as
    rename: Mapping[str, str] = field(default_factory=dict)  # a LeRobot policy's observation → the environment's
    backend: Literal["local", "ray"] = "local"  # ray: episodes shared out over `workers` processes of a cluster
    workers: int = 2
    device: str = "cpu"
    out: str | None = None


def main(arguments: Sequence[str]) -> None:
    """Evaluate one checkpoint, or one per value of a sweep; "openloop" is a verb of its own below."""
    if arguments and arguments[0] == "openloop":
        openloop(arguments[1:])
        return
    given = parse_arguments(arguments, _USAGE)
    for number, single in jobs(given):
        _run(single, number)


def _run(given: Arguments, number: str) -> None:
    plain = compose_config("eval", given)
    plain["eval"] = {**plain["eval"], "episodes": plain.pop("episodes")}
    config = parse(EvalJob, plain, where="config")
    actor = _actor(config)
    if config.protocol is not None:
        config, envs = _under_protocol(config, config.protocol, given, actor)
    else:
        options = config.env or _trained_in(config.ckpt)
        config, envs = replace(config, env=dict(options)), {"": options}
    wanted = str(Path(config.out) / number) if config.out and number else config.out
    interrupted = wanted is not None and (Path(wanted) / _LOG).exists() and not (Path(wanted) / "result.json").exists()
    out = out_folder("eval", wanted, resumes=interrupted)
    job = Job("eval", out, to_dict(replace(config, out=None)))
    log = OutcomeLog(out / _LOG, _identity(config))
    if log.successes:
        say(f"{len(log.successes)} episodes were evaluated before; going on")
    with job.stage("evaluation"):
        if config.protocol is not None:
            result = _protocol_with_bar(actor, config.protocol, config.eval.num_envs, log)
        elif config.backend == "ray":
            result = evaluate_on_ray(config.ckpt, envs[""], config.eval, workers=config.workers, policy=config.policy)
        else:
            result = evaluate_with_bar(actor, envs[""], config.eval, log)
    with job.stage("video"):
        videos = [
            path for name, env in envs.items() for path in film_policy(actor, env, config.eval, result, out, name)
        ]
    content = job.finish(result.to_dict())
    log.remove()
    metrics = read_metrics(Path(config.ckpt))
    where = config.protocol.name if config.protocol else str(envs[""]["name"])
    report = write_report(out / "report.html", f"{where}: {Path(config.ckpt).name}", content, metrics, videos)
    show_result(result, [*videos, report, out / "result.json"], protocol_rows(result))


def _under_protocol(
    config: EvalJob, protocol: Protocol, given: Arguments, actor: Actor
) -> tuple[EvalJob, dict[str, dict[str, Any]]]:
    """Return the config with its protocol's execution, and its tasks; refuses overrides of what the protocol fixes."""
    keys = [override.partition("=")[0].lstrip("+~") for override in given.overrides]
    fixed = [
        key for key in keys if key != "env" and key not in _FREE and key.split(".")[0] not in ("policy", "protocol")
    ]
    if fixed:
        raise ConfigError(
            f"Protocol '{protocol.name}' fixes {', '.join(fixed)}.",
            expected=f"nothing but {', '.join(_FREE)} and env=ONE_OF_ITS_TASKS",
            do="drop the override, or evaluate without a protocol",
        )
    if any(key.startswith("protocol.") for key in keys):
        protocol = replace(protocol, name=f"{protocol.name} (changed)")
    if config.env is not None:
        wanted, tasks = str(config.env.get("name")), {task.env: task for task in protocol.tasks}
        if wanted not in tasks:
            raise ConfigError(f"Protocol '{protocol.name}' has no task '{wanted}'.", expected=suggest(wanted, tasks))
        protocol = replace(protocol, tasks=(tasks[wanted],))
    settings = protocol.eval_config(actor.spec.chunk, config.eval.num_envs)
    config = replace(config, protocol=protocol, env=None, eval=replace(settings, videos=config.eval.videos))
    return config, {task.env: task.config for task in protocol.tasks}


def _identity(config: EvalJob) -> str:
    """Return what decides the outcomes: config, weights, libraries; not how many rows run at a time."""
    weights = (
        Path(config.ckpt) / "model.safetensors" if is_lerobot(config.ckpt) else find(config.ckpt) / "manifest.json"
    )
    decides = replace(config, out=None, eval=replace(config.eval, num_envs=1, videos=0))
    return config_hash({"config": to_dict(decides), "weights": sha256(weights), "versions": versions()})


def _protocol_with_bar(actor: Actor, protocol: Protocol, num_envs: int, log: OutcomeLog) -> EvalResult:
    with progress("evaluate", protocol.episodes * len(protocol.tasks), "episodes") as advance:
        counter = EpisodeCounter(advance, before=log.successes)
        return evaluate_protocol(actor, protocol, build_env, num_envs=num_envs, on_step=counter, log=log)


def protocol_rows(result: EvalResult) -> list[tuple[str, str]]:
    """Return what a protocol adds to the final table: its hash, each task, resets beside the peer's."""
    facts = result.facts.get("protocol")
    if facts is None:
        return []
    rows = [("protocol", facts["name"]), ("protocol hash", facts["hash"])]
    for name, task in result.facts["tasks"].items():
        rows.append((name, f"{task['success_rate']:.1%} [{task['ci_low']:.1%}, {task['ci_high']:.1%}]"))
        for entry, width in task["resets"].get("there", {}).items():
            here, peer = task["resets"]["here"][entry], task["resets"]["peer"]
            rows.append((f"  resets of {entry}", f"{here:g} wide; {peer}: {width:g}"))
    return rows


def build_env(options: Mapping[str, Any], num_envs: int) -> VectorEnv:
    """Build the environment that the plain config `options` names."""
    if not isinstance(options.get("name"), str):
        raise ConfigError("env has no name.", found=dict(options), expected="name: …", do="pick one: env=NAME")
    return configure("env", options, "env").build(num_envs)


def evaluate_with_bar(
    actor: Actor, options: Mapping[str, Any], config: EvalConfig, log: OutcomeLog | None = None
) -> EvalResult:
    """Evaluate with a progress bar over episodes."""
    env = build_env(options, min(config.num_envs, config.episodes))
    try:
        with progress("evaluate", config.episodes, "episodes") as advance:
            counter = EpisodeCounter(advance, before=log.successes if log else ())
            return evaluate(actor, env, config, on_step=counter, log=log)
    finally:
        env.close()


class EpisodeCounter:
    """Moves a bar by the episodes that ended, with the success rate so far; `before` ended earlier."""

    def __init__(self, advance: Any, word: str = "success", before: Sequence[bool] = ()):
        self._advance, self._word, self._done, self._good = advance, word, len(before), sum(before)

    def __call__(self, record: StepRecord) -> None:
        if record.finished:
            self._done += len(record.finished)
            self._good += sum(outcome.success for outcome in record.finished)
            self._advance(self._done, f"{self._word} {self._good / self._done:.0%}")


def film_policy(
    actor: Actor, options: Mapping[str, Any], config: EvalConfig, result: EvalResult, out: Path, task: str = ""
) -> list[Path]:
    """Film `config.videos` episodes of the evaluation, a success first; with `task`, of one task's."""
    chosen = choose([outcome for outcome in result.outcomes if outcome.task == task], config.videos)
    if not chosen:
        return []
    env = build_env(options, 1)
    try:
        return film(env, lambda env: config.controller(actor, 1), chosen, config.seed, out)
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


def _actor(config: EvalJob) -> Actor:
    """Return the actor of a checkpoint, or of a folder that LeRobot wrote, which states no rate of its own."""
    if config.member and (is_lerobot(config.ckpt) or config.backend == "ray"):
        raise ConfigError("Only a checkpoint of ours acts as a member, in this process.", found=config.member)
    if not is_lerobot(config.ckpt):
        if config.rename:
            raise ConfigError("Only a LeRobot policy's observations are renamed here.", found=dict(config.rename))
        return load_member(config.ckpt, config.member, config.device, policy=config.policy)
    if config.env is None or config.policy:
        raise ConfigError(
            "A LeRobot policy is evaluated as it is, in an environment that is named.",
            found=f"env {config.env}, policy {config.policy}",
            do="set env=NAME and leave policy.KEY out",
        )
    env = build_env(config.env, 1)
    env.close()
    return load_lerobot(config.ckpt, env.spec.rate_hz, config.device, config.rename)


def _trained_in(ckpt: str) -> Mapping[str, Any]:
    from robolearn import checkpoint

    env = checkpoint.load(ckpt).config.get("env")
    if not isinstance(env, Mapping):
        raise ConfigError("The checkpoint names no environment.", do="pick one: env=NAME (see robolearn list env)")
    return env
