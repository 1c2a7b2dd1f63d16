"""The intervention loop on the twin: a policy that often fails, a human beside it, rounds of correction.

    python benchmarks/interventions.py [--task named_bin] [--seed 0] [--folder DIR] [--minutes 14] [--quick]
        [--json FILE]

A stand-in for the human (`Helper`) teleoperates through the same jog, executor and safety filter as a person
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

import numpy as np

import robolearn
from robolearn.benchmark import Options, Row, finish
from robolearn.evaluation import EvalConfig, write_json
from robolearn.hardware import commands
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.limits import SafetyConfig
from robolearn.hardware.observe import Reading, arm_state
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.hardware.teleop import Twist
from robolearn.intervals import wilson
from robolearn.plan import Execution
from robolearn.registry import resolve
from robolearn.robots.panda import PANDA
from robolearn.rollout import episode_seed
from robolearn.run import parse_run

BASE_M = (-0.56, 0.0, 0.912)
TABLE_M, SPEED_M_S, SPEED_RAD_S, RATE_HZ = 0.8, 0.2, 0.6, 20.0
MAX_STEPS = 400
_GIVES_UP = 150  # steps of one correction
_HELD = 10  # steps until an arm that holds is at rest


class Helper:
    """Does a task through twists, from whatever state it finds; a subclass knows the task.

    With `patience_s` it only watches until nothing has got better for that long, then rewinds, corrects and
    hands back when a stage further has been reached, or goes on until the task is done. What it cannot save it
    discards: the episode is forgotten, its own steps count all the same.
    """

    done_stage, slowly = 3, 1.0  # how much more patience it has before anything is gripped

    def __init__(self, patience_s: float | None = None):
        self._patience = None if patience_s is None else round(patience_s * RATE_HZ)
        self._seen: Reading | None = None
        self._best, self._since, self._rest, self._helping = -np.inf, 0, 0, self._patience is None
        self._stage = self._count = self._held = self._helped = 0

    def show(self, reading: Reading, signals: Any) -> None:
        self._seen, self._held = reading, self._held + 1 if signals["mode"] == "hold" else 0

    def close(self) -> None: ...

    @property
    def steps(self) -> int:
        """How many steps it has been asked for."""
        return self._count

    def read(self) -> Twist:
        self._count += 1
        if self._seen is None:
            return Twist()
        if self._patience is None and self._count > MAX_STEPS:
            return Twist(mark="stop")
        *tool, self._width = arm_state(self._seen.state, ("x", "y", "z", "width"), PANDA, np.array(BASE_M)).tolist()
        self._tool = np.array(tool)
        self._look(np.asarray(self._seen.signals["observation.environment_state"], float))
        stage, progress = self._progress()
        if self._patience is None:
            ended = stage == self.done_stage and self._left()
            return replace(self._help(), mark="success" if ended else "")
        if self._held:  # what the policy asked for made the arm hold
            self._helping, self._stage, self._rest = True, stage, 0
            return Twist(mark="takeover") if self._held == _HELD else Twist()
        self._helped = self._helped + 1 if self._helping else 0
        if self._lost() or self._helped > _GIVES_UP or self._count >= MAX_STEPS:
            return Twist(mark="discard")
        if self._helping:
            if self._rest > 0:
                self._rest -= 1
                return Twist(mark="takeover") if self._rest == 0 else Twist()
            if stage > self._stage and self._tool[2] > TABLE_M + 0.12:
                self._helping, self._best, self._since = False, -np.inf, 0
                return Twist(mark="handback")
            return self._help()
        if progress > self._best + 0.02:
            self._best, self._since = progress, 0
        self._since += 1
        if self._since <= self._patience * (self.slowly if stage == 0 else 1.0) or stage == self.done_stage:
            return Twist()
        self._helping, self._stage, self._rest = True, stage, round(1.5 * RATE_HZ) + 2
        return Twist(mark="rewind")

    def _look(self, signal: np.ndarray) -> None:
        """Take the task's observation."""
        raise NotImplementedError

    def _progress(self) -> tuple[int, float]:
        """Return the stage (0 reaching, 1 gripped and lifted, 3 done) and a measure that grows with success."""
        raise NotImplementedError

    def _help(self) -> Twist:
        """Return what brings the task further."""
        raise NotImplementedError

    def _lost(self) -> bool:
        """Say whether nobody could do the task any more."""
        return False

    def _left(self) -> bool:
        return bool(self._width > 0.07 and self._tool[2] > TABLE_M + 0.15)

    def _towards(self, goal: np.ndarray, gripper: float, turn: float = 0.0, speed_m_s: float = SPEED_M_S) -> Twist:
        step = (goal - self._tool) / (0.35 * SPEED_M_S)
        step = step / max(1.0, float(np.linalg.norm(step)) * SPEED_M_S / speed_m_s)
        yaw = float(np.clip(turn / (0.35 * SPEED_RAD_S), -1, 1))
        return Twist((float(step[0]), float(step[1]), float(step[2])), yaw, gripper)


