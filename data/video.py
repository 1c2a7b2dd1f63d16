"""mp4 files through PyAV: encode, decode a span of frames, join without re-encoding."""

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.errors import DataError

__all__ = [
    "DEPTH",
    "DEPTH_INFO",
    "DEPTH_PIXELS",
    "Encoder",
    "VideoOptions",
    "decode_span",
    "depth_levels",
    "join",
    "probe",
    "quantize_depth",
]

# Depth as LeRobot stores it: 12 bit, finer near than far, in metres; what lies outside is clipped.
_NEAR_M, _FAR_M, _SHIFT_M, _QUANTA = 0.01, 10.0, 3.5, 4095
DEPTH_PIXELS = "gray12le"
DEPTH_INFO = {
    "is_depth_map": True,
    "depth_unit": "m",
    "video.depth_min": _NEAR_M,
    "video.depth_max": _FAR_M,
    "video.shift": _SHIFT_M,
    "video.use_log": True,
}

_ENCODERS = {"av1": "libsvtav1", "h264": "libx264", "hevc": "libx265"}
_MAX_PIXELS = 8192 * 8192


@dataclass(frozen=True)
class VideoOptions:
    """How pictures become mp4. The defaults are LeRobot's; a small `gop` makes random access cheap."""

    codec: Literal["av1", "h264", "hevc"] = "av1"
    crf: int = 30
    gop: int = 2
    preset: str = ""


DEPTH = VideoOptions("hevc", gop=2)


def quantize_depth(depth_m: np.ndarray) -> np.ndarray:
    """Return float depth [m] as 12-bit levels, uint16."""
    low, high = np.log(_NEAR_M + _SHIFT_M), np.log(_FAR_M + _SHIFT_M)
    share = (np.log(np.maximum(depth_m, 0) + _SHIFT_M) - low) / (high - low)
    return np.rint(share * _QUANTA).clip(0, _QUANTA).astype(np.uint16)


def depth_levels() -> np.ndarray:
    """Return the depth [m] of each of the 4096 levels, float32."""
    low, high = np.log(_NEAR_M + _SHIFT_M), np.log(_FAR_M + _SHIFT_M)
    levels = np.exp(low + np.arange(_QUANTA + 1) * ((high - low) / _QUANTA)) - _SHIFT_M
    return levels.clip(_NEAR_M, _FAR_M).astype(np.float32)


class Encoder:
    """Writes uint8 RGB frames (H, W, 3) of one rate into an mp4; odd sizes are refused by yuv420p.

    With `depth` the frames are 12-bit levels (H, W) uint16, kept without loss.
    """

    def __init__(self, path: Path, fps: float, shape: tuple[int, int], options: VideoOptions, depth: bool = False):
        import av

        _quiet()
        if options.codec == "av1":
            os.environ.setdefault("SVT_LOG", "1")
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        rate = Fraction(fps).limit_denominator(100000)
        settings = {"crf": str(options.crf), "g": str(options.gop), "preset": options.preset or _preset(options.codec)}
        if options.codec == "hevc":
            settings["x265-params"] = "lossless=1:log-level=none" if depth else "log-level=none"
        self._stream: Any = self._container.add_stream(_ENCODERS[options.codec], rate=rate, options=settings)
        self._stream.height, self._stream.width = shape
        self._stream.pix_fmt = DEPTH_PIXELS if depth else "yuv420p"
        self.frames = 0

    def write(self, frame: np.ndarray) -> None:
        """Append one frame."""
        import av

        picture = _depth_frame(frame) if frame.ndim == 2 else av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts = self.frames
        picture.time_base = 1 / self._stream.codec_context.framerate
        with _same_scheduling():
            self._container.mux(self._stream.encode(picture))
        self.frames += 1

    def close(self) -> None:
        """Flush and finish the file."""
        if self.frames:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def _depth_frame(levels: np.ndarray) -> Any:
    import av

    picture = av.VideoFrame(levels.shape[1], levels.shape[0], DEPTH_PIXELS)
    plane = picture.planes[0]
    rows = np.zeros((levels.shape[0], plane.line_size), np.uint8)
    rows[:, : 2 * levels.shape[1]] = levels.astype("<u2").view(np.uint8)
    plane.update(rows.tobytes())
    return picture


@contextmanager
def _same_scheduling() -> Generator[None]:
    """Keep the thread's priority: SVT-AV1 makes its caller a real-time thread where it is permitted."""
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameter)


