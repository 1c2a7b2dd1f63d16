"""`robolearn rl` and its experiments."""

import json

import pytest

from robolearn.cli import main
from robolearn.cli.arguments import Arguments
from robolearn.cli.compose import choices, compose_config
from robolearn.rl.training import parse_rl

SMALL = (
    *("rl.steps=200", "rl.rows=4", "rl.round_episodes=4", "rl.select_every=100", "rl.select_episodes=4"),
    *("algo.width=16", "algo.critics.heads=2", "algo.critics.width=16", "algo.batch_size=16", "algo.warmup=60"),
    *("episodes=6", "eval.num_envs=4", "eval.execute=4", "eval.videos=0"),
)


def test_the_verb_improves_compares_and_reports(clone, tmp_path, capsys):
    out = tmp_path / "out"
    given = [f"ckpt={clone / 'run'}", "env=robolearn/reach", "env.max_steps=30", f"demos.path={clone / 'dataset'}"]
    assert main(["rl", "algo=residual", *given, "demos.kind=lerobot", *SMALL, f"out={out}"]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["verb"] == "rl"
    assert result["comparison"]["episodes"] == 6
    assert result["baselines"]["before"]["episodes"] == 6
    assert result["learning"]["demonstrations"] == 4
    assert [outcome["seed"] for outcome in result["outcomes"]] == [
        outcome["seed"] for outcome in result["baselines"]["before"]["outcomes"]
    ]
    assert "Content-Security-Policy" in (out / "report.html").read_text()
    assert main(["rl", f"rl.resume={out}", "rl.steps=260"]) == 0
    longer = json.loads((out / "result.json").read_text())
    assert longer["learning"]["steps"] >= 260 > result["learning"]["steps"] - 60
    assert main(["eval", f"ckpt={out}", "episodes=2", "eval.videos=0", f"out={tmp_path / 'eval'}"]) == 0


def test_runs_share_a_finished_clone(tmp_path, capsys, monkeypatch):
    clone = ("clone.task=pick_place", "clone.env=robolearn/reach", f"clone.out={tmp_path / 'clone'}")
    small = ("clone.collect.episodes=2", "clone.collect.num_envs=2", "clone.train.steps=3", "clone.device=cpu")
    given = [*clone, *small, "algo=residual", "env=robolearn/reach", "env.max_steps=30", *SMALL]
    assert main(["rl", *given, f"out={tmp_path / 'first'}"]) == 0
    monkeypatch.setattr("robolearn.cli.rl.demonstrate", lambda *_: pytest.fail("demonstrated again"))
    assert main(["rl", *given, f"out={tmp_path / 'second'}"]) == 0
    first, second = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("first", "second"))
    assert first["config_hash"] == second["config_hash"]
    assert first["outcomes"] == second["outcomes"]
    assert not (tmp_path / "first" / "clone").exists()
    assert main(["rl", *given, "clone.seed=1", f"out={tmp_path / 'third'}"]) == 2
    assert "is another clone. found: seed: 0 there, 1 wanted" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["algo=residual", "env=robolearn/reach"], "rl needs a clone"),
        (["algo=residuel", "env=robolearn/reach", "ckpt=x"], "did you mean 'residual'"),
        (["algo=residual", "env=robolearn/reach", "ckpt=x", "rl.reward=dens"], "did you mean 'dense'"),
        (["algo=residual", "env=robolearn/reach", "ckpt=nowhere"], "No checkpoint at nowhere"),
        (["algo=residual", "env=robolearn/reach", "ckpt=x", "algo.gammma=1"], "did you mean 'gamma'"),
    ],
)
def test_mistakes_end_in_one_error(given, words, capsys, tmp_path):
    assert main(["rl", *given, f"out={tmp_path / 'out'}"]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", [name for name in choices("experiment") if name.startswith("rl/")])
def test_every_rl_experiment_composes_to_a_run(name):
    plain = compose_config("rl", Arguments(overrides=(f"experiment={name}",)))
    plain["eval"]["episodes"] = plain.pop("episodes")
    clone = plain.pop("clone")
    assert compose_config("demo", Arguments(overrides=(f"task={clone['task']}",)))["env"] == plain["env"]
    config = parse_rl({**plain, "ckpt": ""})
    assert config.eval.seed >= 100_000
    assert config.eval.episodes >= 500
