"""The safety filter: a pure function per tick between anybody's targets and the arm.

Modes: DISARMED → RAMP_IN → RUN → HOLD (latched until armed again) → STOP (latched until disarmed).
Every position that is sent belongs to a path that ends at rest and has been checked sample by sample
against all limits. The next target is accepted only if such a path exists behind it; otherwise the
last checked path is followed to its end. Time that was missed is dropped, never caught up: one tick
moves for one period, however late it comes.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from robolearn.contracts import RobotState
from robolearn.errors import HardwareError
from robolearn.hardware.braking import approach, brake, stopping
from robolearn.hardware.limits import Limits

__all__ = ["Command", "Decision", "Mode", "SafetyState", "arm", "at_rest", "disarm", "hold", "step", "stop"]

_NOTHING = np.zeros(0)
_SLACK = 1 + 1e-6  # for rounding, where a path runs along a limit
_FUTURE_NS = 20_000_000


class Mode(StrEnum):
    """What the filter does with targets."""

    DISARMED = "disarmed"
    RAMP_IN = "ramp_in"
    RUN = "run"
    HOLD = "hold"
    STOP = "stop"


@dataclass(frozen=True)
class Command:
    """A target for the joints [J] and its velocity, made at `stamp_ns` (monotonic)."""

    position_rad: np.ndarray
    velocity_rad_s: np.ndarray
    stamp_ns: int


@dataclass(frozen=True)
class SafetyState:
    """What the filter remembers between ticks: the last command sent and the checked way to rest."""

    mode: Mode = Mode.DISARMED
    reason: str = ""
    position: np.ndarray = field(default_factory=lambda: _NOTHING)
    velocity: np.ndarray = field(default_factory=lambda: _NOTHING)
    acceleration: np.ndarray = field(default_factory=lambda: _NOTHING)
    escape: np.ndarray = field(default_factory=lambda: _NOTHING)  # [N,J] positions to come, checked
    target: Command | None = None  # the last one accepted
    tick_ns: int = 0


@dataclass(frozen=True)
class Decision:
    """What to send now (None: nothing, the filter is disarmed) and what the filter did about the target."""

    send: np.ndarray | None
    mode: Mode
    events: tuple[str, ...] = ()


# ---------------------------------------------------------------- modes


def arm(limits: Limits, state: SafetyState, measured: RobotState, now_ns: int) -> SafetyState:
    """Start to ramp in from the measured pose, or from the held command.

    Raises `HardwareError` from STOP, while still moving, with a stale or impossible measurement, or
    outside the joint limits or the workspace.
    """
    if state.mode == Mode.STOP:
        raise HardwareError("The arm is stopped.", found=state.reason, do="disarm it before arming again")
    if state.mode in (Mode.RAMP_IN, Mode.RUN) or not at_rest(state):
        raise HardwareError("The arm is armed and moving.", found=state.mode, do="wait until it holds")
    problem = _state_problem(limits, measured, now_ns)
    if problem:
        raise HardwareError(
            "The arm's state cannot be trusted.", found=problem, expected="fresh finite joint positions"
        )
    position = np.array(measured.position_rad, float)
    if state.mode == Mode.HOLD:
        if np.abs(position - state.position).max() > limits.options.tracking_rad:
            raise HardwareError("The arm is not where it was told to hold.", do="disarm it, look, and arm again")
        position = state.position
    _require_inside(limits, position)
    rest = np.zeros(len(position))
    empty = np.zeros((0, len(position)))
    return SafetyState(Mode.RAMP_IN, "", position, rest, rest, empty, None, now_ns)


def hold(state: SafetyState, reason: str) -> SafetyState:
    """Decelerate and hold until armed again; does nothing to a disarmed or stopped arm."""
    if state.mode in (Mode.DISARMED, Mode.HOLD, Mode.STOP):
        return state
    return replace(state, mode=Mode.HOLD, reason=reason)


def stop(state: SafetyState, reason: str) -> SafetyState:
    """Decelerate and stay until disarmed."""
    return state if state.mode == Mode.STOP else replace(state, mode=Mode.STOP, reason=reason)


def disarm(state: SafetyState) -> SafetyState:
    """Send nothing more; refused while the arm still moves."""
    if state.mode in (Mode.RAMP_IN, Mode.RUN) or not at_rest(state):
        raise HardwareError("The arm cannot be disarmed while it moves.", found=state.mode, do="hold or stop it first")
    return SafetyState()


def at_rest(state: SafetyState) -> bool:
    """Say whether the last commands stand still."""
    return not (len(state.escape) or state.velocity.any() or state.acceleration.any())


# ---------------------------------------------------------------- one tick


def step(
    limits: Limits, state: SafetyState, command: Command | None, measured: RobotState | None, now_ns: int
) -> tuple[SafetyState, Decision]:
    """Return the next state and what to send; `command` is the target of this tick, None when there is none.

    Never raises for anything that `command` or `measured` may hold.
    """
    if state.mode == Mode.DISARMED or (state.mode == Mode.STOP and not len(state.position)):
        return state, Decision(None, state.mode)
    events: list[str] = []
    state = _watch(limits, state, measured, now_ns, events)
    target = None
    if state.mode in (Mode.RAMP_IN, Mode.RUN):
        state, target = _accept(limits, state, command, now_ns, events)
    path = _advance(limits, state, target, events)
    mode = Mode.RUN if state.mode == Mode.RAMP_IN and _caught_up(limits, path[0], target) else state.mode
    velocity = (path[0] - state.position) / limits.period_s
    acceleration = (velocity - state.velocity) / limits.period_s
    state = replace(
        state,
        mode=mode,
        position=path[0],
        velocity=velocity,
        acceleration=acceleration,
        escape=path[1:],
        tick_ns=now_ns,
    )
    return state, Decision(path[0].copy(), mode, tuple(events))


def _watch(
    limits: Limits, state: SafetyState, measured: RobotState | None, now_ns: int, events: list[str]
) -> SafetyState:
    """Latch HOLD when the arm's state or the clock cannot be trusted."""
    if state.mode not in (Mode.RAMP_IN, Mode.RUN):
        return state
    reason = _state_problem(limits, measured, now_ns)
    if not reason and measured is not None:
        off = np.abs(measured.position_rad - state.position).max()
        reason = "tracking" if off > limits.options.tracking_rad else ""
    if not reason and not 0 <= now_ns - state.tick_ns <= 1e9 * limits.options.stall_s:
        reason = "stall"
    if reason:
        events.append(reason)
        return hold(state, reason)
    return state


