"""Numerical samplers: ODE solvers of flows, and DDPM, DDIM, DPM-Solver++ of diffusion.

Step sizes and coefficients are Python floats that depend on the options only: a sampling loop
never waits for the device. The diffusion steps give the numbers of the schedulers of the same
name in diffusers, whose import alone takes seconds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from robolearn.errors import ConfigError

__all__ = [
    "Betas",
    "Denoiser",
    "DiffusionStep",
    "Pin",
    "Solver",
    "Velocity",
    "alpha_bars",
    "denoise",
    "diffusion_steps",
    "guided_velocity",
    "integrate",
    "jump",
    "noise_levels",
    "sum_of",
]

Solver = Literal["euler", "midpoint", "heun"]
Betas = Literal["squaredcos", "linear"]
Velocity = Callable[[Tensor, Tensor], Tensor]  # (x [B,K,A], time [B]) → dx/dt
Denoiser = Callable[[Tensor, float], Tensor]  # (x [B,K,A], σ) → clean x
Pin = Callable[[Tensor, float], Tensor]  # (x [B,K,A], time or σ) → x with what is known of it


def integrate(
    velocity: Velocity,
    noise: Tensor,
    steps: int,
    solver: Solver = "euler",
    pin: Pin | None = None,
    begin: float = 0.0,
) -> Tensor:
    """Solve dx/dt = velocity(x, t) from `noise` at t=`begin` to t=1 in equal steps.

    `pin(x, t)` may overwrite what is known of x at time t before every evaluation.
    """
    x, size = noise, (1.0 - begin) / steps

    def evaluate(state: Tensor, time: float) -> Tensor:
        state = state if pin is None else pin(state, time)
        return velocity(state, state.new_full((len(state),), time))

    for step in range(steps):
        time = begin + step * size
        slope = evaluate(x, time)
        if solver == "midpoint":
            slope = evaluate(x + slope * (size / 2), time + size / 2)
        elif solver == "heun":
            slope = (slope + evaluate(x + slope * size, time + size)) / 2
        x = x + slope * size
    return x if pin is None else pin(x, 1.0)


def jump(average: Callable[[Tensor, Tensor, Tensor], Tensor], noise: Tensor, steps: int, pin: Pin) -> Tensor:
    """Go from `noise` at t=0 to t=1 in equal jumps along average velocities (x [B,K,A], from [B], to [B])."""
    x, size = noise, 1.0 / steps
    for step in range(steps):
        x = pin(x, step * size)
        start = x.new_full((len(x),), step * size)
        x = x + size * average(x, start, start + size)
    return pin(x, 1.0)


def guided_velocity(velocity: Velocity, target: Tensor, weights: Tensor, strength: float) -> Velocity:
    """Steer a flow towards known actions (real-time chunking, arXiv 2506.07339, equations 2 to 4).

    `target` [B,K,A] holds the known actions, `weights` [K] how much each counts, `strength` bounds
    the guidance (β in the paper). Every evaluation differentiates the network once.
    """

    def guided(x: Tensor, time: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            slope = velocity(x, time)
            end = x + (1 - time[:, None, None]) * slope
            error = (target - end.detach()) * weights[:, None]
            (correction,) = torch.autograd.grad(end, x, error)
        rest = 1 - time
        spread = rest**2 / (time**2 + rest**2)
        scale = (rest / (time * spread).clamp(min=1e-6)).clamp(max=strength)
        return slope.detach() + scale[:, None, None] * correction

    return guided


def sum_of(parts: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return the weighted sum of predictions."""
    (weight, total), *rest = parts
    total = total if weight == 1 else weight * total
    for weight, value in rest:
        total = total + weight * value
    return total


def noise_levels(schedule: Literal["exponential", "karras"], low: float, high: float, steps: int) -> tuple[float, ...]:
    """Return `steps` noise levels from `high` to `low` and a final zero (Karras: arXiv 2206.00364, eq. 5, ρ = 7)."""
    ramp = np.linspace(0, 1, steps)
    if schedule == "exponential":
        levels = np.exp(np.log(high) + ramp * (np.log(low) - np.log(high)))
    else:
        levels = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    return (*levels.tolist(), 0.0)


def denoise(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[float],
    solver: Literal["euler", "heun", "dpm_solver"],
    pin: Pin,
) -> Tensor:
    """Solve dx/dσ = (x - D(x, σ))/σ down `levels` (arXiv 2206.00364, algorithm 1; DPM-Solver++(2M) without noise)."""
    before, h_before = torch.zeros_like(x), 0.0
    for here, there in pairwise(levels):
        x = pin(x, here)
        clean = denoiser(x, here)
        h = math.log(here / there) if there else math.inf
        if solver == "dpm_solver" and h_before and there:
            ratio = h / (2 * h_before)
            x = there / here * x - math.expm1(-h) * ((1 + ratio) * clean - ratio * before)
        else:
            slope = (x - clean) / here
            guess = x + (there - here) * slope
            if solver == "heun" and there:
                slope = (slope + (guess - denoiser(pin(guess, there), there)) / there) / 2
            x = x + (there - here) * slope
        before, h_before = clean, h
    return x


