"""The intervention loop on the twin: a poor policy, a human beside it, rounds of correction, a better policy.

    python benchmarks/interventions.py [--quick] [--json FILE]

A stand-in for the human (`Helper`) teleoperates through the same jog, executor and safety filter as a person
would. It demonstrates a few episodes; a policy is cloned from them. In every round the policy acts on the
twin; when it makes no progress the helper rewinds, corrects and hands back. The policy is trained anew on all
episodes so far, with the corrections counting for half of the loss (Sirius) and unweighted; the other arm of the
comparison gets the same number of plain demonstrations instead. Success is counted without help, in the
simulated task, on seeds that nothing else uses.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import robolearn
from robolearn.benchmark import Options, Row, finish, parse_options
from robolearn.evaluation import EvalConfig, EvalResult
from robolearn.hardware import commands
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.limits import SafetyConfig
from robolearn.hardware.observe import Reading, arm_state
from robolearn.hardware.ros_robot import RosRobotConfig
from robolearn.hardware.teleop import Twist
from robolearn.registry import resolve
from robolearn.robots.panda import PANDA
from robolearn.run import parse_run

BASE_M = (-0.56, 0.0, 0.912)
TABLE_M, SPEED_M_S, SPEED_RAD_S, RATE_HZ = 0.8, 0.2, 0.6, 20.0
MAX_STEPS = 400
KEYS = ["observation.state", "observation.environment_state"]
ROBOT = RobotConfig(
    ros=RosRobotConfig(
        "forward", rate_hz=100.0, gripper_topic="/gripper_controller/commands", gripper_joint="finger_joint1"
    ),
    safety=SafetyConfig(),
    base_m=BASE_M,
    jog_m_s=SPEED_M_S,
    twin=TwinOptions("pick_place", "forward"),
)


class Helper:
    """Picks the cube and leaves it in the bin through twists, from whatever state it finds.

    With `patience_s` it only watches until nothing has got better for that long, then rewinds, corrects and
    hands back when a stage further has been reached: the cube lifted, or the task done.
    """

    def __init__(self, patience_s: float | None = None):
        self._patience = None if patience_s is None else round(patience_s * RATE_HZ)
        self._seen: Reading | None = None
        self._best, self._since, self._rest, self._helping = -np.inf, 0, 0, self._patience is None
        self._stage = self._count = 0

    def show(self, reading: Reading, signals: Any) -> None:
        self._seen = reading

    def close(self) -> None: ...

    def read(self) -> Twist:
        self._count += 1
        if self._seen is None:
            return Twist()
        if self._patience is None and self._count > MAX_STEPS:
            return Twist(mark="stop")
        names = ("x", "y", "z", "width")
        *tool, self._width = arm_state(self._seen.state, names, PANDA, np.array(BASE_M)).tolist()
        self._tool = np.array(tool)
        signal = np.asarray(self._seen.signals["observation.environment_state"], float)
        self._cube, self._bin = signal[:3], signal[5:7]
        self._turn = float(np.arctan2(signal[3], signal[4])) / 4
        stage, progress = self._progress()
        if self._patience is None:
            return self._help() if stage < 3 else replace(self._help(), mark="success" if self._done() else "")
        if self._helping:
            if self._rest > 0:
                self._rest -= 1
                return Twist(mark="takeover") if self._rest == 0 else Twist()
            if stage > self._stage and self._free():
                self._helping, self._best, self._since = False, -np.inf, 0
                return Twist(mark="handback")
            return self._help()
        if progress > self._best + 0.02:
            self._best, self._since = progress, 0
        self._since += 1
        if self._since <= self._patience or stage == 3:
            return Twist()
        self._helping, self._stage, self._rest = True, stage, round(1.5 * RATE_HZ) + 2
        return Twist(mark="rewind")

    # ------------------------------------------------------------ what is seen

    def _progress(self) -> tuple[int, float]:
        """Return the stage (0 reaching, 1 gripped and lifted, 3 in the bin) and a measure that grows with success."""
        apart = float(np.linalg.norm(self._cube - self._tool))
        over = float(np.linalg.norm(self._cube[:2] - self._bin))
        inside = over < 0.05 and self._cube[2] < TABLE_M + 0.05
        if inside:
            return 3, 3.0
        if self._cube[2] > TABLE_M + 0.1 and apart < 0.05:
            return 1, 1.5 + np.exp(-5 * over)
        return 0, np.exp(-5 * apart) + min(max(self._cube[2] - TABLE_M - 0.02, 0.0) / 0.1, 0.4)

    def _free(self) -> bool:
        return bool(self._tool[2] > TABLE_M + 0.12)

    def _done(self) -> bool:
        return bool(self._width > 0.07 and self._tool[2] > TABLE_M + 0.15)

    # ------------------------------------------------------------ what is done about it

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
            return self._towards(self._cube - np.array([0, 0, 0.003]), 1.0, self._turn)
        return self._towards(self._cube - np.array([0, 0, 0.003]), -1.0)

    def _towards(self, goal: np.ndarray, gripper: float, turn: float = 0.0) -> Twist:
        step = (goal - self._tool) / (0.35 * SPEED_M_S)
        step = step / max(1.0, float(np.linalg.norm(step)))
        yaw = float(np.clip(turn / (0.35 * SPEED_RAD_S), -1, 1))
        return Twist((float(step[0]), float(step[1]), float(step[2])), yaw, gripper)


def open_sink(folder: Path) -> Any:
    """Return an opener of a dataset that continues what is in `folder`."""
    return lambda spec: resolve("sink", "lerobot")(folder, spec, {"append": (folder / "meta").is_dir()})


def demonstrate(folder: Path, episodes: int, seed: int) -> None:
    """Add demonstrations to a dataset."""
    for episode in range(episodes):
        helper = Helper()
        commands.record(
            ROBOT, helper, open_sink(folder), "", 1, MAX_STEPS / RATE_HZ, RATE_HZ, True, "ee_pose", seed + episode
        )


def correct(folder: Path, checkpoint: Path, episodes: int, seed: int) -> dict[str, int]:
    """Let the policy act, the helper beside it, and add the episodes to a dataset."""
    counts = {"successes": 0, "interventions": 0, "steps": 0, "human_steps": 0}
    actor = robolearn.load(checkpoint)
    for episode in range(episodes):
        result = commands.rollout(
            ROBOT, actor, 1, 8, MAX_STEPS, seed + episode, Helper(2.0), open_sink(folder), "", True, "ee_pose"
        )
        (outcome,) = result["episodes"]
        counts["successes"] += outcome["success"]
        for key in ("interventions", "steps", "human_steps"):
            counts[key] += outcome[key]
    return counts


def clone(folder: Path, out: Path, steps: int, weights: dict[str, Any] | None, seed: int = 0) -> Path:
    """Train a flow policy on a dataset and return its checkpoint."""
    relative = {
        "name": "relative_action",
        "entries": [["x", "x"], ["y", "y"], ["z", "z"], ["yaw", "yaw"]],
        "angles": ["yaw"],
    }
    plain = {
        "policy": {"name": "flow", "network": {"name": "mlp", "width": 512, "depth": 2}},
        "data": {"path": str(folder), "keys": KEYS, "transforms": [relative], "weights": weights},
        "train": {"steps": steps, "ema_decay": 0.998, "ema_every": 4, "save_every": 100_000},
        "seed": seed,
        "out": str(out),
        "device": "cpu",
    }
    return robolearn.train(parse_run(plain)).checkpoint


def evaluate(checkpoint: Path, episodes: int) -> EvalResult:
    """Return success without help in the simulated task, at the helper's pace."""
    env = robolearn.make_env("pick_place", num_envs=50, options={"max_steps": MAX_STEPS})
    return robolearn.evaluate(robolearn.load(checkpoint), env, EvalConfig(episodes=episodes))


