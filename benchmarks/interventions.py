"""The intervention loop on the twin: a policy that often fails, a human beside it, rounds of correction.

    python benchmarks/interventions.py [--task named_bin] [--seed 0] [--folder DIR] [--minutes 14] [--quick]
        [--json FILE]

A stand-in for the human (`_stand_ins.py`) teleoperates through the same jog, executor and safety filter as a person
would. It demonstrates a few episodes; a policy is cloned from them. In every round the policy acts on the
twin; when it makes no progress the helper rewinds, corrects and hands back. The policy is trained anew on all
episodes so far, with the corrections counting for half of the loss (Sirius), and from the same episodes unweighted.
The other arm of the comparison gets plain demonstrations instead, of as many steps of the human's as the corrections
took. Data apart, all arms are the same: network, training steps, seed. Success is counted without help, in the
simulated task, on seeds that nothing else uses.

Three tasks, three beginnings. `named_bin`: the red cube into the bin that is named; one start in five names a bin that
the first demonstrations leave out, so that the policy fails there and nowhere else. `peg_insertion`: a peg into a hole
with 2 mm of play, from a policy that succeeds half of the time. `pick_place`: from a policy so poor that most of what
it does by itself is no example. What corrections are worth in each: docs/interventions.md.

What is done is kept in DIR; a run begins no new part after `--minutes`, and the next one goes on from there.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _stand_ins import BASE_M, MAX_STEPS, RATE_HZ, SPEED_M_S, Helper, InsertsPeg, PlacesCube, PlacesNamed

import robolearn
from robolearn.benchmark import Options, Row, finish
from robolearn.evaluation import EvalConfig, write_json
from robolearn.hardware import commands
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.limits import SafetyConfig
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.intervals import wilson
from robolearn.plan import Execution
from robolearn.registry import resolve
from robolearn.rollout import episode_seed
from robolearn.run import parse_run


@dataclass(frozen=True)
class Setting:
    """A task, who helps in it, and how much of everything there is."""

    env: str
    helper: type[Helper]
    patience_s: float
    first: int  # demonstrations
    each: int  # rollouts a round
    rounds: int
    steps: int  # of training
    network: dict[str, Any]
    rewind: float  # weight of the way back
    episodes: int = 300  # of an evaluation
    keys: tuple[str, ...] = ("observation.state", "observation.environment_state")
    usual: str = ""  # instruction of four starts in five, and of all first demonstrations
    rare: str = ""  # of every fifth start

    def robot(self) -> RobotConfig:
        """Return the twin of the task."""
        ros = RosRobotConfig(
            "forward", rate_hz=100.0, gripper_topic="/gripper_controller/commands", gripper_joint="finger_joint1"
        )
        twin = TwinOptions(self.env.removeprefix("robolearn/"), "forward")
        return RobotConfig(ros=ros, safety=SafetyConfig(), base_m=BASE_M, jog_m_s=SPEED_M_S, twin=twin)


MLP: dict[str, Any] = {"name": "mlp", "width": 256, "depth": 2}
SETTINGS = {
    "named_bin": Setting(
        env="pick_place_language",
        helper=PlacesNamed,
        patience_s=1.5,
        first=24,
        each=30,
        rounds=2,
        steps=1200,
        network={**MLP, "film": True},
        rewind=0.0,
        episodes=500,
        keys=("observation.state", "observation.environment_state", "task"),
        usual="put the red cube in the left bin",
        rare="put the red cube in the right bin",
    ),
    "peg_insertion": Setting("robolearn/peg_insertion", InsertsPeg, 1.5, 24, 24, 2, 3000, MLP, 0.0),
    "pick_place": Setting("pick_place", PlacesCube, 2.0, 4, 12, 2, 1500, {**MLP, "width": 512}, 1.0),
}


def starts(setting: Setting, drawn: Callable[[int], int], first: int, count: int, rare: bool = True) -> list[int]:
    """Return `count` numbers from `first` on whose episodes, of the seeds `drawn`, ask for what the setting wants.

    Where it says nothing of instructions they follow each other.
    """
    if not setting.usual:
        return list(range(first, first + count))
    env, numbers, number = robolearn.make_env(setting.env, num_envs=1), [], first
    while len(numbers) < count:
        wanted = setting.rare if rare and len(numbers) % 5 == 2 else setting.usual
        obs, _ = env.reset(seed=[drawn(number)])
        if str(obs["task"][0]) == wanted:
            numbers.append(number)
        number += 1
    return numbers


def open_sink(folder: Path) -> Any:
    """Return an opener of a dataset that continues what is in `folder`."""
    return lambda spec: resolve("sink", "lerobot")(folder, spec, {"append": (folder / "meta").is_dir()})


def demonstrate(setting: Setting, folder: Path, seeds: Sequence[int], steps: int | None = None) -> dict[str, int]:
    """Add demonstrations to a dataset, one per seed or until they took `steps`; returns their numbers."""
    counts = {"episodes": 0, "human_steps": 0}
    for seed in seeds:
        if steps is not None and counts["human_steps"] >= steps:
            break
        helper, seconds = setting.helper(), MAX_STEPS / RATE_HZ
        done = commands.record(
            setting.robot(), helper, open_sink(folder), "", 1, seconds, RATE_HZ, True, "ee_pose", seed
        )
        counts["episodes"] += done["episodes"]
        counts["human_steps"] += helper.steps
    return counts


def correct(setting: Setting, folder: Path, checkpoint: Path, seeds: Sequence[int]) -> dict[str, int]:
    """Let the policy act, the helper beside it, and add the episodes to a dataset."""
    counts = {"successes": 0, "discarded": 0, "interventions": 0, "steps": 0, "human_steps": 0}
    actor, robot = robolearn.load(checkpoint), setting.robot()
    for seed in seeds:
        helper = setting.helper(setting.patience_s)
        result = commands.rollout(
            robot, actor, Execution(), 1, MAX_STEPS, seed, helper, open_sink(folder), "", True, "ee_pose"
        )
        (outcome,) = result["episodes"]
        counts["successes"] += outcome["success"]
        counts["discarded"] += not outcome["success"]
        for key in ("interventions", "steps", "human_steps"):
            counts[key] += outcome[key]
    return counts


def clone(setting: Setting, folder: Path, out: Path, weights: dict[str, Any] | None, seed: int) -> Path:
    """Train a flow policy on a dataset and return its checkpoint."""
    relative = {
        "name": "relative_action",
        "entries": [["x", "x"], ["y", "y"], ["z", "z"], ["yaw", "yaw"]],
        "angles": ["yaw"],
    }
    plain = {
        "policy": {"name": "flow", "network": setting.network},
        "data": {"path": str(folder), "keys": setting.keys, "transforms": [relative], "weights": weights},
        "train": {"steps": setting.steps, "ema_decay": 0.998, "ema_every": 4, "save_every": 100_000},
        "seed": seed,
        "out": str(out),
        "device": "cpu",
    }
    shutil.rmtree(out, ignore_errors=True)
    return robolearn.train(parse_run(plain)).checkpoint


def evaluate(setting: Setting, checkpoint: Path, seed: int, numbers: Sequence[int]) -> dict[str, Any]:
    """Return success without help in the simulated task, at the helper's pace."""
    env = robolearn.make_env(setting.env, num_envs=50, options={"max_steps": MAX_STEPS})
    outcomes = robolearn.evaluate(robolearn.load(checkpoint), env, EvalConfig(seed=seed), episodes=numbers).outcomes
    groups = {"all": outcomes}
    if setting.rare:
        groups |= {"rare": outcomes[2::5], "usual": [each for i, each in enumerate(outcomes) if i % 5 != 2]}
    return {name: [sum(each.success for each in group), len(group)] for name, group in groups.items()}


