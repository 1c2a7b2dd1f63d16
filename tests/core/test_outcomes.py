"""Evaluations that are killed go on where they were, and end as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robolearn.cli import main
from robolearn.errors import ConfigError, DataError
from robolearn.outcomes import OutcomeLog
from robolearn.rollout import Outcome

CKPT = "benchmarks/checkpoints/pusht_flow"
COMMAND = [
    "eval",
    f"ckpt={CKPT}",
    "env=pusht",
    "env.max_steps=40",
    "eval.execute=4",
    "eval.num_envs=2",
    "eval.videos=0",
]


def outcome(episode, success=True):
    return Outcome(episode, 1000 + episode, success, 0.1 + 0.2, 1.0 / 3.0, 17)


def test_outcomes_come_back_as_they_were(tmp_path):
    log = OutcomeLog(tmp_path / "log", "me")
    log.add([outcome(3), outcome(1, success=False)], 2.5)
    log.of("square").add([outcome(3, success=False)], 1.5)
    again = OutcomeLog(tmp_path / "log", "me")
    assert again.done == {3: outcome(3), 1: outcome(1, success=False)}
    assert again.of("square").done == {3: outcome(3, success=False)}
    assert (again.wall_s, again.of("square").wall_s, again.of("can").done) == (2.5, 1.5, {})
    assert sorted(again.successes) == [False, False, True]


def test_a_line_that_was_cut_off_does_not_count(tmp_path):
    path = tmp_path / "log"
    log = OutcomeLog(path, "me")
    log.add([outcome(0), outcome(1)], 1.0)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = sum(end <= size for end in ends[1:])
        cut = OutcomeLog(path, "me")
        assert list(cut.done) == list(range(kept))
        cut.add([outcome(7)], 2.0)
        assert list(OutcomeLog(path, "me").done) == [*range(kept), 7]


def test_an_evaluation_that_does_not_begin_leaves_nothing(tmp_path):
    log = OutcomeLog(tmp_path / "log", "me")
    assert not (tmp_path / "log").exists()
    log.remove()
    OutcomeLog(tmp_path / "log", "you").add([outcome(0)], 1.0)
    assert list(OutcomeLog(tmp_path / "log", "you").done) == [0]


def test_another_evaluation_and_other_files_are_refused(tmp_path):
    OutcomeLog(tmp_path / "log", "me").add([outcome(0)], 1.0)
    with pytest.raises(ConfigError, match="unfinished evaluation of something else"):
        OutcomeLog(tmp_path / "log", "you")
    for text in ("{}\n", "[1]\n", '{"identity": "me"}\n{"task": "", "wall_s": 1}\n', "no\n"):
        (tmp_path / "log").write_text(text)
        with pytest.raises(DataError, match="something else than outcomes"):
            OutcomeLog(tmp_path / "log", "me")


@pytest.mark.parametrize("protocol", [False, True])
def test_an_evaluation_that_was_stopped_goes_on(tmp_path, monkeypatch, protocol):
    """In one process: a step that fails stands for the kill."""
    command = [*COMMAND, "episodes=4"]
    if protocol:
        command = ["eval", f"ckpt={CKPT}", "protocol=pusht", "protocol.episodes=4", "protocol.tasks.0.horizon=40"]
    assert main([*command, "eval.videos=0", f"out={tmp_path / 'whole'}"]) == 0
    add = OutcomeLog.add

    def fail(log, finished, wall_s):
        add(log, finished, wall_s)
        if finished:
            raise KeyboardInterrupt

    monkeypatch.setattr(OutcomeLog, "add", fail)
    main([*command, "eval.videos=0", f"out={tmp_path / 'part'}"])
    monkeypatch.setattr(OutcomeLog, "add", add)
    assert (tmp_path / "part" / "outcomes.jsonl").exists()
    assert main([*command, "eval.temperature=0.9", f"out={tmp_path / 'part'}"]) != 0  # something else
    assert main([*command, "eval.videos=0", f"out={tmp_path / 'part'}"]) == 0
    whole, part = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "part"))
    assert part["outcomes"] == whole["outcomes"]
    assert part.get("tasks") == whole.get("tasks")
    assert not (tmp_path / "part" / "outcomes.jsonl").exists()


def kill_after(lines: int, folder: Path, episodes: int) -> bool:
    """Run the evaluation and kill it when its log has `lines` lines; return whether that came in time."""
    program = "import sys; from robolearn.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [*COMMAND, f"episodes={episodes}", f"out={folder}"]
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL) as process:
        log = folder / "outcomes.jsonl"
        while process.poll() is None:
            if log.exists() and log.read_bytes().count(b"\n") >= lines:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.002)
    return False


@pytest.mark.parametrize(("kills", "episodes"), [(1, 6), pytest.param(20, 60, marks=pytest.mark.long)])
def test_kills_change_nothing(tmp_path, kills, episodes):
    killed = [
        kill_after(1 + (1 + kill) * episodes // (kills + 2), tmp_path / "killed", episodes) for kill in range(kills)
    ]
    assert all(killed)
    assert main([*COMMAND, f"episodes={episodes}", f"out={tmp_path / 'killed'}"]) == 0
    assert main([*COMMAND, f"episodes={episodes}", f"out={tmp_path / 'calm'}"]) == 0
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("killed", "calm")]
    assert results[0]["outcomes"] == results[1]["outcomes"]
