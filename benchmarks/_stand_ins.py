"""Stand-ins for the human beside a robot: who does a task through twists, and corrects a policy that does not."""

from dataclasses import replace
from typing import Any

import numpy as np

from robolearn.hardware.observe import Reading, arm_state
from robolearn.hardware.teleop import Twist
from robolearn.robots.panda import PANDA

__all__ = ["BASE_M", "MAX_STEPS", "RATE_HZ", "SPEED_M_S", "Helper", "InsertsPeg", "PlacesCube", "PlacesNamed"]

BASE_M = (-0.56, 0.0, 0.912)
TABLE_M, SPEED_M_S, SPEED_RAD_S, RATE_HZ = 0.8, 0.2, 0.6, 20.0
MAX_STEPS = 400
_GIVES_UP = 150  # steps of one correction
_HELD = 10  # steps until an arm that holds is at rest


class Helper:
    """Does a task through twists, from whatever state it finds; a subclass knows the task.

    With `patience_s` it only watches until nothing has got better for that long, then rewinds, corrects and
    hands back when a stage further has been reached, or goes on until the task is done. What it cannot save it
    discards: the episode is forgotten, its own steps count all the same.
    """

    done_stage, slowly = 3, 1.0  # how much more patience it has before anything is gripped

    def __init__(self, patience_s: float | None = None):
        self._patience = None if patience_s is None else round(patience_s * RATE_HZ)
        self._seen: Reading | None = None
        self._best, self._since, self._rest, self._helping = -np.inf, 0, 0, self._patience is None
        self._stage = self._count = self._held = self._helped = 0

    def show(self, reading: Reading, signals: Any) -> None:
        self._seen, self._held = reading, self._held + 1 if signals["mode"] == "hold" else 0

    def close(self) -> None: ...

    @property
    def steps(self) -> int:
        """How many steps it has been asked for."""
        return self._count

    def read(self) -> Twist:
        self._count += 1
        if self._seen is None:
            return Twist()
        if self._patience is None and self._count > MAX_STEPS:
            return Twist(mark="stop")
        *tool, self._width = arm_state(self._seen.state, ("x", "y", "z", "width"), PANDA, np.array(BASE_M)).tolist()
        self._tool = np.array(tool)
        self._look(np.asarray(self._seen.signals["observation.environment_state"], float))
        stage, progress = self._progress()
        if self._patience is None:
            ended = stage == self.done_stage and self._left()
            return replace(self._help(), mark="success" if ended else "")
        if self._held:  # what the policy asked for made the arm hold
            self._helping, self._stage, self._rest = True, stage, 0
            return Twist(mark="takeover") if self._held == _HELD else Twist()
        self._helped = self._helped + 1 if self._helping else 0
        if self._lost() or self._helped > _GIVES_UP or self._count >= MAX_STEPS:
            return Twist(mark="discard")
        if self._helping:
            if self._rest > 0:
                self._rest -= 1
                return Twist(mark="takeover") if self._rest == 0 else Twist()
            if stage > self._stage and self._tool[2] > TABLE_M + 0.12:
                self._helping, self._best, self._since = False, -np.inf, 0
                return Twist(mark="handback")
            return self._help()
        if progress > self._best + 0.02:
            self._best, self._since = progress, 0
        self._since += 1
        if self._since <= self._patience * (self.slowly if stage == 0 else 1.0) or stage == self.done_stage:
            return Twist()
        self._helping, self._stage, self._rest = True, stage, round(1.5 * RATE_HZ) + 2
        return Twist(mark="rewind")

    def _look(self, signal: np.ndarray) -> None:
        """Take the task's observation."""
        raise NotImplementedError

    def _progress(self) -> tuple[int, float]:
        """Return the stage (0 reaching, 1 gripped and lifted, 3 done) and a measure that grows with success."""
        raise NotImplementedError

    def _help(self) -> Twist:
        """Return what brings the task further."""
        raise NotImplementedError

    def _lost(self) -> bool:
        """Say whether nobody could do the task any more."""
        return False

    def _left(self) -> bool:
        return bool(self._width > 0.07 and self._tool[2] > TABLE_M + 0.15)

    def _towards(self, goal: np.ndarray, gripper: float, turn: float = 0.0, speed_m_s: float = SPEED_M_S) -> Twist:
        step = (goal - self._tool) / (0.35 * SPEED_M_S)
        step = step / max(1.0, float(np.linalg.norm(step)) * SPEED_M_S / speed_m_s)
        yaw = float(np.clip(turn / (0.35 * SPEED_RAD_S), -1, 1))
        return Twist((float(step[0]), float(step[1]), float(step[2])), yaw, gripper)


