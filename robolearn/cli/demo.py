"""`robolearn demo`: the whole loop on an embedded task, in minutes on two cores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robolearn.actor import PolicyActor, load
from robolearn.cli.arguments import Arguments, parse_arguments
from robolearn.cli.collect import demonstrate, rates
from robolearn.cli.compose import compose_config, jobs
from robolearn.cli.evaluate import EpisodeCounter, build_env, evaluate_with_bar, film_policy, show_result
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import progress
from robolearn.cli.train import train_with_bar
from robolearn.collect import CollectConfig
from robolearn.config import parse
from robolearn.evaluation import evaluate_controller
from robolearn.metrics import read_metrics
from robolearn.report import write_report
from robolearn.rollout import RandomController
from robolearn.run import RunConfig, parse_run

__all__ = ["Demo", "main", "parse_demo"]

_USAGE = """usage: robolearn demo [task=pick_place|language] [seed=0] [episodes=100] [out=DIR] [-m]

Collects demonstrations of a MuJoCo task with its scripted expert, writes them as a LeRobot v3
dataset, trains a policy from that dataset alone, evaluates it on unseen seeds, and leaves a table,
a video (DIR/*.mp4), a page (DIR/report.html) and DIR/result.json.
Groups: task, policy, env, train, eval; every option can be overridden (train.steps=1000)."""


@dataclass(frozen=True)
class Demo:
    """The resolved config of `robolearn demo`."""

    run: RunConfig
    collect: CollectConfig
    env: Mapping[str, Any]


def main(arguments: Sequence[str]) -> None:
    """Run the loop once, or once per value of a sweep."""
    given = parse_arguments(arguments, _USAGE)
    for number, single in jobs(given):
        _run(single, number)


def parse_demo(plain: Mapping[str, Any], out: Path) -> Demo:
    """Split the plain config into the parts of the loop; the dataset lies in `out`."""
    rest = dict(plain)
    rest["eval"] = {**rest["eval"], "episodes": rest.pop("episodes")}
    options = {**rest.pop("collect"), "seed": rest.get("seed", 0)}
    rest["data"] = {**rest["data"], "path": str(out / "dataset"), "kind": "lerobot"}
    run = parse_run({**rest, "out": str(out)})
    return Demo(run, parse(CollectConfig, options, where="collect"), rest["env"])


def _run(given: Arguments, number: str) -> None:
    plain = compose_config("demo", given)
    wanted = plain.get("out")
    parse_demo(plain, Path("unused"))  # a mistake ends here, before anything is written
    out = out_folder("demo", str(Path(wanted) / number) if wanted and number else wanted)
    demo = parse_demo(plain, out)
    job = Job("demo", out, {**plain, "out": None})
    with job.stage("demonstrations"):
        expert = demonstrate([demo.env], demo.collect, out / "dataset")
    with job.stage("training"):
        trained = train_with_bar(demo.run)
    if trained.interrupted:
        raise KeyboardInterrupt
    actor = load(trained.checkpoint, demo.run.device)
    with job.stage("evaluation"):
        result = evaluate_with_bar(actor, demo.env, demo.run.eval)
    with job.stage("baselines"):
        floor = _baselines(demo, actor)
    with job.stage("video"):
        videos = film_policy(actor, demo.env, demo.run.eval, result, out)
    baselines = {"policy": result.to_dict(), "scripted expert, disturbed": expert, **floor}
    content = job.finish({**result.to_dict(), "demonstrations": expert, "baselines": floor})
    title = f"{demo.env['name']}: {plain['policy']['name']} policy from {expert['saved']} demonstrations"
    metrics = read_metrics(out)
    report = write_report(out / "report.html", title, {**content, "baselines": baselines}, metrics, videos)
    times = [(name, f"{found['success_rate']:.1%}") for name, found in floor.items()]
    times += [(f"{stage} [s]", f"{seconds:.1f}") for stage, seconds in content["wall_s"].items()]
    show_result(result, [out / "dataset", trained.checkpoint, *videos, report, out / "result.json"], times)


def _baselines(demo: Demo, actor: PolicyActor) -> dict[str, Any]:
    """Return what random actions and the same network before training reach on the same episodes."""
    config = demo.run.eval
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(demo.run.seed)
        untrained = demo.run.policy.build(actor.pipeline.transform_spec(actor.spec))
    env = build_env(demo.env, min(config.num_envs, config.episodes))
    controllers = {
        "random actions": RandomController(env, config.seed),
        "untrained policy": config.controller(PolicyActor(untrained, actor.pipeline, actor.spec), env.num_envs),
    }
    try:
        with progress("baselines", config.episodes * len(controllers), "episodes") as advance:
            counter = EpisodeCounter(advance)
            return {
                name: rates(evaluate_controller(controller, env, config, on_step=counter))
                for name, controller in controllers.items()
            }
    finally:
        env.close()
