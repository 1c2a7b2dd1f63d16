"""One optimizer step: loss, gradient, clipping, finiteness, AdamW, moving average."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from robolearn.checkpoint import TrainingState, borrowed, check_weights, complete
from robolearn.contracts import Batch
from robolearn.distributed import SINGLE, Processes, full, like, local
from robolearn.errors import CheckpointError, NumericsError
from robolearn.run import TrainConfig
from robolearn.seeding import derive_seed

__all__ = ["Learner", "learning_rate", "precision", "reseed"]


class Learner:
    """Weights in training. Everything random in a step is drawn from (seed, step, slice).

    On the CPU a loss or gradient that is not finite raises in its step. On a GPU the step is
    skipped there without waiting for it, and `check` raises before anything is logged or saved.
    """

    def __init__(
        self, policy: Any, config: TrainConfig, seed: int, device: torch.device, processes: Processes = SINGLE
    ):
        self.policy = policy.to(device).train()
        self.config, self.seed, self.device, self.processes = config, seed, device, processes
        self._module = processes.wrap(self.policy, device)
        self.updates = 0
        self._names = {id(value): name for name, value in policy.named_parameters()}
        self._parameters = [value for value in policy.parameters() if value.requires_grad]
        self._optimizer: Any = torch.optim.AdamW(
            _groups(policy), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self._bf16 = precision(config.precision, device) == "bf16"
        self._loss: Callable[[Batch], Any] = torch.compile(self._module) if config.compile else self._module
        self._ema = [value.detach().float().clone() for value in self._parameters] if config.ema_decay else []
        self._bad_step = torch.full((), -1, device=device, dtype=torch.int64)
        self.waits = device.type == "cpu"  # asking whether a step is finite costs nothing there

    @property
    def parameter_names(self) -> list[str]:
        """Names of what is trained, in the order of the optimizer."""
        return [self._names[id(value)] for value in self._parameters]

    def step(self, step: int, slices: Sequence[tuple[int, Batch]], total: int) -> dict[str, torch.Tensor]:
        """Update the weights with the batch of `step`, cut into `total` slices, here the numbered `slices`.

        Returns detached scalars: "loss", "grad_norm" and the policy's own metrics.
        """
        metrics: dict[str, torch.Tensor] = {}
        for number, batch in slices:
            reseed(derive_seed(self.seed, "step", step, number), self.device)
            with self.processes.unsynchronised(self._module, number == slices[-1][0]):
                loss, values = self.losses(batch)
                (loss * (self.processes.count / total)).backward()
            for name, value in {**values, "loss": loss.detach()}.items():
                metrics[name] = metrics[name] + value / len(slices) if name in metrics else value / len(slices)
        metrics["grad_norm"] = self._update(step, metrics["loss"])
        return metrics

    def losses(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean loss of a transformed batch on the device, weighted where it says so, and metrics."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            per_sample, metrics = self._loss(batch)
        weight = batch.get("weight", 1.0)
        return (per_sample.float() * weight).mean(), metrics

    def check(self) -> None:
        """Raise `NumericsError` when a step since the last check was not finite."""
        step = int(self._bad_step)
        if step >= 0:
            raise _not_finite(step, "a loss or gradient")

    def swap_ema(self) -> None:
        """Exchange the weights with their moving average; a second call puts them back."""
        self.processes.forget_gathered(self.policy)
        for value, average in zip(local(self._parameters), local(self._ema), strict=bool(self._ema)):
            kept = value.clone()
            value.copy_(average)
            average.copy_(kept)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the state dict to publish: the moving average where there is one. Every process must ask."""
        averages = full(dict(zip(self.parameter_names, self._ema, strict=True))) if self._ema else {}
        left = borrowed(self.policy) | set(averages)
        state = {name: value for name, value in self.policy.state_dict().items() if name not in left}
        dtypes = {name: value.dtype for name, value in self.policy.state_dict().items()}
        return full(state) | {name: value.to(dtypes[name]) for name, value in averages.items()}

    def state(self, step: int, counters: Mapping[str, Any]) -> TrainingState:
        """Return everything that resuming needs after `step` steps. Every process must ask."""
        optimizer = {
            f"{kind}/{self._names[id(value)]}": tensor
            for value, entries in self._optimizer.state.items()
            for kind, tensor in entries.items()
        }
        weights = {name: value.detach() for name, value in zip(self.parameter_names, self._parameters, strict=True)}
        ema = dict(zip(self.parameter_names, self._ema, strict=True)) if self._ema else {}
        return TrainingState(step, full(weights), full(optimizer), full(ema), {**counters, "ema_updates": self.updates})

    def restore(self, state: TrainingState, published: Mapping[str, torch.Tensor]) -> None:
        """Continue from `state`; `published` holds the buffers and what is not trained."""
        names, own = self.parameter_names, self.policy.state_dict()
        wanted = complete(self.policy, {**published, **state.weights})
        check_weights(own, wanted)
        _expect("moving averages", state.ema, names if self._ema else [])
        kinds = ("step", "exp_avg", "exp_avg_sq")
        used = [name for name in names if f"step/{name}" in state.optimizer]  # a parameter without gradient has none
        _expect("optimizer states", state.optimizer, [f"{kind}/{name}" for name in used for kind in kinds])
        for name, value in own.items():
            _fill(value, wanted[name])
        for name, average in zip(names, self._ema, strict=bool(self._ema)):
            _fill(average, state.ema[name])
        for name, value in zip(names, self._parameters, strict=True):
            if name in used:
                moments = {kind: torch.zeros_like(value.detach()) for kind in kinds[1:]}
                entries = {"step": torch.zeros((), device=self.device), **moments}
                for kind, entry in entries.items():
                    _fill(entry, state.optimizer[f"{kind}/{name}"])
                self._optimizer.state[value] = entries
        self.updates = int(state.counters["ema_updates"])

    def _update(self, step: int, loss: torch.Tensor) -> torch.Tensor:
        gradients = local(value.grad for value in self._parameters if value.grad is not None)
        norm = self.processes.whole_norm(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        self._refuse(step, loss, norm)
        self._clip(norm, gradients)
        for group in self._optimizer.param_groups:
            group["lr"] = group["lr_scale"] * learning_rate(self.config, step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._ema and (step + 1) % self.config.ema_every == 0:
            self._average()
        return norm

    def _clip(self, norm: torch.Tensor, gradients: list[torch.Tensor]) -> None:
        if not self.config.clip_norm:
            return
        scale = (norm / self.config.clip_norm).clamp(min=1.0)
        if self.processes.shard:
            torch._foreach_div_(gradients, scale)
        else:
            self._optimizer.grad_scale = scale  # the fused optimizer divides by it on the way: no pass of its own

    def _refuse(self, step: int, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Raise, or have the optimizer skip the step, when it is not finite."""
        finite = torch.isfinite(norm) & torch.isfinite(loss)
        if self.waits:
            if not finite:
                raise _not_finite(step, f"loss {loss.item():.4g}, gradient norm {norm.item():.4g}")
            return
        self._optimizer.found_inf = (~finite).float()
        self._bad_step = torch.where((self._bad_step < 0) & ~finite, step, self._bad_step)

    def _average(self) -> None:
        self.updates += 1
        warm = (1 + self.updates) / (10 + self.updates)
        decay = min(self.config.ema_decay**self.config.ema_every, warm)
        torch._foreach_lerp_(local(self._ema), [value.float() for value in local(self._parameters)], 1 - decay)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate of `step` (0-based): linear warm-up, then constant or a cosine to `final_fraction`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * cosine)


def precision(wanted: str, device: torch.device) -> str:
    """Return "fp32" or "bf16"; "auto" is bf16 where the hardware multiplies it."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def reseed(seed: int, device: torch.device) -> None:
    """Seed the global generator of `device`, and nothing else."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)


def _groups(policy: Any) -> list[dict[str, Any]]:
    """Return AdamW's groups: the policy's own (`lr_scale` multiplies the rate), or one."""
    own = getattr(policy, "param_groups", None)
    groups = list(own()) if own else [{"params": list(policy.parameters())}]
    return [
        {"lr_scale": 1.0, **group, "params": [value for value in group["params"] if value.requires_grad]}
        for group in groups
    ]


def _fill(tensor: torch.Tensor, whole: torch.Tensor) -> None:
    """Copy `whole` into a tensor, or this process's part of it into a shard."""
    local([tensor])[0].copy_(local([like(tensor, whole)])[0])


def _expect(what: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    if set(given) != set(names):
        odd = sorted(set(given) ^ set(names))
        raise CheckpointError(f"The {what} do not fit this run.", found=", ".join(odd[:8]), expected=f"{len(names)}")


def _not_finite(step: int, found: str) -> NumericsError:
    return NumericsError(
        f"Training is not finite at step {step}.",
        found=found,
        expected="finite numbers",
        do="lower train.learning_rate, check the data (robolearn data stats), or train in fp32",
    )
