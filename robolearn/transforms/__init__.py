"""Paired transforms between raw units and the network: each declares its inverse beside it."""

from robolearn.transforms.actions import AbsoluteAction, DeltaAction, Pad, RelativeAction
from robolearn.transforms.images import ImageToFloat
from robolearn.transforms.normalize import Normalize
from robolearn.transforms.pipeline import Pipeline
from robolearn.transforms.reword import Reword
from robolearn.transforms.rotation import ContinuousRotations, ConvertRotation, convert_rotation
from robolearn.transforms.text import EmbedText

__all__ = [
    "AbsoluteAction",
    "ContinuousRotations",
    "ConvertRotation",
    "DeltaAction",
    "EmbedText",
    "ImageToFloat",
    "Normalize",
    "Pad",
    "Pipeline",
    "RelativeAction",
    "Reword",
    "convert_rotation",
]
