"""Scripted demonstrators for Lift, PickPlaceCan, NutAssemblySquare and ToolHang (see `script`)."""

import numpy as np

from robolearn.envs.exact.script import HOME_RAD, Goal, Leg, Script, Sense, across, fold, opened, raise_to, stay
from robolearn.envs.exact.tool_hang import TOOL_HANG

__all__ = ["EXPERTS"]


def _at(height_m: float, turn_rad: float = 0.0, period_rad: float = np.pi / 2) -> Goal:
    """Return the goal above an object, the fingers along one of its axes."""
    return lambda sense: (
        sense.object_m + np.array([0.0, 0.0, height_m]),
        across(sense, turn_rad, period_rad),
    )


_LIFT = Script(
    "cube",
    (
        Leg(_at(0.08), reach_m=0.015),
        Leg(_at(0.0), reach_m=0.008),
        Leg(_at(0.0), close=True, reach_m=0.05, reach_rad=1.0, least=6),
        Leg(stay(0.06), close=True, reach_m=-1.0, most=20),
    ),
)

_BIN_M = np.array([0.15, 0.35])  # in the can's compartment, this side of its centre: that is out of the arm's reach


def _carry(target_m: np.ndarray, height_m: float) -> Goal:
    """Return the goal that brings the object over `target_m` [2] with the tool at `height_m`."""

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        away = target_m - sense.object_m[:, :2]
        aim = np.concatenate([sense.tool_m[:, :2] + away, np.full((len(away), 1), height_m)], 1)
        return aim, np.full(len(away), HOME_RAD)

    return goal


def _round_grasp(height_m: float) -> Goal:
    """Return the goal above a round object, the fingers as at home."""
    return lambda sense: (sense.object_m + np.array([0.0, 0.0, height_m]), np.full(len(sense.tool_m), HOME_RAD))


_CAN = Script(
    "Can",
    (
        Leg(_round_grasp(0.14), reach_m=0.02),
        Leg(_round_grasp(0.015), reach_m=0.01),
        Leg(_round_grasp(0.015), close=True, reach_m=0.05, reach_rad=1.0, least=8),
        Leg(raise_to(1.02), close=True, reach_m=0.03),
        Leg(_carry(_BIN_M, 1.02), close=True, reach_m=0.02),
        Leg(_carry(_BIN_M, 0.92), close=True, reach_m=0.02, most=40),
        Leg(_carry(_BIN_M, 0.92), reach_m=0.1, least=6, most=10),
        Leg(raise_to(1.02), reach_m=-1.0, most=20),
    ),
    carried=(4, 6),
)

_PEG_M = np.array([0.23, 0.10])
_PEG_YAW_RAD = np.array([np.pi / 2, np.pi, -np.pi / 2])  # of the nut on the peg
_WRIST_RAD = 1.75  # how far the fingers may turn from home
_HANDLE_M = 0.054  # from the nut's centre along its x axis
_OPEN_M = 0.06  # between fingers that go over the handle


def _handle(height_m: float, closed_m: float = 0.0) -> Goal:
    """Return the goal above the nut's handle; the tool comes down only where it fits over it.

    Fingers that are not open stay `closed_m` above it, where that is given.
    """

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        yaw = sense.object_yaw_rad
        offset = np.stack([_HANDLE_M * np.cos(yaw), _HANDLE_M * np.sin(yaw), np.full(len(yaw), height_m)], 1)
        aim, fingers = sense.object_m + offset, across(sense, np.pi / 2, np.pi)
        off = np.linalg.norm((aim - sense.tool_m)[:, :2], axis=1)
        turned = np.abs(fold(fingers - sense.fingers_rad, 2 * np.pi))
        low = np.where((off < 0.008) & (turned < 0.1), 0.02, 0.0)
        aim[:, 2] = np.maximum(aim[:, 2], sense.tool_m[:, 2] - low) if height_m < 0.05 else aim[:, 2]
        if closed_m:
            aim[:, 2] = np.where(sense.gap_m < _OPEN_M, sense.object_m[:, 2] + closed_m, aim[:, 2])
        return aim, fingers

    return goal


def _over_peg(height_m: float, step_m: float = np.inf) -> Goal:
    """Return the tool goal that brings the held nut over the peg, square to it.

    The handle never points away from the arm: there the peg is out of reach. At most `step_m` down at once.
    """

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        held = sense.fingers_rad - sense.object_yaw_rad
        turned = fold(sense.fingers_rad - HOME_RAD, 2 * np.pi)
        options = fold(held[:, None] + _PEG_YAW_RAD - HOME_RAD, 2 * np.pi)  # [E,3] from home
        cost = np.abs(options - turned[:, None]) + 10.0 * (np.abs(options) > _WRIST_RAD)
        turn = np.take_along_axis(options, cost.argmin(1)[:, None], 1)[:, 0] - turned
        offset = sense.tool_m - sense.object_m
        cos, sin = np.cos(turn), np.sin(turn)
        aim = np.empty_like(offset)
        aim[:, 0] = _PEG_M[0] + cos * offset[:, 0] - sin * offset[:, 1]
        aim[:, 1] = _PEG_M[1] + sin * offset[:, 0] + cos * offset[:, 1]
        aim[:, 2] = np.maximum(height_m, sense.tool_m[:, 2] - step_m)
        return aim, sense.fingers_rad + turn

    return goal


_SQUARE = Script(
    "SquareNut",
    (
        Leg(_handle(0.2), reach_m=0.04),
        Leg(_handle(0.07), reach_m=0.01),
        Leg(_handle(0.0, closed_m=0.07), reach_m=0.006, until=opened(_OPEN_M)),
        Leg(_handle(0.0), close=True, reach_m=0.05, reach_rad=1.0, least=8),
        Leg(raise_to(1.02), close=True, reach_m=0.03),
        Leg(_over_peg(1.02), close=True, reach_m=0.006, reach_rad=0.04),
        Leg(_over_peg(0.98, 0.01), close=True, reach_m=0.004, reach_rad=0.04, gain=2.0),
        Leg(_over_peg(0.90, 0.015), close=True, reach_m=0.01, most=60, gain=2.0),
        Leg(stay(0.0), reach_m=0.1, least=6, most=30, until=opened(0.04)),
        Leg(raise_to(1.05), reach_m=-1.0, most=20),
    ),
    carried=(5, 7),
    empty_m=0.025,
)

EXPERTS: dict[str, Script] = {
    "Lift": _LIFT,
    "PickPlaceCan": _CAN,
    "NutAssemblySquare": _SQUARE,
    "ToolHang": TOOL_HANG,
}
