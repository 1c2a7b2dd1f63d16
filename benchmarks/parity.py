"""One policy in direct simulation and through the whole stack, episode by episode on the same seeds.

    python benchmarks/parity.py [--folder DIR] [--episodes 300] [--pace 0.2] [--minutes 14] [--quick] [--json FILE]

Direct: the simulated task steps with the policy's actions. Stack: observations come over DDS topics, chunks go
through the ring ten times a second, the executor and the safety filter with its usual limits send a command every
2 ms over DDS to a twin of the same scene, on a simulated clock. Both start from the same states and draw the same
noise. `--realtime N` runs the first N episodes with twin and executor as processes, too, on the machine's own clock.

The policy is cloned from the task's scripted expert, whose targets are slowed down to `--pace` [m/s]: the tool of a
real arm may move at 0.25 m/s, and what a policy has never seen it do faster, it does not ask for. A policy cloned
from the expert as it is moves the tool at up to 0.6 m/s and its joint targets at up to 1.5 times the speed limits of
the joints; behind limits that hold, it sees an arm slower than any it has learned from, and succeeds less often.

The demonstrations, the policy and the outcomes stay in DIR; after `--minutes` the run ends and the next one goes on.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import robolearn
from robolearn.benchmark import Options, Row, finish
from robolearn.collect import CollectConfig, collect
from robolearn.contracts import Actor
from robolearn.evaluation import EvalConfig
from robolearn.hardware import commands
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.intervals import paired_difference, wilson
from robolearn.plan import Execution
from robolearn.registry import resolve
from robolearn.rollout import ExpertController
from robolearn.run import parse_run

SEED, EXECUTE, STEPS, PIECE, RATE_HZ = 100_000, 2, 300, 10, 20.0  # two steps of 50 ms: ten chunks a second


@dataclass(frozen=True)
class Setting:
    """How the policy was made and the stack is driven; a folder is for one setting."""

    pace_m_s: float
    demonstrations: int
    train_steps: int
    rate_hz: float
    latency_s: float

    def robot(self) -> RobotConfig:
        """Return the twin of the task."""
        return twin_of(TwinOptions("pick_place", "forward", latency_s=self.latency_s, wire="dds"), self.rate_hz)


def twin_of(twin: TwinOptions, rate_hz: float) -> RobotConfig:
    """Return a Panda at the tabletop of the simulated tasks that is commanded `rate_hz` times a second."""
    ros = RosRobotConfig(
        "forward",
        rate_hz=rate_hz,
        gripper_topic="/gripper_controller/commands",
        gripper_joint="finger_joint1",
        connect_s=60.0,
    )
    domain = os.getpid() % 100  # nobody else's on this machine
    return RobotConfig(domain=domain, ros=ros, base_m=(-0.56, 0.0, 0.912), twin=twin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/parity"), help="of what was done so far")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--realtime", type=int, default=0, help="episodes in processes of their own as well")
    parser.add_argument("--pace", type=float, default=0.2, help="of the demonstrated tool targets, in m/s")
    parser.add_argument("--rate", type=float, default=500.0, help="of the commands, in Hz")
    parser.add_argument("--latency", type=float, default=0.0, help="of inference, in seconds")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no episode after these")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    end_s = time.monotonic() + 60 * given.minutes
    demonstrations, steps, episodes = (50, 600, 5) if given.quick else (200, 3000, given.episodes)
    setting = Setting(given.pace, demonstrations, steps, given.rate, given.latency)
    claim(setting, given.folder)
    actor = robolearn.load(learn(setting, given.folder))
    stack = simulated(setting.robot(), actor, Execution(EXECUTE), episodes, given.folder / "stack.jsonl", end_s)
    direct = evaluate(actor, len(stack))
    rows = summary(direct, stack, setting.rate_hz)
    if given.realtime:
        rows.append(realtime(setting, actor, given.realtime, direct))
    finish(rows, Options(given.quick, given.json))


def claim(setting: Setting, folder: Path) -> None:
    """Make `folder` the one of `setting`; refuses one of another setting."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "setting.json"
    if not file.is_file():
        file.write_text(json.dumps(vars(setting)))
    if json.loads(file.read_text()) != vars(setting):
        raise SystemExit(f"{folder} is of {file.read_text()}; name another one with --folder")


