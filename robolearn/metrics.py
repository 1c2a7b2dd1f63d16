"""Metrics of a run: one JSON line each, always; TensorBoard beside it by option."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robolearn.errors import MissingLibraryError

__all__ = ["MetricsLog", "read_metrics"]


class MetricsLog:
    """Appends to `metrics.jsonl`; lines after step `upto` are dropped first, so a resumed run has each once."""

    def __init__(self, run: Path, upto: int = 0, tensorboard: bool = False):
        self._path = run / "metrics.jsonl"
        kept = [line for line in read_metrics(run) if line["step"] <= upto]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = self._path.open("a")
        self._board = _tensorboard(run) if tensorboard else None

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line; numbers also go to TensorBoard."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's `metrics.jsonl`; a line that a crash cut short is left out."""
    path = run / "metrics.jsonl"
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            "train.tensorboard needs the library 'tensorboard'.",
            found="it is not installed",
            do="pip install 'robolearn[scale]', or leave it off: metrics.jsonl is always written",
        ) from error
    return SummaryWriter(str(run / "tensorboard"))
