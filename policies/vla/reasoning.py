"""Words before actions: text that training learns to say after the prompt, and that acting never waits for.

A dataset's text says of each frame what the demonstrator sees and is about to do (embodied chain of thought, arXiv
2407.08693). Learning to say it ties words to what the pictures show; the head sees it in some samples or in none
(reasoning dropout and co-training of ECoT-Lite, arXiv 2505.08243), so that it acts without.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from robolearn.errors import ConfigError
from robolearn.nets.backbones import Backbone, Memory, Tokens

__all__ = ["ReasoningConfig", "teach"]


@dataclass(frozen=True)
class ReasoningConfig:
    """`key` is the dataset's text column ("": no reasoning), `weight` that of its cross-entropy in the loss.

    The head does without it in the share `dropout` of the samples; 1 only co-trains the backbone.
    """

    key: str = ""
    weight: float = 0.1
    dropout: float = 1.0
    length: int = 32

    def __post_init__(self):
        if self.weight < 0 or not 0 <= self.dropout <= 1 or self.length < 1:
            raise ConfigError(
                "Reasoning options are out of range.",
                found=self,
                expected="weight >= 0, dropout in [0, 1], length >= 1",
            )


def teach(backbone: Backbone, prefix: Tokens, text: Tensor, dropout: float) -> tuple[Memory, Tensor]:
    """Return what the head remembers of `prefix` and its reasoning [B,N] (-1: none), and the cross-entropy [B].

    Each word is predicted from the prefix and the words before it, the first from the prefix's last token. A row
    that drops its reasoning remembers, to the bit, what it would without.
    """
    memory, real = backbone.encode(prefix), text >= 0
    after = backbone.encode(prefix.after(memory).append(backbone.words(text), "causal", real), memory)
    last = torch.where(prefix.mask, torch.arange(prefix.mask.shape[1], device=text.device), -1).argmax(1)
    first = memory.states[torch.arange(len(last), device=last.device), last]
    logits = backbone.logits(torch.cat([first[:, None], after.states[:, :-1]], 1)).float()
    error = F.cross_entropy(logits.flatten(0, 1), text.clamp(min=0).flatten(), reduction="none").view_as(text)
    error = (error * real).sum(1) / real.sum(1).clamp(min=1)
    if dropout == 1:
        return memory, error
    told = torch.rand(len(text), device=text.device) >= dropout
    mask = torch.cat([memory.mask, real & told[:, None]], 1)
    return replace(after, mask=mask, next=torch.where(told, after.next, memory.next)), error
