"""A registered environment inside a worker process."""

from collections.abc import Mapping
from typing import Any

__all__ = ["make"]


def make(options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return `rows` rows of the environment `name` and what they are."""
    from robolearn.api import make_env

    env = make_env(options["name"], options["rows"], options["options"])
    return env, {"spec": env.spec.to_dict(), "max_episode_steps": env.max_episode_steps}
