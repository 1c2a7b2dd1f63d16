"""Recordings that are killed: `crash.py kill COUNT SIGNAL SEED FOLDER` and `crash.py steps STRIDE FOLDER`,
`crash.py fail ERRNO FOLDER`.

A parent forks one recorder after the other and kills it: at random moments, or in front of the n-th
write, sync, rename or removal for every n. After each death another child opens the store and
compares every acknowledged episode, frame by frame. The result is one JSON line.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.lerobot_writer import WriterOptions
from robolearn.data.recorder import Recorder
from robolearn.data.synthetic import STATE_SPEC, frame

WRITE = os.write  # not counted as a step


def record(root: Path, acks: int, seed: int, sessions: int, episodes: int) -> None:
    """Record sessions of short episodes; an acknowledged one is told to the file descriptor `acks`."""
    generator = random.Random(seed)
    for _ in range(sessions):
        recorder = Recorder.resume(root, STATE_SPEC)
        for _ in range(episodes):
            number = recorder.writer.num_episodes
            length = generator.randint(2, 30)
            for step in range(length):
                recorder.add_frame(frame(STATE_SPEC, number, step))
            given = recorder.save_episode({"seed": number})
            WRITE(acks, f"{given} {length}\n".encode())
        recorder.close()


def verify(root: Path, acknowledged: list[tuple[int, int]], skip: int) -> None:
    """Raise unless the store opens and holds every acknowledged episode."""
    if not (root / "meta" / "info.json").exists():
        if acknowledged:
            raise AssertionError("the store is gone")
        return
    reader = LeRobotReader(root)
    for number, length in acknowledged[skip:]:
        if reader.lengths[number] != length:
            raise AssertionError(f"episode {number}: {reader.lengths[number]} frames instead of {length}")
        got = reader.read(number, ["observation.state", "action", "task", "index"])
        for step in range(length):
            expected = frame(STATE_SPEC, number, step)
            same = np.array_equal(got["observation.state"][step], expected["observation.state"])
            if not same or not np.array_equal(got["action"][step], expected["action"]):
                raise AssertionError(f"episode {number}, frame {step} is not what was recorded")
            if got["task"][step] != expected["task"]:
                raise AssertionError(f"episode {number}, frame {step} has another task")
        if got["index"][0] != reader.lengths[:number].sum():
            raise AssertionError(f"episode {number} is misaligned")
    for number in range(len(acknowledged), len(reader.lengths)):  # durable, but killed before the answer
        reader.read(number, ["action"])


def in_child(function, *arguments) -> int:
    """Fork, run and return the child's process id."""
    child = os.fork()
    if child:
        return child
    try:
        function(*arguments)
    except BaseException:  # noqa: BLE001 - the parent sees the exit status
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def acknowledged_in(acks: Path) -> list[tuple[int, int]]:
    """Return the (episode, length) pairs that a recorder acknowledged."""
    lines = acks.read_text().splitlines() if acks.exists() else []
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines]


def check(root: Path, acks: Path, skip: int = 0) -> tuple[bool, int]:
    """Verify in a child; returns whether all is well and how many episodes are acknowledged."""
    acknowledged = acknowledged_in(acks)
    child = in_child(verify, root, acknowledged, skip)
    return os.waitpid(child, 0)[1] == 0, len(acknowledged)


def kill(count: int, number: int, seed: int, folder: Path) -> dict:
    """Kill recorders at random moments."""
    generator = random.Random(seed)
    failures = acknowledged = checked = 0
    root, acks = folder / "set-0", folder / "acks-0"
    for trial in range(count):
        if trial % 25 == 0:  # a fresh store now and then, so that starts are killed as well
            root, acks, checked = folder / f"set-{trial}", folder / f"acks-{trial}", 0
        target = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        child = in_child(record, root, target, seed * 10007 + trial, 1000, 4)
        time.sleep(generator.uniform(0.01, 0.5))
        os.kill(child, number)
        os.waitpid(child, 0)
        os.close(target)
        good, total = check(root, acks, max(checked - 2, 0))
        failures += not good
        acknowledged += total - checked
        checked = total
        if trial % 25 == 24 or trial == count - 1:
            failures += not check(root, acks)[0]
    return {"kills": count, "failures": failures, "acknowledged": acknowledged}


