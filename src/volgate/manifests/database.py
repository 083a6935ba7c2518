"""A SQLite file that is written once, as a draft that nobody else opens, and read only ever after."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from volgate.errors import InputOutput, NoSpace, Stale, Unsupported

_HEAD: Final = "CREATE TABLE manifest (format INTEGER NOT NULL, root INTEGER NOT NULL);"


class DraftDatabase:
    """A draft.

    Args:
        path: of a file that does not exist. tables: SQL that makes them.

    Calls raise NoSpace where the local disk does not take it.
    """

    def __init__(self, path: Path, tables: str) -> None:
        with _converted():
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN; {_HEAD}{tables}")

    def set_head(self, version: int, root: int = 0) -> None:
        """Say which format it has, and which row is the root; call once."""
        with _converted():
            self._database.execute("INSERT INTO manifest VALUES (?, ?)", (version, root))

    def insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Run a statement for each row."""
        with _converted():
            self._database.executemany(statement, rows)

    def finish(self) -> None:
        """Write what was entered; not durable yet. Blocks for the local disk."""
        with _converted():
            self._database.execute("COMMIT")
        self._database.close()

    def discard(self) -> None:
        """Give the draft up; its file is the caller's to remove."""
        self._database.close()


class SealedDatabase:
    """A manifest that is whole.

    Args:
        path: its file on the local disk. known_version: the newest format that the caller knows.

    Attributes:
        root: as ``set_head`` was told.

    Raises:
        InputOutput: it is damaged. Unsupported: a newer version wrote it.
    """

    def __init__(self, path: Path, known_version: int) -> None:
        self._is_closed = False
        try:
            source = f"file:{quote(str(path))}?mode=ro&immutable=1"
            self._database = sqlite3.connect(source, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise InputOutput(f"the manifest {path.name} cannot be opened: {error}") from error
        try:
            version, self.root = self._database.execute("SELECT format, root FROM manifest").fetchone()
        except (sqlite3.Error, TypeError) as error:
            self._database.close()
            raise InputOutput(f"the manifest {path.name} is damaged") from error
        if version > known_version:
            self._database.close()
            raise Unsupported(f"the snapshot has format {version}, this version knows {known_version}: upgrade volgate")

    def ask(self, question: str, *values: Any) -> sqlite3.Cursor:
        """Return the rows that answer a question. Raises Stale after ``close``, InputOutput."""
        if self._is_closed:
            raise Stale("the snapshot was deleted")
        try:
            return self._database.execute(question, values)
        except sqlite3.Error as error:
            raise InputOutput(f"the manifest cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._is_closed = True
        self._database.close()


@contextlib.contextmanager
def _converted() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise NoSpace(f"the manifest cannot be written on the local disk: {error}") from error
