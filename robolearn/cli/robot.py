"""`robolearn robot …`: the same commands for a twin on this machine and an arm on a ROS 2 graph."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolearn.actor import load
from robolearn.api import open_dataset
from robolearn.cli.arguments import parse_arguments
from robolearn.cli.compose import compose_config
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import say, table
from robolearn.config import parse
from robolearn.contracts import EpisodeSink
from robolearn.errors import ConfigError, suggest
from robolearn.hardware import commands
from robolearn.hardware.deploy import RobotConfig
from robolearn.hardware.teleop import Device, open_device
from robolearn.intervals import wilson
from robolearn.registry import resolve
from robolearn.spec import Spec

__all__ = ["RobotJob", "main"]

_USAGE = """usage: robolearn robot list | check | teleop | record | rollout | replay [robot=twin/panda] [key=value ...]

  list      the registered arms
  check     read without moving: rates, jitter, joints, limits, clock, what protects the arm when we die
  teleop    drive by hand: device=keyboard|gamepad|page
  record    teleoperate and save episodes: device=… dataset=DIR task="…" episodes=N
  rollout   let a policy act, with interventions: ckpt=DIR episodes=N [device=…] [dataset=DIR]
  replay    play the joint targets of an episode again: dataset=DIR episode=0

robot=twin/… runs on this machine, robot=ros2/… on a ROS 2 graph. Limits are always on."""


@dataclass(frozen=True)
class RobotJob:
    """The resolved config of `robolearn robot`."""

    robot: RobotConfig
    device: str | None = None
    task: str = ""
    ckpt: str | None = None
    dataset: str | None = None
    episodes: int = 1
    episode: int = 0
    seconds: float = 60.0
    rate_hz: float = 20.0
    execute: int = 8
    max_steps: int = 200
    seed: int = 0
    out: str | None = None


def main(arguments: Sequence[str]) -> int:
    """Run one sub-command and leave its result."""
    given = parse_arguments(arguments, _USAGE, names=1)
    if not given.names:
        sys.stdout.write(_USAGE + "\n")
        return 0
    verb = given.names[0]
    if verb == "list":
        rows = commands.list_robots()
        table("", tuple(rows[0]), [tuple(row.values()) for row in rows])
        return 0
    if verb not in _VERBS:
        raise ConfigError(f"Unknown sub-command 'robot {verb}'.", expected=suggest(verb, [*_VERBS, "list"]))
    plain = compose_config("robot", given)
    config = parse(RobotJob, plain, where="config")
    job = Job(f"robot {verb}", out_folder(f"robot-{verb}", config.out), {**plain, "out": None})
    with job.stage(verb):
        result = _VERBS[verb](config)
    job.finish(result)
    table("", (f"robot {verb}", ""), [(key, _words(value)) for key, value in result.items()])
    say(f"result: {job.out / 'result.json'}")
    return 0


def _check(config: RobotJob) -> dict[str, Any]:
    return commands.check(config.robot)


def _teleop(config: RobotJob) -> dict[str, Any]:
    return _by_hand(config, lambda device: commands.teleop(config.robot, device, config.seconds, config.rate_hz))


def _record(config: RobotJob) -> dict[str, Any]:
    sink = _sink(_needed(config.dataset, "dataset", "record"))

    def work(device: Device) -> dict[str, Any]:
        return commands.record(config.robot, device, sink, config.task, config.episodes, config.seconds, config.rate_hz)

    return _by_hand(config, work)


def _rollout(config: RobotJob) -> dict[str, Any]:
    actor = load(_needed(config.ckpt, "ckpt", "rollout"))
    device = open_device(config.device) if config.device else None
    try:
        result = commands.rollout(
            config.robot,
            actor,
            config.episodes,
            config.execute,
            config.max_steps,
            config.seed,
            device,
            _sink(config.dataset) if config.dataset else None,
            config.task,
        )
    finally:
        if device is not None:
            device.close()
    rate = wilson(result["successes"], result["trials"])
    return {"success_rate": rate.value, "ci_low": rate.low, "ci_high": rate.high, **result}


def _replay(config: RobotJob) -> dict[str, Any]:
    return commands.replay(config.robot, open_dataset(_needed(config.dataset, "dataset", "replay")), config.episode)


def _by_hand(config: RobotJob, work: Callable[[Device], dict[str, Any]]) -> dict[str, Any]:
    device = open_device(_needed(config.device, "device", "driving by hand"))
    url = getattr(device, "url", None)
    if url:
        say(f"open {url}")
    try:
        return work(device)
    finally:
        device.close()


def _sink(folder: str) -> Callable[[Spec], EpisodeSink]:
    return lambda spec: resolve("sink", "lerobot")(Path(folder), spec, {})


def _needed(value: str | None, name: str, what: str) -> str:
    if value is None:
        raise ConfigError(f"{what} needs {name}.", do=f"{name}=…")
    return value


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_VERBS: dict[str, Callable[[RobotJob], dict[str, Any]]] = {
    "check": _check,
    "teleop": _teleop,
    "record": _record,
    "rollout": _rollout,
    "replay": _replay,
}