class Steps:
    """Counts the system calls that change the disk and acts in front of the n-th."""

    def __init__(self, at: int, act):
        self.left, self.act = at, act
        for name in ("fsync", "write", "replace", "truncate", "ftruncate", "unlink", "rmdir", "mkdir"):
            setattr(os, name, self.wrap(getattr(os, name)))

    def wrap(self, function):
        def counted(*arguments, **options):
            self.left -= 1
            if self.left == 0:
                self.act()
            return function(*arguments, **options)

        return counted


def killed_at(root: Path, acks: int, step: int) -> None:
    Steps(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    record(root, acks, 7, 2, 1)


def resumed(root: Path, path: Path) -> None:
    """Check the store, record one more session and check again."""
    before = acknowledged_in(path)
    verify(root, before, 0)
    target = os.open(path, os.O_WRONLY | os.O_APPEND)
    record(root, target, 9, 1, 1)
    os.close(target)
    after = acknowledged_in(path)
    if len(after) <= len(before):
        raise AssertionError("the resumed recording acknowledged nothing")
    if sorted({number for number, _ in after}) != [number for number, _ in after]:
        raise AssertionError("an episode number was given twice")
    verify(root, [pair for pair in after if pair in before], 0)
    reader = LeRobotReader(root)
    if reader.lengths[after[-1][0]] != after[-1][1] or list((root / "journal").glob("*")):
        raise AssertionError("the resumed recording is incomplete")


def steps(folder: Path, stride: int) -> dict:
    """Kill one recording of two sessions in front of every `stride`-th step it takes, then resume it."""
    failures, step = 0, 1 - stride
    finished = False
    while not finished:
        step += stride
        root, acks = folder / f"set-{step}", folder / f"acks-{step}"
        target = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        finished = os.waitpid(in_child(killed_at, root, target, step), 0)[1] == 0
        os.close(target)
        failures += os.waitpid(in_child(resumed, root, acks), 0)[1] != 0
        shutil.rmtree(root)
    return {"steps": step - 1, "failures": failures}


def failing(root: Path, acks: int, step: int, number: int) -> None:
    """Record while one step fails with the error `number`, then go on with the same recorder."""

    def fail():
        raise OSError(number, os.strerror(number))

    recorder = Recorder.resume(root, STATE_SPEC, WriterOptions())
    injected = Steps(step, fail)
    saved = failed = 0
    while saved < 4:
        episode = recorder.writer.num_episodes
        for frame_number in range(3):
            recorder.add_frame(frame(STATE_SPEC, episode, frame_number))
        try:
            given = recorder.save_episode()
        except OSError as error:
            if error.errno != number:
                raise
            failed += 1
            continue
        saved += 1
        WRITE(acks, f"{given} 3\n".encode())
    reached = injected.left <= 0
    injected.left = -1  # the disk works again
    recorder.close()
    os._exit(3 + failed if reached else 0)


def fail(folder: Path, number: int) -> dict:
    """Let every step of the commits fail once with the error `number`."""
    failures = refused = step = 0
    while True:
        step += 1
        root, acks = folder / f"set-{step}", folder / f"acks-{step}"
        target = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        code = os.waitstatus_to_exitcode(os.waitpid(in_child(failing, root, target, step, number), 0)[1])
        os.close(target)
        good, acknowledged = check(root, acks)
        if code == 0:  # all steps of the commits are done
            return {"steps": step - 1, "failures": failures, "refused": refused}
        failures += code not in (3, 4) or not good or acknowledged != 4
        refused += code == 4


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    with TemporaryDirectory() as warm:  # imports happen once, in the parent
        record(Path(warm, "set"), os.open(os.devnull, os.O_WRONLY), 0, 1, 1)
        verify(Path(warm, "set"), [], 0)
    if what == "kill":
        result = kill(int(rest[0]), int(rest[1]), int(rest[2]), Path(rest[3]))
    else:
        result = (steps if what == "steps" else fail)(Path(rest[1]), int(rest[0]))
    sys.stdout.write(json.dumps(result))
