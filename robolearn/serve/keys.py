"""Wire keys of well-known robots, and how they map to the observations of a spec."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.errors import WireError, suggest
from robolearn.spec import Feature, Spec

__all__ = ["PRESETS", "Keys", "to_observation"]


@dataclass(frozen=True)
class Keys:
    """Which wire keys make which observation; "a/b" may be the key itself or b inside the mapping a."""

    images: Mapping[str, str]  # ours → wire
    state: tuple[str, ...] = ()  # wire keys, concatenated into observation.state
    prompt: str = "prompt"
    channels_first: bool = False


# Keys and shapes of openpi's example environments.
PRESETS: dict[str, Keys] = {
    "libero": Keys(
        {"observation.images.image": "observation/image", "observation.images.wrist_image": "observation/wrist_image"},
        ("observation/state",),
    ),
    "droid": Keys(
        {
            "observation.images.exterior_image_1_left": "observation/exterior_image_1_left",
            "observation.images.wrist_image_left": "observation/wrist_image_left",
        },
        ("observation/joint_position", "observation/gripper_position"),
    ),
    "aloha": Keys(
        {
            f"observation.images.{name}": f"images/{name}"
            for name in ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
        },
        ("state",),
        channels_first=True,
    ),
}


def to_observation(message: Mapping[str, Any], spec: Spec, keys: Keys | None) -> dict[str, np.ndarray]:
    """Return the observation of `spec` that a wire message holds, each value [T,…] with T = 1 or more.

    Without `keys` the message uses the names of the spec. Raises `WireError` for a missing key, a
    wrong shape or dtype, or a signal that is not finite.
    """
    if not isinstance(message, Mapping):
        raise WireError("An observation is not a mapping.", found=type(message).__name__)
    values = {}
    for name, feature in spec.observations.items():
        raw = _lookup(message, name, keys)
        if feature.kind == "image" and keys is not None and keys.channels_first:
            raw = np.moveaxis(np.asarray(raw), -3, -1)
        values[name] = _fit(name, raw, feature, spec.history)
    return values


def _lookup(message: Mapping[str, Any], name: str, keys: Keys | None) -> Any:
    if keys is None:
        return _find(message, name)
    if name == "task":
        return _find(message, keys.prompt)
    if name == "observation.state" and keys.state:
        parts = [np.atleast_1d(np.asarray(_find(message, key))) for key in keys.state]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    return _find(message, keys.images.get(name, name))


def _find(message: Mapping[str, Any], key: str) -> Any:
    if key in message:
        return message[key]
    outer, _, inner = key.partition("/")
    nested = message.get(outer)
    if inner and isinstance(nested, Mapping) and inner in nested:
        return nested[inner]
    known = [item for item in message if isinstance(item, str)]
    raise WireError(f"The observation lacks '{key[:80]}'.", expected=suggest(key, known)[:400])


def _fit(name: str, raw: Any, feature: Feature, history: int) -> np.ndarray:
    if feature.kind == "text":
        text = raw.item() if isinstance(raw, np.ndarray) and raw.ndim == 0 else raw
        if not isinstance(text, str) or len(text) > 1024:
            raise WireError(f"'{name}' is not a text.", found=type(raw).__name__, expected="at most 1024 characters")
        return np.array([str(text)])
    try:
        value = np.asarray(raw)
    except ValueError as error:
        raise WireError(f"'{name}' is not an array.", found=str(error)) from error
    image = feature.kind == "image"
    if value.dtype.kind not in "biuf" or (image and value.dtype != np.uint8):
        raise WireError(
            f"'{name}' has the wrong dtype.", found=value.dtype, expected="uint8" if image else feature.dtype
        )
    if value.shape not in (feature.shape, (history, *feature.shape)):
        raise WireError(f"'{name}' has the wrong shape.", found=value.shape, expected=feature.shape)
    value = value.astype(feature.dtype, copy=False).reshape(-1, *feature.shape)
    if not image and not np.isfinite(value).all():
        raise WireError(f"'{name}' is not finite.", found="NaN or infinity", expected="finite numbers")
    return value
