"""Published checkpoints under our names: the same actions as LeRobot's own implementation, on shared random weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

import robolearn
from robolearn.cli.convert import main as convert
from robolearn.config import parse
from robolearn.errors import CheckpointError
from robolearn.nets.backbones import build_backbone
from robolearn.policies.vla import VLAConfig
from robolearn.policies.vla.l1 import L1HeadConfig
from robolearn.policies.vla.published import (
    convert_lerobot,
    convert_openvla,
    fit_weights,
    oft_head_weights,
    pi0_weights,
    smolvla_weights,
)
from robolearn.policies.vla.statistics import read_openpi_stats, read_oxe_stats
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms.normalize import Normalize

SIDE, LENGTH, CHUNK, WIDE = 32, 6, 4, 8
CLOSE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture
def backbone(bench, tmp_path):
    """Writes the folder that a vision-language model comes in, without its weights."""

    def write(family):
        folder = tmp_path / family
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": family, **bench.families[family]}))
        words = {word: i for i, word in enumerate(["open", "the", "drawer", *map(str, range(256))])}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="open"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))
        return folder

    return write


def _smolvla(folder, monkeypatch):
    from lerobot.policies.smolvla import modeling_smolvla, smolvlm_with_expert
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig

    tokens = SimpleNamespace(fake_image_token_id=1, global_image_token_id=2)
    monkeypatch.setattr(
        smolvlm_with_expert,
        "AutoProcessor",
        SimpleNamespace(from_pretrained=lambda name: SimpleNamespace(tokenizer=tokens)),
    )
    config = SmolVLAConfig(
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        max_state_dim=WIDE,
        max_action_dim=WIDE,
        num_steps=3,
        num_vlm_layers=2,
        vlm_model_name=str(folder),
        device="cpu",
        resize_imgs_with_padding=(SIDE, SIDE),
        tokenizer_max_length=LENGTH,
    )
    return config, modeling_smolvla.VLAFlowMatching(config)


def _pi(name, bench, monkeypatch):
    import importlib

    family = bench.families["paligemma"]
    module = importlib.import_module(f"lerobot.policies.{name}.modeling_{name}")
    sizes = family["text_config"] | {"num_attention_heads": 8}
    kwargs = {"depth": 2, "num_heads": 8, "num_kv_heads": 1, "head_dim": sizes["head_dim"]}
    widths = {"gemma_2b": (64, 128), "gemma_300m": (32, 48)}
    monkeypatch.setattr(
        module,
        "get_gemma_config",
        lambda variant: module.GemmaConfig(width=widths[variant][0], mlp_dim=widths[variant][1], **kwargs),
    )
    whole = module.PaliGemmaForConditionalGenerationWithPiGemma

    def small(config):
        config.vision_config = type(config.vision_config)(**{**family["vision_config"], "projection_dim": 64})
        config.projection_dim = config.text_config.hidden_size
        config.text_config.vocab_size = family["vocab_size"]
        config.image_token_index = config.image_token_id = family["image_token_index"]
        return whole(config)

    monkeypatch.setattr(module, "PaliGemmaForConditionalGenerationWithPiGemma", small)
    config = getattr(module, f"{name.upper()}Config")(
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        max_state_dim=WIDE,
        max_action_dim=WIDE,
        num_inference_steps=3,
        image_resolution=(SIDE, SIDE),
        tokenizer_max_length=LENGTH,
        device="cpu",
    )
    return config, getattr(module, f"{name.upper()}Pytorch")(config)


def _randomise(model):
    torch.manual_seed(0)
    for value in model.parameters():
        value.data = torch.randn_like(value) * (0.3 / max(value.shape[-1], 1) ** 0.5 if value.ndim > 1 else 0.1)
    return model.eval()


def _inputs():
    draw = torch.Generator().manual_seed(1)
    images = [torch.rand(2, 3, SIDE, SIDE, generator=draw) for _ in range(2)]
    tokens = torch.randint(0, 500, (2, LENGTH), generator=draw)
    real = torch.tensor([[True] * LENGTH, [True] * 4 + [False] * 2])
    state = torch.randn(2, WIDE, generator=draw)
    return images, tokens, real, state, torch.randn(2, CHUNK, WIDE, generator=draw)


def _ours(config, state):
    observations = {f"observation.images.{name}": Feature("image", (3, SIDE, SIDE)) for name in "ab"}
    observations |= {"observation.prompt": Feature("text", (LENGTH,), "int64")}
    observations |= {"observation.state": Feature("signal", (WIDE,))} if state else {}
    return parse(VLAConfig, config, where="policy").build(Spec(observations, ActionSpec(WIDE), 10.0, 1, CHUNK)).eval()


def _both(theirs, policy, weights, stated=True):
    policy.load_state_dict(fit_weights(policy, weights))
    images, tokens, real, state, noise = _inputs()
    batch = {f"observation.images.{name}": image[:, None] for name, image in zip("ab", images, strict=True)}
    batch |= {"observation.prompt": torch.where(real, tokens, -1), "observation.state": state[:, None]}
    seen = [image * 2 - 1 for image in images]
    given = (seen, [torch.ones(2, dtype=torch.bool)] * 2, tokens, real, *([state] if stated else []))
    with torch.no_grad():
        expected, found = _sample(theirs, given, noise), policy.sample(batch, noise)
    assert (expected - noise).abs().mean() > 0.02  # the network moved the noise
    return expected, found


def _sample(theirs, given, noise, steps=3):
    """Integrate LeRobot's velocity, which its training computes: its sampler wants an older transformers."""
    seen = []
    hook = theirs.action_out_proj.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = noise
    for step in range(steps):
        time = torch.full((len(x),), 1 - step / steps)
        theirs(*given, actions=x, noise=x, time=time)
        x = x - seen[-1] / steps
    hook.remove()
    return x


