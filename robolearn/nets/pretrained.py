"""Frozen image encoders by name: pictures to vectors [n,D], with weights that are on this machine already."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError

__all__ = ["ImageModel", "open_image_model", "open_timm_model"]


@cache
def open_image_model(name: str) -> "ImageModel":
    """Return the encoder `local/<folder>`: DINOv2, SigLIP, ViT, … as transformers saves them.

    Raises `ConfigError` naming the file that is missing.
    """
    folder = Path(name.partition("/")[2]).expanduser()
    for needed in ("config.json", "preprocessor_config.json", "model.safetensors"):
        if not (folder / needed).is_file():
            raise ConfigError(
                f"There is no image encoder '{name}'.",
                found=f"no file {folder / needed}",
                expected="config.json, preprocessor_config.json and model.safetensors in the folder",
                do="fetch them where there is a network: robolearn pull ORGANISATION/MODEL to=FOLDER",
            )
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    options = json.loads((folder / "preprocessor_config.json").read_text())
    model = getattr(model, "vision_model", model)  # SigLIP and CLIP carry a text tower, too

    def vectors(pictures: Tensor) -> Tensor:
        found = model(pixel_values=pictures)
        pooled = getattr(found, "pooler_output", None)
        return (found.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1)

    return ImageModel(model, vectors, _side(options), (options["image_mean"], options["image_std"]))


@cache
def open_timm_model(name: str) -> "ImageModel":
    """Return the encoder `timm/<model>` whose published weights lie in the hub's cache.

    Raises `ConfigError` naming the weights that are missing.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    model_name = name.partition("/")[2]
    facts = timm.get_pretrained_cfg(model_name) if timm.is_model(model_name.partition(".")[0]) else None
    if facts is None or not facts.hf_hub_id:
        raise ConfigError(f"timm has no weights for '{model_name}'.", do="see timm.list_pretrained()")
    file = try_to_load_from_cache(facts.hf_hub_id, "model.safetensors")
    if not isinstance(file, str):
        raise ConfigError(
            f"The weights of '{name}' are not on this machine.",
            found=f"no model.safetensors of {facts.hf_hub_id} in the hub's cache",
            expected="weights that were fetched before: nothing is downloaded while training",
            do=f"hf download {facts.hf_hub_id} where there is a network",
        )
    model = timm.create_model(model_name, pretrained=True, pretrained_cfg_overlay={"file": file}, num_classes=0)
    return ImageModel(model, model, facts.input_size[-2:], (facts.mean, facts.std))


class ImageModel:
    """A frozen encoder with the size, mean and deviation of the pictures that it was trained on."""

    def __init__(self, model: nn.Module, vectors: Any, size: tuple[int, int], colours: tuple[Any, Any]):
        model.eval().requires_grad_(False)
        self._vectors, self._size = vectors, size
        self._mean, self._std = (torch.tensor(value).view(3, 1, 1) for value in colours)
        self.dim: int = self.encode(torch.zeros(*size, 3, dtype=torch.uint8)).numel()

    def encode(self, picture: Tensor) -> Tensor:
        """Return the vector [D] of one picture uint8 [H,W,3]."""
        with torch.inference_mode(False), torch.no_grad():
            x = picture.movedim(-1, 0)[None].float() / 255
            if tuple(x.shape[-2:]) != self._size:
                x = F.interpolate(x, self._size, mode="bilinear", antialias=True)
            return self._vectors((x - self._mean) / self._std)[0].float()


def _side(options: Mapping[str, Any]) -> tuple[int, int]:
    size = options.get("crop_size") if options.get("do_center_crop") else options.get("size")
    if isinstance(size, int):
        return (size, size)
    if isinstance(size, Mapping) and "height" in size and "width" in size:
        return (size["height"], size["width"])
    raise ConfigError("preprocessor_config.json states no size of pictures.", found=size, expected="height and width")