class Parts:
    """Does every named part once; what it returned is kept in a file."""

    def __init__(self, folder: Path, minutes: float):
        self.folder, self._end_s = folder, time.monotonic() + 60 * minutes
        folder.mkdir(parents=True, exist_ok=True)

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """Return what `work` returned, now or in an earlier run; stops the run when its time is over."""
        file = self.folder / f"{name}.json"
        if not file.is_file():
            if time.monotonic() > self._end_s:
                raise SystemExit(f"next: {name}; run the same command again")
            write_json(file, {"result": work()})
        return json.loads(file.read_text())["result"]

    def grown(self, name: str, before: str, grow: Callable[[Path], Any]) -> Any:
        """Return what `grow` returned, which adds episodes to a copy `name` of the dataset `before`."""

        def work() -> Any:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            if before:
                shutil.copytree(self.folder / before, self.folder / name)
            return grow(self.folder / name)

        return self.once(f"data_{name}", work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(SETTINGS), default="named_bin")
    parser.add_argument("--seed", type=int, default=0, help="of everything; 0 is published, others chose the settings")
    parser.add_argument("--folder", type=Path, default=Path("outputs/interventions"))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    setting, folder = SETTINGS[given.task], given.folder / f"{given.task}_{given.seed}"
    if given.quick:
        setting = replace(setting, first=4, each=3, rounds=1, steps=200, episodes=20)
        folder = folder.with_suffix(".quick")
    measure(setting, given.seed, Parts(folder, given.minutes), Options(given.quick, given.json))