class PlacesCube(Helper):
    """Picks the cube and leaves it in the bin."""

    def _look(self, signal: np.ndarray) -> None:
        self._cube, self._bin = signal[:3], signal[5:7]
        self._turn = float(np.arctan2(signal[3], signal[4])) / 4

    def _progress(self) -> tuple[int, float]:
        apart = float(np.linalg.norm(self._cube - self._tool))
        over = float(np.linalg.norm(self._cube[:2] - self._bin))
        inside = over < 0.05 and self._cube[2] < TABLE_M + 0.05
        if inside:
            return 3, 3.0
        if self._cube[2] > TABLE_M + 0.1 and apart < 0.05:
            return 1, 1.5 + np.exp(-5 * over)
        return 0, np.exp(-5 * apart) + min(max(self._cube[2] - TABLE_M - 0.02, 0.0) / 0.1, 0.4)

    def _help(self) -> Twist:
        apart = np.linalg.norm((self._cube - self._tool)[:2])
        held = np.linalg.norm(self._cube - self._tool) < 0.03 and self._width < 0.06
        if self._progress()[0] == 3:
            return self._towards(np.array([*self._tool[:2], TABLE_M + 0.2]), 1.0)
        if held:
            over = np.linalg.norm(self._bin - self._tool[:2])
            if over > 0.02:
                low = self._tool[2] < TABLE_M + 0.14
                goal = np.array([*self._tool[:2], TABLE_M + 0.2]) if low else np.array([*self._bin, TABLE_M + 0.18])
                return self._towards(goal, -1.0)
            down = self._tool[2] > TABLE_M + 0.085
            return self._towards(np.array([*self._bin, TABLE_M + 0.075]), -1.0 if down else 1.0)
        aligned = apart < 0.008 and abs(self._turn) < 0.1
        if not aligned:
            far = apart > 0.03 and self._tool[2] < TABLE_M + 0.08
            aim = np.array([*self._tool[:2], TABLE_M + 0.14]) if far else self._cube + np.array([0, 0, 0.1])
            if apart < 0.02 and self._tool[2] < self._cube[2] + 0.09:
                aim = np.array([*self._cube[:2], self._tool[2]])
            return self._towards(aim, 1.0, self._turn)
        if self._tool[2] > self._cube[2] + 0.006:
            return self._towards(self._cube - np.array([0, 0, 0.003]), 1.0, self._turn, 0.08)
        return self._towards(self._cube - np.array([0, 0, 0.003]), -1.0)


class PlacesNamed(PlacesCube):
    """Picks the red cube of three and leaves it in the bin that the instruction names."""

    slowly = 2.5

    def _look(self, signal: np.ndarray) -> None:
        super()._look(signal)
        left, right = signal[24:26], signal[26:28]
        self._bin = left if self._seen is not None and "left" in self._seen.task else right


