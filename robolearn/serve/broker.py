"""Plays an action chunk step by step, as openpi's broker does."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from robolearn.errors import WireError

__all__ = ["ActionChunkBroker"]


class _Infers(Protocol):
    def infer(self, obs: Mapping[str, Any]) -> dict[str, Any]: ...

    def reset(self) -> None: ...


class ActionChunkBroker:
    """Returns one step per call and asks `policy` again every `action_horizon` calls."""

    def __init__(self, policy: _Infers, action_horizon: int):
        self._policy, self._action_horizon = policy, action_horizon
        self._reply: dict[str, Any] | None = None
        self._step = 0

    def infer(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply with every array cut to the present step of its chunk."""
        if self._reply is None:
            self._reply, self._step = self._policy.infer(obs), 0
            given = len(self._reply["actions"])
            if given < self._action_horizon:
                raise WireError("A chunk is shorter than the horizon.", found=given, expected=self._action_horizon)
        step = _at(self._reply, self._step)
        self._step += 1
        if self._step >= self._action_horizon:
            self._reply = None
        return step

    def reset(self) -> None:
        """Forget the chunk and tell the policy that an episode starts."""
        self._reply = None
        self._policy.reset()


def _at(value: Any, step: int) -> Any:
    if isinstance(value, dict):
        return {key: _at(item, step) for key, item in value.items()}
    return value[step] if isinstance(value, np.ndarray) and value.ndim else value