def _flow(backbone, state, **expert):
    head = {"name": "flow", "steps": 3, "expert": expert}
    return {"name": "vla", "chunk": CHUNK, "backbone": backbone, "head": head, "state": state}


def test_smolvla_acts_as_in_lerobot(bench, backbone, monkeypatch):
    _, theirs = _smolvla(backbone("smolvlm"), monkeypatch)
    weights = smolvla_weights(_randomise(theirs).state_dict())
    options = {**bench.families["smolvlm"]}
    options["text_config"] = {**options["text_config"], "rope_theta": 1e4}
    sizes = {"width": 48, "feed": weights["head.expert.layers.0.gate.weight"].shape[0]}
    config = _flow({"name": "smolvlm", "options": options}, "prefix", **sizes, cross_every=2, causal=True)
    expected, found = _both(theirs, _ours(config, True), weights)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_pi_acts_as_in_lerobot(name, bench, monkeypatch):
    _, theirs = _pi(name, bench, monkeypatch)
    weights = pi0_weights(_randomise(theirs).state_dict())
    options = {**bench.families["paligemma"]}
    options["text_config"] = {**options["text_config"], "num_attention_heads": 8}
    expert = {"width": 32, "feed": 48, "activation": "gelu", "time": "concat" if name == "pi0" else "adaln"}
    config = _flow({"name": "paligemma", "options": options}, "expert" if name == "pi0" else "none", **expert)
    expected, found = _both(theirs, _ours(config, True), weights, stated=name == "pi0")
    torch.testing.assert_close(found, expected, **CLOSE)


def test_weights_that_do_not_fit_are_listed(bench, backbone, monkeypatch):
    _, theirs = _smolvla(backbone("smolvlm"), monkeypatch)
    weights = smolvla_weights(theirs.state_dict())
    sizes = {"width": 48, "feed": weights["head.expert.layers.0.gate.weight"].shape[0]}
    policy = _ours(_flow({"name": "smolvlm", "options": bench.families["smolvlm"]}, "prefix", **sizes), True)
    weights["surprise"] = weights.pop("head.expert.norm.scale")
    with pytest.raises(CheckpointError, match=r"missing head\.expert\.norm\.scale; unexpected surprise"):
        fit_weights(policy, weights)


