"""What the journal's directory holds at start. Called by ``Journal.open`` alone, before anything is appended.

Nothing is changed before every segment was read and found to be of this version and volume. Then what a crash left is
put right: a segment that was being made and segments that no longer count are unlinked, a torn record at the very end
is cut off, and the bytes of damaged records are kept in files of their own.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import attrs

from volgate.cache.live_entries import LiveEntries
from volgate.cache.segment import Segment
from volgate.core.journal_codec import (
    EMPTY_RECORD_BYTES,
    FORMAT_VERSION,
    HEADER_BYTES,
    Damage,
    Record,
    RecordHead,
    decode_header,
    scan,
    seed_of,
)
from volgate.dto import Usage
from volgate.errors import InvalidArgument, Unsupported

_log: Final = logging.getLogger(__name__)


@attrs.frozen
class _Finding:
    """Something that is not as it was written.

    Attributes:
        number: of the segment; where that no longer counts, the finding does not either.
        start: offset of data, the damaged bytes; b"" where they are missing.
        text: what people are told.
    """

    number: int
    start: int
    data: bytes
    text: str


class Replay:
    """What a directory holds.

    Attributes:
        segments: open, by number.
        live: the last entry of each key.
        head: of the last record.

    Raises:
        Unsupported: a newer version wrote it.
        InvalidArgument: it is another volume's.
        OSError: the disk fails.
    """

    def __init__(self, directory: Path, uuid: bytes) -> None:
        self.live = LiveEntries()
        self.head = RecordHead(0, 1, None, Usage(0, 0))
        self._directory = directory
        self._findings: list[_Finding] = []
        self._last_number = 0
        self._torn_at: int | None = None
        self.segments = Segment.open_all(directory)
        try:
            for segment in self.segments:
                _check(segment, uuid)
            for segment in self.segments:
                self._read(segment, seed_of(uuid, segment.number))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the segments."""
        for segment in self.segments:
            segment.close()

    def repair(self) -> tuple[str, ...]:
        """Put right what a crash left, and keep what is damaged; returns a line for people for each damage.

        Raises:
            OSError: the disk fails, or is full and damaged bytes cannot be kept.
        """
        oldest = self.head.oldest
        if self.head.sequence and (first := self.segments[0]).number > oldest:
            self._findings.append(_Finding(oldest, 0, b"", f"segments before {first.path.name} are missing"))
        findings = [finding for finding in self._findings if finding.number >= oldest]
        for finding in findings:
            self._keep(finding)
        if self._torn_at is not None:
            last = self.segments[-1]
            _log.info("cut off an unfinished record", extra={"segment": last.path.name, "offset": self._torn_at})
            last.cut(self._torn_at)
        kept = [segment for segment in self.segments if segment.number >= oldest and segment.end]
        for segment in self.segments:
            if segment not in kept:
                segment.remove()
        self.segments = kept
        return tuple(finding.text for finding in findings)

    def _keep(self, finding: _Finding) -> None:
        path = self._directory / f"damaged-{finding.number}-{finding.start}"
        if not finding.data or (path.exists() and path.stat().st_size == len(finding.data)):
            return
        with path.open("wb") as file:
            file.write(finding.data)
            file.flush()
            os.fsync(file.fileno())

    def _read(self, segment: Segment, seed: int) -> None:
        data, whole = segment.read_all()
        pieces = list(scan(data, seed))
        is_last, born = segment is self.segments[-1], any(isinstance(piece, Record) for piece in pieces)
        if is_last and not born and len(data) <= HEADER_BYTES + EMPTY_RECORD_BYTES:
            self._torn_at = 0  # it was being made
            return
        header = decode_header(data)
        if header is None or header.number != segment.number:
            self._note(segment, Damage(0, HEADER_BYTES, ()), data)
        if is_last and born and whole and isinstance(pieces[-1], Damage):
            self._torn_at = pieces.pop().start
        for piece in pieces:
            if isinstance(piece, Record):
                self._take(segment, piece)
            else:
                self._note(segment, piece, data)

    def _take(self, segment: Segment, record: Record) -> None:
        lost = record.head.sequence - self.head.sequence - 1
        if lost and self._last_number and record.start == HEADER_BYTES:
            text = f"{segment.path.name}: {lost} records before it are missing"
            self._findings.append(_Finding(self._last_number, 0, b"", text))
        if record.head.oldest > self.head.oldest:
            for old in self.segments:
                if old.number < record.head.oldest:
                    self.live.forget(old)
        self.live.apply(segment, record.body, record.entries)
        self.head = record.head
        self._last_number = segment.number

    def _note(self, segment: Segment, damage: Damage, data: bytes) -> None:
        about = f", keys {', '.join(map(repr, damage.keys))}" if damage.keys else ""
        text = f"{segment.path.name}, offset {damage.start}: {damage.end - damage.start} bytes are damaged{about}"
        self._findings.append(_Finding(segment.number, damage.start, data[damage.start : damage.end], text))


def _check(segment: Segment, uuid: bytes) -> None:
    header = decode_header(os.pread(segment.fd, HEADER_BYTES, 0))
    if header is not None and header.version > FORMAT_VERSION:
        raise Unsupported(f"{segment.path} has format {header.version}, this version knows {FORMAT_VERSION}: upgrade")
    if header is not None and header.uuid != uuid:
        raise InvalidArgument(f"{segment.path} belongs to the journal of another volume, {header.uuid.hex()}")
