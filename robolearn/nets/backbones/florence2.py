"""Florence-2: a DaViT tower and BART's encoder, as FLOWER uses it (arXiv 2311.06242, arXiv 2509.04996)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robolearn.nets.backbones.base import BackboneConfig
from robolearn.nets.backbones.hugging import HuggingBackbone
from robolearn.nets.layers import attend

__all__ = ["Florence2"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Florence2(HuggingBackbone):
    """`Florence2ForConditionalGeneration` of transformers without its text decoder.

    Its memory holds the keys and values of the encoder's layers, whose positions are learned, not rotated.
    """

    CLASS: ClassVar[str] = "Florence2ForConditionalGeneration"
    WEIGHTS: ClassVar[str] = "florence-community/Florence-2-base, -large"
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {
            "vision_config": {
                "depths": [1, 1, 2, 1],
                "embed_dim": [32, 64, 128, 256],
                "num_heads": [1, 2, 4, 8],
                "num_groups": [1, 2, 4, 8],
                "projection_dim": 256,
                "window_size": 6,
                "drop_path_rate": 0.0,
            },
            "text_config": {
                "model_type": "bart",
                "d_model": 256,
                "vocab_size": 1024,
                "max_position_embeddings": 512,
                "encoder_layers": 6,
                "encoder_ffn_dim": 1024,
                "encoder_attention_heads": 4,
                "dropout": 0.0,
                "decoder_layers": 1,
                "decoder_ffn_dim": 64,
                "decoder_attention_heads": 4,
            },
            "image_token_id": 1023,
        },
    }

    def __init__(self, config: BackboneConfig, speak: bool = False, causal: bool = False):
        super().__init__(config, speak, causal)
        self.vlm.model.language_model.decoder = nn.Identity()

    @property
    def language(self) -> Any:
        """The encoder's layers."""
        return self.vlm.model.language_model.encoder

    def measure(self) -> None:
        """Set the sizes from the encoder's configuration."""
        config = self.language.config
        self.width, self.vocabulary = config.d_model, config.vocab_size
        self.heads = self.groups = config.encoder_attention_heads
        self.head_dim, self.rope_theta, self.cell = self.width // self.heads, None, 32

    def look(self, pictures: Tensor) -> Tensor:
        """Return tokens [N,P,D] of pictures [N,3,H,W] in [0, 1]."""
        mean, std = (torch.tensor(values, device=pictures.device)[:, None, None] for values in (_MEAN, _STD))
        maps = self.vlm.model.vision_tower((pictures - mean) / std).last_hidden_state
        return self.vlm.model.multi_modal_projector(maps)

    def vision(self) -> list[nn.Module]:
        """Return the vision tower."""
        return [self.vlm.model.vision_tower]

    def rotary(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return the places [B,N] that the learned positions belong to."""
        return positions

    def layer(
        self, number: int, x: Tensor, mask: Tensor, rotary: Any, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one layer of the encoder; its keys and values are read from what the layer is given."""
        if number == 0:
            x = self.language.layernorm_embedding(x + self.language.embed_positions.weight[rotary + 2])
        layer = self.language.layers[number]
        attention = layer.self_attn
        query, key, value = (
            part(x).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if before is not None:
            key, value = torch.cat([before[0], key], 2), torch.cat([before[1], value], 2)
        mixed = attend(query, key, value, mask)
        x = layer.self_attn_layer_norm(x + attention.out_proj(mixed.transpose(1, 2).flatten(2)))
        feed = layer.fc2(layer.activation_fn(layer.fc1(x)))
        return layer.final_layer_norm(x + feed), key, value

    def finish(self, x: Tensor) -> Tensor:
        """Return the states as they are: the layers end with their norm."""
        return x

    def unread(self, number: int) -> list[nn.Module]:
        """Return the modules that keys and values up to layer `number` do not depend on."""
        layer = self.language.layers[number]
        norms = [layer.self_attn_layer_norm, layer.final_layer_norm]
        parts = [layer.self_attn.q_proj, layer.self_attn.out_proj, layer.fc1, layer.fc2]
        return [*parts, *norms, *self.language.layers[number + 1 :]]

    def blocks(self) -> list[nn.Module]:
        """Return none: the layers are entered part by part, so they cannot be sharded one by one."""
        return []