def _lerobot_folder(folder, config, kind, theirs):
    """Write what LeRobot saves of a policy with two cameras, three states and two actions; returns the statistics."""
    folder.mkdir()
    weights = {f"model.{name}": value.contiguous() for name, value in theirs.state_dict().items()}
    save_file({name: value.clone() for name, value in weights.items()}, folder / "model.safetensors")
    draw = torch.Generator().manual_seed(2)
    stats = {
        f"{key}.{name}": torch.rand(size, generator=draw) + (0.5 if name != "q01" else -1.5)
        for key, size in {"observation.state": 3, "action": 2}.items()
        for name in ("mean", "std", "q01", "q99")
    }
    save_file(stats, folder / "policy_preprocessor_step_5_normalizer_processor.safetensors")
    plain = {name: getattr(config, name) for name in _PLAIN if hasattr(config, name)} | {"type": kind}
    plain["normalization_mapping"] = {name: mode.value for name, mode in config.normalization_mapping.items()}
    picture = {"type": "VISUAL", "shape": [3, SIDE, SIDE]}
    plain["input_features"] = {f"observation.images.{name}": picture for name in "ab"}
    plain["input_features"]["observation.state"] = {"type": "STATE", "shape": [3]}
    plain["output_features"] = {"action": {"type": "ACTION", "shape": [2]}}
    (folder / "config.json").write_text(json.dumps(plain))
    return stats


@pytest.mark.parametrize("kind", ["smolvla", "pi05"])
def test_a_lerobot_folder_becomes_a_checkpoint(kind, bench, backbone, monkeypatch, tmp_path):
    family = "smolvlm" if kind == "smolvla" else "paligemma"
    vlm = backbone(family)
    config, theirs = _smolvla(vlm, monkeypatch) if kind == "smolvla" else _pi("pi05", bench, monkeypatch)
    config.tokenizer_max_length = 16
    if kind == "pi05":
        plain = json.loads((vlm / "config.json").read_text())
        plain["text_config"]["num_attention_heads"] = 8
        (vlm / "config.json").write_text(json.dumps(plain))
    stats = _lerobot_folder(tmp_path / "theirs", config, kind, _randomise(theirs))
    convert([str(tmp_path / "theirs"), f"out={tmp_path}/ours", f"backbone={vlm}", "rate_hz=10"])
    actor = robolearn.load(tmp_path / "ours")

    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 1, SIDE, SIDE, 3), np.uint8)
    state = np.array([[[0.3, -0.2, 0.9]]], np.float32)
    noise = np.random.default_rng(1).standard_normal((1, CHUNK, WIDE)).astype(np.float32)
    obs = {"observation.images.a": pixels[0], "observation.images.b": pixels[1], "observation.state": state}
    found = actor.act({**obs, "task": np.array(["open the drawer"])}, noise)

    seen = [torch.as_tensor(image[0]).movedim(-1, 1).float() / 127.5 - 1 for image in pixels]
    low, high = (
        stats[f"observation.state.{name}"] for name in (("mean", "std") if kind == "smolvla" else ("q01", "q99"))
    )
    if kind == "smolvla":
        ids = torch.tensor([[0, 1, 2]])
        states = (nn.functional.pad((torch.as_tensor(state[0]) - low) / high, (0, WIDE - 3)),)
    else:
        scaled = (2 * (torch.as_tensor(state[0]) - low) / (high - low) - 1).numpy()
        numbers = np.digitize(scaled, np.linspace(-1, 1, 257)[:-1])[0] - 1  # as LeRobot's processor writes them
        prompt = f"Task: open the drawer, State: {' '.join(map(str, numbers))};\nAction: "
        ids, states = torch.tensor([Tokenizer.from_file(str(vlm / "tokenizer.json")).encode(prompt).ids]), ()
    given = (seen, [torch.ones(1, dtype=torch.bool)] * 2, ids, torch.ones_like(ids, dtype=torch.bool), *states)
    with torch.no_grad():
        chunk = _sample(theirs, given, torch.as_tensor(noise))[..., :2]
    low, high = (stats[f"action.{name}"] for name in (("mean", "std") if kind == "smolvla" else ("q01", "q99")))
    expected = chunk * high + low if kind == "smolvla" else (chunk + 1) / 2 * (high - low) + low
    torch.testing.assert_close(torch.as_tensor(found), expected, **CLOSE)


def test_another_policy_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"type": "groot"}))
    with pytest.raises(CheckpointError, match="groot"):
        convert_lerobot(tmp_path, tmp_path / "other", tmp_path, 10.0)


