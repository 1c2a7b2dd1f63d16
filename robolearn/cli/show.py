"""What the user sees: progress bars with rate and time left, tables, one line of text."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

__all__ = ["progress", "say", "table"]

# (done so far, a few words about the present state)
Advance = Callable[[int, str], None]


def say(text: str) -> None:
    """Print one line."""
    _console().print(text, highlight=False, markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns after the first are right-aligned when all their cells are numbers."""
    rows = [[str(cell) for cell in row] for row in rows]
    drawn = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD)
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(row[i][:1].isdigit() or row[i][:1] in "-±–" for row in rows)
        drawn.add_column(column, justify="right" if i and numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    _console().print(drawn)


@contextmanager
def progress(what: str, total: int | None, unit: str) -> Generator[Advance]:
    """Show a bar for `total` `unit`s while the block runs; call what it yields with the count done."""
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn(unit),
        _Rate(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=_console(), refresh_per_second=4) as bar:
        task = bar.add_task(what, total=total, note="")

        def advance(done: int, note: str = "") -> None:
            bar.update(task, completed=done, note=note)

        yield advance


class _Rate(ProgressColumn):
    """Mean units per second, or seconds per unit when slower than one per second."""

    def render(self, task: Task) -> Text:
        if not task.completed or not task.elapsed:
            return Text("")
        rate = task.completed / task.elapsed
        return Text(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s/1")


def _console() -> Console:
    return Console()
