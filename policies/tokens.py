"""Policies over discrete action tokens.

Autoregressive as with FAST (arXiv 2501.09747), or all at once as with BEAST (arXiv 2506.06072).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.contracts import Batch, Transform
from robolearn.errors import ConfigError, SpecError
from robolearn.nets.encoders import EncoderConfig, ObservationEncoder
from robolearn.nets.tokens import TokenNetConfig, TokenTransformer
from robolearn.policies.common import Norm, chunk_mean, default_transforms, parameter_groups
from robolearn.registry import resolve
from robolearn.spec import Spec

__all__ = [
    "BEASTConfig",
    "FASTConfig",
    "TokenConfig",
    "TokenPolicy",
    "check_decoding",
    "check_range",
    "pick_tokens",
    "token_loss",
]


@dataclass(frozen=True)
class FASTConfig:
    """Cosine coefficients with byte-pair merges."""

    name: Literal["fast"] = "fast"
    scale: float = 10.0
    vocabulary: int = 512

    def codec(self) -> Transform:
        """Return the unfitted transform from chunks to tokens."""
        return resolve("transform", "fast_tokens")(self.scale, self.vocabulary)


@dataclass(frozen=True)
class BEASTConfig:
    """Quantised B-spline control points."""

    name: Literal["beast"] = "beast"
    points: int = 8
    degree: int = 3
    vocabulary: int = 256

    def codec(self) -> Transform:
        """Return the transform from chunks to tokens."""
        return resolve("transform", "beast_tokens")(self.points, self.degree, self.vocabulary)


@dataclass(frozen=True)
class TokenConfig:
    """`decoding` is one token after the other or all at once; `temperature` 0 takes the likeliest token."""

    name: Literal["tokens"] = "tokens"
    history: int = 2
    chunk: int = 16
    tokenizer: FASTConfig | BEASTConfig = FASTConfig()
    decoding: Literal["autoregressive", "parallel"] = "autoregressive"
    temperature: float = 0.0
    network: TokenNetConfig = field(default_factory=TokenNetConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    observation_norm: Norm = "mean_std"
    action_norm: Norm = "min_max"

    def __post_init__(self):
        if self.history < 1 or self.chunk < 2 or self.temperature < 0:
            raise ConfigError(
                "Token options are out of range.", found=self, expected="history >= 1, chunk >= 2, temperature >= 0"
            )
        check_decoding(self.tokenizer.name, self.decoding)
        check_range(self.tokenizer.name, self.action_norm)

    def transforms(self, spec: Spec) -> list[Transform]:
        """Return the unfitted transforms before the network; the last one makes tokens."""
        return [*default_transforms(spec, self.observation_norm, self.action_norm), self.tokenizer.codec()]

    def build(self, spec: Spec) -> "TokenPolicy":
        """Return the policy for `spec`, whose chunk is tokens."""
        return TokenPolicy(self, spec)


class TokenPolicy(nn.Module):
    """A transformer over the tokens that the codec of its transforms makes."""

    def __init__(self, config: TokenConfig, spec: Spec):
        super().__init__()
        if spec.action.dim != 1:
            raise SpecError(
                "A token policy needs token chunks.",
                found=f"an action of {spec.action.dim} numbers",
                expected="the spec after this policy's transforms",
            )
        self.config, self.spec = config, replace(spec, history=config.history)
        self.encoder = ObservationEncoder(config.encoder, self.spec)
        causal = config.decoding == "autoregressive"
        self.network = TokenTransformer(
            config.network, config.tokenizer.vocabulary, spec.chunk, self.encoder.shapes, causal
        )

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One number per token, none at temperature 0."""
        return (self.spec.chunk,) if self.config.temperature else (0,)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy per token [B]."""
        tokens = batch["action"][..., 0].long()
        loss = token_loss(self.network(tokens, self.encoder(batch)), tokens, batch)
        return loss, {"token_nll": loss.detach().mean()}

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return token chunks [B,L,1]; raises `SpecError` for a prefix, which tokens cannot hold."""
        if prefix is not None:
            raise SpecError("Tokens cannot continue committed actions.", do="use a flow policy with a prefix")
        condition = self.encoder(obs)
        tokens = torch.zeros(len(noise), self.spec.chunk, dtype=torch.long, device=noise.device)
        if self.config.decoding == "parallel":
            return pick_tokens(self.network(tokens, condition), noise, self.config.temperature)[..., None].float()
        for place in range(self.spec.chunk):
            logits = self.network(tokens[:, : place + 1], condition)[:, -1:]
            tokens[:, place : place + 1] = pick_tokens(logits, noise[:, place : place + 1], self.config.temperature)
        return tokens[..., None].float()

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks."""
        return list(self.network.blocks)

    def param_groups(self) -> Iterator[dict]:
        """Yield two groups: matrices, which decay, and vectors, which do not."""
        yield from parameter_groups(self)


def check_decoding(tokenizer: str, decoding: str) -> None:
    """Raise `ConfigError` for tokens of varying length, asked for all at once."""
    if tokenizer == "fast" and decoding == "parallel":
        raise ConfigError(
            "Tokens of varying length cannot be decoded in parallel.",
            found="tokenizer fast with decoding parallel",
            expected="decoding autoregressive, or another tokenizer",
        )


def check_range(tokenizer: str, action_norm: Norm) -> None:
    """Raise `ConfigError` for a tokenizer of numbers in [-1, 1] and actions that are not scaled to it."""
    if tokenizer != "fast" and action_norm not in ("min_max", "quantile"):
        raise ConfigError(
            "This codec cannot hold the range of the actions.",
            found=f"tokenizer {tokenizer} with action_norm {action_norm}",
            expected="action_norm min_max or quantile",
        )


def token_loss(logits: Tensor, tokens: Tensor, batch: Batch) -> Tensor:
    """Return the cross-entropy [B] of logits [B,L,V] per token [B,L] that is not padding."""
    error = F.cross_entropy(logits.float().transpose(1, 2), tokens, reduction="none")
    return chunk_mean(error[..., None], batch)


def pick_tokens(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Choose tokens [B,n] from logits [B,n,V]: the likeliest, or by inverting their distribution at Φ(noise)."""
    if not temperature:
        return logits.argmax(-1)
    below = (logits.float() / temperature).softmax(-1).cumsum(-1)
    uniform = torch.special.ndtr(noise)[..., None] * below[..., -1:]
    return (below < uniform).sum(-1).clamp(max=logits.shape[-1] - 1)
