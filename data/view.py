"""One page that shows a dataset without a network or a server: pictures and signals in step, by keyboard.

Or a recording for the viewer rerun, where its library is installed.
"""

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.config import parse
from robolearn.contracts import EpisodeSource
from robolearn.data.arrow import png
from robolearn.data.detect import OpenOptions
from robolearn.data.progress import bar
from robolearn.data.video import VideoOptions, encode
from robolearn.errors import ConfigError, DataError, MissingLibraryError
from robolearn.files import write_file, written_aside

__all__ = ["ViewOptions", "view"]

_PAGE = Path(__file__).with_name("view.html")
_EMPTY = '<script type="application/json" id="data">{}</script>'
_MAX_COLUMNS = 32  # of one signal; the rest would not be told apart


@dataclass(frozen=True)
class ViewOptions(OpenOptions):
    """The file to write and the episodes in it (the first four without).

    PAGE.html is complete in itself, with pictures as H.264; FILE.rrd is for rerun.
    """

    out: str = ""
    episodes: tuple[int, ...] | None = None


def view(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Write one HTML page with videos and signals in step, which opens without a network; or an .rrd for rerun."""
    given = parse(ViewOptions, arguments, where="data view")
    if not given.out:
        raise ConfigError("Where to is missing.", expected="out=PAGE.html or out=FILE.rrd")
    source = given.open()
    total = len(source.lengths)
    chosen = list(range(min(total, 4))) if given.episodes is None else list(given.episodes)
    unknown = [episode for episode in chosen if not 0 <= episode < total]
    if unknown or not chosen:
        raise DataError("These episodes are not there.", found=unknown, expected=f"0 … {total - 1}")
    if Path(given.out).suffix == ".rrd":
        with written_aside(Path(given.out)) as temporary:
            _write_rerun(source, chosen, temporary, Path(given.path).name)
    else:
        write_file(Path(given.out), _page(source, chosen, Path(given.path).name).encode())
    size_mb = Path(given.out).stat().st_size / 2**20
    return {"path": given.path, "page": given.out, "episodes": chosen, "megabytes": round(size_mb, 2)}


def _page(source: EpisodeSource, chosen: Sequence[int], name: str) -> str:
    content = {
        "name": name,
        "rate_hz": source.spec.rate_hz,
        "total": len(source.lengths),
        "episodes": [_episode(source, episode) for episode in bar(chosen, "read episodes", len(chosen))],
    }
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c")  # nothing in a dataset can end the script
    return _PAGE.read_text().replace(_EMPTY, _EMPTY.replace("{}", text))


def _episode(source: EpisodeSource, episode: int) -> dict[str, Any]:
    observed = source.spec.observations
    signals = [key for key, feature in observed.items() if feature.kind == "signal"]
    cameras = [key for key, feature in observed.items() if feature.kind == "image"]
    texts = ["task"] if "task" in observed or "task" in getattr(source, "keys", ()) else []
    columns = source.read(episode, [*signals, "action", *cameras, *texts])
    task = str(columns["task"][0]) if texts else ""
    return {
        "number": episode,
        "frames": int(source.lengths[episode]),
        "task": task,
        "signals": {key: _signal(source, key, columns[key]) for key in [*signals, "action"]},
        "videos": {key: _video(columns[key], source.spec.rate_hz) for key in cameras},
    }


def _signal(source: EpisodeSource, key: str, values: np.ndarray) -> dict[str, Any]:
    names = source.spec.action.names if key == "action" else source.spec.observations[key].names
    flat = values.reshape(len(values), -1).T[:_MAX_COLUMNS].astype(np.float64)
    if not np.isfinite(flat).all():
        raise DataError(f"'{key}' is not finite.", do="run `robolearn data verify`")
    shown = names if len(names) == len(flat) else [str(column) for column in range(len(flat))]
    return {"names": list(shown), "columns": [[float(f"{value:.6g}") for value in row] for row in flat]}


def _video(frames: np.ndarray, rate_hz: float) -> str:
    """Return frames as an H.264 data address; odd sizes lose their last row or column."""
    even = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.mp4"
        options = VideoOptions("h264", crf=23, gop=10)
        encode(path, np.ascontiguousarray(even), rate_hz, (even.shape[1], even.shape[2]), options)
        return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def _write_rerun(source: EpisodeSource, chosen: Sequence[int], path: Path, name: str) -> None:
    """Write episodes as entities `episode_N/…` over the timelines "frame" and "time"."""
    try:
        import rerun  # ty: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            "An .rrd needs the library 'rerun'.", do="pip install rerun-sdk, or write out=PAGE.html"
        ) from error
    observed = source.spec.observations
    shown = [key for key, feature in observed.items() if feature.kind in ("signal", "image", "depth")]
    recording = rerun.RecordingStream(name or "robolearn")
    recording.save(path)
    for episode in bar(chosen, "read episodes", len(chosen)):
        columns = source.read(episode, [*shown, "action"])
        frames = np.arange(int(source.lengths[episode]))
        times = (
            rerun.TimeColumn("frame", sequence=frames),
            rerun.TimeColumn("time", duration=frames / source.spec.rate_hz),
        )
        for key, values in columns.items():
            kind = observed[key].kind if key in observed else "signal"
            entity = f"episode_{episode}/{key}"
            if kind == "signal":
                flat = values.reshape(len(values), -1).astype(np.float64)
                scalars = rerun.Scalars.columns(scalars=flat.ravel()).partition([flat.shape[1]] * len(flat))
                recording.send_columns(entity, times, scalars)
                continue
            for frame in frames:
                recording.set_time("frame", sequence=frame)
                recording.set_time("time", duration=frame / source.spec.rate_hz)
                if kind == "depth":
                    picture = rerun.DepthImage(values[frame], meter=1.0)
                else:
                    picture = rerun.EncodedImage(contents=png(values[frame]), media_type="image/png")
                recording.log(entity, picture)
    recording.flush()
    recording.disconnect()
