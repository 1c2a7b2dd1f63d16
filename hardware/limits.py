"""What the safety filter holds an arm to."""

from dataclasses import dataclass, replace

import numpy as np

from robolearn.errors import HardwareError
from robolearn.hardware.kinematics import Kinematics
from robolearn.robots import Arm

__all__ = ["Limits", "SafetyConfig", "limits_of"]


@dataclass(frozen=True)
class SafetyConfig:
    """Options of the safety filter, the same for every joint; fractions are of the maker's limits."""

    velocity: float = 0.9
    acceleration: float = 0.7
    jerk: float = 0.7
    margin_rad: float = 0.03  # kept from the ends of the joints
    tool_m_s: float = 0.25
    workspace_low_m: tuple[float, float, float] = (-0.9, -0.9, -0.1)  # of the tool, in the arm's base frame
    workspace_high_m: tuple[float, float, float] = (0.9, 0.9, 1.3)
    tracking_rad: float = 0.2  # command against measurement
    start_rad: float = 0.3  # how far the first target may be
    ramp: float = 0.3  # share of the velocity limit while ramping in
    state_age_s: float = 0.1
    command_age_s: float = 0.1
    stall_s: float = 0.1  # a gap between two ticks that latches HOLD


@dataclass(frozen=True)
class Limits:
    """Limits per joint [J] and for the tool; `period_s` is the time one tick moves for."""

    names: tuple[str, ...]
    period_s: float
    low_rad: np.ndarray
    high_rad: np.ndarray
    velocity_rad_s: np.ndarray
    acceleration_rad_s2: np.ndarray
    jerk_rad_s3: np.ndarray
    kinematics: Kinematics
    options: SafetyConfig


def limits_of(arm: Arm, rate_hz: float, options: SafetyConfig | None = None) -> Limits:
    """Return the limits of `arm` at a tick rate; raises `HardwareError` when the arm does not state them all."""
    options = options or SafetyConfig()
    joints = len(arm.joints)
    if len(arm.jerk_rad_s3) != joints:
        raise HardwareError(
            f"The arm '{arm.name}' does not state its limits.",
            found=f"{len(arm.jerk_rad_s3)} jerk limits",
            expected=f"{joints}, in the order of its joints",
            do="complete its constants file from the maker's manual",
        )
    for name in ("velocity", "acceleration", "jerk", "ramp"):
        if not 0 < getattr(options, name) <= 1:
            raise HardwareError(f"safety.{name} is a fraction.", found=getattr(options, name), expected="0 < x <= 1")
    if not rate_hz > 0:
        raise HardwareError("The tick rate must be positive.", found=rate_hz)
    limits = Limits(
        names=arm.joints,
        period_s=1.0 / rate_hz,
        low_rad=np.array(arm.low_rad) + options.margin_rad,
        high_rad=np.array(arm.high_rad) - options.margin_rad,
        velocity_rad_s=options.velocity * np.array(arm.velocity_rad_s),
        acceleration_rad_s2=options.acceleration * np.array(arm.acceleration_rad_s2),
        jerk_rad_s3=options.jerk * np.array(arm.jerk_rad_s3),
        kinematics=Kinematics(arm),
        options=replace(options),
    )
    if (limits.low_rad >= limits.high_rad).any():
        raise HardwareError("The joint margin leaves no room to move.", found=options.margin_rad)
    return limits
