"""A VLA through the one training loop: from recorded episodes to a checkpoint that acts."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import robolearn
from robolearn import checkpoint
from robolearn.data.synthetic import camera_spec, record
from robolearn.errors import CheckpointError, ConfigError
from robolearn.nets.backbones import build_backbone, open_backbone
from robolearn.run import parse_run
from robolearn.spec import Feature
from robolearn.training import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    spec = camera_spec()
    spec = replace(spec, observations={**spec.observations, "task": Feature("text", (), "str")})
    return record(tmp_path_factory.mktemp("data") / "tiny", [6] * 3, spec)


@pytest.fixture
def run(dataset, tmp_path, bench):
    def build(policy, out="run", **options):
        return parse_run(
            {
                "policy": {"name": "vla", "chunk": 4, "prompt": {"length": 12}, "image_size": [32, 32], **policy},
                "data": {"path": str(dataset)},
                "train": {
                    "steps": 3,
                    "batch_size": 4,
                    "warmup_steps": 1,
                    "log_every": 1,
                    "precision": "fp32",
                    **options,
                },
                "device": "cpu",
                "out": str(tmp_path / out),
            }
        )

    return build


@pytest.fixture
def published(bench, tmp_path):
    """A folder as a family publishes its weights: config.json, safetensors, tokenizer.json."""
    from transformers import SmolVLMForConditionalGeneration

    torch.manual_seed(3)
    model = build_backbone(bench.backbone("smolvlm"), speak=True).vlm
    whole = SmolVLMForConditionalGeneration(model.config)
    whole.save_pretrained(tmp_path / "published")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["task", "0", "1"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="task"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "published" / "tokenizer.json"))
    return tmp_path / "published"


def _obs(actor, rows=3):
    spec, draw = actor.spec, np.random.default_rng(0)
    obs = {}
    for key, feature in spec.observations.items():
        shape = (rows, spec.history, *feature.shape)
        if feature.kind == "image":
            obs[key] = draw.integers(0, 256, shape, np.uint8)
        elif feature.kind == "text":
            obs[key] = np.array(["task 0", "task 1", "task 0"][:rows])
        else:
            obs[key] = draw.random(shape).astype(np.float32)
    return obs


@pytest.mark.parametrize("head", ["flow", "tokens"])
def test_trains_saves_loads_and_acts(run, bench, head):
    norm = {"action_norm": "min_max"} if head == "tokens" else {}
    backbone = {"name": "smolvlm", "options": bench.families["smolvlm"]}
    result = train(run({"backbone": backbone, "head": bench.heads[head], **norm}))
    actor = robolearn.load(result.checkpoint)
    noise = np.random.default_rng(1).standard_normal((3, *actor.noise_shape)).astype(np.float32)
    chunk = actor.act(_obs(actor), noise)
    assert chunk.shape == (3, 4, 2)
    assert np.isfinite(chunk).all()
    again = robolearn.load(result.checkpoint).act(_obs(actor), noise)
    assert np.array_equal(again, chunk)
    found = checkpoint.load(result.checkpoint)
    with pytest.raises(CheckpointError, match="missing state"):
        replace(found, weights={key: v for key, v in found.weights.items() if key != "state.weight"}).build()


def test_resuming_goes_on(run, bench):
    policy = {"backbone": {"name": "smolvlm", "options": bench.families["smolvlm"]}, "head": bench.heads["flow"]}
    whole = train(run(policy, "whole", schedule="constant", steps=4))
    train(run(policy, "half", schedule="constant", steps=2))
    config = run(policy, "half", schedule="constant", steps=4)
    resumed = train(replace(config, train=replace(config.train, resume=config.out)))
    one, other = (checkpoint.load(result.checkpoint).weights for result in (whole, resumed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_folder_gives_architecture_weights_and_tokenizer(run, bench, published):
    config = run({"backbone": str(published), "head": bench.heads["flow"], "tuning": {"mode": "lora", "rank": 2}})
    assert config.policy.backbone.name == "smolvlm"
    result = train(config)
    found = checkpoint.load(result.checkpoint)
    base = load_file(published / "model.safetensors")
    assert not any("embed_tokens" in name for name in found.weights)  # the base stays where it is
    assert sum(v.numel() for v in found.weights.values()) < 0.5 * sum(v.numel() for v in base.values())
    policy = found.build()
    torch.testing.assert_close(
        policy.state_dict()["backbone.vlm.model.connector.modality_projection.proj.weight"],
        base["model.connector.modality_projection.proj.weight"],
    )
    tokenizer = next(item for item in found.pipeline.transforms if item.name == "tokenize_prompt")
    kept = tokenizer.stats["tokenizer"].numpy().tobytes()
    assert hashlib.sha256(kept).digest() == hashlib.sha256((published / "tokenizer.json").read_bytes()).digest()
    save_file({name: value + 1 for name, value in base.items()}, published / "model.safetensors")
    with pytest.raises(CheckpointError, match="other weights"):
        found.build()


def test_weights_that_do_not_fit_are_listed(published):
    config = open_backbone(str(published))
    backbone = build_backbone(config)
    base = load_file(published / "model.safetensors")
    base["surprise.weight"] = base.pop("model.text_model.layers.1.mlp.up_proj.weight")
    save_file(base, published / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing .*layers\.1\.mlp\.up_proj(.|\n)*unexpected surprise"):
        backbone.read(Path(config.weights))


def test_bad_names_say_what_exists(run, tmp_path):
    with pytest.raises(ConfigError, match="smolvlm"):
        open_backbone("smolvlm/7t")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(ConfigError, match="mamba"):
        open_backbone(str(tmp_path))