@cache
def alpha_bars(betas: Betas, train_steps: int) -> tuple[float, ...]:
    """Return ᾱ_k, k = 0 … train_steps-1, of the cosine (arXiv 2102.09672, eq. 17) or linear schedule."""
    if betas == "linear":
        values = np.linspace(1e-4, 0.02, train_steps)
    else:
        grid = np.arange(train_steps + 1) / train_steps
        signal = np.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
        values = np.minimum(1 - signal[1:] / signal[:-1], 0.999)
    return tuple(np.cumprod(1 - values).tolist())


@dataclass(frozen=True)
class DiffusionStep:
    """One step x ← x·`x` + x0·`clean` + ε·`noise` + z·`fresh` + x0_before·`before`, from level `level`."""

    level: int
    alpha_bar: float
    x: float = 0.0
    clean: float = 0.0
    noise: float = 0.0
    fresh: float = 0.0
    before: float = 0.0


@cache
def diffusion_steps(
    sampler: Literal["ddpm", "ddim", "dpm_solver"], betas: Betas, train_steps: int, steps: int, eta: float = 0.0
) -> tuple[DiffusionStep, ...]:
    """Return the coefficients of a sampler with `steps` network evaluations; `eta` is DDIM's noise."""
    if not 1 <= steps <= train_steps:
        raise ConfigError(
            "A sampler cannot take more steps than the schedule has.", found=steps, expected=f"1 to {train_steps}"
        )
    bars = alpha_bars(betas, train_steps)
    if sampler == "dpm_solver":
        return _dpm_solver(bars, steps)
    ratio = train_steps // steps
    levels = [i * ratio for i in range(steps)][::-1]
    make = _ddpm if sampler == "ddpm" else partial(_ddim, eta=eta)
    return tuple(make(level, bars[level], bars[level - ratio] if level >= ratio else 1.0) for level in levels)


def _ddpm(level: int, bar: float, bar_next: float) -> DiffusionStep:
    """Posterior q(x_{k-1} | x_k, x0) with the smaller variance (arXiv 2006.11239, eq. 6 and 7)."""
    alpha = bar / bar_next
    clean = math.sqrt(bar_next) * (1 - alpha) / (1 - bar)
    x = math.sqrt(alpha) * (1 - bar_next) / (1 - bar)
    variance = max((1 - bar_next) / (1 - bar) * (1 - alpha), 1e-20)
    return DiffusionStep(level, bar, x=x, clean=clean, fresh=math.sqrt(variance) if level > 0 else 0.0)


def _ddim(level: int, bar: float, bar_next: float, eta: float) -> DiffusionStep:
    """Step with `eta` of DDPM's noise, deterministic at 0 (arXiv 2010.02502, eq. 12 and 16)."""
    variance = eta**2 * (1 - bar_next) / (1 - bar) * (1 - bar / bar_next)
    noise = math.sqrt(1 - bar_next - variance)
    return DiffusionStep(level, bar, clean=math.sqrt(bar_next), noise=noise, fresh=math.sqrt(variance))


def _dpm_solver(bars: tuple[float, ...], steps: int) -> tuple[DiffusionStep, ...]:
    """DPM-Solver++(2M), whose last step, to no noise, is of first order (arXiv 2211.01095, algorithm 2)."""
    levels = np.linspace(0, len(bars) - 1, steps + 1).round()[::-1][:-1].astype(int).tolist()
    alphas = [math.sqrt(bars[level]) for level in levels] + [1.0]
    sigmas = [math.sqrt(1 - bars[level]) for level in levels] + [0.0]
    log_snr = [math.log(alpha / sigma) if sigma else math.inf for alpha, sigma in zip(alphas, sigmas, strict=True)]
    result = []
    for i, level in enumerate(levels):
        h = log_snr[i + 1] - log_snr[i]
        weight = alphas[i + 1] * -math.expm1(-h)
        before = 0.0
        last = i == len(levels) - 1
        if i > 0 and not last:
            ratio = (log_snr[i] - log_snr[i - 1]) / h
            before = -weight / (2 * ratio)
        x = sigmas[i + 1] / sigmas[i]
        result.append(DiffusionStep(level, bars[level], x=x, clean=weight - before, before=before))
    return tuple(result)
