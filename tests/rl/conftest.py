"""A reaching task with a clone of its expert that has barely learned, made once."""

import shutil
from pathlib import Path

import pytest

from robolearn import checkpoint
from robolearn.actor import load
from robolearn.api import make_env
from robolearn.collect import CollectConfig, collect
from robolearn.evaluation import EvalConfig
from robolearn.registry import resolve
from robolearn.rl.algorithm import Problem
from robolearn.rl.training import finetune, parse_rl
from robolearn.rollout import ExpertController
from robolearn.run import parse_run
from robolearn.training import train

ENV = {"name": "robolearn/reach", "max_steps": 30}
KEYS = ["observation.state", "observation.environment_state"]
SMALL = {
    "width": 32,
    "depth": 1,
    "critics": {"heads": 3, "width": 32, "depth": 1},
    "batch_size": 32,
    "warmup": 60,
    "actor_after": 5,
}


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """Return the folder of a run whose policy is a poor clone; its demonstrations lie in `dataset`."""
    folder = tmp_path_factory.mktemp("clone")
    env = make_env(ENV["name"], 4, {"max_steps": 30})
    sink = resolve("sink", "lerobot")(folder / "dataset", env.spec, {})
    collect(env, ExpertController(env.expert(), 0), sink, CollectConfig(episodes=4, num_envs=4))
    sink.close()
    env.close()
    plain = {
        "policy": {"name": "flow", "history": 2, "chunk": 8, "network": {"name": "mlp", "width": 32, "depth": 1}},
        "data": {"path": str(folder / "dataset"), "kind": "lerobot", "keys": KEYS},
        "train": {"steps": 60, "batch_size": 32, "warmup_steps": 5, "precision": "fp32"},
        "env": ENV,
        "device": "cpu",
        "out": str(folder / "run"),
    }
    train(parse_run(plain))
    return folder


@pytest.fixture
def problem(clone):
    """Return the poor clone as what an algorithm is given."""
    actor = load(clone / "run")
    how = EvalConfig(episodes=8, execute=4, num_envs=4)
    return Problem(checkpoint.load(clone / "run"), actor, actor.spec, how, 300, 0, True, 1, True)


@pytest.fixture
def plain(clone, tmp_path):
    """Return a function that gives the plain config of a small run."""

    def build(out="rl", algo="residual", demos=True, seed=0, ckpt=None, env=None, options=None, **rl):
        small = {"steps": 300, "rows": 4, "round_episodes": 4, "select_every": 150, "select_episodes": 4}
        (tmp_path / out).mkdir(exist_ok=True)
        return {
            "algo": {"name": algo, **(SMALL if algo in ("residual", "rlpd") else {}), **(options or {})},
            "ckpt": str(ckpt or clone / "run"),
            "env": {**ENV, **(env or {})},
            "demos": {"path": str(clone / "dataset"), "kind": "lerobot"} if demos else None,
            "rl": {**small, "save_every": 100, "keep": 9, **rl},
            "eval": {"episodes": 8, "execute": 4, "num_envs": 4},
            "seed": seed,
            "out": str(tmp_path / out),
        }

    return build


@pytest.fixture
def resumed():
    """Return a function that runs an algorithm whole and in two parts, and gives both training states."""

    def run(plain, algo, options, **rl):
        whole = parse_rl(plain("whole", algo, options=options, **rl))
        finetune(whole)
        part = parse_rl(plain("part", algo, options=options, **rl))
        shutil.copytree(whole.out, part.out, dirs_exist_ok=True)
        kept = checkpoint.folders(Path(part.out))
        assert len(kept) >= 2
        for folder in kept[1:]:
            shutil.rmtree(folder)
        finetune(parse_rl(plain("part", algo, options=options, resume=part.out, **rl)))
        return tuple(checkpoint.load_training_state(config.out) for config in (whole, part))

    return run
