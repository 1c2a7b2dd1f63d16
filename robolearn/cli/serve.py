"""`robolearn serve`: a checkpoint behind a web socket, in openpi's protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robolearn.cli.arguments import parse_arguments
from robolearn.cli.compose import compose_config
from robolearn.cli.show import say
from robolearn.config import parse
from robolearn.members import load_member
from robolearn.serve.server import ServerConfig, run

__all__ = ["ServeJob", "main"]

_USAGE = """usage: robolearn serve ckpt=DIR [server.port=8000] [server.host=…] [server.preset=…] [policy.steps=2]

Answers openpi clients and `robolearn.serve.client` until interrupted. Another address than this
machine needs server.token=… and TLS (server.certificate, server.private_key) or server.insecure=true."""


@dataclass(frozen=True)
class ServeJob:
    """The resolved config of `robolearn serve`."""

    ckpt: str
    server: ServerConfig = field(default_factory=ServerConfig)
    policy: Mapping[str, Any] | None = None
    member: str = ""  # of the mixture that was learned from: the dataset to act as
    device: str = "cpu"
    seed: int = 0


def main(arguments: Sequence[str]) -> None:
    """Serve one checkpoint."""
    job = parse(ServeJob, compose_config("serve", parse_arguments(arguments, _USAGE)), where="config")
    actor = load_member(job.ckpt, job.member, job.device, policy=job.policy)
    secure = "wss" if job.server.certificate else "ws"
    say(f"serving {Path(job.ckpt).name} on {secure}://{job.server.host}:{job.server.port}; stop with Ctrl-C")
    run(actor, job.server, {"spec": actor.spec.to_dict()}, job.seed)
