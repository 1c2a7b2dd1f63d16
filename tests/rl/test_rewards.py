"""Rewards that are learned from demonstrations."""

from types import SimpleNamespace

import numpy as np
import pytest

from robolearn.api import open_dataset
from robolearn.errors import ConfigError
from robolearn.rl.collect import Trajectory
from robolearn.rl.rewards import LearnedReward, progress_targets, success_targets
from robolearn.rl.training import finetune, parse_rl


def test_targets_by_hand():
    assert success_targets(5).tolist() == [0, 0, 0, 0, 1]
    assert success_targets(20).sum() == 2
    assert progress_targets(5).tolist() == [0, 0.25, 0.5, 0.75, 1]


@pytest.fixture(scope="session")
def recorded(clone):
    return open_dataset(clone / "dataset", "lerobot", {})


@pytest.mark.parametrize("name", ["classifier", "progress"])
def test_a_learned_reward_tells_the_end_from_the_beginning(problem, recorded, name):
    reward = LearnedReward(name, problem, recorded, range(4))
    rated = [reward.rate(recorded.read(episode, list(problem.actor.spec.observations))) for episode in range(4)]
    assert all(one[-1] > one[0] + 0.3 for one in rated)
    frames = recorded.read(0, list(problem.actor.spec.observations))
    first, last = ({key: value[[step]] for key, value in frames.items()} for step in (0, -1))
    failed = SimpleNamespace(obs=first, next_obs=last, success=np.zeros(1, bool))
    wanted = 1.0 if name == "classifier" else rated[0][-1] - rated[0][0]
    assert reward(failed)[0] == pytest.approx(wanted, abs=1e-5)  # ty: ignore[invalid-argument-type]


def test_progress_is_added_to_demonstrations(problem, recorded):
    reward = LearnedReward("progress", problem, recorded, range(4))
    rated = reward.rate(recorded.read(1, list(problem.actor.spec.observations)))
    length = len(rated)
    sparse = np.append(np.zeros(length - 1), 1.0)
    one = Trajectory({}, {}, np.zeros((length, 1)), sparse, True, True, 1)
    assert reward.relabelled(one).reward.sum() == pytest.approx(1 + rated[-1] - rated[0])
    classifier = LearnedReward("classifier", problem, recorded, range(4))
    assert classifier.relabelled(one) is one


def test_a_run_with_a_learned_reward_resumes(plain, resumed):
    whole, part = resumed(plain, "offline", {"warmup": 150, "batch_size": 16, "updates": 0.2}, reward="progress")
    assert all((value == part.weights[name]).all() for name, value in whole.weights.items())
    with pytest.raises(ConfigError, match="is learned"):
        finetune(parse_rl(plain("none", "residual", demos=False, reward="classifier")))
