"""Options shared by readers."""

from dataclasses import dataclass

__all__ = ["NoOptions"]


@dataclass(frozen=True)
class NoOptions:
    """A reader without options: any key is an error."""