class InsertsPeg(Helper):
    """Picks the peg up, aligns it with the hole and lowers it in."""

    _GRIP_M, _HALF_M, _BLOCK_M = 0.025, 0.05, 0.04  # held above its middle; half the peg; the block's height
    _aligned = _lowering = _tries = 0  # steps it has been over the hole, steps it still goes down, failed tries

    def _look(self, signal: np.ndarray) -> None:
        self._peg, self._block = signal[:3], signal[5:8]
        self._turn = float(np.arctan2(signal[3], signal[4])) / 4  # to the peg
        self._turn_in = float(np.arctan2(signal[8], signal[9])) / 4  # to the hole

    def _lost(self) -> bool:
        return bool(self._peg[2] < TABLE_M + 0.03)  # it lies on the table

    def _progress(self) -> tuple[int, float]:
        apart = float(np.linalg.norm(self._peg + np.array([0, 0, self._GRIP_M]) - self._tool))
        over = float(np.linalg.norm((self._peg - self._block)[:2]))
        foot = float(self._peg[2] - self._HALF_M - self._block[2])
        if over < 0.01 and foot < 0.01:
            return 3, 3.0
        if over < 0.01:
            return 1, 1.5 + np.exp(-5 * over) + 5 * (0.1 - foot)
        if foot > 0.06 and apart < 0.04:
            return 1, 1.5 + np.exp(-5 * over)
        return 0, np.exp(-5 * apart) + min(max(foot, 0.0) / 0.06, 0.4)

    def _help(self) -> Twist:
        grip = self._peg + np.array([0, 0, self._GRIP_M])
        apart = float(np.linalg.norm((grip - self._tool)[:2]))
        held = np.linalg.norm(grip - self._tool) < 0.03 and self._width < 0.04
        if self._progress()[0] == 3:
            up = np.array([*self._tool[:2], TABLE_M + 0.25])
            return self._towards(up if self._width > 0.06 else self._tool, 1.0)
        if held:
            return self._insert()
        if apart < 0.008 and abs(self._turn) < 0.08:
            return self._towards(grip, 1.0 if self._tool[2] > grip[2] + 0.006 else -1.0, self._turn)
        low = apart > 0.03 and self._tool[2] < TABLE_M + 0.2
        aim = np.array([*self._tool[:2], TABLE_M + 0.22]) if low else grip + np.array([0, 0, 0.11])
        if apart < 0.02 and self._tool[2] < grip[2] + 0.1:
            aim = np.array([*grip[:2], self._tool[2]])
        return self._towards(aim, 1.0, self._turn)

    def _insert(self) -> Twist:
        """Align in the air and go straight down; where the peg does not enter, lift it and try beside."""
        free = float(self._peg[2] - self._HALF_M - self._block[2]) - self._BLOCK_M
        turn = 2.4 * self._tries  # a spiral, a millimetre wider every other time
        beside = 0.0005 * self._tries * np.array([np.cos(turn), np.sin(turn)])
        away = (self._block - self._peg)[:2] + beside
        over = float(np.linalg.norm(away))
        entered = free < -0.008 and over < 0.015
        if self._lowering > 0 or entered:
            self._lowering -= 1
            self._tries += self._lowering == 0 and not entered
            return self._towards(self._tool + np.array([0, 0, -0.03]), -1.0, 0.0, 0.03)
        if over > 0.03:
            up = free < 0.02 and over > 0.05
            goal = [0.0, 0.0, 0.1] if up else [*away, 0.04 - free]
            return self._towards(self._tool + np.array(goal), -1.0, 0.0 if up else self._turn_in, 0.12)
        self._aligned = self._aligned + 1 if over < 0.0015 and abs(self._turn_in) < 0.03 and free > 0.004 else 0
        self._lowering = round(0.75 * RATE_HZ) if self._aligned > 3 else 0
        return self._towards(self._tool + np.array([*away, 0.008 - free]), -1.0, self._turn_in, 0.04)


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
