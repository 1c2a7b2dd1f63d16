"""One stack from demonstrations to a robot arm.

    import robolearn

    actor = robolearn.load("outputs/first")  # of ./run demo out=outputs/first
    result = robolearn.evaluate(actor, robolearn.make_env("pick_place", num_envs=16))

Everything below is imported on first use; `import robolearn` itself loads no heavy library.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name → module that defines it
_PUBLIC = {
    "evaluate": "robolearn.evaluation",
    "load": "robolearn.actor",
    "make_env": "robolearn.api",
    "open_dataset": "robolearn.api",
    "register": "robolearn.registry",
    "train": "robolearn.training",
}

__all__ = ["__version__", "evaluate", "load", "make_env", "open_dataset", "register", "train"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'robolearn' has no attribute '{name}'; it has {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
