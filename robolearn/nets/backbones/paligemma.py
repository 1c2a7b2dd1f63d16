"""PaliGemma: SigLIP patches, one linear map, Gemma layers with full attention (arXiv 2407.07726)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from robolearn.nets.backbones.hugging import HuggingBackbone

__all__ = ["PaliGemma"]


class PaliGemma(HuggingBackbone):
    """`PaliGemmaForConditionalGeneration` of transformers with Gemma 1 layers (what π0 and π0.5 stand on)."""

    CLASS: ClassVar[str] = "PaliGemmaForConditionalGeneration"
    WEIGHTS: ClassVar[str] = "google/paligemma-3b-pt-224, -448"
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 192,
                "intermediate_size": 768,
                "num_hidden_layers": 4,
                "num_attention_heads": 3,
                "image_size": 96,
                "patch_size": 16,
                "vision_use_head": False,
            },
            "text_config": {
                "model_type": "gemma",
                "hidden_size": 256,
                "intermediate_size": 1024,
                "num_hidden_layers": 6,
                "num_attention_heads": 4,
                "num_key_value_heads": 1,
                "head_dim": 64,
                "vocab_size": 1024,
            },
            "projection_dim": 256,
            "hidden_size": 256,
            "vocab_size": 1024,
            "image_token_index": 1023,
        },
        "3b": {
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 224,
                "patch_size": 14,
                "vision_use_head": False,
            },
            "text_config": {
                "model_type": "gemma",
                "hidden_size": 2048,
                "intermediate_size": 16384,
                "num_hidden_layers": 18,
                "num_attention_heads": 8,
                "num_key_value_heads": 1,
                "head_dim": 256,
                "vocab_size": 257216,
            },
            "projection_dim": 2048,
            "hidden_size": 2048,
            "vocab_size": 257216,
            "image_token_index": 257152,
        },
    }

    def measure(self) -> None:
        """Set the sizes from the configuration."""
        super().measure()
        self.side = self.vlm.config.vision_config.image_size

    @property
    def language(self) -> Any:
        """The Gemma layers."""
        return self.vlm.model.language_model

    def look(self, pictures: Tensor) -> Tensor:
        """Return tokens [N,P,D] of pictures [N,3,H,W] in [0, 1]; the size is the vision tower's."""
        return self.vlm.model.multi_modal_projector(self.vlm.model.vision_tower(pictures * 2 - 1).last_hidden_state)

    def vision(self) -> list[nn.Module]:
        """Return the vision tower."""
        return [self.vlm.model.vision_tower]
