"""The contract of a vision-language backbone: pictures and text in, states and a key-value memory out.

A family's adapter says how pictures become tokens and where its language layers are; the walk over those
layers is here, once, so that every family gives the keys and values of each layer (what an action expert
attends to), continues from a memory, checkpoints its activations and stops at an earlier layer alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from robolearn.errors import ConfigError
from robolearn.nets.lora import is_adapter

__all__ = ["Backbone", "BackboneConfig", "Memory", "Tokens"]


@dataclass(frozen=True)
class BackboneConfig:
    """A family by its registered name and the options of its architecture (the `config.json` of its weights).

    `layers` keeps only the first so many language layers (0: all). `weights` is the folder that the
    weights are read from before training ("": random), `digest` the SHA-256 over its safetensors files.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    layers: int = 0
    weights: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Tokens:
    """Embedded tokens x [B,N,D] before the language layers.

    `mask` [B,N] is what is real; `blocks` [N] never fall, and a token attends to the blocks up to its
    own; `positions` are [B,N], or [3,B,N] for families that count time, row and column; `next` [B] is
    the position after the last; `deep` are features [B,N,D] added after the first layers (DeepStack).
    """

    x: Tensor
    mask: Tensor
    blocks: Tensor
    positions: Tensor
    next: Tensor
    deep: tuple[Tensor, ...] = ()

    def append(self, x: Tensor, blocks: Literal["same", "next", "causal"], mask: Tensor | None = None) -> "Tokens":
        """Return the tokens followed by x [B,M,D]: in the last block, in a new one, or each in its own."""
        count, last = x.shape[1], self.blocks[-1:].sum()  # 0 where there is none before
        steps = torch.arange(count, device=x.device)
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        own = {"same": steps * 0, "next": steps * 0 + 1, "causal": steps + 1}[blocks] + last
        places = self.next[:, None] + mask.cumsum(1) - 1
        return Tokens(
            torch.cat([self.x, x.to(self.x.dtype)], 1),
            torch.cat([self.mask, mask], 1),
            torch.cat([self.blocks, own]),
            torch.cat([self.positions, places.expand(*self.positions.shape[:-1], count)], -1),
            self.next + mask.sum(1),
            tuple(torch.cat([deep, torch.zeros_like(x)], 1) for deep in self.deep),
        )

    def after(self, memory: "Memory") -> "Tokens":
        """Return no tokens yet: what is appended to them continues `memory`, which began with these."""
        none = (self.x[:, :0], self.mask[:, :0], self.blocks[:0], self.positions[..., :0])
        return Tokens(*none, memory.next)


@dataclass(frozen=True)
class Memory:
    """What the layers made of tokens: the last states [B,N,D], and each layer's keys and values [B,G,M,d].

    `mask` [B,M] says which of the M remembered tokens are real, `next` [B] is the position after them.
    """

    states: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    next: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "Memory":
        """Return the memory with `function` applied to each of its tensors."""
        keys, values = tuple(map(function, self.keys)), tuple(map(function, self.values))
        return Memory(function(self.states), keys, values, function(self.mask), function(self.next))

    def without(self, count: int) -> "Memory":
        """Return the memory without its last `count` tokens, all of which are real."""
        keys, values = (tuple(part[:, :, :-count] for part in parts) for parts in (self.keys, self.values))
        return Memory(self.states[:, :-count], keys, values, self.mask[:, :-count], self.next - count)

    def upto(self, layers: int) -> "Memory":
        """Return the keys and values of the first `layers`; the states stay the last ones."""
        return Memory(self.states, self.keys[:layers], self.values[:layers], self.mask, self.next)

    def repeat(self, count: int) -> "Memory":
        """Return the memory with each row `count` times, one after the other."""
        return self if count == 1 else self.map(lambda value: value.repeat_interleave(count, 0))


