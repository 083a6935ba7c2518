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
    """One line that says how far something is, on a terminal's standard error; nothing elsewhere."""

    def __init__(self) -> None:
        self._status: Any = None
        self._shown = sys.stderr.isatty() and not is_quiet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def update(self, text: str) -> None:
        """Show this in place of what was shown before."""
        if not self._shown:
            return
        if self._status is None:
            from rich.console import Console
            from rich.status import Status

            self._status = Status(text, console=Console(stderr=True))
            self._status.start()
        self._status.update(text)

    def stop(self) -> None:
        """Take the display away."""
        if self._status is not None:
            self._status.stop()
            self._status = None
