"""`robolearn export`: the network of a checkpoint as a static graph, checked and timed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolearn.actor import load
from robolearn.cli.arguments import parse_arguments
from robolearn.cli.compose import merge
from robolearn.cli.job import Job, out_folder
from robolearn.cli.show import say, table
from robolearn.config import parse
from robolearn.errors import ConfigError
from robolearn.export import Format, export

__all__ = ["ExportJob", "main"]

_USAGE = """usage: robolearn export ckpt=DIR [format=torch|onnx] [batch=1] [policy.steps=2] [out=DIR]

Writes one decision of a checkpoint as a graph (policy.pt2 of torch.export, or policy.onnx) with its spec, transforms
and statistics, checks it against the policy, and prints the time of both. `policy.KEY=` overrides options that do not
change the weights. A method whose sampling is no static graph is refused."""


@dataclass(frozen=True)
class ExportJob:
    """The options of `robolearn export`."""

    ckpt: str = ""
    format: Format = "torch"
    batch: int = 1
    policy: Mapping[str, Any] | None = None
    out: str | None = None


def main(arguments: Sequence[str]) -> None:
    """Export one checkpoint."""
    plain = merge({}, parse_arguments(arguments, _USAGE))
    config = parse(ExportJob, plain, where="config")
    if not config.ckpt or config.batch < 1:
        raise ConfigError("export needs a checkpoint and a batch size.", found=plain, do="set ckpt=DIR, batch=1")
    actor = load(config.ckpt, policy=config.policy)
    out = out_folder("export", config.out)
    job = Job("export", out, {**plain, "out": None})
    with job.stage("export"):
        made = export(actor, out, config.format, config.batch)
    job.finish({"difference": made.difference, "graph_ms": made.ms, "policy_ms": made.policy_ms})
    rows = [
        ("largest difference", f"{made.difference:.2g}"),
        ("graph, median [ms]", f"{made.ms:.3f}"),
        ("policy, median [ms]", f"{made.policy_ms:.3f}"),
        ("size [MB]", f"{sum(path.stat().st_size for path in Path(out).glob('policy.*')) / 1e6:.1f}"),
    ]
    table("", ("result", ""), rows)
    say(f"graph: {made.file}")
