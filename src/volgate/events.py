"""What happened on this host, for programs that follow it: a durable log to which every daemon appends.

Lines of JSON in numbered files, of which the last few are kept. A log record becomes an event where it names one
(``extra={"event": "task.ended", ...}``); what else it carries are the event's facts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import logging.handlers
import os
import queue
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from volgate.errors import InputOutput
from volgate.logs import facts_of

FORMAT_VERSION: Final = 1
FILE_BYTES: Final = 8 << 20
_KEPT_FILES: Final = 4
_END_S: Final = 5.0
_NAME: Final = re.compile(r"([0-9]{1,12})\.jsonl")
_CURSOR: Final = re.compile(r"([0-9]{1,12})-([0-9]{1,12})")


@attrs.frozen
class Event:
    """One event.

    Attributes:
        cursor: where the next one begins: ask for what follows this one by it.
        at: UNIX seconds. kind: ``subject.what``, stable. message: for people. facts: volume_id and more.
    """

    cursor: str
    at: float
    kind: str
    message: str
    facts: dict[str, Any]


class EventLog:
    """The log in a directory, made when the first event is appended. Several processes may append and read at once.

    Args:
        directory: of nothing else.
        file_bytes: after so many a new file is begun.
    """

    def __init__(self, directory: Path, *, file_bytes: int = FILE_BYTES) -> None:
        self._directory = directory
        self._file_bytes = file_bytes

    def append(self, at: float, kind: str, message: str, facts: dict[str, Any]) -> None:
        """Add an event, durably. Blocks for the disk. Raises OSError."""
        line = {"format": FORMAT_VERSION, "at": at, "kind": kind, "message": message, "facts": facts}
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            numbers = self._numbers()
            number = numbers[-1] if numbers else 1
            if numbers and self._path(number).stat().st_size >= self._file_bytes:
                number += 1
                for old in numbers[: 1 - _KEPT_FILES]:
                    self._path(old).unlink(missing_ok=True)
            file = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(file).st_size
                is_torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"  # by a full disk, or a power cut
                content = b"\n" * is_torn + json.dumps(line, default=str).encode() + b"\n"
                if os.write(file, content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fdatasync(file)
            finally:
                os.close(file)
        finally:
            os.close(lock)

    def _path(self, number: int) -> Path:
        return self._directory / f"{number}.jsonl"

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))

    def end(self) -> str:
        """Return the cursor behind the last event. Raises InputOutput: the log cannot be read."""
        with self._readable():
            numbers = self._numbers()
            if not numbers:
                return "1-0"
            return f"{numbers[-1]}-{self._path(numbers[-1]).stat().st_size}"

    def read(self, cursor: str | None = None, limit: int = 1000) -> list[Event]:
        """Return events from a cursor on, None = from the oldest that is kept. Blocks for the disk.

        What a cursor points to may be gone, or lie behind the end of a log that was emptied or replaced: then the
        oldest comes first of what may not have been seen.

        Raises:
            ValueError: it is no cursor. InputOutput: the log cannot be read.
        """
        found = re.fullmatch(_CURSOR, cursor) if cursor is not None else None
        if cursor is not None and found is None:
            raise ValueError(f"{cursor!r} is no event's cursor")
        first, offset = (int(found[1]), int(found[2])) if found else (0, 0)
        events: list[Event] = []
        with self._readable():
            numbers = self._numbers()
            if numbers and first > numbers[-1]:
                first = 0
            for number in numbers:
                if number >= first and len(events) < limit:
                    start = offset if number == first else 0
                    events += self._read_file(number, start, limit - len(events))
        return events

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self._directory
            raise InputOutput(f"the events of this host cannot be read: {where}: {error.strerror}") from error

    def _read_file(self, number: int, start: int, limit: int) -> Iterator[Event]:
        try:
            file = self._path(number).open("rb")
        except (FileNotFoundError, IsADirectoryError):  # let go just now, or none of ours
            return
        with file:
            position = start if start <= os.fstat(file.fileno()).st_size else 0
            file.seek(position)
            for line in file:
                if limit <= 0 or not line.endswith(b"\n"):
                    return
                position += len(line)
                event = _to_event(f"{number}-{position}", line)
                if event is not None:
                    limit -= 1
                    yield event


def _to_event(cursor: str, line: bytes) -> Event | None:
    """Return the event of a line; None: torn by a power cut, in the middle of one, or of a newer version."""
    try:
        found = json.loads(line)
        if found["format"] > FORMAT_VERSION:
            return None
        return Event(cursor, float(found["at"]), str(found["kind"]), str(found["message"]), dict(found["facts"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


class _Appender(logging.Handler):
    """Appends records that name an event; what cannot be noted is told once on standard error, as logging does."""

    def __init__(self, log: EventLog, common: dict[str, Any]) -> None:
        super().__init__()
        self._log = log
        self._common = common

    def emit(self, record: logging.LogRecord) -> None:
        try:
            facts = {**self._common, **facts_of(record)}
            self._log.append(record.created, facts.pop("event"), record.getMessage(), facts)
        except Exception:  # noqa: BLE001 - the work goes on without its event
            self.handleError(record)


class Recorder:
    """Notes the events of this process, in a thread of its own. Enter it once logging is set up.

    Args:
        common: facts that each of them has.
    """

    def __init__(self, log: EventLog, common: dict[str, Any]) -> None:
        waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        self._handler = logging.handlers.QueueHandler(waiting)
        self._handler.addFilter(lambda record: hasattr(record, "event"))
        self._listener = logging.handlers.QueueListener(waiting, _Appender(log, common))

    def __enter__(self) -> None:
        self._listener.start()
        logging.getLogger().addHandler(self._handler)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self._handler)
        stopping = threading.Thread(target=self._listener.stop, daemon=True)
        stopping.start()
        stopping.join(_END_S)  # the log may be held by somebody: the process ends all the same
