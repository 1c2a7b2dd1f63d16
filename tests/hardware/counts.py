"""The hardware room's long counts, piece by piece, so that a run which ends early goes on where it was.

    python tests/hardware/counts.py NAME ... [--folder outputs/hardware] [--minutes M]

Every finished piece is a line of FOLDER/NAME.jsonl; the figures of all pieces so far are in FOLDER/counts.json.
`test_counts.py` runs small pieces, and with `./run test-long hardware` all of them.
"""

import argparse
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.config import to_dict
from robolearn.contracts import RobotState
from robolearn.errors import HardwareError
from robolearn.evaluation import write_json
from robolearn.hardware.deploy import RobotConfig, TwinOptions
from robolearn.hardware.executor import Executor, ExecutorConfig, status_ring
from robolearn.hardware.limits import limits_of
from robolearn.hardware.memory import MemoryGraph, MemoryTransport
from robolearn.hardware.processes import Child, start_twin
from robolearn.hardware.ring import Ring
from robolearn.hardware.ros_robot import RosRobot, RosRobotConfig, command_topic
from robolearn.hardware.safety import Command, Mode, SafetyState, arm, at_rest, step
from robolearn.hardware.session import RobotSession
from robolearn.hardware.transport import Qos
from robolearn.hardware.twin import Twin, TwinConfig
from robolearn.provenance import provenance
from robolearn.robots.panda import PANDA

sys.path.insert(0, str(Path(__file__).parent))
from conftest import Checker, FollowingArm

MS, PERIOD = 1_000_000, 4_000_000
HOME = np.array(PANDA.home_rad)
DT, K = 0.02, 32


class Follower:
    """A scene whose joints are where they were last told to be; keeps what it was told."""

    joint_names, dt_s = PANDA.joints, 0.004

    def __init__(self):
        self.told, self.width = [], 0.08
        self.reset(0)

    def reset(self, seed):
        self.q = HOME.copy()

    def step(self, target_rad, gripper_m):
        self.q = np.array(target_rad)
        self.told.append(self.q)

    def state(self):
        return RobotState(0, self.joint_names, self.q, np.zeros(7), self.width)


class Line:
    """The filter, a robot, its topics and a twin behind them, tick by tick; the checker looks at the twin."""

    def __init__(self):
        self.now = 10_000 * MS
        graph = MemoryGraph(lambda: self.now)
        self.scene = Follower()
        self.twin = Twin(self.scene, MemoryTransport(graph), TwinConfig("forward"), lambda: self.now)
        self.robot = RosRobot(PANDA, MemoryTransport(graph), RosRobotConfig("forward"))
        self.robot.join()
        self.twin.tick(self.now)
        self.limits, self.checker, self.violations = limits_of(PANDA, 250.0), Checker.usual(), []
        self.events, self.state = Counter(), SafetyState()
        self.checker.start(HOME)
        self.arm()

    def arm(self):
        self.state = arm(self.limits, self.state, self.robot.read(), self.now)

    def tick(self, command, wait=PERIOD):
        self.now += wait
        self.state, decision = step(self.limits, self.state, command, self.robot.read(), self.now)
        self.events.update(decision.events)
        if decision.send is not None:
            self.robot.send(decision.send, self.now)
        self.scene.told.clear()
        self.twin.tick(self.now)
        self.checker.see(self.scene.told[-1])
        if len(self.checker.sent) > 5000:
            self.check()

    def check(self):
        """Look at what came so far and keep what the next differences need."""
        self.violations += self.checker.violations()
        self.checker.sent = self.checker.sent[-4:]


