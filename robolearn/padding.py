"""How datasets of different robots are padded to one another, in training and when a policy acts."""

from collections.abc import Mapping
from itertools import compress

import numpy as np

from robolearn.contracts import Batch
from robolearn.spec import Feature, Spec

__all__ = ["MEMBERS", "blank", "fitted", "members_of", "with_actions"]

MEMBERS = "mixture"  # in the metadata of a spec: member → its own spec


def fitted(values: np.ndarray, feature: Feature) -> np.ndarray:
    """Return `values` […,*shape] as `feature` has them: pictures resized by area, vectors filled up with zeros."""
    if feature.kind == "text":
        return values
    if feature.kind == "image":
        return _resized(values, feature.shape)
    missing = feature.shape[0] - values.shape[-1] if len(feature.shape) == 1 else 0
    values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)]) if missing else values
    return values.astype(feature.dtype, copy=False)


def blank(feature: Feature, leading: tuple[int, ...]) -> np.ndarray:
    """Return what stands for an observation that is not there: "" or zeros [*leading,*shape]."""
    if feature.kind == "text":
        return np.full(leading, "")
    return np.zeros((*leading, *feature.shape), feature.dtype)


def members_of(spec: Spec) -> dict[str, Spec]:
    """Return the specs of the members of a mixture by name, {} of anything else."""
    members = spec.metadata.get(MEMBERS)
    return {name: Spec.from_dict(own) for name, own in members.items()} if isinstance(members, Mapping) else {}


def with_actions(batch: Batch) -> Batch:
    """Return the rows of `batch` that have actions; the others teach words alone, and no statistics."""
    pad = batch.get("action_is_pad")
    if pad is None or not (still := pad.all(1)).any():
        return batch
    kept = (~still).tolist()
    return {
        key: list(compress(value, kept)) if isinstance(value, list) else value[~still] for key, value in batch.items()
    }


def _resized(frames: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if frames.shape[-3:] == shape:
        return frames
    import cv2

    flat = frames.reshape(-1, *frames.shape[-3:])
    resized = [cv2.resize(frame, (shape[1], shape[0]), interpolation=cv2.INTER_AREA) for frame in flat]
    return np.stack(resized).reshape(*frames.shape[:-3], *shape)
