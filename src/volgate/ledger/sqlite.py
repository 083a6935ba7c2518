"""The ledger of one host: totals in SQLite, what changes in a slot file.

SQLite (WAL, synchronous=FULL: NORMAL loses commits at a power cut, measured) holds one row: the totals as of the last
begin, checkpoint or clean end, the epoch, and whether it ended cleanly. Between begin and close the slot file of that
epoch is the truth. Which usage ``recover`` returns:
    ended cleanly                         the row's
    not, slot file of the same epoch      settled + sum(measured - charged) over its open slots
    the data lies elsewhere than it did (restored, copied, moved)      none: count
    another ledger served the volume since: another host, or user      none: count
    not, and the slot file is gone, of another epoch, overflowed, or a key does not resolve      none: count
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Final

from volgate.dto import Usage
from volgate.errors import InputOutput, NoSpace, Stale, Unsupported
from volgate.errors.errno_map import from_oserror_at
from volgate.ledger.base import MeasureKey, QuotaLedger, RecoveredUsage
from volgate.ledger.slots import SlotFile

FORMAT_VERSION: Final = 3
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS ledger (
    one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, uuid TEXT NOT NULL, epoch INTEGER NOT NULL,
    used_bytes INTEGER NOT NULL, used_inodes INTEGER NOT NULL, clean INTEGER NOT NULL, stored_at REAL NOT NULL,
    place BLOB, epoch_id TEXT NOT NULL
)"""


def database_path(state_directory: Path, volume_id: str) -> Path:
    """Return where a volume's totals lie."""
    return state_directory / "volumes" / volume_id / "ledger.db"


def slots_path(runtime_directory: Path, volume_id: str) -> Path:
    """Return where a volume's slots lie."""
    return runtime_directory / f"{volume_id}.slots"


