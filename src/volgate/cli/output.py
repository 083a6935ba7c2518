"""What verbs say beside what they were asked for: that something was done, and how far it is."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

import click


def is_quiet() -> bool:
    """Return whether only errors are wanted: ``volgate --quiet VERB``."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("quiet"))


def confirm(message: str, *, err: bool = False) -> None:
    """Say that something was done, unless people want it quiet."""
    if not is_quiet():
        click.echo(message, err=err)


class Progress:
    """One line with a bar that says how far something is, on a terminal's standard error; nothing elsewhere.

    Attributes:
        is_shown: whether there is somebody to see it.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self.is_shown = sys.stderr.isatty() and not is_quiet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def update(self, text: str, *, done: float = 0, total: float | None = None) -> None:
        """Show this in place of what was shown before; without a total the bar only moves to and fro."""
        if not self.is_shown:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar
            from rich.table import Column

            words = TextColumn("{task.description}", table_column=Column(overflow="fold"))
            self._bar = Bar(BarColumn(20), TimeElapsedColumn(), words, console=Console(stderr=True), transient=True)
            self._bar.add_task(text, total=None)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], description=text, completed=done, total=total)

    def stop(self) -> None:
        """Take the display away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def change_line(change: dict[str, Any]) -> str:
    """Return a line for a difference, or for what is done about one: + added, - removed, M changed."""
    what = f" ({', '.join(change['what'])})" if change["what"] else ""
    path = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in change["path"])
    return f"{ {'added': '+', 'removed': '-', 'changed': 'M'}[change['change']] } {path}{what}"
