"""The script of ToolHang: the frame into the stand, then the tool onto the frame's hook.

What comes down goes by how well it fits now, not by what came before: a clone learns it from the present alone.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from robolearn.envs.exact.script import Goal, Leg, Script, Sense, raise_to

__all__ = ["TOOL_HANG"]

_HANDLE_OF_FRAME_M = np.array([0.0, 0.0, -0.034])  # the middle of its grip, from its corner
_HOOK_M = np.array([-0.0875, 0.0, 0.0])  # the hook's tip, from the frame's corner
_RING_M = np.array([-0.0935, 0.0, 0.0])  # the hole that is hung up, from the tool's middle
_HOLE_M = np.array([0.0, 0.045, 0.0])  # of the stand, from the middle of its base
_STANDING = np.diag([-1.0, -1.0, 1.0])  # the frame's orientation in the stand: the hook points away from the arm
_ASIDE_M = np.array([0.0, -0.195, 0.0])  # from the stand's hole to where the frame is turned upright
_CLEAR_M = np.array([0.0, -0.05, 1.25])  # where the hand turns down again
_TRAVEL_M, _INSERTED_M = 0.4, 0.228  # heights of the frame's corner above the base's middle

_TILTS_RAD = np.array([0.0, 0.6, 1.1])  # of the held tool on its way onto the hook, with its hole, from the hook's tip:
_ALONG_M, _UP_M = np.array([-0.001, -0.002, -0.003]), np.array([0.007, 0.002, -0.002])
_HOVER_M, _HANGING_M = 0.04, 0.015  # above the tip: where the tool is aligned, and from where it is over the tip
_MISSED_M = 0.02  # beside the tip: the hole is not over it, up again
_BESIDE_M = np.array([-0.08, 0.10, 0.06])
_TILT_RAD = 0.1  # in a step: faster, its hole would leave the hook's tip


def _above(name: str, height_m: float, point_m: np.ndarray, axis: np.ndarray) -> Goal:
    """Return the goal above a point of an object, the fingers along one of its axes."""

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        position, mat = sense.pose(name)
        fingers = mat @ axis
        aim = position + mat @ point_m + np.array([0.0, 0.0, height_m])
        return aim, np.arctan2(fingers[:, 1], fingers[:, 0])

    return goal


def _bring(sense: Sense, name: str, point_m: np.ndarray, to_m: np.ndarray, mat: np.ndarray) -> tuple:
    """Return the tool goal that brings a point of a held object to `to_m` [E,3], the object turned as `mat`."""
    position, present = sense.pose(name)
    change = mat @ present.swapaxes(1, 2)
    offset = sense.tool_m - position - present @ point_m
    return to_m + np.einsum("eij,ej->ei", change, offset), change @ sense.tool_mat


def _descent(off_m: np.ndarray, off_rad: np.ndarray, fit_m: float, fit_rad: float) -> np.ndarray:
    """Return how fast to come down [E]: 1 where an object fits, 0 at twice the tolerance, -1 (up again) far from it.

    No threshold decides: of a demonstrator that waits until it fits, a clone learns to wait for ever.
    """
    return np.clip(2.0 - np.maximum(off_m / fit_m, off_rad / fit_rad), -1.0, 1.0)


def _angle(mat: np.ndarray, present: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(mat @ present.swapaxes(1, 2)).magnitude()


def _stand_up(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
    """Return the goal that turns the frame upright beside the stand."""
    return _upright(sense, _frame_to_hole(sense) - _ASIDE_M, np.full(len(sense.tool_m), -1.0))


def _insert(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
    """Return the goal that holds the frame upright over the stand's hole and puts it in as far as it fits."""
    away = _frame_to_hole(sense)
    off_m, off_rad = np.linalg.norm(away[:, :2], axis=1), _angle(_STANDING, sense.pose("frame")[1])
    return _upright(sense, away, _descent(off_m, off_rad, 0.003, 0.03))


def _inserted(sense: Sense) -> np.ndarray:
    return _frame_to_hole(sense)[:, 2] < _INSERTED_M + 0.004


def _frame_to_hole(sense: Sense) -> np.ndarray:
    """Return where the frame's corner is [E,3], from the stand's hole at the height of the base's middle."""
    return sense.pose("frame")[0] - (sense.pose("base")[0] + _HOLE_M)