def _state_problem(limits: Limits, measured: RobotState | None, now_ns: int) -> str:
    if measured is None:
        return "state_missing"
    if not _numbers(measured.position_rad, len(limits.names)) or tuple(measured.names) != limits.names:
        return "state_joints"
    if not np.isfinite(measured.position_rad).all():
        return "state_not_finite"
    if not -_FUTURE_NS <= now_ns - measured.stamp_ns <= 1e9 * limits.options.state_age_s:
        return "state_age"
    return ""


def _accept(
    limits: Limits, state: SafetyState, command: Command | None, now_ns: int, events: list[str]
) -> tuple[SafetyState, Command | None]:
    """Return the target to follow, clipped to the joint limits; None when there is none or it is refused.

    Latches HOLD when the last accepted target is too old.
    """
    problem = "starved" if command is None else _command_problem(limits, state, command, now_ns)
    if problem or command is None:
        events.append(problem)
        if state.target is not None and now_ns - state.target.stamp_ns > 1e9 * limits.options.command_age_s:
            events.append("command_age")
            state = hold(state, "command_age")
        return state, None
    clipped = np.clip(command.position_rad, limits.low_rad, limits.high_rad)
    if state.target is None and np.abs(clipped - state.position).max() > limits.options.start_rad:
        events.append("start_too_far")
        return hold(state, "start_too_far"), None
    outside = clipped != command.position_rad
    if outside.any():
        events.append("position")
        command = replace(command, position_rad=clipped, velocity_rad_s=np.where(outside, 0.0, command.velocity_rad_s))
    return replace(state, target=command), command


def _command_problem(limits: Limits, state: SafetyState, command: Command, now_ns: int) -> str:
    joints = len(limits.names)
    if not (_numbers(command.position_rad, joints) and _numbers(command.velocity_rad_s, joints)):
        return "shape"
    if not (np.isfinite(command.position_rad).all() and np.isfinite(command.velocity_rad_s).all()):
        return "not_finite"
    if not -_FUTURE_NS <= now_ns - command.stamp_ns <= 1e9 * limits.options.command_age_s:
        return "late"
    if state.target is not None and command.stamp_ns <= state.target.stamp_ns:
        return "order"
    return ""


