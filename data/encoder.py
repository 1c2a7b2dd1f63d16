"""The video encoding process: raw frames in on stdin, one mp4 per episode out, results on stdout.

It imports PyAV and numpy only. Started as `python -m robolearn.data.encoder`; it ends with its parent,
because its input ends then. The protocol: a JSON line opens an episode, then one byte per frame says
`F` (a frame follows), `R` (repeat the last frame) or `E` (end) or `D` (discard); every end is answered by a JSON line.
"""

import json
import os
import signal
import sys
from io import BufferedReader
from pathlib import Path

import av
import numpy as np

from robolearn.data.stats import image_histogram
from robolearn.data.video import Encoder, VideoOptions

__all__ = ["STATS_STRIDE", "main"]

STATS_STRIDE = 8  # every eighth frame enters the image statistics


def main() -> None:
    """Serve episodes until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process in order
    source, target = os.fdopen(0, "rb"), sys.stdout.buffer
    while line := source.readline():
        try:
            answer = _episode(json.loads(line), source)
        except (OSError, ValueError, av.FFmpegError) as error:
            answer = {"error": str(error)}
            _skip(source, json.loads(line))
        target.write(json.dumps(answer).encode() + b"\n")
        target.flush()


def _episode(header: dict, source: BufferedReader) -> dict:
    path, shape = Path(header["path"]), (header["height"], header["width"])
    depth = bool(header.get("depth"))
    encoder = Encoder(path, header["fps"], shape, VideoOptions(**header["options"]), depth)
    frame = np.zeros(shape, np.uint16) if depth else np.zeros((*shape, 3), np.uint8)
    counts, sampled = np.zeros((1, 4096) if depth else (3, 256), np.int64), 0
    try:
        while (tag := source.read(1)) in (b"F", b"R"):
            if tag == b"F":
                _fill(source, frame)
            if encoder.frames % STATS_STRIDE == 0:
                counts, sampled = counts + image_histogram([frame]), sampled + 1
            encoder.write(frame)
    finally:
        encoder.close()
    if tag != b"E":  # discarded, or the parent is gone
        path.unlink(missing_ok=True)
        return {"frames": 0}
    return {"frames": encoder.frames, "histogram": counts.tolist(), "sampled": sampled}


def _fill(source: BufferedReader, frame: np.ndarray) -> None:
    view = memoryview(frame).cast("B")
    done = 0
    while done < len(view):
        count = source.readinto(view[done:])
        if not count:
            sys.exit(0)
        done += count


def _skip(source: BufferedReader, header: dict) -> None:
    Path(header["path"]).unlink(missing_ok=True)
    size = header["height"] * header["width"] * (2 if header.get("depth") else 3)
    while (tag := source.read(1)) in (b"F", b"R"):
        if tag == b"F":
            source.read(size)


if __name__ == "__main__":
    main()
