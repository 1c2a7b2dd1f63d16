"""A training frame beside a live or simulated one: is the picture flipped, of another colour order, another scale?

Each way of mistaking one picture for the other is tried; how well it fits is the correlation of the pixels,
colours included. The one that fits best is named.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.api import make_env
from robolearn.config import parse
from robolearn.contracts import EpisodeSource
from robolearn.data.arrow import png
from robolearn.data.detect import OpenOptions
from robolearn.data.frames import metadata_of
from robolearn.data.tables import decode_image, image_size
from robolearn.errors import ConfigError, DataError, suggest
from robolearn.files import write_file

__all__ = ["CompareOptions", "compare", "fits"]

_SIZE = 64
_MARGIN = 0.05  # by how much a mistake must fit better before it is called one
_FLIPS = {"": (1, 1), "upside down": (-1, 1), "mirrored": (1, -1), "turned by 180°": (-1, -1)}
_ZOOMS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class CompareOptions(OpenOptions):
    """Which training frame, and what it is compared with: `image=FILE` of a live camera, or `env=NAME`."""

    out: str = ""  # a PNG: training frame, live frame, live frame made to fit
    camera: str = ""
    episode: int = 0
    frame: int = 0
    image: str = ""
    env: str = ""
    env_options: Mapping[str, Any] = field(default_factory=dict)


def compare(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Put a training frame beside a live or simulated one and score flips, colour order and scale."""
    given = parse(CompareOptions, arguments, where="data compare")
    source = given.open()
    cameras = [key for key, feature in source.spec.observations.items() if feature.kind == "image"]
    if not cameras:
        raise DataError(f"{given.path} holds no pictures to compare.", found=", ".join(source.spec.observations))
    camera = given.camera or cameras[0]
    if camera not in cameras:
        raise DataError(f"There is no camera '{camera}'.", expected=suggest(camera, cameras))
    trained = source.read(given.episode, [camera], given.frame, given.frame + 1)[camera][0]
    live = _live(given, source, camera)
    scores = {name: score for name, score, _ in fits(trained, live)}
    best = max(scores, key=lambda name: scores[name])
    good = scores[best] - scores["as it is"] <= _MARGIN
    name = "as it is" if good else best
    if given.out:
        fitted = next(picture for found, _, picture in fits(trained, live) if found == name)
        row = [_resized(picture, trained.shape[:2]) for picture in (trained, live, fitted)]
        write_file(Path(given.out), png(np.concatenate(row, 1)))
    return {
        "path": given.path,
        "camera": camera,
        "good": bool(good),
        "live_is": name,
        "similarity": scores["as it is"],
        "best_similarity": scores[best],
        "brightness": float((live.mean() + 1) / (trained.mean() + 1)),
        "sizes": [list(trained.shape[:2]), list(live.shape[:2])],
        "picture": given.out or None,
    }


def fits(trained: np.ndarray, live: np.ndarray) -> Iterator[tuple[str, float, np.ndarray]]:
    """Yield every way to read `live`, how well it then fits `trained` (correlation, −1 to 1), and the picture."""
    small = _resized(trained, (_SIZE, _SIZE))
    for flip, (rows, columns) in _FLIPS.items():
        for order in ("", "blue and red swapped"):
            for zoom in _ZOOMS:
                for closer in (True, False) if zoom < 1 else (True,):
                    picture = live[::rows, ::columns, :: -1 if order else 1]
                    scale = "" if zoom == 1 else f"{'too wide' if closer else 'too narrow'} by {1 / zoom:.2f}"
                    name = ", ".join(part for part in (flip, order, scale) if part) or "as it is"
                    one, two = (small, _centre(picture, zoom)) if closer else (_centre(trained, zoom), picture)
                    score = _correlation(_resized(one, (_SIZE, _SIZE)), _resized(two, (_SIZE, _SIZE)))
                    yield name, score, _centre(picture, zoom) if closer else picture


def _centre(picture: np.ndarray, share: float) -> np.ndarray:
    height, width = (max(round(size * share), 1) for size in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def _resized(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    import cv2

    return cv2.resize(np.ascontiguousarray(picture), (size[1], size[0]), interpolation=cv2.INTER_AREA)


def _correlation(one: np.ndarray, two: np.ndarray) -> float:
    a, b = (picture.astype(np.float64) - picture.mean() for picture in (one, two))
    return float((a * b).sum() / max(np.sqrt((a**2).sum() * (b**2).sum()), 1e-9))


def _live(given: CompareOptions, source: EpisodeSource, camera: str) -> np.ndarray:
    if given.image:
        path = Path(given.image)
        if not path.is_file():
            raise DataError(f"{path} does not exist.", do="save one frame of the camera as PNG or JPEG")
        content = path.read_bytes()
        return decode_image(content, (*image_size(content, str(path)), 3), str(path))
    if not given.env:
        raise ConfigError("Nothing to compare with.", expected="image=FILE or env=NAME")
    env = make_env(given.env, 1, given.env_options)
    try:
        obs, _ = env.reset(seed=[metadata_of(source, given.episode).get("seed", 0)])
        return obs[camera][0] if camera in obs else env.render(0)
    finally:
        env.close()
