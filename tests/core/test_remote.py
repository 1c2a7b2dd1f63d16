"""Evaluation on Ray: two workers reach what one process reaches, also when one of them dies."""

import json

import pytest

from robolearn.actor import load
from robolearn.cli import main
from robolearn.cli.evaluate import build_env
from robolearn.evaluation import EvalConfig, evaluate
from robolearn.remote import run_share

CKPT = "benchmarks/checkpoints/pusht_flow"
ENV = {"name": "pusht", "max_steps": 15}


def test_a_share_is_what_the_whole_would_have_been():
    config = EvalConfig(episodes=4, num_envs=4, execute=4)
    whole = evaluate(load(CKPT), build_env(ENV, 4), config)
    share = run_share(CKPT, None, ENV, {"episodes": 4, "num_envs": 4, "execute": 4}, [1, 3])
    assert share == [whole.to_dict()["outcomes"][episode] for episode in (1, 3)]


@pytest.mark.long
def test_two_ray_workers_reach_what_one_process_reaches(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else they wait for everything else on the machine
    common = [f"ckpt={CKPT}", "env=pusht", "env.max_steps=15", "episodes=6", "eval.execute=4", "eval.videos=0"]
    assert main(["eval", *common, f"out={tmp_path / 'one'}"]) == 0
    assert main(["eval", *common, "backend=ray", "workers=2", f"out={tmp_path / 'ray'}"]) == 0
    one, ray = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "ray"))
    assert ray["backend"] == "ray"
    assert ray["outcomes"] == one["outcomes"]