def learn(setting: Setting, folder: Path) -> Path:
    """Demonstrate the task at the setting's pace and clone a flow policy, unless `folder` has it; returns its run."""
    if (folder / "run" / "checkpoints").is_dir():
        return folder / "run"
    env = robolearn.make_env("pick_place", num_envs=50, options={"max_steps": STEPS})
    sink = resolve("sink", "lerobot")(folder / "dataset", env.spec, {})
    config = CollectConfig(setting.demonstrations, env.num_envs, pace_m_s=setting.pace_m_s)
    collect(env, ExpertController(env.expert(), 0), sink, config)
    sink.close()
    tool = [[name, name] for name in ("x", "y", "z", "yaw")]
    relative = {"name": "relative_action", "entries": tool, "angles": ["yaw"]}
    keys = ["observation.state", "observation.environment_state"]
    plain = {
        "policy": {"name": "flow", "network": {"name": "mlp", "width": 512, "depth": 2}},
        "data": {"path": str(folder / "dataset"), "keys": keys, "transforms": [relative]},
        "train": {"steps": setting.train_steps, "ema_decay": 0.998, "ema_every": 4, "save_every": 100_000},
        "out": str(folder / "run"),
        "device": "cpu",
    }
    robolearn.train(parse_run(plain))
    return folder / "run"


def evaluate(actor: Actor, episodes: int) -> list[bool]:
    """Return the successes in direct simulation."""
    env = robolearn.make_env("pick_place", num_envs=min(50, episodes), options={"max_steps": STEPS})
    config = EvalConfig(episodes=episodes, num_envs=env.num_envs, seed=SEED, execute=EXECUTE)
    return [outcome.success for outcome in robolearn.evaluate(actor, env, config).outcomes]


def simulated(
    robot: RobotConfig, actor: Actor, how: Execution, episodes: int, file: Path, end_s: float
) -> list[dict[str, Any]]:
    """Return the outcomes through the stack, those of earlier runs included, as many as there was time for."""
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    while len(done) < episodes and time.monotonic() < end_s:
        numbers = range(len(done), min(len(done) + PIECE, episodes))
        start_s, cpu_s = time.monotonic(), time.process_time()
        result = commands.rollout(robot, actor, how, len(numbers), STEPS, SEED, simulated=True, first=numbers[0])
        wall_s, cpu_s = time.monotonic() - start_s, time.process_time() - cpu_s
        shares = {"wall_s": wall_s / len(numbers), "cpu_s": cpu_s / len(numbers)}
        done += [outcome | shares for outcome in result["episodes"]]
        with file.open("a") as out:
            out.writelines(json.dumps(outcome) + "\n" for outcome in done[numbers[0] :])
    return done


def realtime(setting: Setting, actor: Actor, episodes: int, direct: list[bool]) -> Row:
    """Return the successes with the twin and the executor in processes of their own."""
    robot = replace(setting.robot(), signals={"observation.environment_state": "/environment_state"})
    result = commands.rollout(robot, actor, Execution(EXECUTE), episodes, STEPS, SEED)
    same = sum(one["success"] == two for one, two in zip(result["episodes"], direct, strict=False))
    missed = result["status"]["missed"]
    note = f"of {episodes} in real time; {same} as in direct simulation; {missed} of {result['status']['ticks']} ticks"
    return Row("realtime", "successes", float(result["successes"]), note=note + " missed")


def summary(direct: list[bool], stack: list[dict[str, Any]], rate_hz: float) -> list[Row]:
    """Return both rates and their paired difference, with 95 % intervals, and how fast the stack ran."""
    rows: list[Row] = []
    through = [bool(outcome["success"]) for outcome in stack]
    for name, successes in (("direct", direct), ("stack", through)):
        rate = wilson(sum(successes), len(successes))
        note = f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}] of {len(successes)}"
        rows.append(Row(name, "% success", 100 * rate.value, note=note))
    apart = paired_difference([float(one) for one in direct], [float(one) for one in through])
    differing = sum(one != two for one, two in zip(direct, through, strict=True))
    note = f"[{100 * apart.low:.1f}, {100 * apart.high:.1f}], {differing} episodes differ"
    rows.append(Row("stack_less_direct", "points", 100 * apart.value, note=note))
    seconds = sum(outcome["steps"] for outcome in stack) / RATE_HZ
    note = f"{seconds:.0f} s at {rate_hz:.0f} Hz, {sum(outcome['wall_s'] for outcome in stack):.0f} s by the wall"
    rows.append(Row("stack_speed", "x real time", seconds / sum(outcome["cpu_s"] for outcome in stack), note=note))
    return rows


if __name__ == "__main__":
    main()
