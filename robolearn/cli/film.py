"""Videos of evaluation episodes: the episode is run again alone, which gives the same outcome."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from robolearn.contracts import Controller, VectorEnv
from robolearn.data.video import VideoOptions, encode
from robolearn.rollout import Outcome, steps

__all__ = ["choose", "film"]

_CODEC = VideoOptions(codec="h264", crf=23, gop=20)  # what every browser plays


def choose(outcomes: Sequence[Outcome], count: int) -> list[Outcome]:
    """Pick the episodes worth watching: a success first, then failures, then more successes."""
    good = [outcome for outcome in outcomes if outcome.success]
    bad = [outcome for outcome in outcomes if not outcome.success]
    return [*good[:1], *bad, *good[1:]][:count]


def film(
    env: VectorEnv, controller: Callable[[VectorEnv], Controller], outcomes: Sequence[Outcome], seed: int, folder: Path
) -> list[Path]:
    """Run the episodes of `outcomes` again in the one-row `env` and write one mp4 each into `folder`."""
    videos = []
    for outcome in outcomes:
        words = "success" if outcome.success else "failure"
        path = folder / f"{words}_{outcome.episode:04d}.mp4"
        frames = [_even(env.render(0)) for _ in steps(env, controller(env), [outcome.episode], seed)]
        if not frames:
            continue
        height, width = frames[0].shape[:2]
        encode(path, frames, env.spec.rate_hz, (height, width), _CODEC)
        videos.append(path)
    return videos


def _even(picture: np.ndarray) -> np.ndarray:
    """Crop to even sizes, as 4:2:0 colour needs."""
    height, width = picture.shape[:2]
    return picture[: height - height % 2, : width - width % 2]
