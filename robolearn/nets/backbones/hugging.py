"""What the adapters of transformers' own classes share: built from a config.json, read from its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robolearn.errors import CheckpointError, ConfigError
from robolearn.nets.backbones.base import Backbone, BackboneConfig

__all__ = ["HuggingBackbone", "build_model"]


class HuggingBackbone(Backbone):
    """Base of the families that are one class of transformers, named by `CLASS`."""

    CLASS: ClassVar[str]

    def __init__(self, config: BackboneConfig, speak: bool = False, causal: bool = False):
        super().__init__(config, speak, causal)
        self.vlm = build_model(self.CLASS, config.options)
        self.shorten()
        self.measure()
        # A head that shares the embedding's weights would appear twice in the state; `logits` finds them there.
        if not speak or self.vlm.lm_head.weight is self.language.embed_tokens.weight:
            self.vlm.lm_head = nn.Identity()

    def measure(self) -> None:
        """Set the sizes from the configuration of the language layers."""
        config = self.language.config
        self.width, self.vocabulary = config.hidden_size, config.vocab_size
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or self.width // self.heads
        self.rope_theta = float(config.rope_parameters["rope_theta"])

    def layer(
        self, number: int, x: Tensor, mask: Tensor, rotary: Any, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one layer; the eager attention of transformers adds its mask to the scores instead of choosing by it."""
        if self.language.config._attn_implementation == "eager":
            mask = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, torch.finfo(x.dtype).min)
        return super().layer(number, x, mask, rotary, before)

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Return the weights of `folder`; raises `CheckpointError` listing each key that does not fit."""
        whole, info = type(self.vlm).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
        problems = [f"missing {key}" for key in sorted(info["missing_keys"])]
        problems += [f"unexpected {key}" for key in sorted(info["unexpected_keys"])]
        problems += [f"another shape {key}" for key in sorted(map(str, info["mismatched_keys"]))]
        if problems:
            raise CheckpointError(
                f"The weights in {folder} do not fit {self.CLASS}.",
                found="; ".join(problems),
                expected="exactly the keys of its config.json",
            )
        state = {f"vlm.{name}": value for name, value in whole.state_dict().items()}
        return {name: state[name] for name in self.published()}


def build_model(name: str, options: Mapping[str, Any]) -> Any:
    """Return transformers' class `name` with random weights from the options of its config.json.

    Raises `ConfigError` for options that its configuration refuses.
    """
    import transformers

    cls = getattr(transformers, name)
    try:
        return cls(cls.config_class.from_dict(_plain(options)))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{name} cannot be built from these options.",
            found=str(error).splitlines()[0],
            expected="the content of the config.json of its weights",
        ) from error


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) if isinstance(value, Mapping) else value for key, value in options.items()}
