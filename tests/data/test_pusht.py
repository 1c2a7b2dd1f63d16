"""Mirror images of the Push-T demonstrations, against the environment's own geometry and physics."""

import os
from pathlib import Path

import numpy as np
import pytest

from robolearn.data.pusht import open_pusht
from robolearn.errors import ConfigError, DataError

NAME = "pusht_cchi_v7_replay.zarr.zip"
KEYS = ("observation.state", "observation.environment_state", "block_pose", "action", "episode_index")


@pytest.fixture(scope="module")
def path() -> Path:
    folder = os.environ.get("ROBOLEARN_DATA")
    if not folder or not (Path(folder) / NAME).exists():
        pytest.skip(f"needs {NAME} in the folder that ROBOLEARN_DATA names")
    return Path(folder) / NAME


def test_each_episode_comes_back_mirrored(path):
    plain, both = open_pusht(path, {}), open_pusht(path, {"mirror": True})
    assert len(both.lengths) == 2 * len(plain.lengths)
    recorded, mirrored = both.read(3, KEYS), both.read(3 + len(plain.lengths), KEYS)
    for key in KEYS:
        np.testing.assert_array_equal(recorded[key], plain.read(3, KEYS)[key])
    assert (mirrored["episode_index"] == 3 + len(plain.lengths)).all()
    np.testing.assert_allclose(mirrored["observation.state"], 512 - recorded["observation.state"][:, ::-1])
    np.testing.assert_allclose(mirrored["action"], 512 - recorded["action"][:, ::-1])
    distance = np.linalg.norm(recorded["block_pose"][:, :2] - recorded["observation.state"], axis=1)
    again = np.linalg.norm(mirrored["block_pose"][:, :2] - mirrored["observation.state"], axis=1)
    np.testing.assert_allclose(distance, again, atol=1e-3)


def test_mirrored_pictures_and_keypoints_show_the_mirrored_block(path):
    from robolearn.envs.pusht import keypoints

    both = open_pusht(path, {"mirror": True})
    frames = both.read(206 + 3, (*KEYS, "observation.images.top"), 0, 4)
    np.testing.assert_allclose(
        keypoints(frames["block_pose"]).reshape(-1, 18), frames["observation.environment_state"], atol=0.01
    )
    x, y = (frames["observation.state"][0] / 512 * 96).astype(int)
    recorded = both.read(3, ("observation.images.top", "observation.state"), 0, 1)
    u, v = (recorded["observation.state"][0] / 512 * 96).astype(int)
    near = frames["observation.images.top"][0, y - 2 : y + 2, x - 2 : x + 2].reshape(-1, 3).mean(0)
    there = recorded["observation.images.top"][0, v - 2 : v + 2, u - 2 : u + 2].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(near, there, atol=30)  # the agent's blue disc in both


def test_coverage_of_the_goal_is_the_same_in_the_mirror(path):
    from robolearn.envs.pusht import coverage

    both = open_pusht(path, {"mirror": True})
    for episode in range(0, 206, 40):
        recorded = both.read(episode, ("block_pose",))["block_pose"][-1]
        mirrored = both.read(episode + 206, ("block_pose",))["block_pose"][-1]
        assert coverage(*recorded) == pytest.approx(coverage(*mirrored), abs=1e-3)


def test_wrong_options_and_episodes_are_refused(path):
    with pytest.raises(ConfigError, match="did you mean 'mirror'"):
        open_pusht(path, {"miror": True})
    with pytest.raises(DataError, match="No episode 412"):
        open_pusht(path, {"mirror": True}).read(412, KEYS)
