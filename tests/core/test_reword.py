"""Instructions in other words while training."""

import pickle

import pytest
import torch

from robolearn.config import parse
from robolearn.errors import ConfigError
from robolearn.transforms import Pipeline, Reword

FRAMES, GROUPS = ("robot, {}", "{}, thanks"), (("put", "move"), ("cube", "dice", "brick"))


def batch(count=400):
    generator = torch.Generator().manual_seed(0)
    actions = torch.randn(count, 4, 2, generator=generator)
    return {"action": actions, "task": ["put the red cube on the cubes"] * count}


def test_every_wording_occurs_and_only_whole_words_change():
    said = Reword(FRAMES, GROUPS).forward(batch())["task"]
    assert len(set(said)) == 3 * 2 * 3
    assert all("red" in text and text.endswith(("cubes", "cubes, thanks")) for text in said)
    assert 0.02 < said.count("put the red cube on the cubes") / len(said) < 0.12


def test_a_frame_always_has_the_same_wording():
    given = batch()
    said = Reword(FRAMES, GROUPS).forward(given)["task"]
    turned = {"action": given["action"].flip(0), "task": given["task"]}
    assert Reword(FRAMES, GROUPS).forward(turned)["task"] == said[::-1]
    assert pickle.loads(pickle.dumps(Reword(FRAMES, GROUPS))).forward(given)["task"] == said
    assert given["task"][0] == "put the red cube on the cubes"


def test_who_acts_hears_what_was_said():
    assert Reword(FRAMES, GROUPS).forward({"task": ["put the cube down"]})["task"] == ["put the cube down"]


def test_it_is_read_back_from_plain_data():
    pipeline = Pipeline((Reword(FRAMES, GROUPS),))
    plain, tensors = pipeline.to_plain()
    assert Pipeline.from_plain(plain, tensors) == pipeline


def test_a_frame_without_a_place_is_refused():
    with pytest.raises(ConfigError, match="one place"):
        parse(Reword, {"frames": ["please"]})
