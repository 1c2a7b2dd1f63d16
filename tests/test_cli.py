"""The command line: its surface, its composition, its one clean error."""

import json
from pathlib import Path

import pytest

from robolearn import cli
from robolearn.cli import main
from robolearn.cli.arguments import Arguments, parse_arguments
from robolearn.cli.compose import choices, compose_config, jobs
from robolearn.cli.demo import parse_demo
from robolearn.cli.job import Job, out_folder
from robolearn.errors import ConfigError
from robolearn.run import parse_run

ROOT = Path(__file__).resolve().parent.parent


def test_the_surface_is_pinned():
    verbs = "demo collect train rl eval compare reproduce robot serve export data bench doctor list push convert pull"
    assert list(cli.VERBS) == verbs.split()


def test_every_verb_exists_and_explains_itself(capsys):
    for verb in cli.VERBS:
        with pytest.raises(SystemExit) if verb not in ("bench", "data") else _nothing():
            main([verb, "--help"])
        assert f"usage: robolearn {verb}" in capsys.readouterr().out


class _nothing:  # a context manager that lets everything pass
    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return False


def test_help_lists_every_verb(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in cli.VERBS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "did you mean 'train'?"),
        (["eval", "ckpt=x", "eval.exeute=3"], "did you mean 'execute'?"),
        (["eval", "ckpt=x", "env=pushd"], "did you mean 'pusht'?"),
        (["eval", "ckpt=x", "evl.execute=3"], "did you mean 'eval'?"),
        (["eval"], "eval needs ckpt"),
        (["eval", "ckpt=x", "eval.execute=three"], "config.eval.execute has the wrong type"),
        (["eval", "ckpt=x", "episodes=0"], "eval.episodes is too small"),
        (["eval", "ckpt=x", "nonsense"], "'nonsense' is not an override"),
        (["eval", "ckpt=x", "a b=3"], "is not an override"),
        (["eval", "ckpt=x", "eval.execute=[1"], "cannot be composed"),
        (["eval", "ckpt=x", "--multirn"], "did you mean '--multirun'?"),
        (["eval", "ckpt=x", "seed=1,2"], "cannot be composed"),
        (["eval", "ckpt=x", "--config-dir", "/does/not/exist"], "--config-dir is not a folder"),
        (["list", "polcy"], "did you mean 'policy'?"),
        (["bench", "startupp"], "did you mean 'startup'?"),
        (["pull", "x"], "to= is missing"),
        (["push"], "A name is missing"),
        (["robot", "chekc"], "did you mean 'check'?"),
        (["robot", "check", "robot=twin/pando"], "did you mean 'twin/panda'?"),
        (["robot", "check", "robot.safety.tool_ms=1"], "did you mean 'tool_m_s'?"),
        (["robot", "record", "device=page"], "record needs dataset"),
        (["serve", "ckpt=x", "server.prot=1"], "did you mean 'port'?"),
        (["serve", "ckpt=x", "server.host=0.0.0.0"], "needs a token"),
        (["serve", "ckpt=x", "server.port=99999"], "server.port is out of range"),
        (["train"], "train needs data.path"),
        (["train", "data=auto", "data.path=.", "device=tpu"], "Unknown device 'tpu'"),
        (["train", "data=auto", "data.path=.", "device=cuda:99"], "There is no device 'cuda:99'"),
        (["eval", "openloop"], "needs a checkpoint"),
        (["eval", "openloop", "ckpt=x", "windows=many"], "config.windows has the wrong type"),
        (["eval", "openloop", "ckpt=x", "windows=0"], "needs a checkpoint and a number of windows"),
        (["compare", "a", "b", "judgments=x"], "did you mean 'judgements'?"),
        (["robot", "rollout", "episodes=0"], "episodes is too small"),
        (["robot", "rollout", "max_steps=-1"], "max_steps is too small"),
    ],
)
def test_one_clean_error(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("robolearn: error: ")
    assert "Traceback" not in captured.err


def test_what_the_system_refuses_is_one_clean_error(monkeypatch, capsys, tmp_path):
    def full(arguments):
        (tmp_path / "absent" / "file").write_text("")

    monkeypatch.setattr("robolearn.cli.listing.main", full)
    assert main(["list"]) == 2
    assert f"No such file or directory\n  found: {tmp_path}/absent/file" in capsys.readouterr().err


def test_interrupt_is_clean(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("robolearn.cli.listing.main", interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "robolearn: interrupted\n"


def test_overrides_as_hydra_users_know_them(tmp_path):
    given = Arguments(overrides=("ckpt=a/b", "env=pusht", "eval.execute=4", "+env.images=true", "~device", "out=x"))
    config = compose_config("eval", given)
    assert config["ckpt"] == "a/b"
    assert config["env"] == {"name": "pusht", "max_steps": 300, "images": True}
    assert config["eval"]["execute"] == 4
    assert "device" not in config


def test_a_task_in_words_is_no_choice_of_a_task():
    for words in ("put the cube into the bin", "pick_place"):
        assert compose_config("robot", Arguments(overrides=(f"task={words}",)))["task"] == words
    assert compose_config("demo", Arguments(overrides=("task=language",)))["env"]["name"] == "pick_place_language"


def test_unknown_keys_reach_the_typed_parser():
    assert compose_config("eval", Arguments(overrides=("ckpt=x", "eval.exeute=3")))["eval"]["exeute"] == 3


def test_registered_names_without_a_config_file_are_choices(monkeypatch):
    from robolearn import registry

    monkeypatch.setitem(registry._TABLE["env"], "mine", "nowhere:Nothing")
    monkeypatch.setitem(registry._TABLE["env"], "suite/*", "nowhere:Nothing")
    assert compose_config("eval", Arguments(overrides=("ckpt=x", "env=mine")))["env"] == {"name": "mine"}
    given = Arguments(overrides=("ckpt=x", "env=suite/Lift", "env.cameras=[front]"))
    assert compose_config("eval", given)["env"] == {"name": "suite/Lift", "cameras": ["front"]}


def test_a_folder_of_the_user_adds_choices(tmp_path):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "far.yaml").write_text("name: pick_place\nmax_steps: 400\n")
    given = Arguments(overrides=("ckpt=x", "env=far"), config_dir=str(tmp_path))
    assert compose_config("eval", given)["env"] == {"name": "pick_place", "max_steps": 400}
    assert "far" in choices("env", str(tmp_path))
    assert "far" not in choices("env")


def test_a_sweep_is_the_product_of_its_lists():
    swept = list(jobs(Arguments(overrides=("ckpt=x", "eval.seed=1,2", "eval.execute=choice(4,8)"), multirun=True)))
    assert [job.overrides for _, job in swept] == [
        ("ckpt=x", f"eval.seed={seed}", f"eval.execute={execute}") for seed in (1, 2) for execute in (4, 8)
    ]
    assert list(jobs(Arguments(overrides=("a=1",)))) == [("", Arguments(overrides=("a=1",)))]
    seeds = jobs(Arguments(overrides=("seed=range(3)",), multirun=True))
    assert [(number, job.value("seed")) for number, job in seeds] == [("000", "0"), ("001", "1"), ("002", "2")]


def test_arguments_split():
    given = parse_arguments(["name", "a.b=1", "-m", "--config-dir=here", "+c=[1,2]"], "usage", names=1)
    assert given == Arguments(("name",), ("a.b=1", "+c=[1,2]"), True, "here")
    assert given.value("a.b") == "1"
    assert given.value("absent", "else") == "else"


def test_output_folders_are_never_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert out_folder("eval", None).parent == Path("outputs/eval")
    folder = out_folder("eval", "mine")
    (folder / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        out_folder("eval", "mine")
    assert out_folder("train", "mine", resumes=True) == folder
    with pytest.raises(ConfigError, match="is a file"):
        out_folder("eval", "mine/result.json")


def test_a_job_leaves_its_result(tmp_path):
    job = Job("eval", tmp_path, {"a": 1})
    with job.stage("first"):
        pass
    with job.stage("first"):
        pass
    job.finish({"success_rate": 0.5})
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["success_rate"] == 0.5
    assert set(content["wall_s"]) == {"first", "total"}
    assert len(content["config_hash"]) == 12
    assert content["config"] == {"a": 1}
    assert "torch" in content["versions"]
    assert {"git_revision", "machine", "verb"} <= set(content)


def test_every_config_file_composes_its_group():
    for group in ("env", "policy", "data", "eval", "train"):
        for name in choices(group):
            assert (ROOT / "configs" / group / f"{name}.yaml").is_file()


def test_doctor_says_what_is_here(tmp_path, capsys):
    assert main(["doctor", f"out={tmp_path / 'doctor'}"]) == 0
    assert "OpenGL" in capsys.readouterr().out
    checks = json.loads((tmp_path / "doctor" / "result.json").read_text())["checks"]
    assert {"python", "GPU", "torch", "data folder"} <= {check["thing"] for check in checks}


def test_list_names_what_is_registered(capsys):
    assert main(["list"]) == 0
    assert main(["list", "policies"]) == 0
    text = capsys.readouterr().out
    assert text.count("diffusion") >= 2
    assert "pick_place" in text


@pytest.mark.parametrize("name", [name for name in choices("experiment") if not name.startswith("rl/")])
def test_every_experiment_composes_to_a_run(name):
    plain = compose_config("train", Arguments(overrides=(f"experiment={name}",)))
    plain["eval"]["episodes"] = plain.pop("episodes")
    run = parse_run(plain)
    assert run.env is not None
    assert run.eval.seed >= 100_000


@pytest.mark.parametrize("name", choices("task"))
def test_every_task_of_the_demo_composes(name, tmp_path):
    plain = compose_config("demo", Arguments(overrides=(f"task={name}", "train.steps=7")))
    demo = parse_demo(plain, tmp_path)
    assert demo.run.train.steps == 7
    assert demo.run.data.path == str(tmp_path / "dataset")
    assert demo.collect.noise or name.endswith("_clone")


def test_an_override_wins_over_an_experiment():
    plain = compose_config("train", Arguments(overrides=("experiment=pusht_flow", "train.steps=7", "policy.chunk=8")))
    assert plain["train"]["steps"] == 7
    assert plain["policy"]["chunk"] == 8


def test_any_dataset_is_a_choice():
    plain = compose_config("train", Arguments(overrides=("data=zarr", "data.path=x", "data.options.rate_hz=5")))
    assert plain["data"] == {"path": "x", "kind": "zarr", "options": {"rate_hz": 5}}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("policy.chnk=3", "did you mean 'chunk'?"),
        ("policy=flwo", "did you mean 'flow'?"),
        ("train.steps=0", "train.steps is out of range"),
        ("train.stesp=5", "did you mean 'steps'?"),
        ("polcy.chunk=3", "did you mean 'policy'?"),
        ("data.pth=x", "did you mean 'path'?"),
        ("experiment=pusht_flo", "did you mean 'pusht_flow'?"),
        ("policy.network.name=mpl", "did you mean 'mlp'?"),
    ],
)
def test_a_mistake_in_a_run_is_named(override, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    assert main(["train", "data=pusht", "data.path=set", "out=run", override]) == 2
    assert words in capsys.readouterr().err
