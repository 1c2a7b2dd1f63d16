"""How fast a dataset can be read: opened, gathered from memory, decoded on demand."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.config import parse
from robolearn.data.detect import OpenOptions
from robolearn.data.stream import build_stream_windows
from robolearn.data.windows import build_windows
from robolearn.errors import ConfigError

__all__ = ["BenchOptions", "bench"]


@dataclass(frozen=True)
class BenchOptions(OpenOptions):
    """Windows as a policy asks for them, and how long each way is measured."""

    history: int = 2
    chunk: int = 16
    batch_size: int = 64
    seconds: float = 2.0


def bench(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Measure opening and windows/s of a dataset: signals in memory, everything decoded on demand."""
    given = parse(BenchOptions, arguments, where="data bench")
    if not 0 < given.seconds <= 600 or given.batch_size < 1:
        raise ConfigError("data bench is out of range.", found=given, expected="0 < seconds ≤ 600, batch_size ≥ 1")
    start_s = time.perf_counter()
    source = given.open()
    opened_s = time.perf_counter() - start_s
    signals = [key for key, feature in source.spec.observations.items() if feature.kind == "signal"]
    start_s = time.perf_counter()
    memory = build_windows(source, given.history, given.chunk, signals)
    loaded_s = time.perf_counter() - start_s
    return {
        "path": given.path,
        "windows": len(memory),
        "open_s": opened_s,
        "load_signals_s": loaded_s,
        "signals_per_s": _rate(memory, given),
        "decoded_per_s": _rate(build_stream_windows(source, given.history, given.chunk), given),
    }


def _rate(windows: Any, given: BenchOptions) -> float:
    """Return windows/s of shuffled batches, the first not counted."""
    draw = np.random.default_rng(0)
    windows.gather(draw.integers(0, len(windows), given.batch_size))
    count, start_s = 0, time.perf_counter()
    while (spent_s := time.perf_counter() - start_s) < given.seconds:
        count += len(windows.gather(draw.integers(0, len(windows), given.batch_size))["action"])
    return count / spent_s
