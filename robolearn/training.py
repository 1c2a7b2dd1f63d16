"""The one supervised loop: data in, checkpoints out, every step a function of (config, seed, step)."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robolearn import checkpoint
from robolearn.config import config_hash, to_dict
from robolearn.contracts import Batch, WindowSource
from robolearn.device import pick_device
from robolearn.distributed import Processes, join
from robolearn.errors import CheckpointError, ConfigError
from robolearn.files import plain_json, write_file
from robolearn.learner import Learner, learning_rate, precision, reseed
from robolearn.loading import TrainingData, batches, cached, open_training_data, to_device, validation_index
from robolearn.metrics import MetricsLog
from robolearn.provenance import provenance
from robolearn.run import RunConfig, parse_run
from robolearn.seeding import derive_seed

__all__ = ["TrainResult", "stop_signals", "train"]

Advance = Callable[[int, str], None]

# What may differ between a run and its continuation.
_FREE = {"out", "env", "eval", "device"}
_FREE_TRAIN = {
    *("resume", "steps", "workers", "cache_mb", "log_every", "validate_every", "save_every"),
    *("keep", "milestones", "tensorboard"),
}


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. `interrupted`: a signal asked it to stop, and its state is saved."""

    checkpoint: Path
    step: int
    loss: float | None  # None where no step was left to do
    validation_loss: float | None
    samples_per_s: float
    data_s: float
    compute_s: float
    wall_s: float
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"checkpoint": str(self.checkpoint)}


def train(config: RunConfig, advance: Advance | None = None) -> TrainResult:
    """Train the policy of `config` into the folder `config.out` and return where its checkpoint is.

    `advance(steps done, a few words)` is called along the way. SIGTERM, SIGINT and SIGHUP end the
    run after the present step with a checkpoint. Raises `ConfigError` when the folder holds another
    run, `NumericsError` in the step that is not finite; nothing that is not finite is ever saved.
    """
    start_s = time.perf_counter()
    config, run = _prepare(config)
    processes, device = join(torch.device(config.device), config.train.shard)
    try:
        return _train(config, run, processes, device, advance or (lambda done, note: None), start_s)
    finally:
        processes.leave()


def _train(
    config: RunConfig, run: Path, processes: Processes, device: torch.device, advance: Advance, start_s: float
) -> TrainResult:
    resumed = checkpoint.find(config.train.resume) if config.train.resume else None
    former = checkpoint.load(resumed) if resumed else None
    if former:
        _require_same_run(former, config)
    data = open_training_data(config, former.pipeline if former else None)
    if config.train.validate_every and data.validation is None:
        raise ConfigError("train.validate_every needs held-out episodes.", do="set data.validation_fraction=0.1")
    reseed(derive_seed(config.seed, "init"), device)
    policy = config.policy.build(data.pipeline.transform_spec(data.spec))
    pretrained = getattr(policy, "load_pretrained", None)
    if pretrained is not None and former is None:
        pretrained()
    learner = Learner(policy, config.train, config.seed, device, processes)
    progress = _Progress()
    if resumed and former:
        state = checkpoint.load_training_state(resumed)
        learner.restore(state, former.weights)
        progress = _Progress.read(state)
        if state.counters["windows"] != len(data.windows):
            count = state.counters["windows"]
            raise CheckpointError("The dataset has changed.", found=f"{len(data.windows)} windows", expected=count)
    log = None
    if processes.first:
        _describe(run, config)
        log = MetricsLog(run, progress.step, config.train.tensorboard)
    loop = _Loop(config, run, data, learner, log, progress)
    try:
        with stop_signals() as stopped:
            folder = loop.run(lambda: processes.any(stopped()), advance if processes.first else lambda done, note: None)
    finally:
        if log is not None:
            log.close()
    return TrainResult(
        checkpoint=folder,
        step=progress.step,
        loss=progress.last_loss if progress.done else None,
        validation_loss=progress.validation_loss,
        samples_per_s=progress.rate(config.train.batch_size),
        data_s=progress.data_s,
        compute_s=progress.compute_s,
        wall_s=time.perf_counter() - start_s,
        interrupted=progress.step < config.train.steps,
    )