class Backbone(nn.Module):
    """Base of the families. `speak` keeps what predicts text from states; `causal` is how text attends.

    An adapter sets `vlm` (its module under the published names), `language` (with `embed_tokens`,
    `layers`, `norm` and `rotary_emb`) and defines `look`.
    """

    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # name → options; "" is a small one to train from scratch
    WEIGHTS: ClassVar[str] = ""  # which published weights fit

    vlm: Any
    width: int
    heads: int
    groups: int  # key and value heads
    head_dim: int
    rope_theta: float | None  # base of the rotary positions; None without them
    vocabulary: int
    cell: int = 1  # sides of pictures are multiples of this
    side: int | None = None  # or exactly this

    def __init__(self, config: BackboneConfig, speak: bool = False, causal: bool = False):
        super().__init__()
        self.config, self.speak, self.causal = config, speak, causal
        self.checkpointing = False

    # ------------------------------------------------------------ what a family defines

    @property
    def language(self) -> Any:
        """The language layers with their embedding, norm and rotary positions."""
        raise NotImplementedError

    def look(self, pictures: Tensor) -> Tensor:
        """Return tokens [N,P,D] of pictures [N,3,H,W] in [0, 1]."""
        raise NotImplementedError

    def vision(self) -> list[nn.Module]:
        """Return the modules that only read pictures."""
        raise NotImplementedError

    def quiet(self) -> None:
        """Freeze published weights that no output depends on."""

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Return the published weights of `folder` by own names; raises `CheckpointError` for any that do not fit."""
        raise NotImplementedError

    # ------------------------------------------------------------ what every family gives

    @property
    def depth(self) -> int:
        """Number of language layers."""
        return len(self.language.layers)

    def embed(self, pictures: Tensor, text: Tensor) -> Tokens:
        """Return the tokens of pictures [B,V,3,H,W] in [0, 1] and text [B,N] (-1 where there is none)."""
        seen = self.look(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2]).flatten(1, 2)
        return self.sequence([seen, self.words(text)], [None, text >= 0])

    def words(self, text: Tensor) -> Tensor:
        """Return the embeddings [B,N,D] of token numbers [B,N]."""
        return self.language.embed_tokens(text.clamp(min=0))

    def logits(self, states: Tensor) -> Tensor:
        """Return scores over the vocabulary [B,N,V] of states [B,N,D]."""
        if not self.speak:
            raise ConfigError("This backbone was built without its language head.", do="build it with speak=True")
        head = getattr(self.vlm, "lm_head", None)
        weight = head.weight if isinstance(head, nn.Linear) else self.language.embed_tokens.weight
        return nn.functional.linear(states, weight)

    def sequence(self, parts: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tokens:
        """Return `parts` [B,n,D] one after the other; positions count what is real."""
        x = torch.cat([part.to(parts[-1].dtype) for part in parts], 1)
        real = [
            torch.ones(part.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
            for part, mask in zip(parts, masks, strict=True)
        ]
        mask = torch.cat(real, 1)
        blocks = torch.arange(x.shape[1], device=x.device)
        return Tokens(x, mask, blocks if self.causal else blocks * 0, mask.cumsum(1) - 1, mask.sum(1))

    def encode(self, tokens: Tokens, past: Memory | None = None, layers: int = 0) -> Memory:
        """Run the layers (the first `layers`; 0: all) over `tokens`, which also attend to all of `past`.

        The memory holds both, of the layers that ran.
        """
        if past is not None and not tokens.x.shape[1]:
            return past
        mask = _visible(tokens, past)
        rotary = self.rotary(tokens.x, tokens.positions)
        x, keys, values = tokens.x, [], []
        for number in range(layers or self.depth):
            before = (past.keys[number], past.values[number]) if past else None
            if self.checkpointing and torch.is_grad_enabled():
                x, key, value = checkpoint(self.layer, number, x, mask, rotary, before, use_reentrant=False)
            else:
                x, key, value = self.layer(number, x, mask, rotary, before)
            if number < len(tokens.deep):
                x = x + tokens.deep[number]
            keys.append(key)
            values.append(value)
        real = tokens.mask if past is None else torch.cat([past.mask, tokens.mask], 1)
        return Memory(self.finish(x), tuple(keys), tuple(values), real, tokens.next)

    def layer(
        self, number: int, x: Tensor, mask: Tensor, rotary: Any, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one layer: states [B,N,D], mask [B,1,N,M], earlier keys and values; returns states, keys, values."""
        layer, store = self.language.layers[number], _Store(before)
        return layer(x, attention_mask=mask, position_embeddings=rotary, past_key_values=store)

    def rotary(self, x: Tensor, positions: Tensor) -> Any:
        """Return what the layers rotate queries and keys with."""
        return self.language.rotary_emb(x, positions)

    def finish(self, x: Tensor) -> Tensor:
        """Return the states after the last layer's norm."""
        return self.language.norm(x)

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks, for sharding."""
        return list(self.language.layers)

    def unread(self, number: int) -> list[nn.Module]:
        """Return the modules that keys and values up to layer `number` do not depend on."""
        layer = self.language.layers[number]
        attention = layer.self_attn
        parts = [attention.q_proj, attention.o_proj, layer.post_attention_layernorm, layer.mlp, self.language.norm]
        return [
            *parts,
            *self.language.layers[number + 1 :],
            *([attention.q_norm] if hasattr(attention, "q_norm") else []),
        ]

    def published(self) -> list[str]:
        """Return the names of the weights that its family publishes, without adapters."""
        return [name for name in self.state_dict() if not is_adapter(name)]

    def shorten(self) -> None:
        """Keep the layers that the config asks for; raises `ConfigError` when there are fewer.

        From here on a layer that is given a store returns its keys and values too: what shards weights must
        see every output that a gradient comes back through.
        """
        layers, wanted = self.language.layers, self.config.layers
        if not 0 <= wanted <= len(layers):
            raise ConfigError("The backbone has not so many layers.", found=wanted, expected=f"0 to {len(layers)}")
        if wanted:
            del layers[wanted:]
        for layer in layers:
            layer.register_forward_hook(_with_memory, with_kwargs=True)


class _Store:
    """Stands in for the framework's cache in one layer: hands back earlier and new keys, and keeps them."""

    def __init__(self, before: tuple[Tensor, Tensor] | None):
        self._before = before
        self.keys = self.values = torch.empty(0)

    def update(self, keys: Tensor, values: Tensor, layer: int, *rest: Any) -> tuple[Tensor, Tensor]:
        if self._before is not None:
            keys, values = torch.cat([self._before[0], keys], 2), torch.cat([self._before[1], values], 2)
        self.keys, self.values = keys, values
        return keys, values


def _with_memory(layer: nn.Module, inputs: Any, given: dict[str, Any], output: Any) -> Any:
    """Return the output of a layer with what its store holds, if it has one."""
    store = given.get("past_key_values")
    return (output, store.keys, store.values) if isinstance(store, _Store) else output


def _visible(tokens: Tokens, past: Memory | None) -> Tensor:
    """Return which token [N] sees which [M], bool [B,1,N,M]."""
    own = (tokens.blocks[:, None] >= tokens.blocks[None]) & tokens.mask[:, None]
    if past is not None:
        earlier = past.mask[:, None].expand(-1, tokens.x.shape[1], -1)
        own = torch.cat([earlier, own], 2)
    return own[:, None]
