"""Discrete action tokens in the backbone's own vocabulary.

Bins for each number (OpenVLA, arXiv 2406.09246, section 3.2), FAST or BEAST; one after the other, or all at
once. Decoding is constrained: only action tokens are ever scored.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch, Transform
from robolearn.errors import ConfigError, SpecError
from robolearn.nets.backbones import Backbone, Memory, Tokens
from robolearn.policies.tokens import BEASTConfig, FASTConfig, check_decoding, pick_tokens, token_loss
from robolearn.policies.vla.head import Head
from robolearn.registry import resolve
from robolearn.spec import Spec

__all__ = ["BinsConfig", "TokensHead", "TokensHeadConfig"]


@dataclass(frozen=True)
class BinsConfig:
    """Each number of an action in one of `vocabulary` equal bins over [-1, 1]."""

    name: Literal["bins"] = "bins"
    vocabulary: int = 256

    def codec(self) -> Transform:
        """Return the transform from chunks to tokens."""
        return resolve("transform", "bin_tokens")(self.vocabulary)


@dataclass(frozen=True)
class TokensHeadConfig:
    """`first` is the vocabulary's number of the first action token (-1: the action tokens are its last)."""

    name: Literal["tokens"] = "tokens"
    tokenizer: BinsConfig | FASTConfig | BEASTConfig = BinsConfig()
    decoding: Literal["autoregressive", "parallel"] = "autoregressive"
    temperature: float = 0.0
    first: int = -1

    def __post_init__(self):
        check_decoding(self.tokenizer.name, self.decoding)

    @property
    def action_tokens(self) -> int:
        """How many tokens of the backbone's vocabulary stand for actions."""
        return self.tokenizer.vocabulary

    def build(self, backbone: Backbone, spec: Spec, state: int) -> "TokensHead":
        """Return the head for `spec`, whose chunk is tokens."""
        return TokensHead(self, backbone, spec)


class TokensHead(Head):
    """Reads and predicts action tokens with the backbone's embedding and language head."""

    def __init__(self, config: TokensHeadConfig, backbone: Backbone, spec: Spec):
        super().__init__()
        if spec.action.dim != 1:
            raise SpecError(
                "A token head needs token chunks.",
                found=f"an action of {spec.action.dim} numbers",
                expected="the spec after this policy's transforms",
            )
        self.config, self.spec, self.size = config, spec, config.tokenizer.vocabulary
        self.first = backbone.vocabulary - self.size if config.first < 0 else config.first
        if self.first < 0 or self.first + self.size > backbone.vocabulary:
            raise ConfigError(
                "The backbone's vocabulary lacks the action tokens.",
                found=f"{backbone.vocabulary} tokens",
                expected=f"{self.size} action tokens from number {self.first}",
                do="use fewer action tokens, or a backbone with a larger vocabulary",
            )
        self._backbone = (backbone,)  # in a tuple, so that its weights are not the head's
        # What starts a sequence; with parallel decoding, what asks for each token.
        count = 1 if config.decoding == "autoregressive" else spec.chunk
        self.queries = nn.Parameter(torch.randn(count, backbone.width) * 0.02)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One number per token, none at temperature 0."""
        return (self.spec.chunk,) if self.config.temperature else (0,)

    def extend(self, tokens: Tokens, batch: Batch) -> Tokens:
        """Return the prefix, the queries and, in training, the tokens that each next one is predicted from."""
        x = self.queries.expand(len(tokens.x), -1, -1)
        if self.config.decoding == "parallel":
            return tokens.append(x, "next")
        if "action" in batch:
            known = self._backbone[0].words(batch["action"][:, :-1, 0].long() + self.first)
            x = torch.cat([x.to(known.dtype), known], 1)
        return tokens.append(x, "causal")

    def loss(self, memory: Memory, state: Tensor | None, batch: Batch) -> Tensor:
        """Return the cross-entropy per token [B]."""
        wanted = batch["action"][..., 0].long()
        return token_loss(self._logits(memory.states[:, -wanted.shape[1] :]), wanted, batch)

    def sample(self, memory: Memory, state: Tensor | None, noise: Tensor, prefix: Tensor | None) -> Tensor:
        """Return token chunks [B,L,1]; raises `SpecError` for a prefix, which tokens cannot hold."""
        if prefix is not None:
            raise SpecError("Tokens cannot continue committed actions.", do="use a flow head with a prefix")
        if self.config.decoding == "parallel":
            logits = self._logits(memory.states[:, -self.spec.chunk :])
            return pick_tokens(logits, noise, self.config.temperature)[..., None].float()
        picked: list[Tensor] = []
        for place in range(self.spec.chunk):
            logits = self._logits(memory.states[:, -1:])
            picked.append(pick_tokens(logits, noise[:, place : place + 1], self.config.temperature))
            if place + 1 < self.spec.chunk:
                memory = self._continue(memory, picked[-1])
        return torch.cat(picked, 1)[..., None].float()

    def _continue(self, memory: Memory, token: Tensor) -> Memory:
        backbone = self._backbone[0]
        x = backbone.words(token + self.first)
        mask = torch.ones_like(token, dtype=torch.bool)
        positions = memory.next[:, None]
        block = torch.zeros(1, dtype=torch.long, device=x.device)
        return backbone.encode(Tokens(x, mask, block, positions, memory.next + 1), memory)

    def _logits(self, states: Tensor) -> Tensor:
        return self._backbone[0].logits(states)[..., self.first : self.first + self.size].float()
