"""Changes that are asked for twice and done once: answers by ``Idempotency-Key``, kept for a day in SQLite.

A key is written, durably, before its change is begun. So after a crash it is known that it was begun and not whether it
was done: then that is the answer, and it is not done again. Blocking; the door calls it in threads.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from volgate.control.problems import Refusal
from volgate.errors import InputOutput, Unsupported
from volgate.errors.errno_map import from_oserror_at

FORMAT_VERSION: Final = 1
KEPT_S: Final = 24 * 3600.0
_MOST: Final = 100_000
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS answers (
    principal TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, run TEXT NOT NULL, begun_at REAL NOT NULL,
    status INTEGER, headers TEXT, body BLOB, PRIMARY KEY (principal, key)
) WITHOUT ROWID"""


@attrs.frozen
class Answer:
    """What a request was answered. Attributes: status: of HTTP. headers: (name, value). body: its content."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class KeptAnswers:
    """The database of answers.

    Args:
        path: made, with its folder, mode 0600.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._run = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the database in a transaction that is durable once it is over. Raises InputOutput, Unsupported."""
        with self._lock:
            try:
                if self._database is None:
                    self._database = self._open()
                self._database.execute("BEGIN IMMEDIATE")
                with self._database:
                    yield self._database
            except sqlite3.Error as error:
                raise InputOutput(f"{self._path} cannot be used: {error}; move it away") from error

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
        except OSError as error:
            raise from_oserror_at(error) from error
        database = sqlite3.connect(self._path, timeout=10.0, check_same_thread=False, isolation_level=None)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > FORMAT_VERSION:
            raise Unsupported(
                f"{self._path} has format {version}, this version knows {FORMAT_VERSION}: upgrade volgate"
            )
        database.execute(_TABLE)
        database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def begin(self, principal: str, key: str, fingerprint: str) -> Answer | None:
        """Return the answer of a request that was made before; None: it was not, and may be begun now.

        Raises:
            Refusal: it is under way; or was begun by a process that ended, and nobody knows how that went; or the key
                was used for another request.
        """
        now = time.time()
        with self._transaction() as database:
            database.execute("DELETE FROM answers WHERE begun_at < ?", (now - KEPT_S,))
            query = "SELECT fingerprint, run, status, headers, body FROM answers WHERE principal = ? AND key = ?"
            row = database.execute(query, (principal, key)).fetchone()
            if row is None:
                (count,) = database.execute("SELECT count(*) FROM answers").fetchone()
                if count >= _MOST:
                    raise Refusal("overloaded", f"{count} idempotency keys were used in a day; make no new ones")
                insert = "INSERT INTO answers (principal, key, fingerprint, run, begun_at) VALUES (?, ?, ?, ?, ?)"
                database.execute(insert, (principal, key, fingerprint, self._run, now))
                return None
        known, run, status, headers, body = row
        if known != fingerprint:
            raise Refusal("idempotency_key_reused", "this Idempotency-Key was used for another request")
        if status is not None:
            return Answer(status, tuple((name, value) for name, value in json.loads(headers)), body)
        if run == self._run:
            raise Refusal("request_in_progress", "the first request with this key is under way", retry_after_s=1)
        raise Refusal(
            "outcome_unknown",
            "the daemon ended while it did this: look whether it is done, and ask with another key if it is not",
        )

    def finish(self, principal: str, key: str, answer: Answer) -> None:
        """Keep the answer of a request that was begun."""
        with self._transaction() as database:
            database.execute(
                "UPDATE answers SET status = ?, headers = ?, body = ? WHERE principal = ? AND key = ?",
                (answer.status, json.dumps(answer.headers), answer.body, principal, key),
            )

    def forget(self, principal: str, key: str) -> None:
        """Take a request back that was begun, and refused before anything was done."""
        with self._transaction() as database:
            database.execute("DELETE FROM answers WHERE principal = ? AND key = ? AND status IS NULL", (principal, key))

    def close(self) -> None:
        """Close the database; it may be opened again."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None
