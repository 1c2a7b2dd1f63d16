"""The main job, small: demonstrate, train, evaluate, report; then the README's script on what it left."""

import json
import re
import runpy
from pathlib import Path

import pytest

import robolearn
from robolearn.cli import main
from robolearn.metrics import read_metrics

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    *("collect.episodes=5", "collect.num_envs=5", "collect.only_successes=false", "episodes=3"),
    *("env.max_steps=24", "train.steps=12", "train.batch_size=16", "train.log_every=4", "policy.network.width=32"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which the demo ran once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["demo", "out=outputs/first", *SMALL]) == 0
    return folder


def test_the_demo_leaves_everything(home):
    out = home / "outputs" / "first"
    result = json.loads((out / "result.json").read_text())
    assert {"success_rate", "ci_low", "ci_high", "episodes", "mean_return", "env_steps_per_s"} <= set(result)
    assert {"wall_s", "versions", "git_revision", "config_hash", "outcomes"} <= set(result)
    assert [outcome["episode"] for outcome in result["outcomes"]] == [0, 1, 2]
    assert len({outcome["seed"] for outcome in result["outcomes"]}) == 3
    assert {"demonstrations", "training", "evaluation", "baselines", "video", "total"} == set(result["wall_s"])
    assert {name: found["success_rate"] for name, found in result["baselines"].items()} == {
        "random actions": 0.0,
        "untrained policy": 0.0,
    }
    assert list(out.glob("*.mp4"))
    assert "data:video/mp4" in (out / "report.html").read_text()
    assert [row["step"] for row in read_metrics(out)] == [4, 8, 12]


def test_the_dataset_is_what_was_learned_from(home):
    source = robolearn.open_dataset(home / "outputs/first/dataset")
    assert source.lengths.tolist() == [24] * 5
    frames = source.read(0, ["observation.state", "action", "task"])
    assert frames["action"].shape == (24, 5)
    assert set(frames["task"]) == {"put the cube in the bin"}


def test_demonstrations_of_any_environment_with_an_expert(tmp_path, capsys):
    out = tmp_path / "stack"
    assert main(["collect", "env=robolearn/stack", "collect.episodes=2", f"out={out}"]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["saved"] == len(robolearn.open_dataset(out / "dataset").lengths) == 2
    assert main(["collect", "env=pusht", f"out={tmp_path / 'none'}"]) == 2
    assert "has no scripted expert" in capsys.readouterr().err
    assert main(["collect", "env=robolearn/stack", "collect.jam=[0,0.1]", f"out={tmp_path / 'short'}"]) == 2
    assert "one number per action entry" in capsys.readouterr().err


def test_eval_of_the_checkpoint_gives_the_same_outcomes(home, monkeypatch):
    monkeypatch.chdir(home)
    given = ["ckpt=outputs/first", "episodes=3", "eval.num_envs=2", "eval.videos=0"]
    assert main(["eval", *given, "out=outputs/again"]) == 0
    first, again = (json.loads(Path(f"outputs/{name}/result.json").read_text()) for name in ("first", "again"))
    assert again["outcomes"] == first["outcomes"]
    assert main(["eval", *given, "out=outputs/again"]) == 2  # nothing is overwritten


def test_training_goes_on_from_its_own_folder(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    given = ["data=auto", "data.path=outputs/first/dataset", "train.batch_size=16", "policy.network.width=32"]
    keys = "data.keys=[observation.state,observation.environment_state]"
    assert main(["train", *given, keys, "train.steps=4", "out=outputs/run"]) == 0
    Path("outputs/run").rename("outputs/moved")  # it goes on where it lies now
    assert main(["train", "train.resume=outputs/moved", "train.steps=6"]) == 0
    assert not Path("outputs/run").exists()
    Path("outputs/moved").rename("outputs/run")
    result = json.loads(Path("outputs/run/result.json").read_text())
    assert result["training"]["step"] == 6
    assert main(["train", "train.resume=outputs/run", "train.stps=6"]) == 2
    assert "did you mean 'steps'?" in capsys.readouterr().err


def test_a_dataset_and_an_environment_that_do_not_fit_say_so(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    assert main(["eval", "ckpt=outputs/first", "env=pusht", "out=outputs/wrong"]) == 2
    error = capsys.readouterr().err
    assert "The environment does not give what the policy expects" in error
    assert "rate_hz: 10.0 instead of 20.0" in error
    assert not Path("outputs/wrong/result.json").exists()


def test_a_missing_dataset_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBOLEARN_DATA", raising=False)
    assert main(["train", "data=pusht"]) == 2
    error = capsys.readouterr().err
    assert "ROBOLEARN_DATA" in error
    assert "lerobot/pusht" in error


def test_the_script_of_the_readme_runs(home, monkeypatch):
    scripts = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(scripts) == 1
    lines = [line for line in scripts[0].splitlines() if line.strip()]
    assert len(lines) <= 12
    monkeypatch.chdir(home)
    Path("script.py").write_text(scripts[0])
    runpy.run_path("script.py", run_name="__main__")


@pytest.mark.long
@pytest.mark.parametrize(("task", "wanted"), [("pick_place", 0.97), ("language", 0.90)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_reaches_its_success_rate(task, wanted, seed, tmp_path):
    assert main(["demo", f"task={task}", f"seed={seed}", f"out={tmp_path / 'demo'}"]) == 0
    assert json.loads((tmp_path / "demo" / "result.json").read_text())["success_rate"] >= wanted


def test_data_verbs_on_what_the_demo_left(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    dataset = "outputs/first/dataset"
    assert main(["data", "info", dataset]) == 0
    assert "observation.environment_state" in capsys.readouterr().out
    assert main(["data", "verify", dataset, "out=outputs/verified"]) == 0
    assert json.loads(Path("outputs/verified/result.json").read_text())["good"] is True
    assert main(["data", "convert", dataset, "outputs/copy.zarr", "to=zarr"]) == 0
    assert robolearn.open_dataset("outputs/copy.zarr", "zarr", {"rate_hz": 20}).lengths.tolist() == [24] * 5
    assert main(["data", "infoo", dataset]) == 2
    assert main(["data", "info", dataset, "knid=zarr"]) == 2
    errors = capsys.readouterr().err
    assert "did you mean 'info'?" in errors
    assert "did you mean 'kind'?" in errors
