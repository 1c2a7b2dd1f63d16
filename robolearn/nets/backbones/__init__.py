"""Vision-language backbones: one contract, one small adapter for each family of published weights."""

from robolearn.nets.backbones.base import Backbone, BackboneConfig, Memory, Tokens
from robolearn.nets.backbones.resolve import (
    build_backbone,
    open_backbone,
    pretrained_weights,
    sentence_of,
    side_of,
    vocabulary_of,
)

__all__ = [
    "Backbone",
    "BackboneConfig",
    "Memory",
    "Tokens",
    "build_backbone",
    "open_backbone",
    "pretrained_weights",
    "sentence_of",
    "side_of",
    "vocabulary_of",
]
