"""`robolearn rl`: a cloned policy improved by reinforcement learning, and compared with itself before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robolearn.actor import load
from robolearn.checkpoint import find
from robolearn.cli.arguments import Arguments, parse_arguments
from robolearn.cli.collect import demonstrate
from robolearn.cli.compose import compose_config, jobs, merge
from robolearn.cli.demo import parse_demo
from robolearn.cli.evaluate import evaluate_with_bar, film_policy, show_result
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import progress, say
from robolearn.cli.train import train_with_bar
from robolearn.errors import CheckpointError, ConfigError
from robolearn.files import read_json
from robolearn.metrics import read_metrics
from robolearn.report import write_report
from robolearn.rl.training import DemonstrationConfig, RLConfig, RLResult, compare, env_options, finetune, parse_rl

__all__ = ["main", "run_rl"]

_USAGE = """usage: robolearn rl algo=residual ckpt=RUN env=NAME [demos.path=DATASET] [rl.steps=50000] [out=DIR] [-m]

Improves a checkpoint with a reward (rl.reward=sparse: 1 with success), keeps the best policy by selection
seeds, and compares it with the checkpoint on `episodes` unseen seeds, the same for both. Leaves a
checkpoint that deploys like any other, metrics.jsonl, result.json, report.html and videos.
With clone.task=NAME instead of ckpt, the task of `robolearn demo` is demonstrated and cloned first, in
clone.out=DIR if given: runs that name the same folder share its clone.
Groups: algo, env, eval, experiment. A run goes on with `robolearn rl rl.resume=RUN`."""


def main(arguments: Sequence[str]) -> int:
    """Improve one checkpoint, or one per value of a sweep."""
    given = parse_arguments(arguments, _USAGE)
    for number, single in jobs(given):
        status = run_rl(_plain(single), number)
        if status:
            return status
    return 0


def run_rl(plain: Mapping[str, Any], number: str = "", verb: str = "rl") -> int:
    """Improve and evaluate what `plain` says; returns the exit status."""
    plain = dict(plain)
    if "episodes" in plain:
        plain["eval"] = {**plain["eval"], "episodes": plain.pop("episodes")}
    clone = plain.pop("clone", None)
    if (clone is None) == (plain["ckpt"] is None):
        raise ConfigError("rl needs a clone.", do="name one with ckpt=RUN, or let clone.task=NAME make it")
    config = parse_rl({**plain, "ckpt": plain["ckpt"] or ""})
    wanted = str(Path(config.out) / number) if config.out and number else config.out
    resume = config.rl.resume
    out = out_folder(verb, wanted or (str(find(resume).parent.parent) if resume else None), resumes=resume is not None)
    config = replace(config, out=str(out))
    named = clone and {key: value for key, value in clone.items() if key != "out"}
    job = Job(verb, out, {**plain, "clone": named, "out": None})
    if clone is not None:
        with job.stage("clone"):
            config = _with_clone(config, clone)
    with job.stage("learning"):
        learned = _learn(config)
    if learned.interrupted:
        say(f"stopped at step {learned.steps}; go on with: robolearn rl rl.resume={out}")
        return 130
    options = env_options(config)
    with job.stage("before"):
        before = evaluate_with_bar(load(config.ckpt), options, config.eval)
    actor = load(learned.checkpoint)
    with job.stage("after"):
        after = evaluate_with_bar(actor, options, config.eval)
    with job.stage("video"):
        videos = film_policy(actor, options, config.eval, after, out)
    found = compare(before, after)
    facts = {"learning": learned.to_dict(), "comparison": found, "baselines": {"before": before.to_dict()}}
    content = job.finish({**after.to_dict(), **facts})
    title = f"{options['name']}: {config.algo.name} from {Path(config.ckpt).name}"
    report = write_report(out / "report.html", title, content, read_metrics(out), videos)
    rows = [
        ("before", f"{before.success.value:.1%} [{before.success.low:.1%}, {before.success.high:.1%}]"),
        ("McNemar's p", f"{found['mcnemar_p']:.2g}"),
        ("environment steps", f"{learned.steps:,}"),
        ("minutes", f"{learned.minutes:.1f}"),
        ("best on selection seeds", f"{learned.best:.1%} at step {learned.best_step:,}"),
    ]
    show_result(after, [learned.checkpoint, *videos, report, out / "result.json"], rows)
    return 0


def _plain(given: Arguments) -> Mapping[str, Any]:
    """Compose the config; a resumed run that names no algorithm starts from its own."""
    resume = given.value("rl.resume")
    if not resume or given.value("algo") or given.value("experiment"):
        return compose_config("rl", given)
    return merge(read_json(find(resume).parent.parent / "run.json", CheckpointError)["config"], given)


def _with_clone(config: RLConfig, clone: Mapping[str, Any]) -> RLConfig:
    """Demonstrate and clone a task of `robolearn demo`, unless `clone.out` has done so; learn from it and its data."""
    plain = compose_config("demo", Arguments(overrides=tuple(_overrides(clone))))
    folder = Path(plain["out"] or Path(config.out or ".") / "clone")
    demo = parse_demo(plain, folder)
    job = Job("clone", folder, {**plain, "out": None})
    if not _is_finished(job):
        out_folder("clone", str(folder))
        with job.stage("demonstrations"):
            recorded = demonstrate([demo.env], demo.collect, folder / "dataset")
        with job.stage("training"):
            trained = train_with_bar(demo.run)
        if trained.interrupted:
            raise KeyboardInterrupt
        job.finish({"demonstrations": recorded, "training": trained.to_dict()})
    demos = config.demos or DemonstrationConfig(str(folder / "dataset"), "lerobot")
    return replace(config, ckpt=str(folder), demos=demos)


def _is_finished(job: Job) -> bool:
    """Return whether the folder of `job` has its result; raises `ConfigError` for the result of another config."""
    if not (job.out / "result.json").is_file():
        return False
    former = read_json(job.out / "result.json", CheckpointError)["config"]
    other = [key for key in job.config if former.get(key) != job.config[key]]
    if other:
        found = "; ".join(f"{key}: {former.get(key)!r} there, {job.config[key]!r} wanted" for key in other)
        raise ConfigError(f"{job.out} is another clone.", found=found, do="name another folder in clone.out")
    return True


def _overrides(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield nested options as overrides, key.key=value."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _overrides(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={value}"


def _learn(config: RLConfig) -> RLResult:
    with progress("learn", config.rl.steps, "env steps") as advance:
        return finetune(config, advance)