def fuzz(piece: int, ticks: int = 50_000) -> dict[str, Any]:
    """Targets of every bad kind, mixed with reasonable ones, through filter, topics and twin."""
    line, draw = Line(), np.random.default_rng([1, piece])
    aim, armed, kinds, last = HOME.copy(), 0, Counter(), line.now
    for _ in range(ticks):
        kind = int(draw.integers(0, 24))
        if kind == 0:
            aim = draw.uniform(-4, 4, 7)
        if kind == 1:
            aim = HOME + draw.normal(0, 0.3, 7)
        target, velocity, wait = aim + draw.normal(0, 0.002, 7), np.zeros(7), PERIOD
        if kind == 6:
            wait = int(draw.integers(0, 150)) * MS
        stamp = line.now + wait
        if kind == 2:
            velocity = draw.normal(0, 10, 7)
        elif kind == 3:
            target = np.where(draw.random(7) < 0.3, draw.choice([np.nan, np.inf, -np.inf, 1e300]), target)
        elif kind == 4:
            target = np.zeros(draw.integers(0, 12))
        elif kind == 5:  # late, or from the future
            stamp -= int(draw.integers(-60, 200)) * MS
        elif kind == 7:
            target = draw.uniform(-1, 1, 7) * 10.0 ** draw.integers(-3, 9)
        elif kind == 8:  # again
            stamp = last
        elif kind == 9:  # in another order
            stamp = last - int(draw.integers(0, 20)) * MS
        elif kind == 10:
            velocity = np.where(draw.random(7) < 0.3, np.nan, 0.0)
        names = {
            2: "velocity",
            3: "not finite",
            4: "size",
            5: "late",
            6: "stall",
            7: "jump",
            8: "twice",
            9: "reordered",
        }
        kinds[names.get(kind, "velocity not finite" if kind == 10 else "none" if kind == 11 else "near")] += 1
        line.tick(None if kind == 11 else Command(target, velocity, stamp), wait)
        last = max(last, stamp) if line.state.target is None else line.state.target.stamp_ns
        if line.state.mode == Mode.HOLD and at_rest(line.state):
            line.arm()
            aim, armed = line.state.position.copy(), armed + 1
    line.check()
    return {"commands": ticks, "violations": line.violations, "armed_again": armed, "kinds": dict(kinds)} | {
        "events": dict(line.events)
    }


# ---------------------------------------------------------------- an executor on a simulated clock


class Run:
    """An executor, an arm that follows at once, and a policy that sways joint 7 (and others a little)."""

    def __init__(self):
        self.now = self.start = 10_000 * MS
        self.chunks, self.status = Ring.create((K, 7)), status_ring()
        self.robot = FollowingArm(HOME, lambda: self.now)
        self.robot.sent = [HOME] * 4
        self.executor = Executor(limits_of(PANDA, 250.0), self.robot, self.chunks, ExecutorConfig(DT), self.status)
        self.executor.request("arm", self.now)

    def chunk(self):
        t = 1e-9 * (self.now - self.start) + DT * np.arange(K)
        self.chunks.write(self.now, HOME + 0.2 * np.sin(t)[:, None] * np.array([0.1, 0.1, 0.1, 0.1, 0.5, 0.5, 1.0]))

    def tick(self, wait=PERIOD):
        self.now += wait
        self.executor.tick(self.now)

    def play(self, ticks):
        for i in range(ticks):
            if i % 10 == 0:
                self.chunk()
            self.tick()

    def check(self) -> list[str]:
        seen = Checker.usual()
        seen.sent, self.robot.sent = self.robot.sent, self.robot.sent[-4:]
        return seen.violations()

    def close(self):
        self.chunks.remove()
        self.status.remove()


def drops(piece: int, count: int = 100) -> dict[str, Any]:
    """The policy falls silent: when deceleration begins after its last target, when the arm rests, that it latches."""
    run, draw = Run(), np.random.default_rng([2, piece])
    begins, rests, latched, violations = [], [], 0, []
    for _ in range(count):
        run.play(int(draw.integers(80, 160)))
        speeds, counted = [], run.executor.counts["starved"]
        for _ in range(400):  # its last chunk lasts for 0.62 s
            run.tick()
            if run.executor.counts["starved"] > counted:
                speeds.append(np.abs(run.executor.state.velocity).max())
        slower = np.flatnonzero(np.array(speeds) < speeds[0] * 0.999)
        begins.append(4 * int(slower[0]) if len(slower) else 0)  # it may have stood still
        rests.append(4 * int(np.flatnonzero(np.array(speeds) == 0)[0]))
        stood = run.robot.position
        run.play(10)  # a policy that comes back does not move an arm that holds
        latched += run.executor.state.mode == Mode.HOLD and np.array_equal(run.robot.position, stood)
        violations += run.check()
        run.executor.request("arm", run.now)
    run.close()
    return {"drops": count, "latched": int(latched), "begin_ms": begins, "rest_ms": rests, "violations": violations}


