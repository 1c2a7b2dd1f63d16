"""Meta-World's own scripted policies as demonstrators of a batch."""

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["ScriptedPolicy"]


class ScriptedPolicy:
    """The script of one task, asked row by row; it remembers nothing. `look` gives observations [E,39]."""

    def __init__(self, task: str, look: Callable[[], np.ndarray]):
        from metaworld.policies import ENV_POLICY_MAP

        self._script, self._look = ENV_POLICY_MAP[task](), look

    def reset(self, rows: np.ndarray, seeds: Sequence[int]) -> None:
        """Start new episodes on `rows`."""

    def act(self) -> np.ndarray:
        """Return actions [E,4] within the bounds."""
        return np.clip([self._script.get_action(obs) for obs in self._look()], -1.0, 1.0)
