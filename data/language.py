"""What LeRobot's annotations say of each moment: the rows of `language_persistent`, by their style.

Every frame of an episode repeats the episode's rows {role, content, style, timestamp, …}; a row holds from its time
stamp until the next of its style.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robolearn.errors import DataError

__all__ = ["COLUMN", "STYLES", "active"]

COLUMN = "language_persistent"
STYLES = ("subtask", "plan", "memory", "motion")


def active(rows: Any, style: str, time_s: np.ndarray, where: str) -> np.ndarray:
    """Return the text of `style` that holds at each of `time_s` [frames], "" before the first, as a str array."""
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(
            f"{where} holds no annotations.", found=str(rows)[:80], expected="a list of {content, style, …}"
        )
    said = sorted(_moment(row, where) for row in rows if row.get("style") == style)
    if not said:
        return np.full(len(time_s), "", dtype=str)
    starts, texts = zip(*said, strict=True)
    place = np.searchsorted(np.array(starts), np.asarray(time_s, np.float64), side="right")
    return np.array(["", *texts])[place]


def _moment(row: Mapping[str, Any], where: str) -> tuple[float, str]:
    time_s, text = row.get("timestamp"), row.get("content")
    if not isinstance(time_s, int | float) or not isinstance(text, str | None) or not np.isfinite(time_s):
        raise DataError(f"{where} has a row without time or text.", found=str(row)[:80])
    return float(time_s), text or ""
