"""What every verb shares: its output folder, the times of its stages, its `result.json`."""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robolearn.config import config_hash
from robolearn.errors import ConfigError
from robolearn.evaluation import write_json
from robolearn.provenance import provenance

__all__ = ["Job", "out_folder"]


def out_folder(verb: str, out: str | None, resumes: bool = False) -> Path:
    """Return the folder of this run: `out`, else `outputs/<verb>/<time>`; nothing is overwritten.

    Raises `ConfigError` when it holds something already, unless the run resumes.
    """
    folder = Path(out).expanduser() if out else Path("outputs") / verb / time.strftime("%Y%m%d-%H%M%S")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out={folder} is a file.", expected="a folder", do="name another")
    if folder.is_dir() and any(folder.iterdir()) and not resumes:
        raise ConfigError(
            f"out={folder} holds something already.",
            found=", ".join(sorted(entry.name for entry in folder.iterdir())[:5]),
            expected="an empty or new folder: nothing is overwritten",
            do="pick another out=DIR or remove it",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out={folder} cannot be made.", found=error.strerror, do="pick another") from error
    return folder


class Job:
    """One run of a verb: stages are timed, and `finish` leaves `result.json` in `out`."""

    def __init__(self, verb: str, out: Path, config: Mapping[str, Any]):
        self.verb, self.out, self.config = verb, out, dict(config)
        self.wall_s: dict[str, float] = {}
        self._start_s = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Add the wall time of the block to `wall_s[name]`."""
        start_s = time.perf_counter()
        yield
        self.wall_s[name] = round(self.wall_s.get(name, 0.0) + time.perf_counter() - start_s, 3)

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write and return `result.json`: the result, times by stage, config and provenance."""
        total_s = round(time.perf_counter() - self._start_s, 3)
        content = {
            **result,
            "verb": self.verb,
            "wall_s": {**self.wall_s, "total": total_s},
            "config_hash": config_hash(self.config),
            **provenance(),
            "config": self.config,
        }
        write_json(self.out / "result.json", content)
        return content
