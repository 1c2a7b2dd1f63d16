"""Worker processes that die or hang: noticed, replaced, and the episodes are what they would have been."""

import logging
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from robolearn.api import make_env
from robolearn.envs.processes import WorkersEnv
from robolearn.errors import ConfigError, EnvError, MissingLibraryError
from robolearn.evaluation import EvalConfig, evaluate_controller
from robolearn.rollout import RandomController
from robolearn.seeding import generator
from robolearn.testing import check_env

NAME = "workers/gym/Pendulum-v1"
STAND_IN = Path(__file__).parent / "stand_in"


def play(env, steps=12, harm=None):
    """Return everything seen over some steps; `harm(step)` may hurt a worker first."""
    obs, _ = env.reset(seed=[11, 12, 13])
    seen = [obs["observation.state"]]
    draw = generator("play")
    for step in range(steps):
        if step == 7:  # one row starts again while the others go on
            env.reset(seed=[None, 99, None], options={"reset_mask": np.array([False, True, False])})
        if harm is not None:
            harm(step)
        obs, reward, *_ = env.step(draw.uniform(-2, 2, (3, 1)))
        seen.append(np.concatenate([obs["observation.state"], reward[:, None]], 1))
    return seen


@pytest.fixture(scope="module")
def pendulums():
    env = make_env(NAME, 3, {"workers": 2, "answer_s": 1.0})
    yield env
    env.close()


def test_it_keeps_the_contract():
    check_env(lambda num_envs: make_env(NAME, num_envs, {"workers": 2, "max_steps": 15}), steps=6)


