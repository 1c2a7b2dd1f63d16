"""The own tasks by name, and the config that builds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal

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


@dataclass(frozen=True)
class TaskConfig:
    """Options of one own task."""

    name: str
    robot: str = "panda"
    reward: Literal["sparse", "dense"] = "sparse"
    cameras: tuple[str, ...] = ()
    image_px: int = 96
    renderer: str = "auto"
    perturb: Mapping[str, int] = field(default_factory=dict)  # axis → level 0 to 3
    max_steps: int | None = None
    threads: int = 0

    def build(self, num_envs: int) -> BatchEnv:
        """Return `num_envs` rows of the task."""
        name = self.name.removeprefix("robolearn/")
        if name not in TASKS:
            raise ConfigError(f"Unknown task '{self.name}'.", expected=suggest(name, TASKS))
        module, _, attribute = TASKS[name].partition(":")
        task = getattr(import_module(module), attribute)(resolve("robot", self.robot))
        options = BatchOptions(
            reward=self.reward,
            cameras=self.cameras,
            image_px=self.image_px,
            renderer=self.renderer,
            perturb=self.perturb,
            max_steps=self.max_steps,
            threads=self.threads,
        )
        return BatchEnv(task, num_envs, options)
