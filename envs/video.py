"""Videos of rollouts as mp4 (H.264, plays in browsers)."""

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np

from robolearn.errors import EnvError

__all__ = ["write_video"]


def write_video(path: str | Path, frames: Iterable[np.ndarray], rate_hz: float) -> Path:
    """Write `frames` (H, W, 3) uint8 RGB at `rate_hz`; the file appears when it is complete.

    Odd heights and widths lose their last row or column: H.264's colour planes need even ones.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    stream = None
    with av.open(str(unfinished), "w", format="mp4", options={"movflags": "faststart"}) as container:
        for frame in frames:
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                raise EnvError("A video frame is (H, W, 3) uint8.", found=f"{frame.shape} {frame.dtype}")
            even = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
            if stream is None:
                stream = container.add_stream(
                    "libx264", rate=round(rate_hz), options={"crf": "20", "preset": "veryfast"}
                )
                stream.height, stream.width, stream.pix_fmt = even.shape[0], even.shape[1], "yuv420p"
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            container.mux(stream.encode(picture))
        if stream is None:
            raise EnvError("A video needs frames.", found="none")
        container.mux(stream.encode(None))
    return unfinished.replace(path)
