"""Put the named cube of three into the named bin of two."""

import numpy as np

from robolearn.envs.task import Task
from robolearn.envs.tasks.named import Target, Vocabulary, named_task
from robolearn.robots import Arm

__all__ = ["VOCABULARY", "pick_place_language"]

_COLOURS = {"red": (0.85, 0.16, 0.14, 1.0), "green": (0.2, 0.62, 0.25, 1.0), "blue": (0.16, 0.32, 0.8, 1.0)}
_SIDES = {"left": 0.3, "right": -0.3}  # y of the bins, m
_PHRASES = (
    "put the {colour} cube in the {side} bin",
    "place the {colour} cube into the {side} bin",
    "move the {colour} block to the {side} bin",
    "drop the {colour} cube in the bin on the {side}",
)
VOCABULARY = Vocabulary(
    objects={f"{colour}_cube": ("cube", rgba) for colour, rgba in _COLOURS.items()},
    targets={f"{side}_bin": Target("bin", (-0.06, y - 0.04), (0.06, y + 0.04)) for side, y in _SIDES.items()},
    sentences=np.array(
        [[[phrase.format(colour=colour, side=side) for phrase in _PHRASES] for side in _SIDES] for colour in _COLOURS]
    ),
    low_m=(-0.12, -0.14),
    high_m=(0.12, 0.14),
)


def pick_place_language(arm: Arm) -> Task:
    """Return the task with six instructions in four phrasings; chance is 1 in 6."""
    return named_task("pick_place_language", arm, VOCABULARY)
