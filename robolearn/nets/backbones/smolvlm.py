"""SmolVLM2 and Idefics3: SigLIP patches, pixel shuffle, Llama layers (arXiv 2504.05299, arXiv 2408.12637)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from robolearn.nets.backbones.hugging import HuggingBackbone

__all__ = ["Idefics3", "SmolVLM"]


class SmolVLM(HuggingBackbone):
    """`SmolVLMForConditionalGeneration` of transformers."""

    CLASS: ClassVar[str] = "SmolVLMForConditionalGeneration"
    WEIGHTS: ClassVar[str] = "HuggingFaceTB/SmolVLM2-256M-Video-Instruct, …-500M-…, …-2.2B-Instruct"
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {
            "vision_config": {
                "hidden_size": 192,
                "intermediate_size": 768,
                "num_hidden_layers": 4,
                "num_attention_heads": 3,
                "image_size": 96,
                "patch_size": 8,
            },
            "text_config": {
                "model_type": "llama",
                "hidden_size": 256,
                "intermediate_size": 1024,
                "num_hidden_layers": 6,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "vocab_size": 1024,
                "pad_token_id": 0,
            },
            "scale_factor": 2,
            "image_token_id": 1023,
            "tie_word_embeddings": True,
        },
        "500m": {
            "vision_config": {
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "image_size": 512,
                "patch_size": 16,
            },
            "text_config": {
                "model_type": "llama",
                "hidden_size": 960,
                "intermediate_size": 2560,
                "num_hidden_layers": 32,
                "num_attention_heads": 15,
                "num_key_value_heads": 5,
                "head_dim": 64,
                "vocab_size": 49280,
                "rope_theta": 100000,
                "pad_token_id": 2,
                "max_position_embeddings": 8192,
            },
            "scale_factor": 4,
            "image_token_id": 49190,
        },
    }

    def measure(self) -> None:
        """Set the sizes from the configuration."""
        super().measure()
        self.cell = self.vlm.config.vision_config.patch_size * self.vlm.config.scale_factor

    @property
    def language(self) -> Any:
        """The Llama layers."""
        return self.vlm.model.text_model

    def look(self, pictures: Tensor) -> Tensor:
        """Return tokens [N,P,D] of pictures [N,3,H,W] in [0, 1]; each side is a multiple of the patches'."""
        return self.vlm.model.connector(self.vlm.model.vision_model(pictures * 2 - 1).last_hidden_state)

    def vision(self) -> list[nn.Module]:
        """Return the vision tower."""
        return [self.vlm.model.vision_model]


class Idefics3(SmolVLM):
    """`Idefics3ForConditionalGeneration` of transformers, of the same structure."""

    CLASS: ClassVar[str] = "Idefics3ForConditionalGeneration"
    WEIGHTS: ClassVar[str] = "HuggingFaceTB/SmolVLM-256M-Instruct, HuggingFaceM4/Idefics3-8B-Llama3"