def freezes(piece: int, count: int = 100) -> dict[str, Any]:
    """The executor stands still for half a second in the middle of a motion and goes on."""
    run, draw = Run(), np.random.default_rng([3, piece])
    held, violations, steps = 0, [], []
    for _ in range(count):
        run.play(int(draw.integers(80, 160)))
        before, speed = run.robot.position, np.abs(run.executor.state.velocity).max()
        run.chunk()
        run.tick(500 * MS)
        steps.append(float(np.abs(run.robot.position - before).max() - speed * 0.004))
        held += run.executor.state.mode == Mode.HOLD
        for _ in range(100):
            run.tick()
        violations += run.check()
        run.executor.request("arm", run.now)
    run.close()
    return {"freezes": count, "held": int(held), "most_beyond_speed_rad": max(steps), "violations": violations}


def resources(pid: int | str = "self") -> tuple[float, int, int]:
    """Return memory [MB], threads and open files of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if ":" in line and line.split()[1:]}
    return int(values["VmRSS"]) / 1024, int(values["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))


def ticks(piece: int, count: int = 432_000) -> dict[str, Any]:
    """A tenth of a day's ticks, as fast as they compute: what the process holds before and after."""
    run, seen = Run(), []
    for i in range(count):
        if i % 25 == 0:
            run.chunk()
        run.tick()
        if i % (count // 10) == count // 10 - 1:
            run.robot.sent.clear()
            gc.collect()
            seen.append(resources())
    moving = run.executor.state.mode == Mode.RUN
    run.close()
    first, last = seen[2], seen[-1]
    return {"ticks": count, "grown_mb": last[0] - first[0], "same": first[1:] == last[1:], "moving": moving}


# ---------------------------------------------------------------- real processes


def config(domain: int, twin: bool = True) -> RobotConfig:
    """Return a twin of the reaching task under a joint trajectory controller."""
    ros = RosRobotConfig(
        "jtc",
        rate_hz=100.0,
        gripper_topic="/gripper_controller/commands",
        gripper_joint="finger_joint1",
        connect_s=120.0,
    )
    return RobotConfig(domain=domain, ros=ros, base_m=(-0.56, 0.0, 0.912), twin=TwinOptions("reach") if twin else None)


def sway(session: RobotSession, keep_on: Callable[[float], bool]) -> None:
    """Stream a slow motion of joint 7 at ten chunks a second."""
    start, begin = session.reading().state.position_rad, time.monotonic()
    chunk = np.zeros((K, 8))

    def work(step: int) -> bool:
        t = time.monotonic() - begin
        chunk[:, :7], chunk[:, 7] = start, 0.04
        chunk[:, 6] += 0.3 * (1 - np.cos(1.5 * (t + DT * np.arange(K))))
        session.chunks.write(time.monotonic_ns(), chunk)
        return keep_on(t)

    session.every(0.1, work)


def hour(piece: int, seconds: float = 3600.0, every_s: float = 60.0) -> dict[str, Any]:
    """A session in real time, twin and executor in processes of their own: what each holds, minute by minute."""
    samples, armed = [], 0
    with RobotSession(config(50 + os.getpid() % 20), K, DT) as session:
        if session.executor is None or session.twin is None:
            raise HardwareError("The session has not started.")
        pids = {"policy": os.getpid(), "executor": session.executor.pid, "twin": session.twin.pid}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(HardwareError):  # still coming to rest, or not fresh: tried again
                session.request("arm")
                armed += 1
            sampled = [time.monotonic()]

            def keep_on(t: float, sampled: list[float] = sampled) -> bool:
                if time.monotonic() >= sampled[0] + every_s:
                    sampled[0] = time.monotonic()
                    gc.collect()
                    samples.append({name: resources(pid) for name, pid in pids.items()})
                return time.monotonic() < end and (t < 1.0 or session.mode() in (Mode.RAMP_IN, Mode.RUN))

            sway(session, keep_on)
        status = session.status()
        session.request("hold")
    figures: dict[str, Any] = {"seconds": seconds, "samples": len(samples), "armed": armed}
    figures |= {key: status[key] for key in ("ticks", "missed", "chunks")}
    first, last = samples[min(2, len(samples) - 1)], samples[-1]
    for name in first:
        figures[f"{name}_grown_mb"] = last[name][0] - first[name][0]
        figures[f"{name}_same"] = list(first[name][1:]) == list(last[name][1:])
    return figures


STREAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import counts
from robolearn.config import parse
from robolearn.hardware.deploy import RobotConfig
from robolearn.hardware.session import RobotSession
with RobotSession(parse(RobotConfig, json.loads(sys.argv[2])), counts.K, counts.DT) as session:
    session.request("arm")
    pids = {"executor": session.executor.pid, "recorder": session.recorder.pid if session.recorder else 0}
    print(json.dumps(pids), flush=True)
    counts.sway(session, lambda t: True)
"""


@dataclass
class Streaming:
    """A policy process with its executor and recorder, a twin beside it, and who listens to the commands."""

    policy: subprocess.Popen
    pids: dict[str, int]
    twin: Child
    listener: Any
    heard: list[tuple[int, Any]]

    def wait_for_motion(self) -> None:
        """Listen until the arm is told to move fast, at most for ten seconds."""
        for _ in range(1000):
            self.listen(0.01)
            told = [message.data for _, message in self.heard[-3:] if hasattr(message, "data")]
            if len(told) > 1 and np.abs(told[-1] - told[-2]).max() > 0.3 * 0.01:
                return

    def listen(self, seconds: float) -> None:
        """Collect what the arm is sent for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.heard += [(each.stamp_ns, each.message) for each in self.listener.take()]
            time.sleep(0.002)


@contextlib.contextmanager
def streaming(folder: Path, controller: str = "jtc"):
    """Start a policy process that moves the arm of a twin."""
    from dataclasses import replace

    from robolearn.hardware.dds import DdsTransport

    base = config(71 + os.getpid() % 20)
    base = replace(base, ros=replace(base.ros, controller=controller))
    twin = start_twin(replace(base, twin=replace(base.twin or TwinOptions(), personality=controller)))
    transport = DdsTransport(base.domain)
    topic, kind = command_topic(base.ros)
    listener = transport.subscriber(topic, kind, Qos(depth=2000))
    given = json.dumps(to_dict(replace(base, twin=None, log=str(folder / "log.mcap"))))
    command = [sys.executable, "-c", STREAM, str(Path(__file__).parent), given]
    policy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2])
    try:
        line = policy.stdout.readline() if policy.stdout else ""
        running = Streaming(policy, json.loads(line), twin, listener, [])
        running.listen(3.0)
        yield running
    finally:
        policy.kill()
        policy.wait()
        if policy.stdout:
            policy.stdout.close()
        transport.close()
        twin.close()


