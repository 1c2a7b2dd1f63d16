"""The command line: a thin table of verbs in front of Hydra. Only this package composes the rooms."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from robolearn import __version__
from robolearn.errors import ConfigError, RobolearnError, suggest

__all__ = ["VERBS", "load", "main"]

# verb → ("module:function" taking the remaining arguments, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("robolearn.cli.demo:main", "the whole loop on an embedded task: demonstrate, train, evaluate, report"),
    "collect": ("robolearn.cli.collect:main", "demonstrations by a scripted expert: collect env=NAME out=DIR"),
    "train": ("robolearn.cli.train:main", "train a policy from a dataset: policy=flow data=pusht env=pusht"),
    "rl": ("robolearn.cli.rl:main", "improve a checkpoint by reinforcement learning: algo=residual ckpt=DIR env=NAME"),
    "eval": ("robolearn.cli.evaluate:main", "evaluate a checkpoint in closed loop: ckpt=DIR episodes=200"),
    "compare": ("robolearn.cli.compare:main", "evaluations on the same episodes side by side: compare A B"),
    "reproduce": ("robolearn.cli.reproduce:main", "run one published row again: reproduce NAME"),
    "robot": ("robolearn.cli.robot:main", "list, check, teleop, record, rollout, replay on a twin or a ROS 2 arm"),
    "serve": ("robolearn.cli.serve:main", "answer policy clients over a web socket: ckpt=DIR server.port=8000"),
    "export": ("robolearn.cli.export:main", "write a policy as a static graph: export ckpt=DIR format=onnx"),
    "data": ("robolearn.cli.data:main", "look at, check, convert and edit datasets: data info PATH"),
    "bench": ("robolearn.cli.bench:main", "run a benchmark of this checkout: bench NAME [--quick]"),
    "doctor": ("robolearn.cli.doctor:main", "say what this machine has, what it lacks and what that costs"),
    "list": ("robolearn.cli.listing:main", "list registered policies, environments, datasets and experiments"),
    "push": ("robolearn.cli.hub:push", "upload a checkpoint or dataset with its card: push DIR to=NAME"),
    "convert": ("robolearn.cli.convert:main", "a published policy's folder as a checkpoint: convert FOLDER out=DIR"),
    "pull": ("robolearn.cli.hub:pull", "download a checkpoint or dataset: pull NAME to=DIR"),
}

_USAGE = """robolearn {version}: one stack from demonstrations to a robot arm

usage: robolearn VERB [SUB] [key=value ...] [-m] [--config-dir DIR]

verbs:
{verbs}

Overrides are Hydra's (policy=flow data=pusht train.steps=20000); -m runs one job per value of a
list (seed=0,1,2). Every command takes out=DIR and leaves DIR/result.json.
`robolearn VERB --help` shows a verb's options; ROBOLEARN_TRACEBACK=1 shows where an error came from.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0, 2 after an error of ours or of the system, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except RobolearnError as error:
        if os.environ.get("ROBOLEARN_TRACEBACK") == "1":
            raise
        sys.stderr.write(f"robolearn: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("robolearn: interrupted\n")
        return 130
    except BrokenPipeError:  # `robolearn list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder that is not ours, a path that is a file
        if os.environ.get("ROBOLEARN_TRACEBACK") == "1":
            raise
        sys.stderr.write(f"robolearn: error: The system refuses: {error.strerror or error}\n")
        sys.stderr.write(f"  found: {error.filename}\n" if error.filename else "")
        return 2


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, VERBS))
        verbs = "\n".join(f"  {verb:<{width}}  {line}" for verb, (_, line) in VERBS.items())
        sys.stdout.write(_USAGE.format(version=__version__, verbs=verbs))
        return 0
    if arguments[0] == "--version":
        sys.stdout.write(f"robolearn {__version__}\n")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise ConfigError(f"Unknown verb '{verb}'.", expected=suggest(verb, VERBS), do="see robolearn --help")
    return load(VERBS[verb][0])(rest) or 0


def load(target: str) -> Callable[[Sequence[str]], int | None]:
    """Import the "module:function" of a command table."""
    module, _, function = target.partition(":")
    return getattr(import_module(module), function)
