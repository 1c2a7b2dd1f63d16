"""`meta/info.json` of LeRobot datasets: strict parsing, and the way between its features and our spec."""

import math
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data.files import positive, read_json
from robolearn.data.video import DEPTH_INFO
from robolearn.errors import DataError, RobolearnError, suggest
from robolearn.spec import ActionSpec, Feature, Spec

__all__ = ["AUTO_FEATURES", "Info", "StoredFeature", "features_of", "load_info"]

AUTO_FEATURES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
_NUMBERS = ("float32", "float64", "float16", "bool")
_INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")
_DTYPES = (*_NUMBERS, *_INTEGERS, "string", "image", "video", "language")
_PATH_FIELDS = {"chunk_index", "file_index", "video_key", "episode_chunk", "episode_index"}
_MAX_ELEMENTS = 2**28


@dataclass(frozen=True)
class StoredFeature:
    """One feature as `info.json` declares it; images are (H, W, C)."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    info: Mapping[str, Any] | None = None

    @property
    def visual(self) -> bool:
        return self.dtype in ("image", "video")

    @property
    def depth(self) -> bool:
        """Whether the pictures are depth maps."""
        info = self.info or {}
        return self.visual and bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


@dataclass(frozen=True)
class Info:
    """A validated `info.json`."""

    path: Path
    version: str
    fps: float
    features: Mapping[str, StoredFeature]
    total_episodes: int
    total_frames: int
    data_path: str
    video_path: str | None
    chunks_size: int
    spec: Spec
    raw: Mapping[str, Any]

    def feature(self, key: str) -> StoredFeature:
        """Return how the column `key` is stored; raises `DataError` for one that is not there."""
        if key in AUTO_FEATURES and key not in self.features:
            return StoredFeature(AUTO_FEATURES[key], (1,))
        if key not in self.features:
            root = self.path.parent.parent
            raise DataError(f"No key '{key}' in {root}.", expected=suggest(key, {*self.features, "task"}))
        return self.features[key]


def load_info(root: Path, versions: tuple[str, ...], raw: Mapping[str, Any] | None = None) -> Info:
    """Validate `meta/info.json` under `root`, or `raw` in its place; raises `DataError` naming the field."""
    path = root / "meta" / "info.json"
    raw = read_json(path) if raw is None else raw
    version = str(raw.get("codebase_version", ""))
    if version not in versions:
        raise DataError(
            f"{path}: codebase_version is not supported here.", found=version or None, expected=" or ".join(versions)
        )
    fps = positive(raw.get("fps"), f"{path}: fps")
    features = _features(path, raw.get("features"))
    robot = raw.get("robot_type") or ""
    return Info(
        path=path,
        version=version,
        fps=fps,
        features=features,
        total_episodes=_count(path, raw, "total_episodes"),
        total_frames=_count(path, raw, "total_frames"),
        data_path=_template(path, "data_path", raw.get("data_path")),
        video_path=None if raw.get("video_path") is None else _template(path, "video_path", raw["video_path"]),
        chunks_size=max(_count(path, raw, "chunks_size", 1000), 1),
        spec=_spec(path, raw, features, fps, str(robot)),
        raw=raw,
    )


def features_of(spec: Spec, extras: Mapping[str, np.ndarray], images: str) -> dict[str, dict[str, Any]]:
    """Return the `features` of `info.json` for `spec` and recorded `extras` (one frame of each)."""
    features: dict[str, dict[str, Any]] = {}
    for key, feature in spec.observations.items():
        if feature.kind == "image":
            names: list[str] | None = ["height", "width", "channels"]
            features[key] = {"dtype": images, "shape": list(feature.shape), "names": names}
        elif feature.kind == "depth":
            if feature.unit not in ("", "m") or feature.dtype != "float32":
                raise DataError(
                    f"Depth '{key}' is not in metres.", found=f"{feature.dtype} {feature.unit}", do="convert it"
                )
            names = ["height", "width", "channels"]
            features[key] = {"dtype": "video", "shape": [*feature.shape, 1], "names": names, "info": dict(DEPTH_INFO)}
        elif feature.kind != "text":
            names = list(feature.names) or None
            features[key] = {"dtype": feature.dtype, "shape": list(feature.shape) or [1], "names": names}
    features["action"] = {"dtype": "float32", "shape": [spec.action.dim], "names": list(spec.action.names) or None}
    for key, value in extras.items():
        dtype = "string" if value.dtype.kind == "U" else str(value.dtype)
        features[key] = {"dtype": dtype, "shape": list(value.shape) or [1], "names": None}
    features |= {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in AUTO_FEATURES.items()}
    return features


def _count(path: Path, raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = raw.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**40:
        raise DataError(f"{path}: {key} is not a count.", found=value, expected="an integer ≥ 0")
    return value


def _template(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{path}: {key} is not a path template.", found=value, expected="a string")
    try:
        fields = [(name, spec) for _, name, spec, _ in string.Formatter().parse(value) if name is not None]
    except ValueError as error:
        raise DataError(f"{path}: {key} is not a path template.", found=value) from error
    parts = Path(value).parts
    bad_field = any(name not in _PATH_FIELDS or spec not in ("", "03d", "06d") for name, spec in fields)
    if bad_field or ".." in parts or value.startswith("/") or "\0" in value:
        raise DataError(
            f"{path}: {key} leaves the dataset's folder or names unknown fields.",
            found=value,
            expected=f"a relative path of {', '.join(sorted(_PATH_FIELDS))}",
        )
    return value


def _features(path: Path, raw: Any) -> dict[str, StoredFeature]:
    if not isinstance(raw, Mapping) or not raw:
        raise DataError(f"{path}: features is missing or empty.", found=type(raw).__name__, expected="an object")
    return {key: _feature(path, key, value) for key, value in raw.items()}


def _feature(path: Path, key: str, raw: Any) -> StoredFeature:
    where = f"{path}: features.{key}"
    if not isinstance(raw, Mapping) or "/" in key or key in ("", ".", ".."):
        raise DataError(f"{where} is not a feature.", found=str(raw)[:80], expected="{dtype, shape, names}")
    dtype, shape = raw.get("dtype"), raw.get("shape")
    if dtype not in _DTYPES:
        raise DataError(f"{where}.dtype is unknown.", found=dtype, expected=", ".join(_DTYPES))
    good = isinstance(shape, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    if not good or len(shape) > 5 or math.prod(shape) > _MAX_ELEMENTS:
        raise DataError(f"{where}.shape is not usable.", found=str(shape)[:80], expected="up to 5 sizes ≥ 0")
    names = _names(raw.get("names"))
    info = raw.get("info") or raw.get("video_info")
    if dtype in ("image", "video"):
        if len(shape) != 3:
            raise DataError(f"{where}.shape is not an image's.", found=shape, expected="[height, width, channels]")
        if names[:1] in (("channels",), ("channel",)):
            shape, names = [shape[1], shape[2], shape[0]], ("height", "width", "channels")
    return StoredFeature(dtype, tuple(shape), names, info if isinstance(info, Mapping) else None)


def _names(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, Mapping):
        values = [name for value in raw.values() for name in (value if isinstance(value, list) else [value])]
        return tuple(map(str, values))
    return tuple(map(str, raw)) if isinstance(raw, list) else ()


def _spec(path: Path, raw: Mapping[str, Any], features: Mapping[str, StoredFeature], fps: float, robot: str) -> Spec:
    own = raw.get("robolearn")
    if isinstance(own, Mapping) and "spec" in own:
        try:
            return Spec.from_dict(own["spec"])
        except RobolearnError as error:
            raise DataError(f"{path}: robolearn.spec is not readable.", found=str(error)) from error
    action = features.get("action")
    if action is None or len(action.shape) != 1 or action.visual:
        raise DataError(f"{path}: features.action is missing or no vector.", found=action, expected="shape [A]")
    observations = {
        key: _observation(feature)
        for key, feature in features.items()
        if key.startswith("observation") and feature.dtype not in ("string", "language")
    }
    names = action.names if len(action.names) == action.shape[0] else ()
    return Spec(
        observations | {"task": Feature(kind="text", dtype="str")},
        ActionSpec(action.shape[0], names=names),
        rate_hz=fps,
        robot=robot,
    )


def _observation(feature: StoredFeature) -> Feature:
    if feature.visual:
        if feature.depth:
            return Feature("depth", feature.shape[:2], "float32", unit="m")
        return Feature("image", feature.shape, "uint8")
    names = feature.names if feature.shape and len(feature.names) == feature.shape[0] else ()
    return Feature("signal", feature.shape, feature.dtype, names=names)
