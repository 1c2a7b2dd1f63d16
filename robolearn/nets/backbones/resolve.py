"""From the name or folder of a backbone to its config, and from its folder to its weights."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from robolearn import registry
from robolearn.errors import CheckpointError, ConfigError, suggest
from robolearn.files import read_json, sha256
from robolearn.nets.backbones.base import Backbone, BackboneConfig

__all__ = [
    "build_backbone",
    "open_backbone",
    "pretrained_weights",
    "read_tensors",
    "sentence_of",
    "side_of",
    "vocabulary_of",
]

# Entries of a config.json that say nothing about the architecture.
_NOISE = ("_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype", "auto_map")


def build_backbone(config: BackboneConfig, speak: bool = False, causal: bool = False) -> Backbone:
    """Return the backbone of `config` with random weights; works on the meta device."""
    return registry.resolve("backbone", config.name)(config, speak, causal)


def open_backbone(name: str, layers: int = 0) -> BackboneConfig:
    """Return the config of a family ("smolvlm", "paligemma/3b"), of a folder of weights or of a hub model.

    Raises `ConfigError` naming what exists.
    """
    family, _, size = name.partition("/")
    if family in registry.names("backbone") and not Path(name).is_dir():
        sizes = registry.resolve("backbone", family).SIZES
        if size not in sizes:
            raise ConfigError(f"Unknown size of {family}: '{size}'.", expected=suggest(size, filter(None, sizes)))
        return BackboneConfig(family, sizes[size], layers)
    folder = Path(name).expanduser() if Path(name).expanduser().is_dir() else _from_hub(name)
    options = read_json(folder / "config.json", ConfigError)
    kind = str(options.get("model_type", "")) if isinstance(options, Mapping) else ""
    if kind not in registry.names("backbone"):
        raise ConfigError(
            f"{folder / 'config.json'} describes no backbone that is known.",
            found=f"model_type '{kind}'",
            expected=suggest(kind, registry.names("backbone")),
        )
    options = {key: value for key, value in options.items() if key not in _NOISE}
    return BackboneConfig(kind, options, layers, str(folder), _digest(folder))


def vocabulary_of(config: BackboneConfig) -> int:
    """Return how many tokens the backbone has, from its options alone."""
    text = config.options.get("text_config") or config.options
    size = text.get("vocab_size") or config.options.get("vocab_size")
    if not isinstance(size, int):
        raise ConfigError(
            "The options of a backbone state the size of its vocabulary.",
            found=f"{config.name} with {', '.join(config.options) or 'no options'}",
            expected="vocab_size",
            do=f"set policy.backbone={config.name}, a size of it or its folder",
        )
    return size


def side_of(config: BackboneConfig) -> int | None:
    """Return the side [px] of the pictures that the backbone was trained on, where its options state one."""
    options = config.options
    sides = (
        options.get("image_size"),
        options.get("vision_config", {}).get("image_size"),
        *options.get("image_sizes", ()),
    )
    return next((side for side in sides if isinstance(side, int)), None)


def sentence_of(config: BackboneConfig) -> str | None:
    """Return the sentence encoder whose vectors the backbone reads instead of token numbers, if any."""
    name = config.options.get("sentence")
    return name if isinstance(name, str) else None


def pretrained_weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Return the weights of the folder that the backbone's config names, by the backbone's own names.

    Raises `CheckpointError` listing each missing and unexpected key, or when the files are not those
    that the config was made for.
    """
    folder = Path(backbone.config.weights)
    if not folder.is_dir():
        raise CheckpointError(
            "The weights of the backbone are not there.",
            found=f"no folder {folder}",
            expected=f"the files with SHA-256 {backbone.config.digest[:12]}…",
            do=f"put them there, or override policy.backbone.weights ({type(backbone).WEIGHTS})",
        )
    found = _digest(folder)
    if backbone.config.digest and found != backbone.config.digest:
        raise CheckpointError(
            f"{folder} holds other weights than this policy was made for.",
            found=f"SHA-256 {found[:12]}…",
            expected=f"{backbone.config.digest[:12]}…",
        )
    return backbone.read(folder)


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of all safetensors files of `folder`."""
    return {key: value for file in _files(folder) for key, value in load_file(file).items()}


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    known = suggest(name, registry.names("backbone"))
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "tokenizer*"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"There is no backbone '{name}'.",
            found=f"no folder, and from the hub: {str(error).splitlines()[0]}",
            expected=f"a family ({known}), a folder with config.json and safetensors, or a hub model",
        ) from error


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no weights.", expected="*.safetensors files")
    return files


def _digest(folder: Path) -> str:
    """Return the SHA-256 over the names and hashes of the weights' files."""
    lines = [f"{file.name} {sha256(file)}" for file in _files(folder)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