def _upright(sense: Sense, away_m: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    aim = sense.pose("frame")[0] - away_m
    aim[:, 2] += np.clip(away_m[:, 2] - 0.02 * down, _INSERTED_M, _TRAVEL_M)
    return _bring(sense, "frame", np.zeros(3), aim, _STANDING)


def _lay_over(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
    """Return the goal that brings the tool in line with the hook, its hole aside of the tip and above it."""
    corner, mat = sense.pose("frame")
    aim = corner + mat @ (_HOOK_M + _BESIDE_M)
    return _bring(sense, "tool", _RING_M, aim, mat @ _tilt(np.zeros(len(aim))))


def _hang(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
    """Return the goal that lowers the tool's hole over the hook's tip as far as it fits, then tilts the tool."""
    corner, mat = sense.pose("frame")
    position, present = sense.pose("tool")
    tip, ring, tilted = corner + mat @ _HOOK_M, position + present @ _RING_M, _tilted(sense)
    height = (ring - tip)[:, 2]
    along, up = np.interp(tilted, _TILTS_RAD, _ALONG_M), np.interp(tilted, _TILTS_RAD, _UP_M)
    aim = tip + mat[:, :, 0] * along[:, None]
    off_m = np.linalg.norm((aim - ring)[:, :2], axis=1)
    off_rad = _angle(mat @ _tilt(tilted.clip(0.0)), present)
    hanging, down = (height < _HANGING_M) & (off_m < _MISSED_M), _descent(off_m, off_rad, 0.003, 0.05)
    aim[:, 2] = tip[:, 2] + np.where(hanging, up, np.clip(height - 0.01 * down, _UP_M[0], _HOVER_M))
    further = _TILT_RAD * np.clip((0.012 - height) / 0.003, 0.0, 1.0)
    tilt = np.where(hanging, tilted + further, 0.0).clip(0.0, _TILTS_RAD[-1])
    return _bring(sense, "tool", _RING_M, aim, mat @ _tilt(tilt))


def _hung(sense: Sense) -> np.ndarray:
    return _tilted(sense) > _TILTS_RAD[-1] - 0.03


def _tilted(sense: Sense) -> np.ndarray:
    return np.arcsin(np.clip(-sense.pose("tool")[1][:, 2, 0], -1.0, 1.0))


def _tilt(angle_rad: np.ndarray) -> np.ndarray:
    """Return the tool's orientation [E,3,3] seen from the frame: turned round, its far end `angle_rad` down."""
    return Rotation.from_euler("ZY", np.stack([np.full_like(angle_rad, np.pi), angle_rad], 1)).as_matrix()


def _drift(back_m: float, height_m: float | None = None) -> Goal:
    """Return the goal `back_m` behind the tool, or above it at `height_m`; it keeps its orientation."""

    def goal(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
        aim = sense.tool_m - back_m * sense.tool_mat[:, :, 2]
        aim[:, 2] = aim[:, 2] if height_m is None else height_m
        return aim, sense.tool_mat

    return goal


def _turn_down(sense: Sense) -> tuple[np.ndarray, np.ndarray]:
    return np.tile(_CLEAR_M, (len(sense.tool_m), 1)), np.full(len(sense.tool_m), np.pi)


def _frame(height_m: float) -> Goal:
    return _above("frame", height_m, _HANDLE_OF_FRAME_M, np.array([1.0, 0.0, 0.0]))


def _tool(height_m: float) -> Goal:
    return _above("tool", height_m, np.zeros(3), np.array([0.0, -1.0, 0.0]))


TOOL_HANG = Script(
    "tool",
    (
        Leg(_frame(0.1), reach_m=0.02),
        Leg(_frame(0.003), reach_m=0.006, reach_rad=0.05),
        Leg(_frame(0.003), close=True, reach_m=0.05, reach_rad=1.0, least=8),
        Leg(raise_to(1.15), close=True, reach_m=0.03),
        Leg(_stand_up, close=True, reach_m=0.03, reach_rad=0.15, most=100),
        Leg(_insert, close=True, reach_m=np.inf, until=_inserted, most=150, gain=2.0),
        Leg(_drift(0.0), reach_rad=3.0, least=6),
        Leg(_drift(0.05), reach_m=-1.0, most=16),
        Leg(_drift(0.0, 1.22), reach_m=0.03, most=40),
        Leg(_turn_down, reach_m=0.1, reach_rad=0.3),
        Leg(_tool(0.15), reach_m=0.03, most=100),
        Leg(_tool(0.003), reach_m=0.006, reach_rad=0.05),
        Leg(_tool(0.003), close=True, reach_m=0.05, reach_rad=1.0, least=8),
        Leg(raise_to(1.1), close=True, reach_m=0.03),
        Leg(_lay_over, close=True, reach_m=0.03, reach_rad=0.15, most=100),
        Leg(_hang, close=True, reach_m=np.inf, reach_rad=np.inf, until=_hung, most=150, gain=2.0),
        Leg(_drift(0.0), reach_m=-1.0, most=40),
        Leg(_drift(0.05), reach_m=-1.0, most=20),
    ),
    max_steps=600,
)