def kills(piece: int) -> dict[str, Any]:
    """kill -9 of policy, recorder and executor, and an executor that is frozen for half a second: who notices."""
    import tempfile

    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("policy", "recorder", "freeze", "executor"):
            folder = Path(scratch) / name
            folder.mkdir()
            with streaming(folder, "jtc" if name == "executor" else "forward") as running:
                figures[name] = KILLS[name](running, folder)
    return figures


def _kill_policy(running: Streaming, folder: Path) -> dict[str, Any]:
    running.wait_for_motion()
    killed = time.monotonic_ns()
    running.policy.kill()
    running.listen(1.5)
    return _motion(running.heard, killed)


def _motion(heard: list[tuple[int, Any]], killed: int) -> dict[str, Any]:
    """Return what the arm was told, in figures: violations, when it slowed down, when it stood."""
    told = np.array([message.data for _, message in heard])
    stamps = np.array([stamp for stamp, _ in heard])
    seen = Checker.usual(0.01)
    seen.sent = [told[0]] * 3 + list(told)
    rate = np.abs(np.diff(told, axis=0)).max(1) / 0.01
    after = np.flatnonzero(stamps[1:] > killed)
    speed = float(rate[stamps[1:] <= killed][-1])
    slower, moving = after[rate[after] < 0.999 * speed], after[rate[after] > 0]
    return {
        "heard": len(told),
        "speed_before_rad_s": speed,
        "slows_after_ms": float(stamps[1:][slower[0]] - killed) / MS if len(slower) else None,
        "stands_after_ms": float(stamps[1:][moving[-1]] - killed) / MS if len(moving) else 0.0,
        "ends_at_rest": bool(rate[-1] == 0),
        "violations": seen.violations(),
    }


