"""What the chunk policies share: their options, their encoder and how padding counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robolearn.contracts import Batch, Transform
from robolearn.errors import ConfigError, SpecError
from robolearn.nets.encoders import EncoderConfig, ObservationEncoder
from robolearn.nets.networks import MLPConfig, NetworkConfig
from robolearn.policies.samplers import Pin
from robolearn.registry import resolve
from robolearn.spec import Spec

__all__ = [
    "ChunkConfig",
    "ChunkPolicy",
    "Norm",
    "SplineConfig",
    "WrapperConfig",
    "check_prefix",
    "chunk_mean",
    "default_transforms",
    "parameter_groups",
    "pin_prefix",
    "prefix_path",
]

Norm = Literal["min_max", "mean_std", "quantile", "identity"]


@dataclass(frozen=True)
class SplineConfig:
    """Chunks as B-spline control points (BEAST's continuous form, arXiv 2506.06072)."""

    points: int = 8
    degree: int = 3


@dataclass(frozen=True)
class ChunkConfig:
    """Options of every policy that maps a history of T observations to a chunk of K actions."""

    history: int = 2
    chunk: int = 16
    network: NetworkConfig = field(default_factory=MLPConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    observation_norm: Norm = "mean_std"
    action_norm: Norm = "mean_std"
    spline: SplineConfig | None = None
    embed_images: str = ""  # a frozen image encoder by its registered name, instead of one that is trained

    def __post_init__(self):
        if self.history < 1 or self.chunk < 1:
            raise ConfigError(
                "A policy needs at least one observation and one action.",
                found=f"history {self.history}, chunk {self.chunk}",
                expected="1 or more of each",
            )

    def transforms(self, spec: Spec) -> Sequence[Transform]:
        """Return the unfitted steps that end at the network: images to float, text to vectors, normalisation."""
        steps = default_transforms(spec, self.observation_norm, self.action_norm, self.embed_images)
        if self.spline:
            steps.append(resolve("transform", "bspline")(self.spline.points, self.spline.degree))
        return steps

    @property
    def rows(self) -> int:
        """Rows of the chunk that the network sees: actions, or control points."""
        return self.spline.points if self.spline else self.chunk


class WrapperConfig:
    """Base of the configs of policies around another one: history, chunk and transforms are those of the other."""

    def inner(self) -> Any:
        """Return the config of the other policy; `__post_init__` calls it, which refuses bad options at once."""
        raise NotImplementedError

    @property
    def history(self) -> int:
        """Observations that the other policy reads."""
        return self.inner().history

    @property
    def chunk(self) -> int:
        """Actions that it samples."""
        return self.inner().chunk

    @property
    def past_actions(self) -> bool:
        """Whether it also reads what was executed (`robolearn.past`)."""
        return getattr(self.inner(), "past_actions", False)

    def transforms(self, spec: Spec) -> Sequence[Transform]:
        """Return its unfitted transforms."""
        return self.inner().transforms(spec)


class ChunkPolicy(nn.Module):
    """Base of the policies: encodes observations and runs one network over action chunks [B,K,A]."""

    def __init__(self, config: ChunkConfig, spec: Spec, times: int = 1):
        super().__init__()
        self.spec = replace(spec, history=config.history, chunk=config.rows)
        self.encoder = ObservationEncoder(config.encoder, self.spec)
        self.network = config.network.build(config.rows, spec.action.dim, self.encoder.shapes, times)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one decision: one chunk."""
        return (self.spec.chunk, self.spec.action.dim)

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks, for sharding, compilation and checkpointing."""
        return list(self.network.blocks)

    def param_groups(self) -> Iterator[dict]:
        """Yield two groups: matrices, which decay, and vectors, which do not."""
        yield from parameter_groups(self)


def default_transforms(
    spec: Spec, observation_norm: Norm, action_norm: Norm, embed_images: str = ""
) -> list[Transform]:
    """Return the unfitted steps before a network: images to floats or vectors, text to vectors, normalisation."""
    images = [key for key, feature in spec.observations.items() if feature.kind == "image"]
    modes: dict[str, Norm] = {"*": observation_norm, "action": action_norm}
    steps: list[Transform] = []
    if images and embed_images:
        steps.append(resolve("transform", "embed_images")(embed_images))
        modes |= dict.fromkeys(images, "identity")
    elif images:
        steps.append(resolve("transform", "image_to_float")())
    texts = [key for key, feature in spec.observations.items() if feature.kind == "text"]
    for key in texts:
        output = "observation.language" if len(texts) == 1 else f"{key}.embedding"
        steps.append(resolve("transform", "embed_text")(key=key, output=output))
    steps.append(resolve("transform", "normalize")(modes))
    return steps


def parameter_groups(module: nn.Module) -> Iterator[dict]:
    """Yield two groups: matrices, which decay, and vectors, which do not."""
    yield {"params": [p for p in module.parameters() if p.ndim > 1]}
    yield {"params": [p for p in module.parameters() if p.ndim <= 1], "weight_decay": 0.0}


def check_prefix(spec: Spec, prefix: Tensor | None) -> None:
    """Raise `SpecError` unless `prefix` [B,P,A] is none or fits a chunk of `spec`."""
    chunk, dim = spec.chunk, spec.action.dim
    if prefix is not None and (prefix.shape[1] > chunk or prefix.shape[2:] != (dim,)):
        raise SpecError(
            "The prefix does not fit the chunk.", found=tuple(prefix.shape), expected=f"[B, at most {chunk}, {dim}]"
        )


def chunk_mean(error: Tensor, batch: Batch) -> Tensor:
    """Average an error [B,K,A] over the actions that are not padding; returns [B]."""
    per_action = error.mean(-1)
    pad = batch.get("action_is_pad")
    if pad is None:
        return per_action.mean(-1)
    real = (~pad).to(per_action.dtype)
    return (per_action * real).sum(-1) / real.sum(-1).clamp(min=1)


def prefix_path(noise: Tensor, prefix: Tensor | None) -> Pin:
    """Return what puts x [B,K,A] at time t on the straight path from `noise` to the committed `prefix` [B,P,A]."""
    if prefix is None:
        return lambda x, time: x
    return lambda x, time: pin_prefix(x, torch.lerp(noise[:, : prefix.shape[1]], prefix, time))


def pin_prefix(chunk: Tensor, prefix: Tensor | None) -> Tensor:
    """Return `chunk` [B,K,A] with its first P actions replaced by `prefix` [B,P,A]."""
    return chunk if prefix is None else torch.cat([prefix, chunk[:, prefix.shape[1] :]], 1)