_PLAIN = (
    *("chunk_size", "tokenizer_max_length", "num_vlm_layers", "num_expert_layers", "self_attn_every_n_layers"),
    *("attention_mode", "num_steps", "resize_imgs_with_padding", "max_action_dim", "empty_cameras"),
    *("num_inference_steps", "image_resolution"),
)


class _PublishedHead(nn.Module):
    """The action head of OpenVLA-OFT under its names, from its description (arXiv 2502.19645, appendix A)."""

    def __init__(self, width, dim):
        super().__init__()
        self.layer_norm1, self.fc1 = nn.LayerNorm(width * dim), nn.Linear(width * dim, width)
        self.mlp_resnet_blocks = nn.ModuleList(nn.Module() for _ in range(2))
        for block in self.mlp_resnet_blocks:
            block.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())
        self.layer_norm2, self.fc2 = nn.LayerNorm(width), nn.Linear(width, dim)

    def forward(self, states):
        x = self.fc1(self.layer_norm1(states)).relu()
        for block in self.mlp_resnet_blocks:
            x = x + block.ffn(x)
        return self.fc2(self.layer_norm2(x))


def test_the_head_of_openvla_oft(bench):
    width, dim = 64, 3
    theirs = _randomise(_PublishedHead(width, dim))
    spec = Spec({}, ActionSpec(dim), 10.0, 1, CHUNK)
    ours = L1HeadConfig(per_dimension=True).build(SimpleNamespace(width=width), spec, 0)
    given = {f"module.model.{name}": value for name, value in theirs.state_dict().items()}
    ours.load_state_dict(fit_weights(ours, {"queries": torch.zeros(CHUNK * dim, width), **oft_head_weights(given)}))
    states = torch.randn(2, 5 + CHUNK * dim, width)
    expected = theirs(states[:, 5:].reshape(2, CHUNK, dim * width))
    memory = SimpleNamespace(states=states)
    torch.testing.assert_close(ours.sample(memory, None, torch.zeros(2, 0), None), expected, rtol=0, atol=1e-6)


class _Parts:
    """OpenVLA put together from timm's towers and transformers' Llama, and its folder of published names."""

    def __init__(self, options, folder):
        from timm.models.vision_transformer import VisionTransformer
        from transformers import LlamaConfig, LlamaForCausalLM

        first, second = options["timm"]
        common = {"img_size": SIDE, "patch_size": options["patch_size"], "num_classes": 0}
        self.dino = VisionTransformer(**common, no_embed_class=True, **first)
        self.siglip = VisionTransformer(**common, class_token=False, global_pool="map", **second)
        self.llama, seen = LlamaForCausalLM(LlamaConfig(**options["text_config"])), first["embed_dim"] * 2
        sizes = {"fc1": (seen, 4 * seen), "fc2": (4 * seen, 64), "fc3": (64, 64)}
        self.maps = nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()})
        parts = {"vision_backbone.featurizer": self.dino, "vision_backbone.fused_featurizer": self.siglip}
        published = {
            f"{name}.{key.replace('.gamma', '.scale_factor')}": value
            for name, part in {**parts, "language_model": self.llama, "projector": self.maps}.items()
            for key, value in _randomise(part).state_dict().items()
        }
        save_file(published, folder / "model.safetensors")

    def logits(self, picture, words):
        towers = zip((self.dino, self.siglip), (_imagenet(picture), picture * 2 - 1), strict=True)
        seen = torch.cat([tower.get_intermediate_layers(x, n={len(tower.blocks) - 2})[0] for tower, x in towers], -1)
        gelu, maps = nn.functional.gelu, self.maps
        seen = maps["fc3"](gelu(maps["fc2"](gelu(maps["fc1"](seen)))))
        text = self.llama.model.embed_tokens(words)
        return self.llama(inputs_embeds=torch.cat([text[:, :1], seen, text[:, 1:]], 1)).logits


