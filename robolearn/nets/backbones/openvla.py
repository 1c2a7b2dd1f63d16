"""OpenVLA's Prismatic backbone: DINOv2 and SigLIP patches fused, Llama 2 layers (arXiv 2406.09246)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robolearn.errors import CheckpointError
from robolearn.nets.backbones.base import Backbone, BackboneConfig, Tokens
from robolearn.nets.backbones.hugging import build_model

__all__ = ["OpenVLA"]

_IMAGENET = ((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375))


class OpenVLA(Backbone):
    """timm's vision transformers and transformers' `LlamaForCausalLM`, under OpenVLA's published names."""

    WEIGHTS: ClassVar[str] = "openvla/openvla-7b and its fine-tunes (OpenVLA-OFT)"
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {
            "timm": [
                {"embed_dim": 96, "depth": 3, "num_heads": 3, "reg_tokens": 4, "init_values": 1e-5},
                {"embed_dim": 96, "depth": 3, "num_heads": 3, "mlp_ratio": 4.0},
            ],
            "patch_size": 16,
            "image_sizes": [96, 96],
            "text_config": {
                "hidden_size": 256,
                "intermediate_size": 1024,
                "num_hidden_layers": 6,
                "vocab_size": 1024,
                "num_attention_heads": 4,
                "pad_token_id": 0,
            },
        },
        "7b": {"image_sizes": [224, 224], "text_config": {"vocab_size": 32064, "pad_token_id": 32000}},
    }

    def __init__(self, config: BackboneConfig, speak: bool = False, causal: bool = False):
        super().__init__(config, speak, causal)
        self.vlm = _Prismatic(config.options)
        self.shorten()
        text = self.language.config
        self.width, self.vocabulary = text.hidden_size, text.vocab_size
        self.heads, self.groups = text.num_attention_heads, text.num_key_value_heads
        self.head_dim, self.rope_theta = text.head_dim, float(text.rope_parameters["rope_theta"])
        self.side = config.options["image_sizes"][0]
        if not speak:
            self.vlm.language_model.lm_head = nn.Identity()

    @property
    def language(self) -> Any:
        """The Llama layers."""
        return self.vlm.language_model.model

    def look(self, pictures: Tensor) -> Tensor:
        """Return tokens [N,P,D] of pictures [N,3,H,W] in [0, 1]; the size is the vision towers'."""
        return self.vlm.projector(self.vlm.vision_backbone(pictures))

    def vision(self) -> list[nn.Module]:
        """Return the two vision towers."""
        return [self.vlm.vision_backbone]

    def quiet(self) -> None:
        """Freeze the last layer of each tower and what follows it."""
        towers = self.vlm.vision_backbone
        for tower in (towers.featurizer, towers.fused_featurizer):
            for module in (tower.blocks[-1], tower.norm, tower.attn_pool):
                if module is not None:
                    module.requires_grad_(False)

    def embed(self, pictures: Tensor, text: Tensor) -> Tokens:
        """Return the tokens: the first of the text (its beginning mark), the pictures [B,V,3,H,W], the rest."""
        seen = self.look(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2]).flatten(1, 2)
        words, real = self.words(text), text >= 0
        return self.sequence([words[:, :1], seen, words[:, 1:]], [real[:, :1], None, real[:, 1:]])

    def logits(self, states: Tensor) -> Tensor:
        """Return scores over the vocabulary [B,N,V] of states [B,N,D]."""
        return self.vlm.language_model.lm_head(states) if self.speak else super().logits(states)

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Return the published weights; raises `CheckpointError` listing each key that does not fit."""
        from robolearn.nets.backbones.resolve import read_tensors

        given = {f"vlm.{_published(key)}": value.float() for key, value in read_tensors(folder).items()}
        own = {name: value for name, value in self.state_dict().items() if name in self.published()}
        dropped = [key for key in given if _is_dropped(key, self.depth, self.speak)]
        problems = [f"missing {key}" for key in own if key not in given]
        problems += [f"unexpected {key}" for key in given if key not in own and key not in dropped]
        problems += [f"another shape {key}" for key in own if key in given and given[key].shape != own[key].shape]
        if problems:
            raise CheckpointError(
                f"The weights in {folder} do not fit OpenVLA.", found="; ".join(problems), expected="its published keys"
            )
        return {name: given[name] for name in own}


class _Prismatic(nn.Module):
    """The modules by their published names."""

    def __init__(self, options: Mapping[str, Any]):
        super().__init__()
        self.vision_backbone = _FusedVision(options)
        self.language_model = build_model("LlamaForCausalLM", options["text_config"])
        seen, width = self.vision_backbone.width, self.language_model.config.hidden_size
        self.projector = _Projector(seen, width)


class _FusedVision(nn.Module):
    """Patches of DINOv2 and SigLIP before their last layer, side by side."""

    def __init__(self, options: Mapping[str, Any]):
        super().__init__()
        from timm.models import vision_transformer

        size = options["image_sizes"][0]
        first, second = options.get("timm") or (
            {"embed_dim": 1024, "depth": 24, "num_heads": 16, "reg_tokens": 4, "init_values": 1e-5},
            {"embed_dim": 1152, "depth": 27, "num_heads": 16, "mlp_ratio": 3.7362},
        )
        side = options.get("patch_size", 14)
        make: Any = vision_transformer.VisionTransformer
        common = {"img_size": size, "patch_size": side, "num_classes": 0}
        self.featurizer = make(**common, no_embed_class=True, **first)
        self.fused_featurizer = make(**common, class_token=False, global_pool="map", **second)
        self.width = self.featurizer.embed_dim + self.fused_featurizer.embed_dim

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures [N,3,H,W] in [0, 1] to patches [N,P,D]."""
        mean, std = (torch.tensor(values, device=pictures.device)[:, None, None] for values in _IMAGENET)
        return torch.cat(
            [_patches(self.featurizer, (pictures - mean) / std), _patches(self.fused_featurizer, pictures * 2 - 1)], -1
        )


class _Projector(nn.Module):
    """Three linear layers with GELU between."""

    def __init__(self, seen: int, width: int):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(seen, 4 * seen), nn.Linear(4 * seen, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N,P,S] to [N,P,D]."""
        return self.fc3(nn.functional.gelu(self.fc2(nn.functional.gelu(self.fc1(x)))))


def _patches(tower: Any, pictures: Tensor) -> Tensor:
    """Return the patch tokens after the layer before the last, without its norm."""
    (patches,) = tower.get_intermediate_layers(pictures, n={len(tower.blocks) - 2})
    return patches


def _published(key: str) -> str:
    """Return timm's name of a published weight: the scale of a layer had to be renamed to be saved."""
    return key.replace(".scale_factor", ".gamma")


def _is_dropped(key: str, depth: int, speak: bool) -> bool:
    """Return whether a published weight belongs to what was left out on purpose."""
    layers = "vlm.language_model.model.layers."
    later = key.startswith(layers) and int(key.removeprefix(layers).split(".")[0]) >= depth
    return later or (not speak and key == "vlm.language_model.lm_head.weight")
