"""Qwen-VL: native-resolution patches, positions in time, row and column (arXiv 2502.13923; DeepStack in Qwen3-VL)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robolearn.nets.backbones.base import Tokens
from robolearn.nets.backbones.hugging import HuggingBackbone

__all__ = ["Qwen3VL", "Qwen25VL"]


class Qwen25VL(HuggingBackbone):
    """`Qwen2_5_VLForConditionalGeneration` of transformers."""

    CLASS: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"
    WEIGHTS: ClassVar[str] = "Qwen/Qwen2.5-VL-3B-Instruct, -7B-Instruct"
    MEAN: ClassVar[tuple[float, ...]] = (0.48145466, 0.4578275, 0.40821073)
    STD: ClassVar[tuple[float, ...]] = (0.26862954, 0.26130258, 0.27577711)
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {
            "vision_config": {
                "depth": 4,
                "hidden_size": 192,
                "intermediate_size": 768,
                "num_heads": 3,
                "patch_size": 8,
                "out_hidden_size": 256,
                "window_size": 64,
                "fullatt_block_indexes": [1, 3],
            },
            "text_config": {
                "hidden_size": 256,
                "intermediate_size": 1024,
                "num_hidden_layers": 6,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "vocab_size": 1024,
                "tie_word_embeddings": True,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 8, 8]},
            },
            "vision_start_token_id": 1020,
            "vision_end_token_id": 1021,
            "image_token_id": 1023,
            "video_token_id": 1022,
            "tie_word_embeddings": True,
        },
        "3b": {
            "vision_config": {"depth": 32, "hidden_size": 1280, "out_hidden_size": 2048},
            "text_config": {
                "hidden_size": 2048,
                "intermediate_size": 11008,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
                "vocab_size": 151936,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            },
            "tie_word_embeddings": True,
        },
    }

    def measure(self) -> None:
        """Set the sizes from the configuration."""
        super().measure()
        vision = self.vlm.config.vision_config
        self.cell = vision.patch_size * vision.spatial_merge_size

    @property
    def language(self) -> Any:
        """The Qwen layers."""
        return self.vlm.model.language_model

    def look(self, pictures: Tensor) -> Tensor:
        """Return tokens [N,P,D] of pictures [N,3,H,W] in [0, 1]; sides are multiples of the merged patches'."""
        return self._look(pictures)[0]

    def vision(self) -> list[nn.Module]:
        """Return the vision tower."""
        return [self.vlm.model.visual]

    def embed(self, pictures: Tensor, text: Tensor) -> Tokens:
        """Return the tokens of pictures [B,V,3,H,W] in [0, 1], each between its marks, and of text [B,N]."""
        count, views = pictures.shape[:2]
        seen, deep = self._look(pictures.flatten(0, 1))
        rows, columns = (side // self.cell for side in pictures.shape[-2:])
        marks = torch.tensor(
            [self.vlm.config.vision_start_token_id, self.vlm.config.vision_end_token_id], device=text.device
        )
        start, end = self.words(marks.expand(len(seen), 2)).split(1, 1)
        framed = torch.cat([start, seen.to(start.dtype), end], 1)
        parts = [framed.unflatten(0, (count, views)).flatten(1, 2), self.words(text)]
        tokens = self.sequence(parts, [None, text >= 0])
        places, after = _places(views, rows, columns, text.device)
        words = after + (text >= 0).cumsum(1) - 1
        positions = torch.cat([places[:, None].expand(-1, count, -1), words.expand(3, -1, -1)], -1)
        framed_deep = [_unframe(part, count, views, text.shape[1]) for part in deep]
        return Tokens(tokens.x, tokens.mask, tokens.blocks, positions, words[:, -1] + 1, tuple(framed_deep))

    def _look(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return tokens [N,P,D] and the DeepStack features of the same shape."""
        vision = self.vlm.config.vision_config
        mean, std = (torch.tensor(values, device=pictures.device)[:, None, None] for values in (self.MEAN, self.STD))
        patches, grid = _patches((pictures - mean) / std, vision)
        output = self.vlm.model.visual(patches, grid_thw=grid)
        deep = getattr(output, "deepstack_features", None) or []
        return output.pooler_output.unflatten(0, (len(pictures), -1)), [
            part.unflatten(0, (len(pictures), -1)) for part in deep
        ]


class Qwen3VL(Qwen25VL):
    """`Qwen3VLForConditionalGeneration` of transformers."""

    CLASS: ClassVar[str] = "Qwen3VLForConditionalGeneration"
    WEIGHTS: ClassVar[str] = "Qwen/Qwen3-VL-2B-Instruct, -4B-Instruct, -8B-Instruct"
    MEAN: ClassVar[tuple[float, ...]] = (0.5, 0.5, 0.5)
    STD: ClassVar[tuple[float, ...]] = (0.5, 0.5, 0.5)
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {
            "vision_config": {
                "depth": 4,
                "hidden_size": 192,
                "intermediate_size": 768,
                "num_heads": 3,
                "patch_size": 8,
                "out_hidden_size": 256,
                "num_position_embeddings": 144,
                "deepstack_visual_indexes": [1, 2],
            },
            "text_config": {
                "hidden_size": 256,
                "intermediate_size": 1024,
                "num_hidden_layers": 6,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 64,
                "vocab_size": 1024,
                "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [16, 8, 8]},
            },
            "vision_start_token_id": 1020,
            "vision_end_token_id": 1021,
            "image_token_id": 1023,
            "video_token_id": 1022,
            "tie_word_embeddings": True,
        },
    }


def _patches(pictures: Tensor, vision: Any) -> tuple[Tensor, Tensor]:
    """Return the flat patches [N·h·w, C·2·p·p] in the order of Qwen's image processor, and their grids [N,3]."""
    side, merge = vision.patch_size, vision.spatial_merge_size
    count, channels, height, width = pictures.shape
    rows, columns = height // side, width // side
    x = pictures.reshape(count, channels, rows // merge, merge, side, columns // merge, merge, side)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None].expand(
        *(-1,) * 6, vision.temporal_patch_size, side, side
    )
    grid = torch.tensor([1, rows, columns], device=pictures.device).expand(count, 3)
    return x.reshape(count * rows * columns, -1), grid


def _places(views: int, rows: int, columns: int, device: torch.device) -> tuple[Tensor, int]:
    """Return the positions [3,M] of framed pictures, and the first free one."""
    parts, place = [], 0
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    inner = torch.stack([torch.zeros(rows * columns, dtype=torch.long), row.flatten(), column.flatten()])
    for _ in range(views):
        end = place + 1 + max(rows, columns)
        parts += [torch.full((3, 1), place), inner + place + 1, torch.full((3, 1), end)]
        place = end + 1
    return torch.cat(parts, 1).to(device), place


def _unframe(deep: Tensor, count: int, views: int, words: int) -> Tensor:
    """Return DeepStack features [B·V,P,D] at the places of their tokens, zero elsewhere."""
    framed = nn.functional.pad(deep, (0, 0, 1, 1)).unflatten(0, (count, views)).flatten(1, 2)
    return nn.functional.pad(framed, (0, 0, 0, words))
