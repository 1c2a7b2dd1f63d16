"""Frozen image encoders: each picture is embedded once, from data to actions; what is missing is named."""

import json

import numpy as np
import pytest
import torch

import robolearn
from robolearn.config import parse
from robolearn.data.synthetic import camera_spec, record
from robolearn.errors import ConfigError, RegistryError
from robolearn.nets.pretrained import ImageModel, open_image_model
from robolearn.registry import resolve
from robolearn.run import parse_run
from robolearn.transforms.embed_images import EmbedImages


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny DINOv2 with random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("dinov2")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).save_pretrained(path)
    options = {"image_mean": [0.5] * 3, "image_std": [0.2] * 3, "size": {"height": 28, "width": 28}}
    (path / "preprocessor_config.json").write_text(json.dumps(options))
    return path


def test_each_picture_is_embedded_once(folder, monkeypatch):
    step = EmbedImages(f"local/{folder}").bind(camera_spec())
    count = []
    encode = ImageModel.encode
    monkeypatch.setattr(ImageModel, "encode", lambda self, picture: count.append(1) or encode(self, picture))
    frames = torch.randint(255, (18, 32, 32, 3), dtype=torch.uint8)
    for now in range(16, 18):  # histories of sixteen that overlap
        vectors = step.forward({"observation.images.top": frames[None, now - 16 : now]})["observation.images.top"]
    assert vectors.shape == (1, 16, 16)
    assert len(count) == 17
    one = step.forward({"observation.images.top": frames[None, 5:6]})["observation.images.top"]
    assert torch.equal(one[0, 0], vectors[0, 4])
    small = EmbedImages(f"local/{folder}", memory=2).bind(camera_spec())
    small.forward({"observation.images.top": frames[None]})
    assert len(small._cache) == 2


def test_a_policy_learns_from_frozen_pictures(folder, bench, tmp_path):
    record(tmp_path / "data", [8, 8], camera_spec())
    policy = {"name": "flow", "embed_images": f"local/{folder}", "history": 3, "chunk": 4}
    run = {"policy": policy | {"network": bench.networks["mlp"]}, "data": {"path": str(tmp_path / "data")}}
    trained = robolearn.train(parse_run({**run, "train": {"steps": 2}, "out": str(tmp_path / "run")}))
    actor = robolearn.load(trained.checkpoint)
    assert not any("backbone" in name for name, _ in actor.policy.named_parameters())
    draw = np.random.default_rng(0)
    obs = {
        "observation.state": draw.normal(size=(2, 3, 3)).astype(np.float32),
        "observation.images.top": draw.integers(0, 255, (2, 3, 32, 32, 3), dtype=np.uint8),
    }
    noise = draw.normal(size=(2, *actor.noise_shape))
    chunk = actor.act(obs, noise)
    obs["observation.images.top"] = 255 - obs["observation.images.top"]
    assert not np.array_equal(chunk, actor.act(obs, noise))


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json"):
        open_image_model(f"local/{tmp_path}")
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="hf download timm/vit_small_patch14_dinov2"):
        resolve("image_encoder", "timm/x")("timm/vit_small_patch14_dinov2.lvd142m")
    with pytest.raises(ConfigError, match="no weights"):
        resolve("image_encoder", "timm/x")("timm/vit_tiniest")
    with pytest.raises(RegistryError, match="image_encoder"):
        parse(resolve("policy", "flow"), {"embed_images": "dino"}).transforms(camera_spec())[0].bind(camera_spec())
