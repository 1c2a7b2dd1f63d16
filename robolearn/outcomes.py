"""Finished episodes of an evaluation on disk, so that one that was killed goes on where it was."""

import copy
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from robolearn.config import parse
from robolearn.errors import ConfigError, DataError
from robolearn.rollout import Outcome

__all__ = ["OutcomeLog"]


class OutcomeLog:
    """A line of JSON for each finished episode, after a first line with the `identity` of the evaluation.

    An episode is a function of (seed, episode), so those that are there need not be run again. A last line
    that was cut off does not count. There is no file before the first episode: an evaluation that cannot begin
    leaves nothing. Raises `ConfigError` when the file belongs to another evaluation.
    """

    def __init__(self, path: Path, identity: str):
        self._path, self._identity, self._task = path, identity, ""
        self._done: dict[str, dict[int, Outcome]] = {}  # task → episode →
        self._wall_s: dict[str, float] = {}
        if path.is_file():
            self._read()

    def of(self, task: str) -> "OutcomeLog":
        """Return the part of one task, where several environments are evaluated together."""
        part = copy.copy(self)
        part._task = task
        return part

    @property
    def done(self) -> dict[int, Outcome]:
        """The outcomes so far, by episode."""
        return dict(self._done.get(self._task, {}))

    @property
    def wall_s(self) -> float:
        """How long the episodes so far took."""
        return self._wall_s.get(self._task, 0.0)

    @property
    def successes(self) -> list[bool]:
        """Which of the episodes so far succeeded, over all tasks."""
        return [outcome.success for done in self._done.values() for outcome in done.values()]

    def add(self, finished: Sequence[Outcome], wall_s: float) -> None:
        """Append outcomes; `wall_s` is how long all episodes took up to now."""
        if finished:
            self._append([{"task": self._task, "wall_s": wall_s, "outcome": asdict(one)} for one in finished])
        for outcome in finished:
            self._keep(self._task, outcome, wall_s)

    def remove(self) -> None:
        """Remove the file: the result holds what it held."""
        self._path.unlink(missing_ok=True)

    def _keep(self, task: str, outcome: Outcome, wall_s: float) -> None:
        self._done.setdefault(task, {})[outcome.episode] = outcome
        self._wall_s[task] = wall_s

    def _append(self, lines: Sequence[dict]) -> None:
        with self._path.open("a") as file:
            head = [] if file.tell() else [{"identity": self._identity}]
            file.write("".join(json.dumps(line) + "\n" for line in [*head, *lines]))

    def _read(self) -> None:
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        os.truncate(self._path, len(whole))
        if not whole:
            return
        try:
            first, *lines = [json.loads(line) for line in whole.splitlines()]
            found = first["identity"]
            for line in lines:
                self._keep(line["task"], parse(Outcome, line["outcome"], where="outcome"), line["wall_s"])
        except (ValueError, KeyError, TypeError, ConfigError) as error:
            do = "remove it and evaluate again"
            raise DataError(f"{self._path} holds something else than outcomes.", found=str(error), do=do) from error
        if found != self._identity:
            raise ConfigError(
                f"{self._path.parent} holds an unfinished evaluation of something else.",
                found=found,
                expected=f"{self._identity}: the same config, checkpoint and libraries",
                do="pick another out=DIR, or remove it",
            )
