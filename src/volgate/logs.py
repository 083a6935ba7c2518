"""Log lines: a fixed message, then facts as key=value or as JSON; a priority for the journal where it listens.

A message that comes more than ``BURST`` times in ``WINDOW_S`` seconds is left out until the window ends; the next line
of it says how many were left out. So a failing disk cannot fill the one that the logs lie on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any, Final

BURST: Final = 20
WINDOW_S: Final = 10.0
_PRIORITY: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record carries besides its message."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class KeyValueFormatter(logging.Formatter):
    """``LEVEL message key=value ...``; values with blanks are quoted."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it where there is one."""
        facts = [f"{key}={quoted(value)}" for key, value in facts_of(record).items() if key != "event"]
        line = " ".join([record.levelname, record.getMessage(), *facts])
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>" if self._journal else f"{self.formatTime(record)} "
        line = prefix + line
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, message, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is a fact."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
        line = {"time": when, "level": record.levelname.lower(), "message": record.getMessage(), **facts_of(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def quoted(value: object) -> str:
    """Return a value as it stands in a line of key=value: in quotes where it would not be one word."""
    text = str(value)
    return repr(text) if not text or any(c.isspace() or c in "\"'=" for c in text) else text


class RateLimit(logging.Filter):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written; adds ``left_out`` to the first one after some were not."""
        start, count = self._windows.get(record.msg, (0.0, 0))
        if record.created - start >= WINDOW_S:
            if count > BURST:
                record.left_out = count - BURST
            start, count = record.created, 0
        self._windows[record.msg] = start, count + 1
        return count < BURST


def set_up(*, level: str = "info", as_json: bool = False, file: str | None = None) -> None:
    """Send log lines to standard error, or to a file (made 0600) for a daemon without one. May be called again.

    Other handlers of the root logger stay.
    """
    root = logging.getLogger()
    stream = root.handlers[0].stream if root.handlers and isinstance(root.handlers[0], logging.StreamHandler) else None
    if stream is None or file is None:
        stream = sys.stderr if file is None else _open(file)
    handler: logging.StreamHandler[Any] = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if as_json else KeyValueFormatter(journal="JOURNAL_STREAM" in os.environ))
    handler.addFilter(RateLimit())
    handler.setLevel(level.upper())
    root.handlers[:1] = [handler]
    root.setLevel(min(logging.INFO, handler.level))  # events are noted whatever people want to read
    logging.getLogger("pyfuse3").setLevel(max(logging.INFO, handler.level))


def _open(file: str) -> Any:
    return open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a", buffering=1)
