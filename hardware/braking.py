"""Jerk-limited motion of several joints at once, in closed form."""

import numpy as np

from robolearn.hardware.limits import Limits

__all__ = ["approach", "brake", "fading", "least_jerk", "stopping"]

_BRISK = 0.8  # share of the limits that an approach plans with
_LEAST_JERK = np.array([10, -15, 6])  # coefficients of t³, t⁴ and t⁵
# Coefficients of the three quintics in [0, 1] that begin with a position, a rate or an acceleration of 1, and nothing
# else of the three, and end with none.
_QUINTICS = np.array([[1, 0, 0, *-_LEAST_JERK], [0, 1, 0, -6, 8, -3], [0, 0, 0.5, -1.5, 1.5, -0.5]])


def brake(limits: Limits, position: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray) -> np.ndarray:
    """Return the positions [N,J], one per tick, of every joint's fastest way to rest; the last one is at rest.

    Each joint moves with three phases of jerk −J, 0, +J (times the sign of its motion). Sampling such
    a path keeps every finite difference within the limits on velocity, acceleration and jerk.
    """
    jerk, most = limits.jerk_rad_s3, limits.acceleration_rad_s2
    coasting = velocity + acceleration * np.abs(acceleration) / (2 * jerk)  # velocity once acceleration is gone
    side = np.where(coasting != 0, np.sign(coasting), -np.sign(acceleration))
    v, a = side * velocity, side * acceleration
    peak = np.minimum(np.sqrt(np.maximum(jerk * v + a * a / 2, 0.0)), most)
    first = np.maximum(a + peak, 0.0) / jerk
    middle = np.maximum(v + a * a / (2 * jerk) - peak * peak / jerk, 0.0) / np.maximum(peak, 1e-12)
    last = peak / jerk
    ticks = int(np.ceil((first + middle + last).max() / limits.period_s - 1e-9))
    time = limits.period_s * np.arange(1, ticks + 1)[:, None]
    q = np.zeros((ticks, len(position)))
    for duration, rate in ((first, -jerk), (middle, 0.0), (last, jerk)):
        t = np.clip(time, 0.0, duration)
        q += t * (v + t * (a / 2 + t * rate / 6))
        v = v + duration * (a + duration * rate / 2)
        a = a + duration * rate
        time = time - duration
    return position + side * q


def approach(
    limits: Limits,
    state: tuple[np.ndarray, np.ndarray, np.ndarray],
    target: np.ndarray,
    target_velocity: np.ndarray,
    share: float,
) -> np.ndarray:
    """Return the next position on the way from `state` (position, velocity, acceleration) to a moving target.

    Joints close in at most at `share` of their velocity limit, slowly enough to come to rest at the target.
    """
    position, velocity, acceleration = state
    period, top = limits.period_s, limits.velocity_rad_s
    brisk, jerk = _BRISK * limits.acceleration_rad_s2, _BRISK * limits.jerk_rad_s3
    error = target - position - target_velocity * period  # beyond what moving along with the target covers
    corner = brisk / (2 * jerk)
    closing = brisk * (np.sqrt(corner**2 + 2 * np.abs(error) / brisk) - corner)  # error = v²/2A + vA/2J
    closing = np.minimum(np.minimum(closing, np.abs(error) / (4 * period)), share * top)
    wanted = np.clip(target_velocity + np.sign(error) * closing, -0.98 * top, 0.98 * top)
    wanted = wanted * _tool_share(limits, position, wanted)
    missing = wanted - velocity - acceleration * np.abs(acceleration) / (2 * jerk)
    push = np.minimum(np.minimum(np.sqrt(2 * jerk * np.abs(missing)), brisk), np.abs(missing) / period)
    change = np.clip(np.sign(missing) * push - acceleration, -jerk * period, jerk * period)
    return position + (velocity + (acceleration + change) * period) * period


def stopping(limits: Limits, share: float) -> np.ndarray:
    """Return how far [J] joints get while an approach slows them down from `share` of their velocity limit."""
    speed = share * limits.velocity_rad_s
    brisk, jerk = _BRISK * limits.acceleration_rad_s2, _BRISK * limits.jerk_rad_s3
    return speed**2 / (2 * brisk) + speed * brisk / (2 * jerk)


def _tool_share(limits: Limits, position: np.ndarray, velocity: np.ndarray) -> float:
    """Return the factor that keeps the tool below its speed limit."""
    before, after = limits.kinematics.tool(np.stack([position, position + velocity * limits.period_s]))
    speed = float(np.linalg.norm(after - before)) / limits.period_s
    return min(1.0, 0.9 * limits.options.tool_m_s / speed) if speed > 0 else 1.0


def least_jerk(share: np.ndarray) -> np.ndarray:
    """Return how far a motion of least jerk from 0 to 1 is at `share` of its time; it begins and ends at rest.

    Flash and Hogan 1985, "The coordination of arm movements".
    """
    cubic, quartic, quintic = _LEAST_JERK
    return share**3 * (cubic + quartic * share + quintic * share**2)


def fading(gap: np.ndarray, duration_s: float, time_s: float) -> np.ndarray:
    """Return what is left of a `gap` [3,J] at `time_s` while least jerk takes it to nothing within `duration_s`.

    Rows are position, rate and acceleration; all three continue at 0 s and are zero from the end on.
    """
    share = time_s / duration_s if duration_s > 0 else 1.0
    if share >= 1.0:
        return np.zeros_like(gap)
    power, scale = np.arange(6), np.array([1.0, duration_s, duration_s**2])
    falling = [np.ones(6), power, power * (power - 1)]
    terms = np.array([f * share ** np.maximum(power - i, 0) for i, f in enumerate(falling)])
    return terms @ _QUINTICS.T @ (gap * scale[:, None]) / scale[:, None]
