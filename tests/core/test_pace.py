"""Demonstrations at an arm's pace."""

import numpy as np
import pytest

from robolearn.api import make_env
from robolearn.collect import CollectConfig, collect
from robolearn.errors import ConfigError
from robolearn.rollout import ExpertController


class Kept:
    """A sink that keeps tool targets and states of each episode."""

    def __init__(self):
        self.episodes, self._frames = [], []

    def add_frame(self, frame):
        self._frames.append((frame["action"], frame["observation.state"]))

    def save_episode(self, metadata):
        targets, states = zip(*self._frames, strict=True)
        self.episodes.append((np.stack(targets), np.stack(states)))
        self._frames = []


@pytest.mark.parametrize(("name", "tools"), [("pick_place", [0]), ("robolearn/handover", [0, 5])])
def test_tool_targets_begin_at_the_tool_and_keep_to_the_pace(name, tools):
    env = make_env(name, num_envs=2, options={"max_steps": 600})
    kept = Kept()
    outcomes = collect(env, ExpertController(env.expert(), 0), kept, CollectConfig(2, 2, pace_m_s=0.1, pace_rad_s=0.5))
    assert all(outcome.success for outcome in outcomes)
    for targets, states in kept.episodes:
        path = np.concatenate([states[:1, : targets.shape[1]], targets])
        for tool in tools:
            moved = np.linalg.norm(np.diff(path[:, tool : tool + 3], axis=0), axis=1)
            turned = np.abs(np.diff(path[:, tool + 3]))
            assert 0.0049 < moved.max() < 0.005 + 1e-6  # 0.1 m/s at 20 Hz
            assert turned.max() < 0.025 + 1e-6


def test_what_is_no_tool_pose_has_no_pace():
    env = make_env("robosuite/Lift", num_envs=1)
    with pytest.raises(ConfigError, match="ee_delta"):
        collect(env, ExpertController(env.expert(), 0), Kept(), CollectConfig(1, 1, pace_m_s=0.1))
    with pytest.raises(ConfigError, match="is a speed"):
        CollectConfig(pace_m_s=-1.0)