def _quiet() -> None:
    """Let FFmpeg log by itself, to nowhere: a callback into Python from its threads can deadlock on the GIL."""
    import av

    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)


def _preset(codec: str) -> str:
    return "12" if codec == "av1" else "veryfast"


def encode(path: Path, frames: Iterable[np.ndarray], fps: float, shape: tuple[int, int], options: VideoOptions) -> int:
    """Write all `frames` to `path` and return how many there were."""
    encoder = Encoder(path, fps, shape, options)
    try:
        for frame in frames:
            encoder.write(frame)
    finally:
        encoder.close()
    return encoder.frames


@contextmanager
def _opened(path: Path) -> Generator[tuple[Any, Any]]:
    import av

    _quiet()
    try:
        # The demuxer is named, so that no playlist or script in an .mp4's clothes can open other files.
        with av.open(str(path), format="mp4") as container:
            if not container.streams.video:
                raise DataError(f"{path} holds no video stream.", do="restore the file")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError(f"{path} has an unknown codec.", do="restore the file")
            if stream.width * stream.height > _MAX_PIXELS:
                raise DataError(f"{path} declares too large a picture.", found=f"{stream.width}×{stream.height}")
            yield container, stream
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.", do="restore the video file") from error
    except (av.FFmpegError, ValueError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a readable mp4.",
            found=str(error)[:200],
            do="restore the file, or run `robolearn data repair`",
        ) from error


def decode_span(
    path: Path, start_s: float, count: int, fps: float, pixel_format: str = "rgb24", wanted: Sequence[int] | None = None
) -> np.ndarray:
    """Return `count` frames that begin at `start_s` [s], uint8 (count, H, W, 3).

    `wanted` picks ascending frame numbers of the span. Raises `DataError` when the file has fewer frames.
    """
    from av.video.reformatter import VideoReformatter

    numbers = range(count) if wanted is None else wanted
    frames: list[np.ndarray] = []
    reformatter = VideoReformatter()  # one for all frames: each frame's own would prepare its tables again
    with _opened(path) as (container, stream):
        stream.codec_context.thread_count = 1  # callers decode several files at once instead
        base = float(stream.time_base)
        if start_s > 0 or (numbers and numbers[0] > 0):
            first_s = start_s + (numbers[0] if numbers else 0) / fps
            container.seek(max(int((first_s - 0.25 / fps) / base), 0), stream=stream, backward=True)
        pending = iter(numbers)
        target = next(pending, None)
        for picture in container.decode(stream):
            if target is None:
                break
            number = round((picture.pts * base - start_s) * fps)
            if number > target:
                break
            if number == target:
                frames.append(reformatter.reformat(picture, format=pixel_format).to_ndarray())
                target = next(pending, None)
    if len(frames) != len(numbers):
        raise DataError(
            f"{path} has fewer frames than the data says.",
            found=f"{len(frames)} frames from {start_s:.3f} s",
            expected=len(numbers),
            do="run `robolearn data verify`, then `repair`",
        )
    return np.stack(frames) if frames else np.zeros((0, 0, 0, 3), np.uint8)


def probe(path: Path) -> dict[str, Any]:
    """Return height, width, codec, pixel format, rate and number of frames (by packets) of an mp4."""
    with _opened(path) as (container, stream):
        facts = {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": {"libdav1d": "av1"}.get(stream.codec_context.name, stream.codec_context.name),
            "video.pix_fmt": stream.pix_fmt,
            "video.fps": float(stream.average_rate or 0),
        }
        frames = sum(packet.size > 0 for packet in container.demux(stream))
    return facts | {"frames": frames}


def join(parts: Sequence[Path], target: Path, fps: float) -> None:
    """Concatenate mp4 files of one codec and size into `target` without re-encoding."""
    import av

    _quiet()
    rate = Fraction(fps).limit_denominator(100000)
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as output:
        stream, frames = None, 0
        for part in parts:
            with _opened(part) as (container, source):
                if stream is None:
                    stream = output.add_stream_from_template(source, opaque=True)
                count = 0
                for packet in container.demux(source):
                    if packet.dts is None or not packet.size:
                        continue
                    offset = int(Fraction(frames) / rate / packet.time_base)
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = stream
                    output.mux(packet)
                    count += 1
                frames += count