def test_openvla_is_its_parts(bench, tmp_path):
    parts = _Parts(bench.families["openvla"], tmp_path)
    backbone = build_backbone(bench.backbone("openvla"), speak=True, causal=True).eval()
    backbone.load_state_dict(backbone.read(tmp_path))
    picture, words = torch.rand(1, 3, SIDE, SIDE), torch.tensor([[1, 7, 9, 3]])
    with torch.no_grad():
        found = backbone.logits(backbone.encode(backbone.embed(picture[:, None], words)).states)
        torch.testing.assert_close(found, parts.logits(picture, words), **CLOSE)


def test_an_openvla_folder_becomes_a_checkpoint(bench, tmp_path, backbone):
    bins, blank, actions = 16, 3, {"q01": [0.0, -2.0], "q99": [2.0, 6.0], "mean": [0.0, 0.0], "mask": [True, False]}
    folder = backbone("openvla")
    parts = _Parts(bench.families["openvla"], folder)
    plain = json.loads((folder / "config.json").read_text())
    plain |= {"n_action_bins": bins, "pad_to_multiple_of": 64, "norm_stats": {"toto": {"action": actions}}}
    (folder / "config.json").write_text(json.dumps(plain))
    actor = robolearn.load(convert_openvla(folder, tmp_path / "ours", "toto", 5.0, blank))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 1, SIDE, SIDE, 3), np.uint8)
    obs = {"observation.images.image": pixels, "task": np.array(["open the drawer"])}
    found = actor.act(obs, np.zeros((1, *actor.noise_shape), np.float32))[0, 0]

    tokens = next(item for item in actor.pipeline.transforms if item.name == "tokenize_prompt")
    ids = [
        word for word in tokens.forward({"task": ["open the drawer"]})["observation.prompt"][0].tolist() if word >= 0
    ]
    ids, last = [*ids, blank], 512 - 64  # what follows the actions only fills the vocabulary up
    picture = torch.as_tensor(pixels[0]).movedim(-1, 1).float() / 255
    for _ in range(2):
        with torch.no_grad():
            scores = parts.logits(picture, torch.tensor([ids]))[0, -1, last - bins : last]
        ids.append(last - bins + int(scores.argmax()))
    edges = np.linspace(-1, 1, bins)
    level = np.clip(last - np.array(ids[-2:]) - 1, 0, bins - 2)  # as its own code decodes
    middle = ((edges[1:] + edges[:-1]) / 2)[level]
    np.testing.assert_allclose(found, [(middle[0] + 1) / 2 * 2, middle[1]], rtol=0, atol=1e-5)


def _imagenet(picture):
    mean, std = torch.tensor([0.484375, 0.455078125, 0.40625]), torch.tensor([0.228515625, 0.2236328125, 0.224609375])
    return (picture - mean[:, None, None]) / std[:, None, None]


def test_statistics_of_openpi_and_of_oxe(tmp_path):
    spec = Spec({"observation.state": Feature("signal", (2,))}, ActionSpec(2), 10.0, 1, CHUNK)
    numbers = {"mean": [1.0, 2.0], "std": [0.5, 2.0], "q01": [0.0, -2.0], "q99": [2.0, 6.0]}
    (tmp_path / "norm_stats.json").write_text(json.dumps({"norm_stats": {"state": numbers, "actions": numbers}}))
    modes = {"observation.state": "quantile", "action": "quantile"}
    scale = Normalize(modes, stats=read_openpi_stats(tmp_path / "norm_stats.json"))
    found = scale.bind(spec).forward({"observation.state": torch.tensor([[[0.0, 6.0]]])})["observation.state"]
    assert found.flatten().tolist() == [-1.0, 1.0]

    action = {**numbers, "min": [-9.0, -9.0], "max": [9.0, 9.0], "mask": [True, False]}
    (tmp_path / "config.json").write_text(json.dumps({"norm_stats": {"bridge_orig": {"action": action}}}))
    stats = read_oxe_stats(tmp_path / "config.json", "bridge_orig")
    raw = (
        Normalize({"observation.state": "identity", "action": "quantile"}, stats=stats)
        .bind(spec)
        .inverse(torch.tensor([[[1.0, 0.7]]]), {})
    )
    torch.testing.assert_close(raw.flatten(), torch.tensor([2.0, 0.7]))  # the gripper stays as it is
    with pytest.raises(CheckpointError, match="bridge_orig"):
        read_oxe_stats(tmp_path / "config.json", "bridge")