class _Progress:
    """Where a run stands; `step` is how many are done. Sums since the last log line are part of it."""

    def __init__(self, step: int = 0, sums: Mapping[str, torch.Tensor] | None = None, count: int = 0):
        self.step, self.sums, self.count = step, dict(sums or {}), count
        self.last_loss, self.validation_loss = float("nan"), None
        self.data_s = self.compute_s = 0.0
        self.done = 0

    @classmethod
    def read(cls, state: checkpoint.TrainingState) -> "_Progress":
        sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in state.counters["sums"].items()}
        return cls(state.step, sums, int(state.counters["count"]))

    def counters(self) -> dict[str, Any]:
        return {"sums": {name: float(value) for name, value in self.sums.items()}, "count": self.count}

    def add(self, metrics: Mapping[str, torch.Tensor]) -> None:
        for name, value in metrics.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name].to(value.device) + value if name in self.sums else value
        self.count += 1
        self.step += 1
        self.done += 1

    def flush(self) -> dict[str, float]:
        """Return the means since the last flush."""
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means

    def rate(self, batch_size: int) -> float:
        return self.done * batch_size / max(self.data_s + self.compute_s, 1e-9)


class _Loop:
    """Steps, and what happens between them: logging, validation, saving."""

    def __init__(
        self,
        config: RunConfig,
        run: Path,
        data: TrainingData,
        learner: Learner,
        log: MetricsLog | None,
        progress: _Progress,
    ):
        self.config, self.run_folder, self.data, self.learner = config, run, data, learner
        self.log, self.progress = log, progress

    def run(self, stopped: Callable[[], bool], advance: Advance) -> Path:
        """Train to the last step or until `stopped`; returns the last checkpoint."""
        options, progress = self.config.train, self.progress
        slices = self.learner.processes.slices(options.accumulate)
        device = self.learner.device
        data = cached(self.data, options.cache_mb, device)
        feed = batches(data, self.config, slices, progress.step, options.steps, device)
        saved = None
        mark_s = time.perf_counter()
        for pieces in feed:
            loaded_s = time.perf_counter()
            metrics = self.learner.step(progress.step, list(zip(slices, pieces, strict=True)), options.accumulate)
            progress.add(metrics)
            stop = stopped()
            if not stop:
                self._between(advance)
            saved = self._save() if stop or self._due(options.save_every, options.milestones) else None
            progress.data_s += loaded_s - mark_s
            mark_s = time.perf_counter()
            progress.compute_s += mark_s - loaded_s
            if stop:
                break
        return saved or self._save()

    def _between(self, advance: Advance) -> None:
        options, progress = self.config.train, self.progress
        windows = self.data.validation
        if windows is not None and options.validate_every and self._due(options.validate_every):
            self.learner.check()
            progress.validation_loss = self._validate(windows)
            self._write({"validation_loss": progress.validation_loss})
        if self._due(options.log_every):
            self.learner.check()
            means = self.learner.processes.mean(progress.flush())
            progress.last_loss = means["loss"]
            self._write(
                {
                    **means,
                    "learning_rate": learning_rate(options, progress.step - 1),
                    "epoch": progress.step * options.batch_size / len(self.data.windows),
                    "samples_per_s": progress.rate(options.batch_size),
                    "data_s": progress.data_s,
                    "compute_s": progress.compute_s,
                }
            )
        if progress.step % 10 == 0 or progress.step == options.steps:
            waiting = progress.data_s / max(progress.data_s + progress.compute_s, 1e-9)
            rate = progress.rate(options.batch_size)
            advance(progress.step, f"loss {progress.last_loss:.4f}  {rate:,.0f} samples/s  data {waiting:.0%}")

    def _due(self, every: int, also: Sequence[int] = ()) -> bool:
        step = self.progress.step
        return step % every == 0 or step == self.config.train.steps or step in also

    def _write(self, values: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.write(self.progress.step, values)

    def _validate(self, windows: WindowSource) -> float:
        """Return the loss of the moving average on held-out episodes, always with the same noise."""
        total, count = 0.0, 0
        self.learner.policy.eval()
        self.learner.swap_ema()
        with torch.no_grad():
            for number, index in enumerate(validation_index(len(windows), self.config.train.batch_size)):
                reseed(derive_seed(self.config.seed, "validation", number), self.learner.device)
                batch: Batch = to_device(self.data.pipeline.forward(windows.gather(index)), self.learner.device)
                total, count = total + float(self.learner.losses(batch)[0]) * len(index), count + len(index)
        self.learner.swap_ema()
        self.learner.policy.train()
        return total / count

    def _save(self) -> Path:
        self.learner.check()
        step, options = self.progress.step, self.config.train
        folder = self.run_folder / "checkpoints" / f"step_{step:09d}"
        content = checkpoint.Checkpoint(
            to_dict(self.config), self.data.spec, self.data.pipeline, self.learner.weights(), step
        )
        processes, counters = self.learner.processes, self.progress.counters()
        counters = {**counters, "sums": processes.mean(counters["sums"]), "windows": len(self.data.windows)}
        state = self.learner.state(step, counters)
        if processes.first:
            checkpoint.save(folder, content, state)
            checkpoint.prune(self.run_folder, options.keep, options.milestones)
        processes.wait()
        return folder


def _prepare(config: RunConfig) -> tuple[RunConfig, Path]:
    """Return the config with nothing left open, and its folder, which is empty or the run's own."""
    device = pick_device(config.device)
    chosen = precision(config.train.precision, device)
    resume = config.train.resume
    run = Path(config.out) if config.out else (checkpoint.find(resume).parent.parent if resume else None)
    if run is None:
        raise ConfigError("A run needs a folder.", do="set out=DIR")
    if not resume and checkpoint.folders(run):
        raise ConfigError(
            f"{run} holds a run already.",
            found=f"{len(checkpoint.folders(run))} checkpoints",
            expected="an empty or new folder: nothing is overwritten",
            do=f"continue it with train.resume={run}, or pick another out=DIR",
        )
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    train_config = dataclasses.replace(config.train, precision=chosen)
    return dataclasses.replace(config, device=str(device), out=str(run), train=train_config), run


def _describe(run: Path, config: RunConfig) -> None:
    content = {"config": to_dict(config), "config_hash": config_hash(config), **provenance()}
    write_file(run / "run.json", plain_json(content))


def _require_same_run(former: checkpoint.Checkpoint, config: RunConfig) -> None:
    """Raise unless `config` continues the run of `former`."""
    before = to_dict(parse_run(former.config))  # options that did not exist then have their defaults
    now = to_dict(config)
    differences = []
    for section in ("policy", "data", "train"):
        old, new = before.get(section, {}), now[section]
        free = _FREE_TRAIN if section == "train" else set()
        differences += [
            f"{section}.{key}: {old.get(key)!r} then, {new.get(key)!r} now"
            for key in sorted({*old, *new} - free)
            if old.get(key) != new.get(key)
        ]
    if before.get("seed") != now["seed"]:
        differences.append(f"seed: {before.get('seed')} then, {now['seed']} now")
    if differences:
        raise ConfigError(
            "This is not the run that the checkpoint belongs to.",
            found="; ".join(differences),
            expected=f"the same config but for {', '.join(sorted(_FREE | {f'train.{name}' for name in _FREE_TRAIN}))}",
            do="start a new run, or repeat the options of the first one",
        )


@contextmanager
def stop_signals() -> Generator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM, SIGINT or SIGHUP came; a second one interrupts at once."""
    seen: list[int] = []

    def handler(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, former in before.items():
            signal.signal(number, former)
