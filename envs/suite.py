"""The own tasks by name, and the config that builds them."""

from dataclasses import dataclass
from importlib import import_module

from robolearn.envs.batch import BatchEnv, BatchOptions
from robolearn.errors import ConfigError, suggest
from robolearn.registry import resolve

__all__ = ["TASKS", "TaskConfig"]

# name → "module:function(arm) -> Task"
TASKS = {
    name: f"robolearn.envs.tasks.{name}:{name}"
    for name in (
        "button",
        "can",
        "door",
        "drawer",
        "handover",
        "language",
        "lift",
        "peg_insertion",
        "pick_place",
        "pick_place_language",
        "reach",
        "square",
        "stack",
        "tool_hang",
        "wipe",
    )
}


@dataclass(frozen=True, kw_only=True)
class TaskConfig(BatchOptions):
    """Options of one own task."""

    name: str
    robot: str = "panda"

    def build(self, num_envs: int) -> BatchEnv:
        """Return `num_envs` rows of the task."""
        name = self.name.removeprefix("robolearn/")
        if name not in TASKS:
            raise ConfigError(f"Unknown task '{self.name}'.", expected=suggest(name, TASKS))
        module, _, attribute = TASKS[name].partition(":")
        return BatchEnv(getattr(import_module(module), attribute)(resolve("robot", self.robot)), num_envs, self)