class SqliteLedger(QuotaLedger):
    """See the module. One owner at a time; the volume's ownership sees to that.

    Args:
        database: path of the SQLite file; its folder is made where it is missing.
        slots: path of the slot file, on tmpfs.
        uuid: of the volume, 32 hex digits with or without dashes.
        place: the backend's key of the volume's root; None where it has none.
    """

    def __init__(self, database: Path, slots: Path, uuid: str, place: bytes | None) -> None:
        self._path = database
        self._place = place
        self._uuid = bytes.fromhex(uuid.replace("-", ""))
        self._epoch = 0
        self._epoch_id = ""
        try:
            database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            slots.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._slots = SlotFile(slots)
        except OSError as error:
            raise from_oserror_at(error) from error
        self._database = self._connect()

    def _connect(self) -> sqlite3.Connection:
        try:
            return _open_database(self._path)
        except sqlite3.DatabaseError as error:
            if not _is_corrupt(error):
                raise _converted(error, self._path) from error
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self._path}{suffix}", f"{self._path}.corrupt-{int(time.time())}{suffix}")
        try:
            return _open_database(self._path)
        except sqlite3.DatabaseError as error:
            raise _converted(error, self._path) from error

    async def recover(self, measure_key: MeasureKey | None, epoch_id: str) -> RecoveredUsage:
        """See QuotaLedger."""
        row = self._database.execute(
            "SELECT format, uuid, epoch, used_bytes, used_inodes, clean, place, epoch_id FROM ledger"
        ).fetchone()
        if row is None:
            return RecoveredUsage(None, "the volume was never counted")
        version, uuid, self._epoch, used_bytes, used_inodes, clean, place, known_id = row
        if version > FORMAT_VERSION:
            raise Unsupported(
                f"{self._path} has format {version}, this version knows {FORMAT_VERSION}: upgrade volgate"
            )
        if uuid != self._uuid.hex():
            return RecoveredUsage(None, "the ledger is another volume's")
        if place != self._place:
            return RecoveredUsage(None, "its data lies elsewhere than at its last mount: restored, copied or moved")
        if known_id != epoch_id:
            if not epoch_id:
                return RecoveredUsage(None, "what it notes beside the data is missing, as where storage was full")
            return RecoveredUsage(None, "another host or user served it since, or it was restored")
        if clean and used_bytes >= 0 and used_inodes >= 0:
            return RecoveredUsage(Usage(used_bytes, used_inodes), "the volume was closed cleanly")
        if not self._slots.matches(self._uuid, self._epoch):
            return RecoveredUsage(None, "the volume was not closed, and the host was restarted since")
        if self._slots.overflowed():
            return RecoveredUsage(None, "the volume was not closed while very many files were changing")
        if measure_key is None:
            return RecoveredUsage(None, "the volume was not closed, and what nobody had synced went with its process")
        return await self._measure(measure_key)

    async def _measure(self, measure_key: MeasureKey) -> RecoveredUsage:
        settled, slots = self._slots.load()
        used_bytes, used_inodes = settled.bytes_, settled.inodes
        for key, charged in slots:
            if key is None:
                return RecoveredUsage(None, "the volume was not closed, and not all that was changing can be measured")
            try:
                counted = await measure_key(key)
            except Stale as error:
                return RecoveredUsage(None, f"the volume was not closed, and {error}")
            used_bytes += counted.bytes_ - charged.bytes_
            used_inodes += counted.inodes - charged.inodes
        if used_bytes < 0 or used_inodes < 0:
            return RecoveredUsage(None, "the ledger does not fit what is stored")
        return RecoveredUsage(Usage(used_bytes, used_inodes), f"recovered after a crash: {len(slots)} files measured")

    def begin(self, usage: Usage) -> str:
        """See QuotaLedger."""
        self._epoch += 1
        self._epoch_id = secrets.token_hex(16)
        self._store(usage, clean=False)  # may be refused; then the slots of before still tell what happened
        self._slots.begin(self._uuid, self._epoch, usage)
        return self._epoch_id

    def open_slot(self, key: bytes | None, charged: Usage) -> int:
        """See QuotaLedger."""
        return self._slots.open_slot(key, charged)

    def close_slot(self, slot: int, counted: Usage) -> None:
        """See QuotaLedger."""
        self._slots.close_slot(slot, counted)

    def checkpoint(self) -> None:
        """See QuotaLedger."""
        self._store(self._slots.settled(), clean=False)

    def close(self) -> str:
        """See QuotaLedger."""
        self._epoch_id = secrets.token_hex(16)
        self._store(self._slots.settled(), clean=True)
        return self._epoch_id

    def release(self) -> None:
        """Give files back without ending the epoch: a crash, or an error before ``begin``."""
        self._database.close()
        self._slots.close()

    def _store(self, usage: Usage, *, clean: bool) -> None:
        row = (
            FORMAT_VERSION, self._uuid.hex(), self._epoch, usage.bytes_, usage.inodes, int(clean), time.time(),
            self._place, self._epoch_id,
        )  # fmt: skip
        try:
            with self._database:
                self._database.execute("INSERT OR REPLACE INTO ledger VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise _converted(error, self._path) from error


def _open_database(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=5.0)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(_TABLE)
        if not _is_current(database):
            with database:  # format 1 or 2, which knew no ids of epochs: such a volume is counted once more
                database.execute("DROP TABLE ledger")
                database.execute(_TABLE)
        database.execute("SELECT count(*) FROM ledger").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def _is_current(database: sqlite3.Connection) -> bool:
    return "epoch_id" in [column[1] for column in database.execute("PRAGMA table_info(ledger)")]


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    return error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _converted(error: sqlite3.Error, path: Path) -> InputOutput | NoSpace:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return NoSpace(f"the disk that holds the ledger {path} is full")
    return InputOutput(f"the ledger {path} cannot be used: {error}")


def read_stored_usage(path: Path, epoch_id: str, *, settled: bool = False) -> Usage | None:
    """Return the usage that was last stored, None where there is none. For those who look while no owner runs.

    Args:
        epoch_id: of the volume's last epoch; what is stored of another one is of no use.
        settled: only what is exact: that of an epoch which ended cleanly.

    Raises:
        InputOutput: the file cannot be read.
    """
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=5.0)) as database:
            if not _is_current(database):
                return None
            row = database.execute(
                "SELECT used_bytes, used_inodes FROM ledger WHERE epoch_id = ? AND clean >= ?", (epoch_id, settled)
            ).fetchone()
    except sqlite3.Error as error:
        raise _converted(error, path) from error
    return None if row is None else Usage(*row)
