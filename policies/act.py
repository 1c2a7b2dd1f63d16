"""ACT: a conditional variational autoencoder over action chunks (arXiv 2304.13705, section IV and appendix C).

Training encodes the demonstrated chunk into a latent "style"; acting sets it to zero. The decoder
predicts all actions of the chunk in parallel.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch
from robolearn.errors import ConfigError, SpecError
from robolearn.nets.detr import DecoderLayer, EncoderLayer, LayerConfig, encode, grid_positions, line_positions
from robolearn.nets.encoders import read
from robolearn.nets.vision import feature_map
from robolearn.policies.common import (
    Norm,
    check_prefix,
    chunk_mean,
    default_transforms,
    parameter_groups,
    pin_prefix,
)
from robolearn.spec import Spec

__all__ = ["ACTConfig", "ACTPolicy"]


@dataclass(frozen=True)
class ACTConfig:
    """Layers of the encoder, the decoder and the variational encoder; `latent` is the width of the style."""

    name: Literal["act"] = "act"
    history: int = 1
    chunk: int = 100
    layers: LayerConfig = field(default_factory=LayerConfig)
    depths: tuple[int, int, int] = (4, 1, 4)  # encoder, decoder, variational encoder
    latent: int = 32
    kl_weight: float = 10.0
    backbone: Literal["resnet18", "resnet34"] = "resnet18"
    backbone_norm: Literal["group", "frozen_batch"] = "group"
    observation_norm: Norm = "mean_std"
    action_norm: Norm = "mean_std"

    def __post_init__(self):
        if self.history < 1 or self.chunk < 1 or self.latent < 1 or min(self.depths) < 1 or self.kl_weight < 0:
            raise ConfigError("ACT options are out of range.", found=self, expected="positive sizes and kl_weight >= 0")

    def transforms(self, spec: Spec) -> list:
        """Return the unfitted transforms before the network."""
        return default_transforms(spec, self.observation_norm, self.action_norm)

    def build(self, spec: Spec) -> "ACTPolicy":
        """Return the policy for `spec`."""
        return ACTPolicy(self, spec)


class ACTPolicy(nn.Module):
    """Tokens [latent, signals, texts, picture cells] → encoder → chunk queries."""

    style_positions: Tensor

    def __init__(self, config: ACTConfig, spec: Spec):
        super().__init__()
        self.config, self.spec = config, replace(spec, history=config.history, chunk=config.chunk)
        width, dim = config.layers.width, spec.action.dim
        features = self.spec.observations
        unknown = {feature.kind for feature in features.values()} - {"signal", "text", "image"}
        if unknown or not features:
            raise SpecError(
                "ACT cannot read these observations.", found=sorted(unknown) or "none", expected="signal, text or image"
            )
        self.vector_keys = [key for key, feature in features.items() if feature.kind != "image"]
        self.image_keys = [key for key, feature in features.items() if feature.kind == "image"]
        self.vectors = nn.ModuleList(nn.Linear(self._size(key), width) for key in self.vector_keys)
        if self.image_keys:
            self.backbone = feature_map(config.backbone, config.backbone_norm)
            self.cells = nn.Conv2d(512, width, 1)
        self.latent = nn.Linear(config.latent, width)
        self.places = nn.Parameter(torch.randn(1, 1 + len(self.vectors), width))
        self.encoder = nn.ModuleList(EncoderLayer(config.layers) for _ in range(config.depths[0]))
        self.decoder = nn.ModuleList(DecoderLayer(config.layers) for _ in range(config.depths[1]))
        self.decoder_norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(1, config.chunk, width))
        self.outputs = nn.Linear(width, dim)
        self.style = nn.ModuleList(EncoderLayer(config.layers) for _ in range(config.depths[2]))
        self.style_token = nn.Parameter(torch.randn(1, 1, width))
        self.style_vectors = nn.ModuleList(nn.Linear(self._size(key), width) for key in self._style_keys())
        self.style_actions = nn.Linear(dim, width)
        self.style_outputs = nn.Linear(width, 2 * config.latent)
        count = 1 + len(self.style_vectors) + config.chunk
        self.register_buffer("style_positions", line_positions(count, width))
        for parameter in [*self.encoder.parameters(), *self.decoder.parameters()]:
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """No noise is needed: the style is zero."""
        return (0,)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return absolute error + kl_weight · KL(style | observation, chunk ‖ N(0, I)) [B]."""
        mean, log_variance = self._encode_style(batch)
        latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        error = chunk_mean((self._decode(batch, latent) - batch["action"]).abs(), batch)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        loss = error + self.config.kl_weight * divergence
        return loss, {"action_l1": error.detach().mean(), "kl": divergence.detach().mean()}

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return chunks [B,K,A]; `noise` [B,0] only says how many."""
        check_prefix(self.spec, prefix)
        latent = torch.zeros(len(noise), self.config.latent, device=self.queries.device)
        return pin_prefix(self._decode(obs, latent), prefix)

    def blocks(self) -> list[nn.Module]:
        """Return the repeated layers."""
        return [*self.encoder, *self.decoder, *self.style]

    def param_groups(self) -> Iterator[dict]:
        """Yield two groups: matrices, which decay, and vectors, which do not."""
        yield from parameter_groups(self)

    def _encode_style(self, batch: Batch) -> tuple[Tensor, Tensor]:
        action = batch["action"]
        vectors = [project(read(batch, key).flatten(1))[:, None] for project, key in self._style_pairs()]
        tokens = torch.cat([self.style_token.expand(len(action), -1, -1), *vectors, self.style_actions(action)], 1)
        pad = batch.get("action_is_pad")
        if pad is not None:
            pad = torch.cat([pad.new_zeros(len(pad), tokens.shape[1] - pad.shape[1]), pad], 1)
        first = encode(self.style, tokens, self.style_positions, pad)[:, 0]
        mean, log_variance = self.style_outputs(first).float().chunk(2, -1)
        return mean, log_variance

    def _decode(self, batch: Batch, latent: Tensor) -> Tensor:
        vectors = [
            project(read(batch, key).flatten(1)) for project, key in zip(self.vectors, self.vector_keys, strict=True)
        ]
        tokens = [torch.stack([self.latent(latent), *vectors], 1)]
        positions = [self.places]
        for key in self.image_keys:
            images = read(batch, key)
            for step in range(images.shape[1]):
                cells = self.cells(self.backbone(images[:, step]))
                positions.append(grid_positions(*cells.shape[-2:], cells.shape[1]).to(cells.device))
                tokens.append(cells.flatten(2).transpose(1, 2))
        position = torch.cat(positions, 1)
        memory = encode(self.encoder, torch.cat(tokens, 1), position)
        x = torch.zeros(len(latent), *self.queries.shape[1:], device=latent.device)
        for layer in self.decoder:
            x = layer(x, self.queries, memory, position)
        return self.outputs(self.decoder_norm(x)).float()

    def _style_keys(self) -> list[str]:
        return [key for key in self.vector_keys if key == "observation.state"]

    def _style_pairs(self) -> zip:
        return zip(self.style_vectors, self._style_keys(), strict=True)

    def _size(self, key: str) -> int:
        feature = self.spec.observations[key]
        return feature.size if feature.kind == "text" else feature.size * self.spec.history