def main() -> None:
    options = parse_options(__doc__ or "")
    with tempfile.TemporaryDirectory() as scratch:
        finish(measure(Path(scratch), options), options)


def measure(root: Path, options: Options) -> list[Row]:
    """Return one row per round and way of learning."""
    first, each, rounds, steps, episodes = (4, 3, 1, 200, 20) if options.quick else (10, 20, 2, 2000, 200)
    demonstrate(root / "demonstrated", first, seed=1000)
    shutil.copytree(root / "demonstrated", root / "corrected")
    policy = clone(root / "demonstrated", root / "run0", steps, None)
    rows = [row("cloned", evaluate(policy, episodes), f"{first} demonstrations")]
    finish(rows, options)
    for number in range(1, rounds + 1):
        counts = correct(root / "corrected", policy, each, seed=10_000 * number)
        demonstrate(root / "demonstrated", each, seed=10_000 * number)
        said = f"{first} + {number * each} episodes, " + ", ".join(f"{value} {key}" for key, value in counts.items())
        weights = {"share": 0.5, "before_s": 2.0}
        policy = clone(root / "corrected", root / f"weighted{number}", steps, weights)
        rows.append(row(f"round{number}_weighted", evaluate(policy, episodes), said))
        unweighted = clone(root / "corrected", root / f"unweighted{number}", steps, None)
        rows.append(row(f"round{number}_unweighted", evaluate(unweighted, episodes), "the same episodes"))
        plain = clone(root / "demonstrated", root / f"plain{number}", steps, None)
        rows.append(row(f"round{number}_demonstrations", evaluate(plain, episodes), f"{first} + {number * each}"))
        finish(rows, options)  # a long run leaves what it has
    return rows


def row(name: str, result: EvalResult, note: str) -> Row:
    """Return a row with its Wilson interval."""
    rate = result.success
    interval = f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}] of {len(result.outcomes)}"
    return Row(name, "% success", 100 * rate.value, note=f"{interval}; {note}")


if __name__ == "__main__":
    main()
