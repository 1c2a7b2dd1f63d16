"""`robolearn robot …`: the same commands for a twin on this machine and an arm on a ROS 2 graph."""

import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robolearn.api import open_dataset
from robolearn.cli.arguments import parse_arguments
from robolearn.cli.compose import compose_config
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import say, table
from robolearn.config import parse
from robolearn.contracts import EpisodeSink
from robolearn.errors import ConfigError, suggest
from robolearn.hardware import commands
from robolearn.hardware.board import CalibrateConfig
from robolearn.hardware.calibration import write_calibration
from robolearn.hardware.deploy import RobotConfig, open_transport
from robolearn.hardware.homing import home
from robolearn.hardware.record import Recorded
from robolearn.hardware.teleop import open_device
from robolearn.intervals import wilson
from robolearn.members import load_member
from robolearn.plan import Execution
from robolearn.registry import resolve
from robolearn.spec import Spec

__all__ = ["RobotJob", "main"]

_USAGE = """usage: robolearn robot VERB [robot=twin/panda] [key=value ...]

  list      the registered arms
  check     read without moving: rates, jitter, joints, limits, clock, what protects the arm when we die
  calibrate look at a board: camera intrinsics, hand-eye, joint offsets: calibrate.camera=NAME [device=…];
            robot.calibration=FILE uses what it found
  teleop    drive by hand: device=keyboard|gamepad|spacemouse|leader|page,
            or two: spacemouse+page takes the motion from one and the marks from the other
  record    teleoperate and save episodes: device=… dataset=DIR task="…" episodes=N [action=ee_pose]
  rollout   let a policy act, with interventions: ckpt=DIR episodes=N [device=…] [dataset=DIR]
            continuity=committed|rest|blend delay_steps=N joins its chunks across the delay of inference
  replay    play the joint targets of an episode again: dataset=DIR episode=0
  home      have the arm's own trajectory controller bring it home (an action; robot=ros2/… with rclpy)

robot=twin/… runs on this machine, robot=ros2/… on a ROS 2 graph; simulated=true runs a twin as fast as it
computes. Limits are always on."""


@dataclass(frozen=True, kw_only=True)
class RobotJob(Execution):
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
    action: Recorded = "joint_position"
    policy: Mapping[str, Any] | None = None
    member: str = ""  # of the mixture that was learned from: the dataset to act as
    max_steps: int = 200
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    simulated: bool = False
    seed: int = 0
    out: str | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("episodes", "max_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is too small.", found=getattr(self, name), expected="1 or more")
        if not (self.seconds > 0 and self.rate_hz > 0):
            raise ConfigError("seconds and rate_hz are positive.", found=f"{self.seconds} s, {self.rate_hz} Hz")


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
        result = _VERBS[verb](config, job.out)
    job.finish(result)
    table("", (f"robot {verb}", ""), [(key, _words(value)) for key, value in result.items()])
    say(f"result: {job.out / 'result.json'}")
    return 0


def _check(config: RobotJob, out: Path) -> dict[str, Any]:
    return commands.check(config.robot)


def _calibrate(config: RobotJob, out: Path) -> dict[str, Any]:
    with _opened(config) as device:
        found, facts = commands.calibrate(config.robot, config.calibrate, device, config.simulated)
    file = out / "calibration.json"
    write_calibration(file, found)
    return {
        **facts,
        "calibration": str(file),
        "offsets_rad": list(found.offsets_rad),
        "use": f"robot.calibration={file}",
    }


def _teleop(config: RobotJob, out: Path) -> dict[str, Any]:
    with _opened(config, needed=True) as device:
        return commands.teleop(config.robot, device, config.seconds, config.rate_hz)


def _record(config: RobotJob, out: Path) -> dict[str, Any]:
    sink = _sink(_needed(config.dataset, "dataset", "record"))
    with _opened(config, needed=True) as device:
        return commands.record(config.robot, device, sink, config.task, config.episodes, config.seconds, config.rate_hz)


def _rollout(config: RobotJob, out: Path) -> dict[str, Any]:
    actor = load_member(_needed(config.ckpt, "ckpt", "rollout"), config.member, policy=config.policy)
    with _opened(config) as device:
        result = commands.rollout(
            config.robot,
            actor,
            config,
            config.episodes,
            config.max_steps,
            config.seed,
            device,
            _sink(config.dataset) if config.dataset else None,
            config.task,
            config.simulated,
            config.action,
        )
    rate = wilson(result["successes"], result["trials"])
    return {"success_rate": rate.value, "ci_low": rate.low, "ci_high": rate.high, **result}


def _replay(config: RobotJob, out: Path) -> dict[str, Any]:
    source = open_dataset(_needed(config.dataset, "dataset", "replay"))
    return commands.replay(config.robot, source, config.episode, config.simulated)


@contextmanager
def _opened(config: RobotJob, needed: bool = False) -> Generator[Any]:
    """Open the device that was named, say where its page is, close it afterwards; None without a name."""
    if config.device is None:
        if needed:
            _needed(None, "device", "driving by hand")
        yield None
        return
    if config.simulated:
        raise ConfigError("A human needs real time.", found=f"device={config.device}", do="leave out simulated=true")
    device = open_device(config.device, _leader(config.robot) if config.robot.leader is not None else None)
    url = getattr(device, "url", None)
    if url:
        say(f"open {url}")
    try:
        yield device
    finally:
        device.close()


def _leader(robot: RobotConfig) -> Callable[[], tuple[Any, ...]]:
    return lambda: (open_transport(robot), resolve("robot", robot.arm), robot.leader)


def _sink(folder: str) -> Callable[[Spec], EpisodeSink]:
    return lambda spec: resolve("sink", "lerobot")(Path(folder), spec, {})


def _home(config: RobotJob, out: Path) -> dict[str, Any]:
    return home(config.robot)


def _needed(value: str | None, name: str, what: str) -> str:
    if value is None:
        raise ConfigError(f"{what} needs {name}.", do=f"{name}=…")
    return value


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_VERBS: dict[str, Callable[[RobotJob, Path], dict[str, Any]]] = {
    "check": _check,
    "calibrate": _calibrate,
    "teleop": _teleop,
    "record": _record,
    "rollout": _rollout,
    "replay": _replay,
    "home": _home,
}
