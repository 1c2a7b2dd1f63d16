"""Reading everything once and naming what is wrong: file, field, episode, frame."""

from collections.abc import Iterator, Sequence

import numpy as np

from robolearn.contracts import EpisodeSource
from robolearn.data.journal import check_files
from robolearn.data.lerobot_v3 import LeRobotReader
from robolearn.data.progress import bar
from robolearn.data.video import probe
from robolearn.errors import DataError

__all__ = ["verify_episode", "verify_source"]


def verify_source(source: EpisodeSource, limit: int = 50) -> list[str]:
    """Return the first `limit` problems of a dataset; empty when every frame can be trusted."""
    problems: list[str] = []
    for episode in bar(range(len(source.lengths)), "verify episodes", len(source.lengths)):
        problems += verify_episode(source, episode)
        if len(problems) >= limit:
            break
    if isinstance(source, LeRobotReader):
        problems += list(_videos(source))
        for entry in source.pending:
            try:
                check_files(source.root, entry)
            except DataError as error:
                problems.append(str(error))
    return problems[:limit]


def verify_episode(source: EpisodeSource, episode: int) -> list[str]:
    """Return the problems of one episode."""
    spec, length = source.spec, int(source.lengths[episode])
    known: Sequence[str] = getattr(source, "keys", ())
    keys = [*(key for key, feature in spec.observations.items() if feature.kind != "text"), "action"]
    extras = [key for key in ("task", "timestamp", "frame_index", "episode_index", "index") if key in known]
    try:
        columns = source.read(episode, [*keys, *extras])
    except DataError as error:
        return [f"episode {episode}: {error}"]
    problems = []
    for key, values in columns.items():
        if len(values) != length:
            problems.append(f"episode {episode}, {key}: {len(values)} frames instead of {length}")
        elif values.dtype.kind == "f" and not np.isfinite(values).all():
            frame = int((~np.isfinite(values.reshape(length, -1)).all(1)).argmax())
            problems.append(f"episode {episode}, frame {frame}: {key} is not finite")
    problems += [f"episode {episode}: {text}" for text in _order(columns, episode)]
    return problems


def _order(columns: dict[str, np.ndarray], episode: int) -> Iterator[str]:
    stamps = columns.get("timestamp")
    if stamps is not None and (np.diff(stamps) <= 0).any():
        yield f"timestamp goes backwards at frame {int((np.diff(stamps) <= 0).argmax()) + 1}"
    frames = columns.get("frame_index")
    if frames is not None and not np.array_equal(frames, np.arange(len(frames))):
        yield "frame_index does not count from 0"
    index = columns.get("index")
    if index is not None and (np.diff(index) != 1).any():
        yield f"index is not consecutive at frame {int((np.diff(index) != 1).argmax()) + 1}"


def _videos(reader: LeRobotReader) -> Iterator[str]:
    """Compare the frames in each mp4 with the rows that point into it."""
    expected: dict[tuple[str, str], int] = {}
    for key, feature in reader.info.features.items():
        if feature.dtype == "video":
            for episode, length in enumerate(reader.lengths.tolist()):
                try:
                    path, _ = reader.video_file(episode, key)
                except DataError as error:
                    yield str(error)
                    return
                expected[key, str(path)] = expected.get((key, str(path)), 0) + length
    for (key, path), frames in expected.items():
        try:
            found = probe(reader.root / path)["frames"]
        except DataError as error:
            yield str(error)
            continue
        if found != frames:
            yield f"{path}: {key} has {found} frames, its episodes have {frames}"