class PlacesCube(Helper):
    """Picks the cube and leaves it in the bin."""

    def _look(self, signal: np.ndarray) -> None:
        self._cube, self._bin = signal[:3], signal[5:7]
        self._turn = float(np.arctan2(signal[3], signal[4])) / 4

    def _progress(self) -> tuple[int, float]:
        apart = float(np.linalg.norm(self._cube - self._tool))
        over = float(np.linalg.norm(self._cube[:2] - self._bin))
        inside = over < 0.05 and self._cube[2] < TABLE_M + 0.05
        if inside:
            return 3, 3.0
        if self._cube[2] > TABLE_M + 0.1 and apart < 0.05:
            return 1, 1.5 + np.exp(-5 * over)
        return 0, np.exp(-5 * apart) + min(max(self._cube[2] - TABLE_M - 0.02, 0.0) / 0.1, 0.4)

    def _help(self) -> Twist:
        apart = np.linalg.norm((self._cube - self._tool)[:2])
        held = np.linalg.norm(self._cube - self._tool) < 0.03 and self._width < 0.06
        if self._progress()[0] == 3:
            return self._towards(np.array([*self._tool[:2], TABLE_M + 0.2]), 1.0)
        if held:
            over = np.linalg.norm(self._bin - self._tool[:2])
            if over > 0.02:
                low = self._tool[2] < TABLE_M + 0.14
                goal = np.array([*self._tool[:2], TABLE_M + 0.2]) if low else np.array([*self._bin, TABLE_M + 0.18])
                return self._towards(goal, -1.0)
            down = self._tool[2] > TABLE_M + 0.085
            return self._towards(np.array([*self._bin, TABLE_M + 0.075]), -1.0 if down else 1.0)
        aligned = apart < 0.008 and abs(self._turn) < 0.1
        if not aligned:
            far = apart > 0.03 and self._tool[2] < TABLE_M + 0.08
            aim = np.array([*self._tool[:2], TABLE_M + 0.14]) if far else self._cube + np.array([0, 0, 0.1])
            if apart < 0.02 and self._tool[2] < self._cube[2] + 0.09:
                aim = np.array([*self._cube[:2], self._tool[2]])
            return self._towards(aim, 1.0, self._turn)
        if self._tool[2] > self._cube[2] + 0.006:
            return self._towards(self._cube - np.array([0, 0, 0.003]), 1.0, self._turn, 0.08)
        return self._towards(self._cube - np.array([0, 0, 0.003]), -1.0)


class PlacesNamed(PlacesCube):
    """Picks the red cube of three and leaves it in the bin that the instruction names."""

    slowly = 2.5

    def _look(self, signal: np.ndarray) -> None:
        super()._look(signal)
        left, right = signal[24:26], signal[26:28]
        self._bin = left if self._seen is not None and "left" in self._seen.task else right


class InsertsPeg(Helper):
    """Picks the peg up, aligns it with the hole and lowers it in."""

    _GRIP_M, _HALF_M, _BLOCK_M = 0.025, 0.05, 0.04  # held above its middle; half the peg; the block's height
    _aligned = _lowering = _tries = 0  # steps it has been over the hole, steps it still goes down, failed tries

    def _look(self, signal: np.ndarray) -> None:
        self._peg, self._block = signal[:3], signal[5:8]
        self._turn = float(np.arctan2(signal[3], signal[4])) / 4  # to the peg
        self._turn_in = float(np.arctan2(signal[8], signal[9])) / 4  # to the hole

    def _lost(self) -> bool:
        return bool(self._peg[2] < TABLE_M + 0.03)  # it lies on the table

    def _progress(self) -> tuple[int, float]:
        apart = float(np.linalg.norm(self._peg + np.array([0, 0, self._GRIP_M]) - self._tool))
        over = float(np.linalg.norm((self._peg - self._block)[:2]))
        foot = float(self._peg[2] - self._HALF_M - self._block[2])
        if over < 0.01 and foot < 0.01:
            return 3, 3.0
        if over < 0.01:
            return 1, 1.5 + np.exp(-5 * over) + 5 * (0.1 - foot)
        if foot > 0.06 and apart < 0.04:
            return 1, 1.5 + np.exp(-5 * over)
        return 0, np.exp(-5 * apart) + min(max(foot, 0.0) / 0.06, 0.4)

    def _help(self) -> Twist:
        grip = self._peg + np.array([0, 0, self._GRIP_M])
        apart = float(np.linalg.norm((grip - self._tool)[:2]))
        held = np.linalg.norm(grip - self._tool) < 0.03 and self._width < 0.04
        if self._progress()[0] == 3:
            up = np.array([*self._tool[:2], TABLE_M + 0.25])
            return self._towards(up if self._width > 0.06 else self._tool, 1.0)
        if held:
            return self._insert()
        if apart < 0.008 and abs(self._turn) < 0.08:
            return self._towards(grip, 1.0 if self._tool[2] > grip[2] + 0.006 else -1.0, self._turn)
        low = apart > 0.03 and self._tool[2] < TABLE_M + 0.2
        aim = np.array([*self._tool[:2], TABLE_M + 0.22]) if low else grip + np.array([0, 0, 0.11])
        if apart < 0.02 and self._tool[2] < grip[2] + 0.1:
            aim = np.array([*grip[:2], self._tool[2]])
        return self._towards(aim, 1.0, self._turn)

    def _insert(self) -> Twist:
        """Align in the air and go straight down; where the peg does not enter, lift it and try beside."""
        free = float(self._peg[2] - self._HALF_M - self._block[2]) - self._BLOCK_M
        turn = 2.4 * self._tries  # a spiral, a millimetre wider every other time
        beside = 0.0005 * self._tries * np.array([np.cos(turn), np.sin(turn)])
        away = (self._block - self._peg)[:2] + beside
        over = float(np.linalg.norm(away))
        entered = free < -0.008 and over < 0.015
        if self._lowering > 0 or entered:
            self._lowering -= 1
            self._tries += self._lowering == 0 and not entered
            return self._towards(self._tool + np.array([0, 0, -0.03]), -1.0, 0.0, 0.03)
        if over > 0.03:
            up = free < 0.02 and over > 0.05
            goal = [0.0, 0.0, 0.1] if up else [*away, 0.04 - free]
            return self._towards(self._tool + np.array(goal), -1.0, 0.0 if up else self._turn_in, 0.12)
        self._aligned = self._aligned + 1 if over < 0.0015 and abs(self._turn_in) < 0.03 and free > 0.004 else 0
        self._lowering = round(0.75 * RATE_HZ) if self._aligned > 3 else 0
        return self._towards(self._tool + np.array([*away, 0.008 - free]), -1.0, self._turn_in, 0.04)
