"""A run that is killed and resumed is bit by bit the run that was never killed."""

import json
import random
import shutil
from pathlib import Path

import pytest

from robolearn import checkpoint
from robolearn.metrics import read_metrics

_TIMES = {"samples_per_s", "data_s", "compute_s"}


def _evidence(run: Path) -> dict:
    """Return everything that must be equal: hashes of all weights and states, and every loss."""
    folder = checkpoint.latest_valid(run)
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {name: entry["sha256"] for name, entry in manifest["files"].items() if name != "config.json"}
    lines = [{key: value for key, value in line.items() if key not in _TIMES} for line in read_metrics(run)]
    return {"files": files, "losses": lines, "step": manifest["step"]}


def _killed_at_random(forks, config: dict, kills: int, seed: int) -> tuple[dict, int]:
    """Kill the run at `kills` random moments, resume it each time, then let it end; returns answer and hits.

    A kill after the last save would leave nothing to draw: that save is taken back, and the end is learned anew.
    """
    draw = random.Random(seed)
    metrics = Path(config["out"]) / "metrics.jsonl"
    steps, hits = config["train"]["steps"], 0
    for line in sorted(draw.sample(range(1, steps), kills)):
        answer = forks.run("train", kill=(metrics, line, draw.uniform(0, 0.02)), config=config)
        assert answer["status"] in (0, -9), answer
        hits += answer["status"] == -9
    shutil.rmtree(Path(config["out"], "checkpoints", f"step_{steps:09d}"), ignore_errors=True)
    return forks.run("train", config=config), hits


def _check(forks, plain_run, workers: int, rounds: int, kills: int, **options) -> int:
    reference = forks.run("train", config=plain_run("reference", workers=workers, **options))
    assert reference["status"] == 0, reference
    wanted = _evidence(Path(reference["checkpoint"]).parent.parent)
    hits = 0
    for i in range(rounds):
        config = plain_run(f"killed_{i}", workers=workers, **options)
        answer, hit = _killed_at_random(forks, config, kills, seed=i)
        assert answer["status"] == 0, answer
        assert answer["generator"] == reference["generator"]
        assert _evidence(Path(config["out"])) == wanted
        hits += hit
    return hits


OPTIONS = {"steps": 60, "save_every": 4, "validate_every": 10, "data": {"validation_fraction": 0.2}}


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_runs_resume_bitwise(forks, plain_run, workers):
    # Without a cache the workers really load.
    assert _check(forks, plain_run, workers, rounds=1, kills=3, cache_mb=0, **OPTIONS) >= 1


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_twenty_kills_resume_bitwise(forks, plain_run, workers):
    hits = 0
    for cache_mb in (0, 1024):
        hits += _check(forks, plain_run, workers, rounds=2, kills=6, cache_mb=cache_mb, **{**OPTIONS, "steps": 200})
    assert hits >= 20


def test_workers_and_cache_change_nothing(forks, plain_run):
    variants = [{"workers": 0}, {"workers": 2, "cache_mb": 0}, {"workers": 0, "cache_mb": 0}]
    evidence = []
    for i, variant in enumerate(variants):
        answer = forks.run("train", config=plain_run(f"run_{i}", **variant))
        assert answer["status"] == 0, answer
        evidence.append(_evidence(Path(answer["checkpoint"]).parent.parent))
    assert evidence[0] == evidence[1] == evidence[2]


@pytest.mark.parametrize("number", [15, 2, 1])
def test_a_signal_ends_the_run_with_a_valid_checkpoint(forks, plain_run, number):
    config = plain_run(f"stopped_{number}", steps=100_000, save_every=100_000, log_every=1)
    kill = (Path(config["out"]) / "metrics.jsonl", 30, 0.0)
    answer = forks.run("train", kill=kill, signal=number, config=config)
    assert answer["status"] == 0, answer
    assert answer["interrupted"]
    state = checkpoint.load_training_state(config["out"])
    assert state.step == answer["step"] > 0