def _numbers(value: object, joints: int) -> bool:
    return isinstance(value, np.ndarray) and value.shape == (joints,) and value.dtype.kind == "f"


# ---------------------------------------------------------------- motion


def _advance(limits: Limits, state: SafetyState, target: Command | None, events: list[str]) -> np.ndarray:
    """Return the path [1+N,J] to follow: the next position and a checked way to rest behind it."""
    if target is not None:
        path = _direct(limits, state, target)
        if path is not None:
            return path
        share = limits.options.ramp if state.mode == Mode.RAMP_IN else 1.0
        motion = state.position, state.velocity, state.acceleration
        nearer = approach(limits, motion, target.position_rad, target.velocity_rad_s, share)
        path = _checked(limits, state, nearer)
        if path is not None:
            events.append("limited")
            return path
        events.append("braking")
    return state.escape if len(state.escape) else state.position[None]


def _caught_up(limits: Limits, position: np.ndarray, target: Command | None) -> bool:
    """Say whether the target is so near that the ramp holds the arm back no more: it would be braking anyway."""
    near = stopping(limits, limits.options.ramp)
    return target is not None and bool((np.abs(target.position_rad - position) < near).all())


def _direct(limits: Limits, state: SafetyState, target: Command) -> np.ndarray | None:
    """Return the path through the target itself, if the arm may be there, as fast as the target, in one tick."""
    velocity = (target.position_rad - state.position) / limits.period_s
    if (np.abs(velocity - target.velocity_rad_s) > limits.acceleration_rad_s2 * limits.period_s).any():
        return None
    return _checked(limits, state, target.position_rad)


def _checked(limits: Limits, state: SafetyState, position: np.ndarray) -> np.ndarray | None:
    """Return `position` and the way to rest behind it, or None if any sample of it breaks a limit."""
    period = limits.period_s
    velocity = (position - state.position) / period
    acceleration = (velocity - state.velocity) / period
    change = (acceleration - state.acceleration) / period
    if (np.abs(change) > limits.jerk_rad_s3 * _SLACK).any():
        return None
    # The samples so far lie on a parabola; at the newest one it is half a tick faster than their difference.
    rest = brake(limits, position, velocity + acceleration * period / 2, acceleration)
    path = np.concatenate([position[None], rest])
    return path if _within(limits, state, path) else None


def _within(limits: Limits, state: SafetyState, path: np.ndarray) -> bool:
    """Say whether the samples of `path`, sent after `state` and ending at rest, keep every limit."""
    samples = np.concatenate([state.position[None], path, path[-1:], path[-1:], path[-1:]])
    if (path < limits.low_rad).any() or (path > limits.high_rad).any():
        return False
    rate, before = samples, (state.velocity, state.acceleration)
    bounds = (limits.velocity_rad_s, limits.acceleration_rad_s2, limits.jerk_rad_s3)
    for order, bound in enumerate(bounds):
        rate = np.diff(rate, axis=0) / limits.period_s
        if (np.abs(rate) > bound * _SLACK).any():
            return False
        rate = np.concatenate([before[order][None], rate]) if order < 2 else rate
    return _tool_within(limits, samples)


def _tool_within(limits: Limits, samples: np.ndarray) -> bool:
    tool = limits.kinematics.tool(samples[:-3])
    low, high = limits.options.workspace_low_m, limits.options.workspace_high_m
    if (tool[1:] < low).any() or (tool[1:] > high).any():
        return False
    speed = np.linalg.norm(np.diff(tool, axis=0), axis=1) / limits.period_s
    return bool((speed <= limits.options.tool_m_s * _SLACK).all())


def _require_inside(limits: Limits, position: np.ndarray) -> None:
    outside = (position < limits.low_rad) | (position > limits.high_rad)
    if outside.any():
        joints = [name for name, bad in zip(limits.names, outside, strict=True) if bad]
        raise HardwareError(
            "The arm is outside its joint limits.", found=", ".join(joints), do="move it back by hand, then arm it"
        )
    tool = limits.kinematics.tool(position[None])[0]
    if (tool < limits.options.workspace_low_m).any() or (tool > limits.options.workspace_high_m).any():
        raise HardwareError(
            "The tool is outside the workspace.", found=tool.round(3).tolist(), do="move it back by hand, then arm it"
        )
