"""Recording beside a control loop: `add_frame` never waits, episodes become durable in a thread."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from robolearn.data.lerobot_writer import LeRobotWriter, WriterOptions
from robolearn.spec import Spec

__all__ = ["Recorder"]


class Recorder:
    """An `EpisodeSink` for control loops, teleoperation, interventions and RL.

    `commit` returns a future that holds the episode's number once it is durable; `save_episode`
    waits for it. Pictures that the encoder cannot take in time are repeated and counted in the
    episode's metadata (`repeated_frames`), as is the rate that was measured.
    """

    def __init__(self, root: Path, spec: Spec, options: WriterOptions | None = None):
        self.spec = spec
        self.writer = LeRobotWriter(root, spec, options or WriterOptions(when_full="drop"))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")

    @classmethod
    def resume(cls, root: Path, spec: Spec, options: WriterOptions | None = None) -> "Recorder":
        """Continue the dataset at `root`; what an interrupted session acknowledged is folded in first."""
        return cls(root, spec, replace(options or WriterOptions(when_full="drop"), append=True))

    def add_frame(self, frame: Mapping[str, Any]) -> None:
        """Append one time step; refuses what is not finite or does not fit the spec."""
        self.writer.add_frame(frame)

    def commit(self, metadata: Mapping[str, Any] | None = None) -> "Future[int]":
        """Hand the episode to the committing thread and begin the next one at once."""
        return self._thread.submit(self.writer.commit, self.writer.take(), metadata)

    def save_episode(self, metadata: Mapping[str, Any] | None = None) -> int:
        """Commit and wait until the episode is durable."""
        return self.commit(metadata).result()

    def discard_episode(self) -> None:
        """Forget the frames added since the last commit."""
        self.writer.discard_episode()

    def close(self) -> None:
        """Wait for pending commits and fold the journal into the dataset."""
        self._thread.shutdown(wait=True)
        self.writer.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
