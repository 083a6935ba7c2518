"""The volumes this host knows by name: where their data lies, and how they are mounted.

SQLite. Nothing here is the only copy of anything: identity and limits are kept beside the data, so a lost catalog is
made again by adopting each source. One short transaction a call; several processes may use it at once.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from volgate.dto.validation import check_text, check_volume_id
from volgate.errors import AlreadyExists, InputOutput, NotFound, Unsupported
from volgate.errors.errno_map import from_oserror

FORMAT_VERSION: Final = 1
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS volumes (
    volume_id TEXT PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, source TEXT NOT NULL, mount_point TEXT NOT NULL,
    options TEXT NOT NULL, added_at REAL NOT NULL
)"""
_COLUMNS: Final = "volume_id, uuid, source, mount_point, options, added_at"


@attrs.frozen
class CatalogEntry:
    """One volume of the catalog.

    Attributes:
        volume_id: its name. uuid: as in its identity.
        source: absolute directory, or URL.
        mount_point: absolute path, "" where none was chosen.
        options: mount options as after ``-o``, "" for none.
        added_at: UNIX seconds.
    """

    volume_id: str = attrs.field(validator=check_volume_id)
    uuid: str = attrs.field(validator=check_text)
    source: str = attrs.field(validator=check_text)
    mount_point: str = ""
    options: str = ""
    added_at: float = attrs.field(factory=time.time)


class Catalog:
    """The catalog file.

    Args:
        path: made, with its folder, when the first volume is added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction.

        Raises:
            Unsupported: a newer version wrote the file. InputOutput: it cannot be read or written.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise from_oserror(error) from error
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=10.0)) as database, database:
                (version,) = database.execute("PRAGMA user_version").fetchone()
                if version > FORMAT_VERSION:
                    raise Unsupported(
                        f"{self._path} has format {version}, this version knows {FORMAT_VERSION}: upgrade volgate"
                    )
                if version == 0:
                    database.execute(_TABLE)
                    database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
                yield database
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise InputOutput(
                f"the catalog {self._path} cannot be used: {error}; move it away and add the volumes again with "
                "'volgate volume adopt SOURCE'"
            ) from error

    def add(self, entry: CatalogEntry) -> None:
        """Enter a volume, durably.

        Raises:
            AlreadyExists: its name or its data is entered already.
        """
        try:
            with self._open() as database:
                database.execute(f"INSERT INTO volumes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", attrs.astuple(entry))
        except sqlite3.IntegrityError as error:
            raise AlreadyExists(f"volume {entry.volume_id}, or its data, is in the catalog already") from error

    def replace(self, entry: CatalogEntry) -> None:
        """Change where a volume is mounted and how, durably. Raises NotFound."""
        with self._open() as database:
            changed = database.execute(
                "UPDATE volumes SET mount_point = ?, options = ? WHERE volume_id = ?",
                (entry.mount_point, entry.options, entry.volume_id),
            )
        if not changed.rowcount:
            self.find(entry.volume_id)

    def find(self, volume_id: str) -> CatalogEntry:
        """Return a volume. Raises NotFound."""
        if self._path.exists():
            with self._open() as database:
                query = f"SELECT {_COLUMNS} FROM volumes WHERE volume_id = ?"
                row = database.execute(query, (volume_id,)).fetchone()
            if row is not None:
                return CatalogEntry(*row)
        raise NotFound(
            f"no volume '{volume_id}' is known here; see 'volgate volume list'; a directory is written './{volume_id}'"
        )

    def list(self) -> list[CatalogEntry]:
        """Return all volumes by name."""
        if not self._path.exists():
            return []
        with self._open() as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM volumes ORDER BY volume_id").fetchall()
        return [CatalogEntry(*row) for row in rows]

    def remove(self, volume_id: str) -> None:
        """Forget a volume; its data is not touched. Raises NotFound."""
        self.find(volume_id)
        with self._open() as database:
            database.execute("DELETE FROM volumes WHERE volume_id = ?", (volume_id,))
