"""One policy in direct simulation and through the whole stack, episode by episode on the same seeds.

    python benchmarks/parity.py CHECKPOINT [--episodes 300] [--latency 0] [--tool-speed 1.5] [--quick] [--json FILE]

Direct: the simulated task steps with the policy's actions. Stack: observations come over topics, chunks go through
the ring, the executor and the safety filter at 250 Hz to a twin of the same scene, on a simulated clock. Both
start from the same states and draw the same noise. `./run demo out=DIR` leaves a checkpoint in DIR. The simulated
task moves the tool at up to 1 m/s, which the filter's usual 0.25 m/s would forbid: its limit is an option here.
"""

import argparse
from pathlib import Path

import numpy as np

import robolearn
from robolearn.benchmark import Options, Row, finish
from robolearn.evaluation import EvalConfig
from robolearn.hardware import commands
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.limits import SafetyConfig
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.intervals import paired_difference, wilson

SEED, EXECUTE, STEPS = 100_000, 8, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--latency", type=float, default=0.0, help="of inference, in seconds")
    parser.add_argument("--tool-speed", type=float, default=1.5, help="the filter's limit, in m/s")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    episodes = 20 if given.quick else given.episodes
    direct, stack = pairs(given.checkpoint, episodes, given.latency, given.tool_speed)
    finish(summary(direct, stack), Options(given.quick, given.json))


def pairs(checkpoint: Path, episodes: int, latency_s: float, tool_m_s: float) -> tuple[list[bool], list[bool]]:
    """Return the successes of both ways, episode by episode."""
    actor = robolearn.load(checkpoint)
    env = robolearn.make_env("pick_place", num_envs=min(50, episodes), options={"max_steps": STEPS})
    config = EvalConfig(episodes=episodes, num_envs=env.num_envs, seed=SEED, execute=EXECUTE)
    direct = [outcome.success for outcome in robolearn.evaluate(actor, env, config).outcomes]
    robot = RobotConfig(
        ros=RosRobotConfig("forward", gripper_topic="/gripper_controller/commands", gripper_joint="finger_joint1"),
        safety=SafetyConfig(tool_m_s=tool_m_s),
        base_m=(-0.56, 0.0, 0.912),
        twin=TwinOptions("pick_place", "forward", latency_s=latency_s),
    )
    result = commands.rollout(robot, actor, episodes, EXECUTE, STEPS, SEED, simulated=True)
    return direct, [outcome["success"] for outcome in result["episodes"]]


def summary(direct: list[bool], stack: list[bool]) -> list[Row]:
    """Return both rates and their paired difference, with 95 % intervals."""
    rows = []
    for name, successes in (("direct", direct), ("stack", stack)):
        rate = wilson(sum(successes), len(successes))
        note = f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}] of {len(successes)}"
        rows.append(Row(name, "% success", 100 * rate.value, note=note))
    apart = paired_difference(np.array(direct, float).tolist(), np.array(stack, float).tolist())
    differing = sum(one != two for one, two in zip(direct, stack, strict=True))
    note = f"[{100 * apart.low:.1f}, {100 * apart.high:.1f}], {differing} episodes differ"
    return [*rows, Row("stack_less_direct", "points", 100 * apart.value, note=note)]


if __name__ == "__main__":
    main()
