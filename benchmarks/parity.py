"""One policy in direct simulation and through the whole stack, episode by episode on the same seeds.

    python benchmarks/parity.py CHECKPOINT [--episodes 300] [--pieces FOLDER] [--minutes 14] [--quick] [--json FILE]

Direct: the simulated task steps with the policy's actions. Stack: observations come over DDS topics, chunks go
through the ring ten times a second, the executor and the safety filter send a command every 2 ms over DDS to a twin
of the same scene, on a simulated clock. Both start from the same states and draw the same noise. `--realtime N`
runs the first N episodes with twin and executor as processes, too, on the machine's own clock. Outcomes are kept in
FOLDER; after `--minutes` the run ends and the next one goes on from there.

`./run demo out=DIR` leaves a checkpoint in DIR. The simulated task moves the tool at up to 1 m/s and its gripper at
once, which the usual limits (0.25 m/s, 0.1 m/s) would slow down, and its first action may turn the tool by more than
the 0.3 rad that a first target may be away: the limits are wider here.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import robolearn
from robolearn.benchmark import Options, Row, finish
from robolearn.contracts import Actor
from robolearn.evaluation import EvalConfig
from robolearn.hardware import commands
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.limits import SafetyConfig
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.intervals import paired_difference, wilson

SEED, EXECUTE, STEPS, PIECE = 100_000, 2, 200, 10  # two steps of 50 ms: ten chunks a second


@dataclass(frozen=True)
class Setting:
    """How the stack is driven; the file of outcomes is for one setting."""

    checkpoint: str
    rate_hz: float
    latency_s: float
    tool_m_s: float
    gripper_m_s: float

    def robot(self) -> RobotConfig:
        """Return the twin of the task."""
        return RobotConfig(
            domain=os.getpid() % 100,  # nobody else's on this machine
            ros=RosRobotConfig(
                "forward",
                rate_hz=self.rate_hz,
                gripper_topic="/gripper_controller/commands",
                gripper_joint="finger_joint1",
                connect_s=60.0,
            ),
            safety=SafetyConfig(tool_m_s=self.tool_m_s, start_rad=0.6),
            base_m=(-0.56, 0.0, 0.912),
            blend_s=0.02,  # a longer one would delay a policy that decides anew every 0.1 s
            gripper_m_s=self.gripper_m_s,
            twin=TwinOptions("pick_place", "forward", latency_s=self.latency_s, wire="dds"),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--realtime", type=int, default=0, help="episodes in processes of their own as well")
    parser.add_argument("--rate", type=float, default=500.0, help="of the commands, in Hz")
    parser.add_argument("--latency", type=float, default=0.0, help="of inference, in seconds")
    parser.add_argument("--tool-speed", type=float, default=1.5, help="the filter's limit, in m/s")
    parser.add_argument("--gripper-speed", type=float, default=1.0, help="of its width, in m/s")
    parser.add_argument("--pieces", type=Path, default=Path("outputs/parity"), help="folder of what was run so far")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no episode after these")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    episodes = 20 if given.quick else given.episodes
    setting = Setting(str(given.checkpoint), given.rate, given.latency, given.tool_speed, given.gripper_speed)
    actor = robolearn.load(given.checkpoint)
    end_s = time.monotonic() + 60 * given.minutes
    given.pieces.mkdir(parents=True, exist_ok=True)
    stack = simulated(setting, actor, episodes, given.pieces, end_s)
    direct = evaluate(actor, len(stack))
    rows = summary(direct, stack, setting)
    if given.realtime:
        rows.append(realtime(setting, actor, given.realtime, direct))
    finish(rows, Options(given.quick, given.json))


def evaluate(actor: Actor, episodes: int) -> list[bool]:
    """Return the successes in direct simulation."""
    env = robolearn.make_env("pick_place", num_envs=min(50, episodes), options={"max_steps": STEPS})
    config = EvalConfig(episodes=episodes, num_envs=env.num_envs, seed=SEED, execute=EXECUTE)
    return [outcome.success for outcome in robolearn.evaluate(actor, env, config).outcomes]


def simulated(setting: Setting, actor: Actor, episodes: int, folder: Path, end_s: float) -> list[dict[str, Any]]:
    """Return the outcomes through the stack, those of earlier runs included, as many as there was time for."""
    file = folder / "stack.jsonl"
    head, *lines = file.read_text().splitlines() if file.is_file() else [json.dumps(vars(setting))]
    if json.loads(head) != vars(setting):
        raise SystemExit(f"{file} is of {head}; name another folder with --pieces")
    if not lines:
        file.write_text(head + "\n")
    done = [json.loads(line) for line in lines]
    while len(done) < episodes and time.monotonic() < end_s:
        numbers = range(len(done), min(len(done) + PIECE, episodes))
        start_s, cpu_s = time.monotonic(), time.process_time()
        result = commands.rollout(
            setting.robot(), actor, len(numbers), EXECUTE, STEPS, SEED, simulated=True, first=numbers[0]
        )
        wall_s, cpu_s = time.monotonic() - start_s, time.process_time() - cpu_s
        shares = {"wall_s": wall_s / len(numbers), "cpu_s": cpu_s / len(numbers)}
        done += [outcome | shares for outcome in result["episodes"]]
        with file.open("a") as out:
            out.writelines(json.dumps(outcome) + "\n" for outcome in done[numbers[0] :])
    return done


def realtime(setting: Setting, actor: Actor, episodes: int, direct: list[bool]) -> Row:
    """Return the successes with the twin and the executor in processes of their own."""
    robot = replace(setting.robot(), signals={"observation.environment_state": "/environment_state"})
    result = commands.rollout(robot, actor, episodes, EXECUTE, STEPS, SEED)
    same = sum(one["success"] == two for one, two in zip(result["episodes"], direct, strict=False))
    missed = result["status"]["missed"]
    note = f"of {episodes} in real time; {same} as in direct simulation; {missed} of {result['status']['ticks']} ticks"
    return Row("realtime", "successes", float(result["successes"]), note=note + " missed")


def summary(direct: list[bool], stack: list[dict[str, Any]], setting: Setting) -> list[Row]:
    """Return both rates and their paired difference, with 95 % intervals, and how fast the stack ran."""
    rows, through = [], [bool(outcome["success"]) for outcome in stack]
    for name, successes in (("direct", direct), ("stack", through)):
        rate = wilson(sum(successes), len(successes))
        note = f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}] of {len(successes)}"
        rows.append(Row(name, "% success", 100 * rate.value, note=note))
    apart = paired_difference(np.array(direct, float).tolist(), np.array(through, float).tolist())
    differing = sum(one != two for one, two in zip(direct, through, strict=True))
    note = f"[{100 * apart.low:.1f}, {100 * apart.high:.1f}], {differing} episodes differ"
    rows.append(Row("stack_less_direct", "points", 100 * apart.value, note=note))
    seconds = sum(outcome["steps"] for outcome in stack) / 20.0
    note = (
        f"{seconds:.0f} s at {setting.rate_hz:.0f} Hz, {sum(outcome['wall_s'] for outcome in stack):.0f} s by the wall"
    )
    rows.append(Row("stack_speed", "x real time", seconds / sum(outcome["cpu_s"] for outcome in stack), note=note))
    return rows


if __name__ == "__main__":
    main()
