"""Vision-language-action policies: pictures and an instruction through a backbone, actions from its memory.

The prefix is what each camera shows (of each step of the history), the instruction, and proprioception; a
head turns what the backbone made of it into a chunk. One-step or history, discrete or continuous (RoboVLMs,
arXiv 2412.14058) follow from `history` and `head`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch, Transform
from robolearn.errors import CheckpointError, ConfigError, SpecError
from robolearn.nets.backbones import (
    BackboneConfig,
    build_backbone,
    open_backbone,
    pretrained_weights,
    sentence_of,
    side_of,
    vocabulary_of,
)
from robolearn.nets.backbones.base import Backbone, Memory, Tokens
from robolearn.nets.encoders import read
from robolearn.nets.lora import add_lora
from robolearn.policies.common import Norm
from robolearn.policies.samplers import Velocity
from robolearn.policies.tokens import check_range
from robolearn.policies.vla.cognition import CognitionHeadConfig
from robolearn.policies.vla.flow import FlowHead, FlowHeadConfig
from robolearn.policies.vla.head import Head
from robolearn.policies.vla.l1 import L1HeadConfig
from robolearn.policies.vla.reasoning import ReasoningConfig, teach
from robolearn.policies.vla.tokens import TokensHeadConfig
from robolearn.registry import resolve
from robolearn.spec import Spec

__all__ = ["PromptConfig", "TuningConfig", "VLAConfig", "VLAPolicy"]


@dataclass(frozen=True)
class PromptConfig:
    """How an instruction becomes tokens; `tokenizer` is a folder ("": the backbone's own, or learned)."""

    template: str = "{text}"
    tokenizer: str = ""
    length: int = 48


@dataclass(frozen=True)
class TuningConfig:
    """What of the backbone learns: everything, nothing, or low-rank adapters in the layers `targets`.

    `rate` multiplies the learning rate of the backbone; `vision` false keeps the vision tower as it is;
    `checkpointing` computes activations again instead of keeping them.
    """

    mode: Literal["full", "frozen", "lora"] = "full"
    vision: bool = True
    rate: float = 1.0
    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    checkpointing: bool = False

    def __post_init__(self):
        if self.rank < 1 or self.alpha <= 0 or self.rate <= 0:
            raise ConfigError("Tuning options are out of range.", found=self, expected="rank >= 1, alpha and rate > 0")


@dataclass(frozen=True)
class VLAConfig:
    """`backbone` is a family ("smolvlm"), a size of it ("smolvlm/500m"), a folder, a hub model, or its options.

    `state` says where proprioception enters: as tokens of the prefix, as tokens of the action expert, or
    nowhere. `attention` over the prefix is full, as robot policies use it, or causal, as text was learned.
    A policy trained with `exits` acts after any of them (`exit`), for the latency that is left (DeeR, arXiv
    2411.02359, section 3.1).
    """

    name: Literal["vla"] = "vla"
    history: int = 1
    chunk: int = 16
    backbone: BackboneConfig | str = "smolvlm"
    head: FlowHeadConfig | CognitionHeadConfig | L1HeadConfig | TokensHeadConfig = field(default_factory=FlowHeadConfig)
    state: Literal["prefix", "expert", "none"] = "prefix"
    attention: Literal["full", "causal"] = "full"
    prompt: PromptConfig = PromptConfig()
    reasoning: ReasoningConfig = field(default_factory=ReasoningConfig)
    tuning: TuningConfig = TuningConfig()
    image_size: tuple[int, int] | None = None  # rows and columns [px]; None: the backbone's own
    pad: bool = False  # keep the pictures' proportions, with black beside them
    exits: tuple[int, ...] = ()  # layers after which training also acts, one of them drawn for each step
    exit: int = 0  # layers that run when acting; 0: all
    observation_norm: Norm = "mean_std"
    action_norm: Norm = "mean_std"

    def __post_init__(self):
        if self.history < 1 or self.chunk < 1:
            raise ConfigError("A policy needs an observation and an action.", found=self, expected="1 or more of each")
        if self.state == "expert" and not isinstance(self.head, FlowHeadConfig):
            raise ConfigError("Only a flow head has an expert.", found=self.head.name, expected="state prefix or none")
        if self.is_untaught and self.state == "prefix":
            raise ConfigError(
                "Nothing would teach the map of proprioception into an insulated backbone.",
                found="head.insulate=true with state=prefix",
                expected="state expert or none, or head.cotrain > 0",
            )
        if min((*self.exits, self.exit, 0)) < 0 or 0 in self.exits or (self.exit and self.exit not in self.exits):
            raise ConfigError(
                "A policy can only stop where it was trained to act.",
                found=f"exit {self.exit}, exits {self.exits}",
                expected="an exit among exits, or 0 for all layers",
            )
        if self.reasoning.key and sentence_of(self.vlm) is not None:
            raise ConfigError(
                "This backbone reads sentences as one vector and cannot say any.",
                found=f"reasoning.key={self.reasoning.key} with backbone {self.vlm.name}",
                expected="a backbone with a vocabulary, as smolvlm",
            )
        if self.head.action_tokens:
            tokenizer = self.head.tokenizer.name if isinstance(self.head, TokensHeadConfig) else "bins"
            check_range(tokenizer, self.action_norm)
        # A name stands for what it means today: the checkpoint must not depend on a folder's config.json.
        object.__setattr__(self, "backbone", self.vlm)

    @property
    def vlm(self) -> BackboneConfig:
        """The backbone's config, read from its folder where a name was given."""
        return open_backbone(self.backbone) if isinstance(self.backbone, str) else self.backbone

    @property
    def is_untaught(self) -> bool:
        """Whether no gradient reaches the backbone."""
        head, says = self.head, bool(self.reasoning.key and self.reasoning.weight)
        return isinstance(head, FlowHeadConfig) and head.insulate and not head.cotrain and not says

    @property
    def answer(self) -> str:
        """The text column that training learns to say after the prompt; "" without."""
        return self.reasoning.key

    def transforms(self, spec: Spec) -> list[Transform]:
        """Return the unfitted steps: the prompt's tokens, pictures to float, normalisation, action tokens."""
        texts = [key for key, feature in spec.observations.items() if feature.kind == "text"]
        if len(texts) != 1:
            raise SpecError("A VLA follows one instruction.", found=texts, expected="one text observation, as 'task'")
        steps: list[Transform] = [
            self._read_text(texts[0]),
            resolve("transform", "image_to_float")(size=self.image_size or _square(side_of(self.vlm)), pad=self.pad),
            resolve("transform", "normalize")({"*": self.observation_norm, "action": self.action_norm}),
        ]
        return [*steps, self.head.tokenizer.codec()] if isinstance(self.head, TokensHeadConfig) else steps

    def _read_text(self, key: str) -> Transform:
        """Return the step from instructions to what the backbone reads: token numbers, or a sentence's vector."""
        sentence = sentence_of(self.vlm)
        if sentence is not None:
            return resolve("transform", "embed_text")(key, "observation.prompt", sentence)
        taken = self.head.action_tokens
        tokenizer = self.prompt.tokenizer or self.vlm.weights
        return resolve("transform", "tokenize_prompt")(
            key,
            template=self.prompt.template,
            tokenizer=tokenizer,
            length=self.prompt.length,
            vocabulary=vocabulary_of(self.vlm) - (0 if tokenizer else taken),
            answer=self.reasoning.key,
            answer_length=self.reasoning.length,
        )

    def build(self, spec: Spec) -> "VLAPolicy":
        """Return the policy for `spec`, with random weights."""
        return VLAPolicy(self, spec)


class VLAPolicy(nn.Module):
    """A backbone, its prefix and a head."""

    def __init__(self, config: VLAConfig, spec: Spec):
        super().__init__()
        tokens = isinstance(config.head, TokensHeadConfig)
        self.config = config
        self.spec = replace(spec, history=config.history, chunk=spec.chunk if tokens else config.chunk)
        self._pictures, self._signals, self._prompt = _keys(self.spec)
        self.backbone = build_backbone(
            config.vlm,
            speak=config.head.action_tokens > 0 or bool(config.reasoning.key),
            causal=config.attention == "causal",
        )
        _check_pictures(self.backbone, self.spec, self._pictures)
        if max(config.exits, default=0) >= self.backbone.depth:
            found, expected = config.exits, f"1 to {self.backbone.depth - 1}"
            raise ConfigError("An early exit comes before the last layer.", found=found, expected=expected)
        size = sum(self.spec.observations[key].size for key in self._signals)
        used = size if config.state != "none" else 0
        self.state = nn.Linear(used, self.backbone.width) if used and config.state == "prefix" else None
        self.head: Head = config.head.build(self.backbone, self.spec, used if config.state == "expert" else 0)
        self._tune()

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """That of the head."""
        return self.head.noise_shape

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the head's loss [B], with exits the mean of it and of the loss at one of them, and the reasoning's."""
        prefix, reasoning = self.prefix(batch), self.config.reasoning
        if reasoning.key not in batch:
            return self._act(prefix, None, batch)
        dropout = reasoning.dropout if self.training else 1.0  # as when acting
        past, error = teach(self.backbone, prefix, _trim(batch[reasoning.key]), dropout)
        loss, metrics = self._act(prefix.after(past), past, batch)
        return loss + reasoning.weight * error, metrics | {"reasoning_loss": error.detach().mean()}

    def _act(self, tokens: Tokens, past: Memory | None, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss [B] of acting after `tokens`, which continue `past`."""
        tokens, state = self.head.extend(tokens, batch), self._state(batch)
        memory = self.backbone.encode(tokens, past)
        loss = self.head.loss(memory, state, batch)
        metrics = {f"{self.config.head.name}_loss": loss.detach().mean()}
        if not self.config.exits:
            return loss, metrics
        drawn = self.config.exits[int(torch.randint(len(self.config.exits), ()))]
        # Keys and values of the first layers are there already; states after them are not.
        known = memory.upto(drawn) if not self.head.reads_states else self.backbone.encode(tokens, past, layers=drawn)
        early = self.head.loss(known, state, batch)
        return (loss + early) / 2, metrics | {"early_loss": early.detach().mean()}

    def sample(self, obs: Batch, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Return chunks [B,K,A] from `noise` [B,*noise_shape]; the prefix is encoded once."""
        return self.head.sample(self.remember(obs), self._state(obs), noise, prefix)

    def remember(self, obs: Batch) -> Memory:
        """Return what the backbone makes of observations: the cache that sampling works on."""
        return self.backbone.encode(self.head.extend(self.prefix(obs), obs), layers=self.config.exit)

    def flow_field(self, obs: Batch, count: int) -> Velocity:
        """Return the velocity of `count` observations, a function of (x [B,K,A], time [B])."""
        if not isinstance(self.head, FlowHead):
            raise ConfigError("This head has no velocity.", found=self.config.head.name, expected="head flow")
        return self.head.velocity(self.remember(obs), self._state(obs))

    def prefix(self, batch: Batch) -> Tokens:
        """Return the embedded tokens of a batch: cameras by name and time, the instruction, proprioception."""
        views = torch.stack([read(batch, key) for key in self._pictures], 2)  # [B,T,V,3,H,W]
        text = read(batch, self._prompt)
        # When acting the width stays: other last bits would come with the company a row has.
        tokens = self.backbone.embed(views.flatten(1, 2), _trim(text) if self.training else text)
        state = self._state(batch)
        return tokens if self.state is None or state is None else tokens.append(self.state(state), "next")

    def load_pretrained(self) -> None:
        """Read the weights of the backbone's folder, where its config names one; strict."""
        if self.config.vlm.weights:
            self.backbone.load_state_dict(pretrained_weights(self.backbone), strict=False)

    def borrowed(self) -> list[str]:
        """Return the names of weights that a checkpoint leaves in the backbone's folder, named by their hash."""
        if not self.config.vlm.weights or self.config.tuning.mode == "full":
            return []
        return [f"backbone.{name}" for name in self.backbone.published()]

    def borrow(self) -> dict[str, Tensor]:
        """Return those weights; raises `CheckpointError` unless the folder holds the same ones."""
        names = self.borrowed()
        if not names:
            return {}
        weights = {f"backbone.{name}": value for name, value in pretrained_weights(self.backbone).items()}
        if set(names) != set(weights):
            raise CheckpointError("The backbone's folder does not hold what the policy needs.", found=len(weights))
        return weights

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks, for sharding, compilation and checkpointing."""
        return [*self.backbone.blocks(), *self.head.blocks()]

    def param_groups(self) -> Iterator[dict]:
        """Yield the parameters of the backbone, at its own rate, and the others; vectors do not decay."""
        own = {id(value) for value in self.backbone.parameters()}
        for inside, rate in ((True, self.config.tuning.rate), (False, 1.0)):
            values = [value for value in self.parameters() if (id(value) in own) == inside]
            yield {"params": [value for value in values if value.ndim > 1], "lr_scale": rate}
            yield {"params": [value for value in values if value.ndim <= 1], "lr_scale": rate, "weight_decay": 0.0}

    def _state(self, batch: Batch) -> Tensor | None:
        """Return proprioception [B,T,S], all signals side by side."""
        if self.config.state == "none" or not self._signals:
            return None
        return torch.cat([read(batch, key).flatten(2) for key in self._signals], -1)

    def _tune(self) -> None:
        """Freeze what does not learn: by choice, and because no output depends on it."""
        tuning = self.config.tuning
        self.backbone.checkpointing = tuning.checkpointing
        if tuning.mode == "lora":
            add_lora(self.backbone, tuning.targets, tuning.rank, tuning.alpha)
        elif tuning.mode == "frozen" or self.config.is_untaught:
            self.backbone.requires_grad_(False)
        elif not tuning.vision:
            for module in self.backbone.vision():
                module.requires_grad_(False)
        self.backbone.quiet()
        if isinstance(self.head, FlowHead) and not self.head.reads_states and not self.config.reasoning.key:
            for module in self.backbone.unread(self.head.last_read):
                module.requires_grad_(False)


def _keys(spec: Spec) -> tuple[list[str], list[str], str]:
    """Return the keys of pictures, signals and the prompt; raises `SpecError` for what cannot be read."""
    kinds: dict[str, list[str]] = {}
    for key, feature in spec.observations.items():
        kinds.setdefault(feature.kind, []).append(key)
    odd = sorted(set(kinds) - {"image", "signal", "text"})
    if odd or "image" not in kinds or len(kinds.get("text", ())) != 1:
        raise SpecError(
            "A vision-language backbone cannot read these observations.",
            found=", ".join(f"{key} ({feature.kind})" for key, feature in spec.observations.items()) or "none",
            expected="pictures, one text and signals",
            do="pick the observations with data.keys=[…]",
        )
    return kinds["image"], kinds.get("signal", []), kinds["text"][0]


def _check_pictures(backbone: Backbone, spec: Spec, keys: list[str]) -> None:
    """Raise `SpecError` unless all pictures have one size that the backbone takes."""
    sizes = {spec.observations[key].shape for key in keys}
    _, height, width = next(iter(sizes))
    fits = (
        (height, width) == (backbone.side,) * 2
        if backbone.side
        else height % backbone.cell == width % backbone.cell == 0
    )
    if len(sizes) > 1 or not fits:
        wanted = f"{backbone.side} px" if backbone.side else f"a multiple of {backbone.cell} px"
        raise SpecError(
            "The backbone does not take these pictures.",
            found=", ".join(f"{key} {spec.observations[key].shape}" for key in keys),
            expected=f"one size (3, H, W), each side {wanted}",
            do="set policy.image_size=[H,W]",
        )


def _trim(text: Tensor) -> Tensor:
    """Return token numbers [B,N] without the last columns that hold none, where shapes may change at no cost."""
    if text.is_floating_point() or text.device.type != "cpu" or torch.compiler.is_compiling():
        return text
    return text[:, : max(1, int((text >= 0).sum(1).max()))]


def _square(side: int | None) -> tuple[int, int] | None:
    return None if side is None else (side, side)
