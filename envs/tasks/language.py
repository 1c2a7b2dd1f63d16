"""Twelve instructions over one scene: two colours of cubes and of cans, two bins and a plate."""

from typing import Literal

import numpy as np

from robolearn.envs.task import Task
from robolearn.envs.tasks.named import Colour, Target, Vocabulary, named_task
from robolearn.robots import Arm

__all__ = ["VOCABULARY", "language"]

_OBJECTS: dict[str, tuple[Literal["cube", "can"], Colour]] = {
    "red_cube": ("cube", (0.85, 0.16, 0.14, 1.0)),
    "blue_cube": ("cube", (0.16, 0.32, 0.8, 1.0)),
    "green_can": ("can", (0.2, 0.62, 0.25, 1.0)),
    "yellow_can": ("can", (0.93, 0.77, 0.16, 1.0)),
}
_WHERE = {"left_bin": "in the left bin", "right_bin": "in the right bin", "plate": "on the plate"}
_PHRASES = (
    "put the {object} {where}",
    "place the {object} {where}",
    "pick up the {object} and leave it {where}",
    "the {object} belongs {where}",
)
VOCABULARY = Vocabulary(
    objects=_OBJECTS,
    targets={
        "left_bin": Target("bin", (-0.05, 0.27), (0.05, 0.33)),
        "right_bin": Target("bin", (-0.05, -0.33), (0.05, -0.27)),
        "plate": Target("plate", (0.15, -0.06), (0.18, 0.06)),
    },
    sentences=np.array(
        [
            [
                [phrase.format(object=name.replace("_", " "), where=where) for phrase in _PHRASES]
                for where in _WHERE.values()
            ]
            for name in _OBJECTS
        ]
    ),
    low_m=(-0.18, -0.14),
    high_m=(0.03, 0.14),
)


def language(arm: Arm) -> Task:
    """Return the task with twelve instructions in four phrasings; chance is 1 in 12."""
    return named_task("language", arm, VOCABULARY)
