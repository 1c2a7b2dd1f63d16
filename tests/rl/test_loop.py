"""The loop: runs, resumes bit for bit, deploys, and refuses what does not fit."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn import checkpoint
from robolearn.actor import load
from robolearn.api import make_env
from robolearn.errors import CheckpointError, ConfigError, DataError, EnvError, SpecError
from robolearn.evaluation import EvalConfig, evaluate
from robolearn.registry import configure
from robolearn.rl import training
from robolearn.rl.training import compare, curriculum_levels, finetune, parse_rl
from robolearn.seeding import generator


def _lines(folder):
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "minutes"} for row in rows]


@pytest.mark.parametrize("algo", ["residual", "rlpd"])
def test_a_run_ends_with_a_policy_that_deploys(plain, clone, algo):
    config = parse_rl(plain(algo=algo))
    result = finetune(config)
    assert result.steps >= 300
    assert result.demonstrations == 4
    lines = _lines(config.out)
    assert lines[0]["step"] == 0  # the clone is the first point of the curve
    assert any("critic_loss" in line for line in lines)
    actor = load(config.out)
    env = make_env("robolearn/reach", 4, {"max_steps": 30})
    after = evaluate(actor, env, EvalConfig(episodes=8, execute=4))
    before = evaluate(load(clone / "run"), env, EvalConfig(episodes=8, execute=4))
    env.close()
    assert compare(before, after)["episodes"] == 8
    state = checkpoint.load_training_state(config.out)
    changed = [name for name, value in state.weights.items() if name.startswith("actor/weights") and value.abs().sum()]
    assert changed
    assert state.counters["algorithm"]["updates"] > 0


@pytest.mark.parametrize("algo", ["residual", "rlpd"])
def test_a_resumed_run_is_bitwise_the_same(plain, algo):
    whole = parse_rl(plain("whole", algo))
    finetune(whole)
    part = parse_rl(plain("part", algo))
    shutil.copytree(whole.out, part.out, dirs_exist_ok=True)
    kept = checkpoint.folders(Path(part.out))
    assert len(kept) >= 2
    for folder in kept[1:]:
        shutil.rmtree(folder)
    resumed = finetune(parse_rl(plain("part", algo, resume=part.out)))
    first, second = (checkpoint.load_training_state(folder) for folder in (whole.out, part.out))
    assert resumed.steps == first.step
    assert first.weights.keys() == second.weights.keys()
    assert all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())
    assert _lines(whole.out) == _lines(part.out)


def test_the_first_checkpoint_acts_as_the_clone_did(plain, clone):
    config = parse_rl(plain(options={"warmup": 10**6}))
    finetune(config)
    actor, base = load(config.out), load(clone / "run")
    env = make_env("robolearn/reach", 4, {"max_steps": 30})
    found = [[o.length for o in evaluate(a, env, EvalConfig(episodes=8, execute=4)).outcomes] for a in (actor, base)]
    env.close()
    assert np.allclose(found[0], found[1], atol=3)


def test_a_penalty_that_decays_lets_the_actor_go(problem):
    away = []
    for decay in (0.0, 100.0):
        options = {"penalty": 1e4, "penalty_decay": decay, "warmup": 0, "actor_after": 0, "critics": {"heads": 2}}
        algorithm = configure("algo", {"name": "residual", **options}, "algo").build(problem)
        random, size, dim = generator(0, "rows"), problem.state_size, problem.spec.action.dim
        rows = {key: random.normal(size=(64, size)) for key in ("state", "next_state")}
        rows |= {key: random.uniform(-0.5, 0.5, (64, dim)) for key in ("action", "base", "next_base")}
        algorithm.online.add(rows | {"reward": rows["action"][:, 0], "discount": np.zeros(64)})
        algorithm.update(40, False)
        state, base = (torch.as_tensor(rows[key], dtype=torch.float32) for key in ("state", "base"))
        away.append(algorithm.net.residual(state, base).abs().mean().item())
    assert away[1] > 2 * away[0]


def test_outcomes_do_not_depend_on_the_rows(plain):
    config = parse_rl(plain())
    finetune(config)
    found = []
    for rows in (1, 3):
        env = make_env("robolearn/reach", rows, {"max_steps": 30})
        found.append(evaluate(load(config.out), env, EvalConfig(episodes=4, execute=4)).outcomes)
        env.close()
    assert found[0] == found[1]


def test_unknown_names_are_refused(plain):
    with pytest.raises(ConfigError, match="sparse"):
        parse_rl(plain(reward="sparce"))
    with pytest.raises(ConfigError, match="gamma"):
        parse_rl(plain(options={"gama": 0.9}))


def test_another_run_is_not_resumed(plain, clone):
    config = parse_rl(plain())
    finetune(config)
    with pytest.raises(ConfigError, match="seed: 0 then, 1 now"):
        finetune(parse_rl(plain(seed=1, resume=config.out)))
    with pytest.raises(CheckpointError, match="not of an rl run"):
        finetune(parse_rl(plain(resume=str(clone / "run"))))


def test_what_does_not_fit_ends_before_the_first_step(plain, clone, tmp_path):
    with pytest.raises(SpecError, match=r"action\.dim|observation"):
        finetune(parse_rl(plain(env={"name": "robolearn/handover"}, demos=False)))
    with pytest.raises(DataError, match="There is no dataset"):
        finetune(parse_rl({**plain(), "demos": {"path": str(tmp_path / "nothing")}}))


def test_an_environment_without_success_is_refused(plain, monkeypatch):
    from robolearn.envs.base import RowsEnv

    monkeypatch.setattr(RowsEnv, "info", lambda self: {})
    with pytest.raises(EnvError, match="what success is"):
        finetune(parse_rl(plain()))


def test_a_curriculum_reaches_every_level_in_equal_parts():
    wanted = {"control_noise": 2, "latency": 1}
    found = [curriculum_levels(wanted, share) for share in (0.0, 0.32, 0.34, 0.67, 1.0)]
    assert [(one["control_noise"], one["latency"]) for one in found] == [(0, 0), (0, 0), (1, 1), (2, 1), (2, 1)]


def test_a_run_with_a_curriculum_begins_easily(plain, monkeypatch):
    levels = []
    built = training._build
    monkeypatch.setattr(training, "_build", lambda config: levels.append(dict(config.env["perturb"])) or built(config))
    options = {"env": {"perturb": {"control_noise": 1}}, "curriculum": True}
    result = finetune(parse_rl(plain(**options)))
    assert levels == [{"control_noise": 1}, {"control_noise": 0}]  # the last part collects where it evaluates
    assert result.steps >= 300
    with pytest.raises(ConfigError, match="lead to"):
        finetune(parse_rl(plain("none", curriculum=True)))


def test_entries_of_scale_zero_are_neither_corrected_nor_explored(problem):
    dim = problem.spec.action.dim
    scales = [0.0, 1.0, *[0.5] * (dim - 2)]
    algorithm = configure("algo", {"name": "residual", "scales": scales}, "algo").build(problem)
    torch.nn.init.ones_(algorithm.net.actor[-1].bias)
    state, base = torch.zeros(3, problem.state_size), torch.zeros(3, dim)
    moved = algorithm.net.propose(state, base)
    torch.testing.assert_close(moved, torch.tensor(scales).expand(3, dim) * math.tanh(1.0))
    torch.testing.assert_close(algorithm.deviation(moved, base), algorithm.learned(state, base)[1] * (moved > 0))
    assert algorithm.explored.tolist() == scales
    with pytest.raises(ConfigError, match="needs a scale"):
        configure("algo", {"name": "residual", "scales": [1.0]}, "algo").build(problem)


def test_an_actor_that_imitates_goes_where_the_demonstrations_went(problem):
    options = {"name": "residual", "scale": 0.5, "penalty": 1e4, "actor_after": 0, "actor_every": 1, "warmup": 0}
    dim, random = problem.spec.action.dim, np.random.default_rng(0)

    def rows(action: float) -> dict[str, np.ndarray]:
        state, base, nothing = random.normal(size=(64, problem.state_size)), np.zeros((64, dim)), np.zeros(64)
        now = {"state": state, "base": base, "action": np.full((64, dim), action)}
        return now | {"next_state": state, "next_base": base, "reward": nothing, "discount": nothing}

    moved = {}
    for imitate in (False, True):
        algorithm = configure("algo", {**options, "imitate": imitate, "actor_rate": 3e-3}, "algo").build(problem)
        algorithm.recorded.add(rows(0.4))
        algorithm.online.add(rows(-0.4))
        algorithm.update(200, False)
        moved[imitate] = algorithm.net.propose(*(algorithm.recorded.column(key) for key in ("state", "base"))).mean()
    assert abs(moved[False]) < 0.02
    assert moved[True] > 0.05
