"""One training run as one frozen, typed config; parsed from plain data, without importing torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from robolearn.config import parse
from robolearn.errors import ConfigError
from robolearn.evaluation import EvalConfig
from robolearn.interventions import InterventionWeights
from robolearn.registry import configure

__all__ = ["DataConfig", "RunConfig", "TrainConfig", "parse_run"]


@dataclass(frozen=True)
class DataConfig:
    """Which recorded frames are learned from.

    `loader` is the registered way to cut windows: in memory, cached on disk, or decoded on demand.
    `keys` picks observations (all when empty), after `rename` (new name → name in the dataset);
    `transforms` come before the policy's own, as plain data with registered names. `weights` let the
    human's corrections of a policy's rollouts count for more.
    """

    path: str
    kind: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    loader: str = "windows"
    keys: tuple[str, ...] = ()
    episodes: tuple[int, ...] | None = None
    validation_fraction: float = 0.0
    transforms: tuple[Mapping[str, Any], ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    weights: InterventionWeights | None = None

    def __post_init__(self):
        _within("data.validation_fraction", self.validation_fraction, 0.0, 0.9)


@dataclass(frozen=True)
class TrainConfig:
    """How weights are learned. `batch_size` counts windows of one optimizer step, over all processes.

    `accumulate` cuts a step into that many slices, run one after the other or shared out over
    processes; `ema_decay` 0 turns the average off; `clip_norm` 0 the clipping. `precision` "auto" is
    bf16 where the hardware multiplies it. Checkpoints of the steps `milestones` are never removed.
    """

    steps: int = 20_000
    batch_size: int = 256
    accumulate: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 200
    final_fraction: float = 0.02  # of the learning rate, where the cosine ends
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    ema_every: int = 2
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    shard: bool = False  # cut weights and optimizer over the processes (FSDP2) instead of copying them (DDP)
    workers: int = 0
    cache_mb: int = 1024  # windows without pictures are kept transformed up to this size
    log_every: int = 100
    validate_every: int = 0
    save_every: int = 5000
    keep: int = 2
    milestones: tuple[int, ...] = ()
    tensorboard: bool = False
    resume: str | None = None

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulate", "ema_every", "log_every", "save_every", "keep"):
            _within(f"train.{name}", getattr(self, name), 1)
        for name in ("warmup_steps", "workers", "cache_mb", "validate_every", "clip_norm", "weight_decay"):
            _within(f"train.{name}", getattr(self, name), 0)
        _within("train.ema_decay", self.ema_decay, 0.0, 0.999999)
        _within("train.final_fraction", self.final_fraction, 0.0, 1.0)
        if not self.learning_rate > 0:
            raise ConfigError("train.learning_rate is positive.", found=self.learning_rate, expected="> 0")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                "A batch is cut into equal slices.",
                found=f"batch_size {self.batch_size}, accumulate {self.accumulate}",
                expected="a batch size that accumulate divides",
            )


@dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on. `policy` is the frozen config of a registered policy."""

    policy: Any
    data: DataConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    env: Mapping[str, Any] | None = None
    seed: int = 0
    out: str | None = None
    device: str = "auto"


def parse_run(plain: Mapping[str, Any]) -> RunConfig:
    """Build a `RunConfig` from plain data; names are looked up in the registry, unknown keys are errors."""
    policy = configure("policy", plain.get("policy"), "policy")
    return parse(RunConfig, {**plain, "policy": policy}, where="run")


def _within(name: str, value: float, low: float, high: float | None = None) -> None:
    if not (value >= low and (high is None or value <= high)):
        upto = f" to {high}" if high is not None else " or more"
        raise ConfigError(f"{name} is out of range.", found=value, expected=f"{low}{upto}")
