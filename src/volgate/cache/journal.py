"""The journal: what the bucket shall hold and does not hold yet, durable on the local disk.

A log in segments (core/journal_codec). ``append`` is one write(2), so it outlives the process; ``sync`` makes durable
what was appended, one fdatasync for all that wait. All calls are steps of one event loop; another thread sees no more
than descriptors.

Where dead entries outgrow the live ones, live entries of the oldest segment are written anew at the end, a few at a
time; a segment without live entries is unlinked once a later record, durable, says that it no longer counts. So a
crash at any point leaves each entry in one place at least, and nobody waits for the whole.

After a failed fdatasync(2) the kernel may take the lost pages for clean and call the next one a success. So no segment
is believed again: all that lives is read back, its checksum verified, and written to a new one.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import attrs
import trio

from volgate.cache.live_entries import LiveEntries
from volgate.cache.replay import Replay
from volgate.cache.segment import Segment, disk_error
from volgate.core.journal_codec import (
    RawEntry,
    RecordHead,
    crc32c,
    decode_entry,
    encode_entry,
    encode_header,
    encode_record,
    seed_of,
)
from volgate.core.pending import DoneEntry, PendingEntry
from volgate.dto import Usage
from volgate.errors import InputOutput, NoSpace, NotFound, StorageException

SEGMENT_BYTES: Final = 64 << 20

_log: Final = logging.getLogger(__name__)


@attrs.frozen
class JournalStatistics:
    """Counts of a journal.

    Attributes:
        bytes_: of all segments. live_bytes: of the entries that count.
        appends: records that ``append`` wrote. syncs: rounds of fdatasync(2), both since it was opened.
    """

    segments: int
    bytes_: int
    live_bytes: int
    appends: int
    syncs: int


class Pending(Mapping[str, PendingEntry]):
    """Each key's last entry, read from the disk at each look, so that contents take no memory. Raises InputOutput."""

    def __init__(self, journal: Journal, live: LiveEntries) -> None:
        self._journal = journal
        self._live = live

    def __getitem__(self, key: str) -> PendingEntry:
        if key not in self._live.places:
            raise KeyError(key)
        return self._journal.read_entry(key)

    def __contains__(self, key: object) -> bool:
        return key in self._live.places

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._live.places))

    def __len__(self) -> int:
        return len(self._live.places)


class _Mark(NamedTuple):
    """What is durable once a round of syncs that begins now succeeds."""

    sequence: int
    segment: int
    directory_changes: int
    first_live: int
    """No segment before this one has a live entry."""