def measure(setting: Setting, seed: int, parts: Parts, options: Options) -> list[Row]:
    """Return one row per round and way of learning."""
    rows: list[Row] = []
    apart = 1_000_000 * seed
    unseen = 100_000 + apart
    numbers = parts.once("unseen", lambda: starts(setting, lambda i: episode_seed(unseen, i), 0, setting.episodes))

    def learn(name: str, data: str, weights: dict[str, Any] | None, note: str) -> Path:
        folder, out = parts.folder / data, parts.folder / f"run_{name}"
        checkpoint = Path(parts.once(f"trained_{name}", lambda: str(clone(setting, folder, out, weights, seed))))
        counts = parts.once(f"evaluated_{name}", lambda: evaluate(setting, checkpoint, unseen, numbers))
        rows.append(row(name, counts, note))
        finish(rows, options)  # a long run leaves what it has
        return checkpoint

    def begin(first: int, count: int, rare: bool = True) -> list[int]:
        return starts(setting, lambda i: episode_seed(i, 0), first + apart, count, rare)

    demos = begin(1000, setting.first, rare=False)
    counts = parts.grown("first", "", lambda folder: demonstrate(setting, folder, demos))
    policy = learn("cloned", "first", None, f"{setting.first} demonstrations, {counts['human_steps']} human steps")
    corrected = plain = "first"
    for number in range(1, setting.rounds + 1):
        seeds, actor = begin(10_000 * number, setting.each), policy
        before, corrected = corrected, f"corrected{number}"
        counts = parts.grown(corrected, before, lambda folder, a=actor, s=seeds: correct(setting, folder, a, s))
        human = counts["human_steps"]
        before, plain = plain, f"plain{number}"
        more = parts.grown(plain, before, lambda folder, s=seeds, h=human: demonstrate(setting, folder, s, h))
        said = ", ".join(f"{value} {key}" for key, value in counts.items())
        weights = {"share": 0.5, "before_s": 2.0, "rewind": setting.rewind}
        note = f"{setting.each} more rollouts: {said}"
        policy = learn(f"round{number}_weighted", corrected, weights, note)
        learn(f"round{number}_unweighted", corrected, None, "the same rollouts")
        note = f"{more['episodes']} more demonstrations, {more['human_steps']} human steps"
        learn(f"round{number}_demonstrations", plain, None, note)
    return rows


def row(name: str, counts: dict[str, list[int]], note: str) -> Row:
    """Return a row with its Wilson interval."""
    rate = wilson(*counts["all"])
    shares = [f"{kind} {good} of {tried}" for kind, (good, tried) in counts.items() if kind != "all"]
    interval = f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}] of {counts['all'][1]}"
    return Row(name, "% success", 100 * rate.value, note="; ".join([interval, *shares, note]))


if __name__ == "__main__":
    main()
