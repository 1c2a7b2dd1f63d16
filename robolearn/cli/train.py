"""`robolearn train`: a policy from a dataset; evaluated when an environment is named."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robolearn.actor import load
from robolearn.api import locate_data
from robolearn.checkpoint import find
from robolearn.cli.arguments import Arguments, parse_arguments
from robolearn.cli.compose import compose_config, jobs, merge
from robolearn.cli.evaluate import evaluate_with_bar, film_policy, show_result
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import progress, say, table
from robolearn.errors import CheckpointError
from robolearn.evaluation import EvalResult
from robolearn.files import read_json
from robolearn.metrics import read_metrics
from robolearn.report import write_report
from robolearn.run import RunConfig, parse_run
from robolearn.training import TrainResult, train

__all__ = ["main", "run_training", "train_with_bar"]

_USAGE = """usage: robolearn train policy=flow data=pusht [env=pusht] [train.steps=20000] [out=DIR] [-m]

Trains a policy and leaves checkpoints, metrics.jsonl, run.json and result.json in out; with env= it
is evaluated on `episodes` unseen seeds, with a report and videos. Groups: policy, data, env, train,
eval, experiment. A run goes on with `robolearn train train.resume=RUN`; any dataset opens with
data.path=DIR."""


def main(arguments: Sequence[str]) -> int:
    """Train one run, or one per value of a sweep."""
    given = parse_arguments(arguments, _USAGE)
    for number, single in jobs(given):
        status = run_training(_plain(single), number)
        if status:
            return status
    return 0


def run_training(plain: Mapping[str, Any], number: str = "", verb: str = "train") -> int:
    """Train and evaluate what `plain` says; returns the exit status."""
    plain = dict(plain)
    episodes = plain.pop("episodes", None)
    if episodes is not None:
        plain["eval"] = {**plain["eval"], "episodes": episodes}
    config = parse_run(plain)
    locate_data(config.data.path)  # a dataset that is not there ends the run before anything is written
    wanted = str(Path(config.out) / number) if config.out and number else config.out
    out = out_folder(verb, wanted or _run_of(config), resumes=config.train.resume is not None)
    config = replace(config, out=str(out))
    job = Job(verb, out, {**plain, "out": None})
    with job.stage("training"):
        trained = train_with_bar(config)
    if trained.interrupted:
        say(f"stopped at step {trained.step}; go on with: robolearn train train.resume={out}")
        return 130
    evaluated, videos = None, []
    if config.env is not None:
        actor = load(trained.checkpoint, "cpu" if config.device == "auto" else config.device)
        with job.stage("evaluation"):
            evaluated = evaluate_with_bar(actor, config.env, config.eval)
        with job.stage("video"):
            videos = film_policy(actor, config.env, config.eval, evaluated, out)
    content = job.finish({**(evaluated.to_dict() if evaluated else {}), "training": trained.to_dict()})
    title = f"{plain['policy']['name']} on {Path(config.data.path).name}"
    report = write_report(out / "report.html", title, content, read_metrics(out), videos)
    _show(trained, evaluated, [trained.checkpoint, *videos, report, out / "result.json"])
    return 0


def train_with_bar(config: RunConfig) -> TrainResult:
    """Train with a progress bar over steps."""
    with progress("train", config.train.steps, "steps") as advance:
        return train(config, advance)


def _plain(given: Arguments) -> Mapping[str, Any]:
    """Compose the config; a resumed run that names no dataset starts from its own."""
    resume = given.value("train.resume")
    if not resume or given.value("data") or given.value("experiment"):
        return compose_config("train", given)
    run = Path(resume) if (Path(resume) / "run.json").is_file() else find(resume).parent.parent
    stored = {**read_json(run / "run.json", CheckpointError)["config"], "out": None}  # it may have been moved
    return merge(stored, given)


def _run_of(config: RunConfig) -> str | None:
    return str(find(config.train.resume).parent.parent) if config.train.resume else None


def _show(trained: TrainResult, evaluated: EvalResult | None, files: Sequence[Path]) -> None:
    rows = [
        ("steps", f"{trained.step:,}"),
        ("loss", "–" if trained.loss is None else f"{trained.loss:.4f}"),
        ("samples/s", f"{trained.samples_per_s:,.0f}"),
        ("training [s]", f"{trained.wall_s:.1f}"),
    ]
    if evaluated is not None:
        show_result(evaluated, files, rows)
        return
    table("", ("result", ""), rows)
    for path in files:
        say(f"{path.suffix.lstrip('.') or 'folder'}: {path}")
