"""A bar for what takes long."""

import sys
from collections.abc import Iterable, Iterator

__all__ = ["bar"]


def bar[T](items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield `items` under a bar with rate and time left on the standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, what, total, console=Console(stderr=True), transient=True)
