"""Waiting until a daemon has ended, which has settled everything then, and what it did not store."""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path
from typing import Any, Final

import click

from volgate.cli.output import Progress, is_quiet
from volgate.control.client import ask, send
from volgate.core.sizes import format_backlog
from volgate.errors import StorageException

SILENT_S: Final = 0.5
"""A wait shorter than this needs no explanation."""
WAIT_S = 60.0
"""How long nothing may move."""
TELL_S = 5.0
"""After so long a wait is told also to who sees no progress."""


class Left:
    """What a daemon that is about to end does not store; it is asked before it is, since it may be quick."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._receive = send(socket, "GET", "/v1/drained", timeout_s=None)
        try:
            ask(socket, "GET", "/v1/status")  # answered after the question above was read
        except StorageException:
            self.close()
            raise

    def at_end(self) -> dict[str, Any]:
        """Return what the ended daemon had said; empty where it had not."""
        with contextlib.suppress(StorageException):
            storage: dict[str, Any] = self._receive()
            return storage
        return {}

    def close(self) -> None:
        """Wait for it no longer."""
        self._receive.close()

    def now(self) -> dict[str, Any] | None:
        """Return the daemon's status, None where it does not answer."""
        with contextlib.suppress(StorageException):
            status: dict[str, Any] = ask(self._socket, "GET", "/v1/status", timeout_s=1.0)
            return status
        return None


def describe_backlog(storage: dict[str, Any]) -> str:
    """Return how much is not stored yet, for people."""
    return format_backlog(storage["backlog_files"], storage["backlog_bytes"])


def wait_for_end(process: int, left: Left | None, progress: Progress, doing: str, waiting: str) -> bool:
    """Return whether a daemon ended; it has WAIT_S from the last time that something moved.

    Args:
        process: its pidfd (pidfd_open(2)).
        doing: what was done before, for people; then comes what it stores, or ``waiting``.
    """
    poller = select.poll()
    poller.register(process, select.POLLIN)
    begun = time.monotonic()
    seen, deadline, is_told = None, begun + WAIT_S, progress.is_shown or is_quiet()
    while time.monotonic() < deadline:
        status = left.now() if left is not None else None
        storage = status["storage"] if status is not None else None
        if storage and storage["backlog_files"]:
            state = f"{doing}; storing what is left: {describe_backlog(storage)}"
        else:
            state = f"{doing}; {waiting}"
        progress.update(state)
        if not is_told and time.monotonic() >= begun + TELL_S:
            is_told = True
            click.echo(f"volgate: {state}", err=True)
        if status is not None:
            stored = (storage["backlog_files"], storage["stored_bytes"]) if storage else None
            now = stored, status.get("under_way")
            if now != seen:
                seen, deadline = now, time.monotonic() + WAIT_S
        if poller.poll(SILENT_S * 1000):
            return True
    return False


@contextlib.contextmanager
def watched_process(pid: int) -> Any:
    """Yield the pidfd of a process, None where it has ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield process
    finally:
        os.close(process)


def has_ended(process: int, within_s: float) -> bool:
    """Return whether a process ends so soon."""
    poller = select.poll()
    poller.register(process, select.POLLIN)
    return bool(poller.poll(within_s * 1000))
