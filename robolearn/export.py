"""A checkpoint's network as one static graph, for runtimes without this package: torch.export, and ONNX.

The graph is `sample`: normalised observations [B,T,…] and noise [B,…] in, normalised chunks [B,K,A] out, at one
batch size. What goes on around it (spec, transforms and their statistics) lies beside it as plain data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.actor import PolicyActor
from robolearn.errors import ConfigError, MissingLibraryError
from robolearn.files import plain_json, write_file
from robolearn.spec import Spec

__all__ = ["Exported", "export"]

Format = Literal["torch", "onnx"]
Inputs = tuple[Tensor, ...]
Run = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class Exported:
    """Where the graph lies, how far it is from the policy, and the median time of a call of both."""

    file: Path
    difference: float  # largest absolute difference of normalised actions
    ms: float
    policy_ms: float


def export(actor: PolicyActor, folder: Path, to: Format = "torch", batch: int = 1, tolerance: float = 1e-4) -> Exported:
    """Write the policy of `actor` as a graph with its spec and transforms into `folder`, and check it.

    The graph must give what the policy gives, on inputs that it was not traced with. Raises `ConfigError` for
    a method whose sampling is no static graph and `MissingLibraryError` when ONNX is not installed.
    """
    spec = actor.pipeline.transform_spec(actor.spec)
    spec = actor.policy.spec if spec.observations.keys() <= actor.policy.spec.observations.keys() else spec
    sampler = _Sampler(actor.policy, tuple(spec.observations))
    given = [_inputs(spec, actor.noise_shape, batch, seed) for seed in range(5)]
    graph = _trace(sampler, given[0])
    folder.mkdir(parents=True, exist_ok=True)
    file, run = (_write_onnx if to == "onnx" else _write_torch)(graph, folder, sampler.names)
    with torch.no_grad():
        difference = max(float((run(inputs) - sampler(*inputs)).abs().max()) for inputs in given)
        if not difference <= tolerance:
            file.unlink()
            raise ConfigError(
                "The graph gives other actions than the policy.",
                found=f"a difference of {difference:.3g}",
                expected=f"at most {tolerance:g}",
                do="this method cannot be exported: its sampling depends on more than observations and noise",
            )
        ms, policy_ms = _latency([run, lambda inputs: sampler(*inputs)], given)
    _describe(folder, actor, sampler.names, given[0], difference)
    return Exported(file, difference, ms, policy_ms)


class _Sampler(nn.Module):
    """The policy as a function of tensors in a fixed order."""

    def __init__(self, policy: Any, keys: Sequence[str]):
        super().__init__()
        self.policy, self.keys = policy, tuple(keys)
        self.names = (*self.keys, "noise") if policy.noise_shape != (0,) else self.keys

    def forward(self, *inputs: Tensor) -> Tensor:
        obs = dict(zip(self.keys, inputs, strict=False))
        noise = inputs[-1] if len(self.names) > len(self.keys) else inputs[0].new_zeros(len(inputs[0]), 0)
        return self.policy.sample(obs, noise)


def _inputs(spec: Spec, noise_shape: Sequence[int], batch: int, seed: int) -> Inputs:
    draw = torch.Generator().manual_seed(seed)
    values = []
    for feature in spec.observations.values():
        times = () if feature.kind == "text" else (spec.history,)
        make = torch.rand if feature.kind == "image" else torch.randn
        values.append(make(batch, *times, *feature.shape, generator=draw))
    if tuple(noise_shape) != (0,):
        values.append(torch.randn(batch, *noise_shape, generator=draw))
    return tuple(values)


def _trace(sampler: _Sampler, inputs: Inputs) -> torch.export.ExportedProgram:
    try:
        with torch.no_grad():
            return torch.export.export(sampler, inputs, strict=False)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(
            "This method cannot be exported: its sampling is no static graph.",
            found=str(error).strip().splitlines()[0],
            expected="a sampler of tensor operations whose number of steps is known",
            do="pick another sampler (policy.sampler.name=ddim), or serve the checkpoint with robolearn serve",
        ) from error


def _write_torch(graph: torch.export.ExportedProgram, folder: Path, names: Sequence[str]) -> tuple[Path, Run]:
    file = folder / "policy.pt2"
    torch.export.save(graph, file)
    module = torch.export.load(file).module()
    return file, lambda inputs: module(*inputs)


def _write_onnx(graph: torch.export.ExportedProgram, folder: Path, names: Sequence[str]) -> tuple[Path, Run]:
    try:
        import onnxruntime  # ty: ignore[import-not-found]
        import onnxscript  # noqa: F401 (torch's exporter needs it)  # ty: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise MissingLibraryError(
            f"ONNX needs the library '{error.name}'.",
            found="it is not installed",
            do="pip install onnx onnxscript onnxruntime, or take format=torch",
        ) from error
    file = folder / "policy.onnx"
    torch.onnx.export(
        graph, (), str(file), dynamo=True, input_names=list(names), output_names=["action"], verbose=False
    )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = [item.name for item in session.get_inputs()]

    def run(inputs: Inputs) -> Tensor:
        feed = dict(zip(given, (value.numpy() for value in inputs), strict=True))
        return torch.from_numpy(np.asarray(session.run(None, feed)[0]))

    return file, run


def _latency(runs: Sequence[Run], given: Sequence[Inputs], rounds: int = 60) -> list[float]:
    """Return the median milliseconds of each, called in turns."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        for run, kept in zip(runs, times, strict=True):
            start_s = perf_counter()
            run(given[number % len(given)])
            kept.append(1e3 * (perf_counter() - start_s))
    return [float(np.median(kept)) for kept in times]


def _describe(folder: Path, actor: PolicyActor, names: Sequence[str], inputs: Inputs, difference: float) -> None:
    from safetensors.torch import save_file

    transforms, stats = actor.pipeline.to_plain()
    shapes: Mapping[str, Any] = {name: list(value.shape) for name, value in zip(names, inputs, strict=True)}
    facts = {"inputs": shapes, "output": "action", "difference": difference, "torch": torch.__version__}
    write_file(folder / "spec.json", plain_json(actor.spec.to_dict()))
    write_file(folder / "transforms.json", plain_json(transforms))
    write_file(folder / "graph.json", plain_json(facts))
    if stats:
        save_file({key: value.contiguous() for key, value in stats.items()}, folder / "stats.safetensors")