class Journal:
    """See the module. Made by ``open``.

    Attributes:
        pending: key to its last entry.
        usage: as of the last batch; None: the volume was never counted.
        relative: as of the last batch.
        damaged: a line for people for each damage that was found at start.
    """

    def __init__(
        self,
        directory: Path,
        directory_fd: int,
        uuid: bytes,
        replay: Replay,
        damaged: tuple[str, ...],
        segment_bytes: int,
    ) -> None:
        self.usage = replay.head.usage
        self.relative = replay.head.relative
        self.damaged = damaged
        self._directory = directory
        self._directory_fd = directory_fd
        self._uuid = uuid
        self._segment_bytes = segment_bytes
        self._segments = replay.segments
        self._live = replay.live
        self.pending: Mapping[str, PendingEntry] = Pending(self, self._live)
        self._sequence = replay.head.sequence
        self._oldest = replay.head.oldest
        self._durable = _Mark(0, 0, 0, 0)
        self._directory_changes = 1
        self._round: trio.Event | None = None
        self._limiter = trio.CapacityLimiter(1)
        self._failure = ""
        self._moves = True
        self._unweighed_bytes = 0
        self._appends = self._syncs = 0

    @classmethod
    def open(cls, directory: Path, uuid: str, *, segment_bytes: int = SEGMENT_BYTES) -> Journal:
        """Return the journal in a directory, which is made where it is missing. All it holds is durable.

        Args:
            uuid: of the volume, 32 hex digits with or without dashes.
            segment_bytes: a segment that has reached it is not appended to.

        Raises:
            Unsupported: a newer version wrote it; nothing was changed.
            InvalidArgument: it is another volume's; nothing was changed.
            NoSpace, InputOutput: the disk is full, or fails.
        Blocks: it reads all segments; may run in any thread.
        """
        raw_uuid = bytes.fromhex(uuid.replace("-", ""))
        try:
            with contextlib.ExitStack() as opened:
                directory_fd = _open_directory(directory)
                opened.callback(os.close, directory_fd)
                replay = Replay(directory, raw_uuid)
                opened.callback(replay.close)
                damaged = replay.repair()
                journal = cls(directory, directory_fd, raw_uuid, replay, damaged, segment_bytes)
                journal._start()
                opened.pop_all()
                return journal
        except OSError as error:
            raise disk_error(error, str(directory)) from error

    def close(self) -> None:
        """Close the files. No call may be under way; what was not synced is as safe as after the process's end."""
        for segment in self._segments:
            segment.close()
        os.close(self._directory_fd)

    # -- writing --------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[PendingEntry | DoneEntry], usage: Usage | None, relative: Usage) -> int:
        """Write entries as one record, which counts as a whole or not at all; returns its sequence number.

        It outlives the process at once and a power cut after ``sync``.

        Args:
            usage: of the volume after it; None: never counted.
            relative: a second one kept alike, since a count began; may be negative.

        Raises:
            NoSpace: nothing was appended; later appends may succeed.
            InputOutput: nothing was appended.
        Blocks: one write(2) to the page cache; now and then 256 KiB of entries more are read and written.
        """
        if self._failure:
            raise InputOutput(self._failure)
        written = self._write([encode_entry(entry) for entry in entries], usage, relative, self._oldest)
        sequence = self._sequence
        self._appends += 1
        self._unweighed_bytes += written
        if self._unweighed_bytes >= self._segment_bytes // 1024:
            self._unweighed_bytes = 0
            self._weigh()
        return sequence

    def _write(self, entries: Sequence[RawEntry], usage: Usage | None, relative: Usage, oldest: int) -> int:
        if self._segments[-1].end >= self._segment_bytes:
            with contextlib.suppress(StorageException):  # there may be room for a record yet
                self._start_segment()
        segment = self._segments[-1]
        offset = segment.end
        head = RecordHead(self._sequence + 1, oldest, usage, relative)
        data, before = encode_record(head, entries, seed_of(self._uuid, segment.number), offset)
        segment.append(data)
        self._sequence += 1
        self.usage, self.relative = usage, relative
        self._live.apply(segment, offset + before, entries)
        return len(data)

    def _start_segment(self) -> None:
        """Append to a new segment from now on. Its first record has the usage, which outlives its predecessors so."""
        number = self._segments[-1].number + 1 if self._segments else self._oldest
        header = encode_header(self._uuid, number)
        head = RecordHead(self._sequence + 1, self._oldest, self.usage, self.relative)
        record, _ = encode_record(head, (), seed_of(self._uuid, number), len(header))
        self._segments.append(Segment.create(self._directory, number, header + record))
        self._sequence += 1
        self._directory_changes += 1

    # -- reading --------------------------------------------------------------------------------------------------

    def read_inline(self, key: str) -> bytes:
        """Return the inline content of a key's last entry, its checksum verified; empty where it has none.

        Raises:
            NotFound: nothing is pending under key.
            InputOutput: the disk does not give it, or gives something else.
        """
        return self._read(key).inline

    def read_entry(self, key: str) -> PendingEntry:
        """Return a key's last entry; raises as ``read_inline`` does."""
        entry = decode_entry(self._read(key))
        assert isinstance(entry, PendingEntry)
        return entry

    def _read(self, key: str) -> RawEntry:
        place = self._live.places.get(key)
        if place is None:
            raise NotFound
        body = place.segment.read(place.offset, place.length)
        if crc32c(body) != place.crc:
            raise InputOutput(f"{place.segment.path}, offset {place.offset}: the entry of {key!r} is damaged")
        return RawEntry(key, True, body, place.head_length, place.crc)

    # -- moving entries out of old segments -------------------------------------------------------------------------

    def _first_live(self) -> int:
        """Return the index of the first segment that has live entries or is the last."""
        last = len(self._segments) - 1
        return next((index for index, segment in enumerate(self._segments) if segment.keys), last)

    def _weigh(self) -> None:
        counting = sum(segment.end for segment in self._segments[self._first_live() :])
        dead = counting - self._live.bytes_
        if not self._moves or dead <= max(self._live.bytes_, self._segment_bytes // 8):
            return
        try:
            self._move()
        except NoSpace:
            pass  # on a full disk it waits; segments that die without it are unlinked all the same
        except InputOutput:
            self._moves = False
            _log.exception("the journal keeps a segment that cannot be read", extra={"directory": self._directory})

    def _move(self) -> None:
        """Write some live entries of the oldest segment that has any anew at the end."""
        source = self._segments[self._first_live()]
        if source is self._segments[-1]:
            self._start_segment()
        batch, size = [], 0
        for key in source.keys:
            batch.append(self._read(key))
            size += len(batch[-1].body)
            if size >= self._segment_bytes // 256:
                break
        if batch:
            self._write(batch, self.usage, self.relative, self._oldest)

    def _retire(self, number: int) -> None:
        """Write that no segment before this one counts; all that lives must lie behind it, durable."""
        self._write((), self.usage, self.relative, number)
        self._oldest = number

    # -- durability -------------------------------------------------------------------------------------------------

    async def sync(self, sequence: int) -> None:
        """Return when everything up to a sequence number that ``append`` returned is durable.

        Raises:
            InputOutput: the disk failed, and a new segment did not help: nothing is appended or synced any more.
        Blocks: no checkpoint where it is durable already. May be cancelled; then it may be durable or not.
        """
        while self._durable.sequence < sequence:
            if self._failure:
                raise InputOutput(self._failure)
            if self._round is not None:
                await self._round.wait()
                continue
            self._round = trio.Event()
            try:
                await self._run_round()
            finally:
                self._round.set()
                self._round = None

    async def _run_round(self) -> None:
        mark = self._mark()
        try:
            await self._flush()
        except OSError as error:
            with trio.CancelScope(shield=True):
                await self._write_anew(error)
        else:
            self._settle(mark)

    async def _write_anew(self, error: OSError) -> None:
        self._report(error)
        try:
            number = self._move_all()
            await self._flush()
            self._retire(number)
            mark = self._mark()
            await self._flush()
        except (OSError, StorageException) as second:
            self._failure = f"the journal in {self._directory} cannot be made durable: {second}"
            _log.error(self._failure)
        else:
            self._settle(mark)

    async def _flush(self) -> None:
        self._syncs += 1
        await trio.to_thread.run_sync(_make_durable, *self._unsynced(), limiter=self._limiter)

    def _start(self) -> None:
        """Do for ``open`` what a round does, in the caller's thread."""
        if not self._segments:
            self._start_segment()
        mark = self._mark()
        try:
            _make_durable(*self._unsynced())
        except OSError as error:
            self._report(error)
            number = self._move_all()
            _make_durable(*self._unsynced())
            self._retire(number)
            mark = self._mark()
            _make_durable(*self._unsynced())
        self._settle(mark)

    def _report(self, error: OSError) -> None:
        _log.error(
            "fdatasync failed: all pending is written anew", extra={"directory": self._directory, "error": str(error)}
        )

    def _mark(self) -> _Mark:
        first_live = self._segments[self._first_live()].number
        return _Mark(self._sequence, self._segments[-1].number, self._directory_changes, first_live)

    def _unsynced(self) -> tuple[list[int], int | None]:
        files = [segment.fd for segment in self._segments if segment.number >= self._durable.segment]
        changed = self._directory_changes > self._durable.directory_changes
        return files, self._directory_fd if changed else None

    def _move_all(self) -> int:
        """Write all live entries to a new segment, whose number is returned; older ones are not synced any more."""
        self._start_segment()
        number = self._segments[-1].number
        self._durable = self._durable._replace(segment=number)
        while self._segments[self._first_live()].number < number:
            self._move()
        return number

    def _settle(self, mark: _Mark) -> None:
        """Take in that a round has succeeded: also what ``_retire`` wrote before the round is durable."""
        self._durable = mark
        old = [segment for segment in self._segments if segment.number < self._oldest]
        del self._segments[: len(old)]
        for segment in old:
            segment.remove()
            self._directory_changes += 1
        if mark.first_live > self._oldest:
            with contextlib.suppress(StorageException):  # the next round does it
                self._retire(mark.first_live)

    def statistics(self) -> JournalStatistics:
        """Return the counts."""
        size = sum(segment.end for segment in self._segments)
        return JournalStatistics(len(self._segments), size, self._live.bytes_, self._appends, self._syncs)


def _open_directory(directory: Path) -> int:
    """Return a descriptor of a directory, which is made, durably, where it is missing. Raises OSError."""
    if not directory.exists():
        directory.mkdir(mode=0o700)
        parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_durable(files: Sequence[int], directory: int | None) -> None:
    """Sync files, and a directory's names. Raises OSError. The one thing that another thread does."""
    for file in files:
        os.fdatasync(file)
    if directory is not None:
        os.fsync(directory)  # names are no data: fdatasync(2) may leave them out
