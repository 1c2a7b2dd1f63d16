"""Past actions as an observation: what was asked for in the step before, which whoever executes can add.

The last entry says whether there was a step before: 0 in the first step of an episode, whose other entries are 0.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robolearn.contracts import EpisodeSource
from robolearn.spec import Feature, Spec

__all__ = ["PAST_ACTION", "PastActions", "with_past"]

PAST_ACTION = "observation.past_action"


def with_past(spec: Spec) -> Spec:
    """Return `spec` with the observation of the action before each step, of shape (A+1,)."""
    names = (*spec.action.names, "given") if spec.action.names else ()
    feature = Feature("signal", (spec.action.dim + 1,), names=names)
    return replace(spec, observations={**spec.observations, PAST_ACTION: feature})


class PastActions:
    """An `EpisodeSource` that also gives `PAST_ACTION`."""

    def __init__(self, source: EpisodeSource):
        self._source, self.spec = source, with_past(source.spec)

    @property
    def lengths(self) -> np.ndarray:
        return self._source.lengths

    def read(self, episode: int, keys: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        frames = self._source.read(episode, [key for key in keys if key != PAST_ACTION], start, stop)
        if PAST_ACTION in keys:
            first = max(start - 1, 0)
            action = np.asarray(self._source.read(episode, ["action"], first, stop)["action"], np.float32)
            given = np.concatenate([action, np.ones((len(action), 1), np.float32)], 1)
            frames[PAST_ACTION] = given[:-1] if start else np.concatenate([0 * given[:1], given[:-1]])
        return frames
