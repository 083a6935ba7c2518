"""Log lines: a fixed message, then facts as key=value; a priority for the journal where it listens."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

_PRIORITY: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """``LEVEL message key=value ...``; values with blanks are quoted."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it where there is one."""
        facts = [f"{key}={_quoted(value)}" for key, value in vars(record).items() if key not in _STANDARD]
        line = " ".join([record.levelname, record.getMessage(), *facts])
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>" if self._journal else f"{self.formatTime(record)} "
        line = prefix + line
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(c.isspace() or c in "\"'=" for c in text) else text


def set_up(*, debug: bool = False, file: str | None = None) -> None:
    """Send log lines to standard error, or to a file (made 0600) for a daemon without one."""
    if file is not None:
        stream = open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a", buffering=1)
        handler: logging.Handler = logging.StreamHandler(stream)
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter(journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("pyfuse3").setLevel(logging.INFO)
