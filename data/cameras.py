"""One camera of a recording: frames go through a bounded queue to an encoding process.

The thread that records never waits for the encoder with `when_full="drop"`: a frame that finds the
queue full is replaced by a repetition of the one before, so rows and pictures stay aligned, and counted.
"""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.data.video import VideoOptions, quantize_depth
from robolearn.errors import DataError

__all__ = ["Camera", "EncodedVideo"]


@dataclass(frozen=True)
class EncodedVideo:
    """A finished mp4 under its temporary name, with the pixel counts [3,256] of the sampled frames."""

    path: Path
    frames: int
    histogram: list[list[int]]
    sampled: int
    dropped: int


class Camera:
    """Encodes one camera's episodes, one after the other, into files in `folder`."""

    def __init__(
        self,
        folder: Path,
        key: str,
        shape: tuple[int, ...],
        fps: float,
        options: VideoOptions,
        when_full: Literal["wait", "drop"] = "wait",
        capacity: int = 64,
    ):
        self.folder, self.key, self.shape, self.fps, self.options = folder, key, shape, fps, options
        self._depth = len(shape) == 2
        self._when_full = when_full
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(capacity)
        self._process: subprocess.Popen | None = None
        self._thread: threading.Thread | None = None
        self._episodes = self._frames = self._missed = self._dropped = 0

    def add(self, frame: np.ndarray) -> None:
        """Append one frame [H,W,3] uint8, or depth [H,W] float32 m; it must not change afterwards."""
        if self._frames == 0:
            self._begin()
        item = ("frame", (self._missed, frame))
        if self._when_full == "wait" or self._frames == 0:
            self._queue.put(item)
        else:
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                self._missed += 1
                self._dropped += 1
                self._frames += 1
                return
        self._missed = 0
        self._frames += 1

    def end(self) -> Callable[[], EncodedVideo]:
        """End the episode; the returned function waits for its file."""
        path, frames, dropped = self._path, self._frames, self._dropped
        answer: Future[dict] = Future()
        self._queue.put(("end", (b"R" * self._missed + b"E", answer)))
        self._frames = self._missed = self._dropped = 0

        def result() -> EncodedVideo:
            given = answer.result()
            if given.get("frames") != frames:
                reason = given.get("error", f"{given.get('frames')} of {frames} frames")
                raise DataError(f"The video of '{self.key}' could not be encoded.", found=reason, do="free disk space")
            return EncodedVideo(path, frames, given["histogram"], given["sampled"], dropped)

        return result

    def discard(self) -> None:
        """Forget the frames added since the last end."""
        if self._frames:
            self._queue.put(("end", (b"D", Future())))
        self._frames = self._missed = self._dropped = 0

    def close(self) -> None:
        """End the process and its feeding thread."""
        self.discard()
        if self._thread is not None:
            self._queue.put(("close", None))
            self._thread.join()
            self._thread = None

    @property
    def _path(self) -> Path:
        return self.folder / f".{self.key}.{self._episodes}.tmp"

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._feed, name=f"encode {self.key}", daemon=True)
            self._thread.start()
        self._episodes += 1
        header = {"path": str(self._path), "height": self.shape[0], "width": self.shape[1], "fps": self.fps}
        self._queue.put(("begin", header | {"options": asdict(self.options), "depth": self._depth}))

    def _feed(self) -> None:
        process: Any = subprocess.Popen(
            [sys.executable, "-m", "robolearn.data.encoder"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        gone = False
        while (item := self._queue.get())[0] != "close":
            kind, value = item
            try:
                if gone:
                    raise BrokenPipeError("the encoding process ended")
                self._send(process, kind, value)
            except OSError as error:
                gone = True
                if kind == "end":
                    value[1].set_result({"error": str(error)})
        try:
            process.stdin.close()
        except OSError:
            gone = True
        process.wait()
        process.stdout.close()

    def _send(self, process: Any, kind: str, value: Any) -> None:
        if kind == "begin":
            process.stdin.write(json.dumps(value).encode() + b"\n")
        elif kind == "frame":
            missed, frame = value
            process.stdin.write(b"R" * missed + b"F")
            process.stdin.write(np.ascontiguousarray(quantize_depth(frame) if self._depth else frame).data)
        else:
            tags, answer = value
            process.stdin.write(tags)
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise BrokenPipeError("the encoding process ended")
            answer.set_result(json.loads(line))
