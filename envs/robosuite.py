"""robosuite's tasks by name: `robosuite/Lift`, `robosuite/PickPlaceCan`, …"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from robolearn.errors import ConfigError, suggest

__all__ = ["RobosuiteConfig"]


@dataclass(frozen=True)
class RobosuiteConfig:
    """Options of one robosuite task.

    `exact` is robosuite's own model, controller and rates in a compiled loop; `lean` the same task,
    observations and actions on a model made for speed.
    """

    name: str
    fidelity: Literal["exact", "lean"] = "exact"
    robots: tuple[str, ...] = ("Panda",)
    controller: str | None = None  # robosuite's name of an arm controller; None: its default
    controller_options: dict[str, Any] = field(default_factory=dict)  # over the controller's own config
    reward: Literal["sparse", "dense"] = "sparse"
    raw: bool = False  # robosuite's own observation keys too
    cameras: tuple[str, ...] = ()  # robosuite's names: agentview, robot0_eye_in_hand, …
    image_px: int = 84
    renderer: str = "auto"  # raster, opengl (MuJoCo's own pixels) or opengl_fast
    stop_on_success: bool = True
    perturb: Mapping[str, int] = field(default_factory=dict)  # axis → level 0 to 3
    max_steps: int = 400
    threads: int = 0
    compiled: bool = True

    def __post_init__(self):
        if self.controller_options and self.controller is None:
            raise ConfigError("Controller options need the controller's name.", do="set controller, e.g. OSC_POSE")

    def build(self, num_envs: int) -> Any:
        """Return `num_envs` rows of the task; raises `ConfigError` for an unknown one."""
        from robolearn.envs.exact.env import ExactEnv, ExactOptions
        from robolearn.envs.exact.export import export_task
        from robolearn.envs.exact.tasks import NATIVE

        task = self.name.removeprefix("robosuite/")
        if task not in NATIVE:
            raise ConfigError(f"Unknown task '{self.name}'.", expected=suggest(task, NATIVE))
        options = ExactOptions(
            dense=self.reward == "dense",
            raw=self.raw,
            stop_on_success=self.stop_on_success,
            max_steps=self.max_steps,
            threads=self.threads,
            compiled=self.compiled,
            lean=self.fidelity == "lean",
            cameras=self.cameras,
            image_px=self.image_px,
            renderer=self.renderer,
            perturb=self.perturb,
        )
        controller = self.controller and {**self.controller_options, "type": self.controller}
        export = export_task(task, self.robots, controller)
        return ExactEnv(export, NATIVE[task](export), num_envs, options)