def test_rows_do_what_they_do_without_processes(pendulums):
    inside = make_env("gym/Pendulum-v1", 3)
    for one, other in zip(play(pendulums), play(inside), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_is_replaced_and_no_trajectory_changes(pendulums, harm, caplog):
    undisturbed = play(pendulums)
    before = pendulums.restarts
    victims = iter([0, 1])

    def hurt(step):
        if step in (4, 9):
            os.kill(pendulums._workers[next(victims)]._process.pid, harm)

    with caplog.at_level(logging.WARNING):
        disturbed = play(pendulums, harm=hurt)
    assert all(np.array_equal(one, other) for one, other in zip(undisturbed, disturbed, strict=True))
    events = pendulums.events[before:]
    assert [event.worker for event in events] == [0, 1]
    assert max(event.noticed_s for event in events) <= 5.0
    assert max(event.restarted_s for event in events) <= 10.0
    assert "starting another" in caplog.text


def test_an_evaluation_goes_on_and_says_so(pendulums):
    config = EvalConfig(episodes=4, num_envs=3)
    calm = evaluate_controller(RandomController(pendulums, 0), pendulums, config)
    steps = 0

    def hurt(record):
        nonlocal steps
        steps += 1
        if steps == 30:
            os.kill(pendulums._workers[0]._process.pid, signal.SIGKILL)

    struck = evaluate_controller(RandomController(pendulums, 0), pendulums, config, on_step=hurt)
    assert struck.outcomes == calm.outcomes
    assert struck.to_dict()["worker_restarts"] == pendulums.restarts > 0


@pytest.mark.long
@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_two_hundred_losses_change_no_outcome(harm):
    env = make_env(NAME, 3, {"workers": 3, "max_steps": 10, "answer_s": 1.0})
    draw, lost = generator("harm", int(harm)), 0

    def outcomes(on_step=None):
        return evaluate_controller(RandomController(env, 0), env, EvalConfig(episodes=6), on_step=on_step).outcomes

    def hurt(record):
        nonlocal lost
        if lost < 200 and draw.random() < 0.4:
            os.kill(env._workers[draw.integers(3)]._process.pid, harm)
            lost += 1

    calm = outcomes()
    while lost < 200:
        assert outcomes(hurt) == calm
    assert outcomes() == calm  # the last loss may come after the last step
    assert len(env.events) == lost
    assert max(event.noticed_s for event in env.events) <= 5.0
    assert max(event.restarted_s for event in env.events) <= 10.0
    env.close()


# ---------------------------------------------------------------- environments that always fail

MAKER = """
import os
import numpy as np

class Rows:
    def __init__(self, rows):
        self.x = np.zeros((rows, 1), np.float32)

    def reset(self, seed, options):
        self.x[options["reset_mask"]] = np.array(seed, np.float32)[options["reset_mask"], None]
        return {"observation.state": self.x.copy()}, {}

    def step(self, actions):
        if (actions > 0.9).any():
            os._exit(3)
        if (actions < -0.9).any():
            raise RuntimeError("no further")
        self.x += np.nan_to_num(actions).astype(np.float32)
        no = np.zeros(len(self.x), bool)
        return {"observation.state": self.x.copy()}, self.x[:, 0].astype(float), no, no, {"success": no, "diverged": no}

def make(options):
    if options.get("broken"):
        raise SystemExit(1)
    spec = {
        "observations": {"observation.state": {"shape": [1]}},
        "action": {"dim": 1, "low": [-1.0], "high": [1.0]},
        "rate_hz": 10.0,
    }
    return Rows(options["rows"]), {"spec": spec, "max_episode_steps": 20}
"""


@pytest.fixture
def maker(tmp_path):
    path = tmp_path / "maker.py"
    path.write_text(MAKER)
    return str(path)


def test_a_worker_that_always_dies_at_one_step_costs_its_episode_only(maker):
    env = WorkersEnv(sys.executable, maker, {}, 2, workers=2)
    env.reset(seed=[1, 2])
    obs, _, terminated, _, info = env.step(np.array([[0.95], [0.5]]))
    assert terminated.tolist() == [True, False]
    assert info["diverged"].tolist() == [True, False]
    assert obs["observation.state"][1, 0] == 2.5
    env.reset(seed=[4, None], options={"reset_mask": np.array([True, False])})
    obs, _, terminated, _, _ = env.step(np.array([[0.5], [0.5]]))
    assert obs["observation.state"][:, 0].tolist() == [4.5, 3.0]
    assert not terminated.any()
    env.close()


def test_an_error_inside_is_told(maker):
    env = WorkersEnv(sys.executable, maker, {}, 1)
    env.reset(seed=[1])
    with pytest.raises(EnvError, match="RuntimeError: no further"):
        env.step(np.array([[-0.95]]))
    env.close()


def test_a_worker_that_does_not_start_is_told(maker):
    with pytest.raises(EnvError, match="does not start"):
        WorkersEnv(sys.executable, maker, {"broken": True}, 1)


# ---------------------------------------------------------------- LIBERO, by a stand-in


@pytest.fixture
def libero_python(tmp_path, monkeypatch):
    """A Python in which `import libero` finds the stand-in: what LIBERO's own environment would be."""
    program = "import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, STAND_IN); "
    program = program.replace("STAND_IN", repr(str(STAND_IN))) + "runpy.run_path(sys.argv[0], run_name='__main__')"
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -I -c "{program}" "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("ROBOLEARN_LIBERO_PYTHON", str(path))


def test_liberos_tasks_start_from_their_stored_states(libero_python):
    env = make_env("libero/libero_spatial/1", 2, {"image_px": 8, "max_steps": 6, "workers": 2})
    obs, _ = env.reset(seed=[5, 6], options={"episode": np.array([3, 4])})
    assert np.allclose(obs["observation.state"][:, 0], [1.3, 1.4])
    assert np.allclose(obs["observation.state"][:, 1], 10)  # idle steps
    assert np.allclose(obs["observation.state"][:, 3:6], [0, 0, 0.5])
    assert obs["observation.images.agentview"][0, -1, -1, 0] == 200
    assert obs["task"].tolist() == ["move 1", "move 1"]
    actions = np.zeros((2, 7))
    actions[0, 0] = 0.4
    succeeded = [env.step(actions)[4]["success"].tolist() for _ in range(2)]
    assert succeeded == [[False, False], [True, False]]
    truncated = [env.step(actions)[3].tolist() for _ in range(4)]
    assert truncated[-1] == [False, True]
    assert env.render(1).shape == (8, 8, 3)
    env.close()


def test_libero_keeps_the_contract_where_states_allow(libero_python):
    env = make_env("libero/libero_spatial/0", 2, {"image_px": 8, "workers": 1})
    env.reset(seed=[1, 2], options={"episode": np.array([0, 1])})
    _, _, terminated, _, info = env.step(np.array([[np.nan] * 7, [0.1] * 7]))
    assert terminated.tolist() == info["diverged"].tolist() == [True, False]
    env.close()


def test_without_libero_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv("ROBOLEARN_LIBERO_PYTHON", raising=False)
    with pytest.raises(MissingLibraryError, match="hf-libero"):
        make_env("libero/libero_goal/0", 1)
    with pytest.raises(ConfigError, match="did you mean 'libero_goal'"):
        make_env("libero/libero_gaol/0", 1)