def _kill_recorder(running: Streaming, folder: Path) -> dict[str, Any]:
    from mcap.exceptions import McapError
    from mcap.records import Message
    from mcap.stream_reader import StreamReader

    os.kill(running.pids["recorder"], signal.SIGKILL)
    before = len(running.heard)
    running.listen(1.0)
    read = 0
    with (folder / "log.mcap").open("rb") as file, contextlib.suppress(McapError, EOFError):
        for record in StreamReader(file).records:
            read += isinstance(record, Message)
    gaps = np.diff([stamp for stamp, _ in running.heard]) / MS
    return {"heard_after": len(running.heard) - before, "longest_gap_ms": float(gaps.max()), "messages_read": read}


def _freeze_executor(running: Streaming, folder: Path) -> dict[str, Any]:
    running.wait_for_motion()
    os.kill(running.pids["executor"], signal.SIGSTOP)
    frozen = time.monotonic_ns()
    running.listen(0.5)
    os.kill(running.pids["executor"], signal.SIGCONT)
    running.listen(1.0)
    return _motion(running.heard, frozen)


def _kill_executor(running: Streaming, folder: Path) -> dict[str, Any]:
    from robolearn.hardware.dds import DdsTransport

    transport = DdsTransport(71 + os.getpid() % 20)
    states = transport.subscriber("/joint_states", "sensor_msgs/msg/JointState", Qos(depth=2000))
    time.sleep(0.5)
    states.take()
    killed = time.monotonic()
    os.kill(running.pids["executor"], signal.SIGKILL)
    rest_s = None
    while time.monotonic() < killed + 3.0 and rest_s is None:
        for received in states.take():
            if np.abs(received.message.velocity[:7]).max() < 0.01:
                rest_s = time.monotonic() - killed
        time.sleep(0.002)
    transport.close()
    return {"arm_rests_after_ms": None if rest_s is None else 1e3 * rest_s}


KILLS = {"policy": _kill_policy, "recorder": _kill_recorder, "freeze": _freeze_executor, "executor": _kill_executor}


# ---------------------------------------------------------------- pieces

COUNTS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "fuzz": (fuzz, 20),
    "drops": (drops, 10),
    "freezes": (freezes, 10),
    "kills": (kills, 10),
    "ticks": (ticks, 10),
    "hour": (hour, 1),
}


def collect(name: str, folder: Path, end_s: float = float("inf")) -> list[dict[str, Any]]:
    """Run the pieces of a count that are missing, as long as there is time, and return all."""
    work, pieces = COUNTS[name]
    file = folder / f"{name}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    while len(done) < pieces and time.monotonic() < end_s:
        start_s = time.monotonic()
        figures = work(len(done))
        done.append(figures | {"wall_s": round(time.monotonic() - start_s, 1)})
        with file.open("a") as out:
            out.write(json.dumps(done[-1]) + "\n")
        summary = folder / "counts.json"
        known = json.loads(summary.read_text())["counts"] if summary.is_file() else {}
        write_json(summary, {**provenance(), "counts": known | {name: summarise(done)}})
    return done


def summarise(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the pieces of a count; of lists of times it gives quantiles."""
    total: dict[str, Any] = {"pieces": len(pieces)}
    for key, first in (pieces[0] if pieces else {}).items():
        values = [piece[key] for piece in pieces]
        if isinstance(first, bool):
            total[key] = all(values)
        elif key.startswith(("most", "longest")) or key.endswith("grown_mb"):
            total[f"{key}_max"] = max(values)
        elif isinstance(first, int | float):
            total[key] = sum(values)
        elif key == "violations":
            total[key] = sum(map(len, values))
        elif isinstance(first, list):
            every = np.concatenate(values)
            total[key] = {f"p{q}": float(np.percentile(every, q)) for q in (50, 99, 99.9, 100)}
        elif isinstance(first, dict) and not all(isinstance(value, int) for value in first.values()):
            total[key] = values  # figures of one event each
        elif isinstance(first, dict):
            total[key] = dict(sum((Counter(value) for value in values), Counter()))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=list(COUNTS))
    parser.add_argument("--folder", type=Path, default=Path("outputs/hardware"))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args()
    end_s = time.monotonic() + 60 * given.minutes
    for name in given.names:
        done = collect(name, given.folder, end_s)
        sys.stdout.write(f"{name}: {len(done)} of {COUNTS[name][1]} pieces: {json.dumps(summarise(done))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
