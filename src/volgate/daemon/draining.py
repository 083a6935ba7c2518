"""The end of a volume whose backend keeps changes back: they are stored before the daemon ends, while that gets on."""

from __future__ import annotations

import logging
from typing import Final

import trio

from volgate.core.sizes import format_backlog
from volgate.daemon import service_manager
from volgate.drivers.base import BaseStorageBackend
from volgate.drivers.report import BackendReport

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.5
_EXTENSION_US: Final = 30_000_000
"""What systemd's stop timeout is extended by whenever something was stored."""


async def drain(backend: BaseStorageBackend, patience_s: float) -> None:
    """Return when the storage has all that was acknowledged, or for ``patience_s`` took nothing of it.

    Nothing may be changed any more. What is left is named in the log, and stays on local disk for the next mount.
    """
    report = backend.report()
    if report is None or not report.backlog_files:
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_give_up_without_progress, backend, patience_s, nursery.cancel_scope)
        await backend.drain(last=True)
        nursery.cancel_scope.cancel()
    report = backend.report()
    if report is not None and report.backlog_files:
        log.error(
            "not all is stored; the rest stays on local disk, and the next mount goes on",
            extra={"files": report.backlog_files, "bytes": report.backlog_bytes, "error": report.last_error},
        )


async def _give_up_without_progress(backend: BaseStorageBackend, patience_s: float, scope: trio.CancelScope) -> None:
    stored, since = _progress(backend.report()), trio.current_time()
    while trio.current_time() < since + patience_s:
        report = backend.report()
        if _progress(report) != stored:
            stored, since = _progress(report), trio.current_time()
        if report is not None:
            text = f"storing what is left: {format_backlog(report.backlog_files, report.backlog_bytes)}"
            moves = {"EXTEND_TIMEOUT_USEC": _EXTENSION_US} if since + _LOOK_S > trio.current_time() else {}
            service_manager.notify(STATUS=text, **moves)
        await trio.sleep(_LOOK_S)
    scope.cancel()


def _progress(report: BackendReport | None) -> tuple[int, int]:
    return (0, 0) if report is None else (report.backlog_files, report.stored_bytes)
