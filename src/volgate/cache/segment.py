"""One file of the journal: whole appends, reads, and the disk's errors made ours. Knows no index and no task."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from volgate.errors import FileTooLarge, InputOutput, NoSpace, QuotaExceeded, StorageException
from volgate.errors.errno_map import from_oserror

_NAME: Final = re.compile(r"journal-([1-9]\d*)\.log")
_READ_BYTES: Final = 1 << 20
_DISK_BLOCK_BYTES: Final = 4096


def disk_error(error: OSError, what: str) -> StorageException:
    """Return NoSpace for a disk, or a limit on it, that is full, InputOutput for all else."""
    full = isinstance(from_oserror(error), NoSpace | QuotaExceeded | FileTooLarge)
    return NoSpace(f"no space for {what}") if full else InputOutput(f"{what}: {error.strerror}")


class Segment:
    """An open segment.

    Attributes:
        number: of the segment, as in its name.
        fd: open for reading and writing.
        end: offset of the next append; what lies behind it does not count.
        keys: those whose last entry lies here, in the order of their writing.
    """

    def __init__(self, path: Path, number: int, flags: int = 0) -> None:
        self.path = path
        self.number = number
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
        self.end = os.fstat(self.fd).st_size
        self.keys: dict[str, None] = {}

    @classmethod
    def create(cls, directory: Path, number: int, content: bytes) -> Segment:
        """Return a new segment that begins with content; none is left where it fails.

        Raises:
            NoSpace, InputOutput: it could not be made.
        """
        path = directory / f"journal-{number}.log"
        try:
            segment = cls(path, number, os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise disk_error(error, str(path)) from error
        try:
            segment.append(content)
        except StorageException:
            segment.remove()
            raise
        return segment

    @classmethod
    def open_all(cls, directory: Path) -> list[Segment]:
        """Return the segments in a directory by number. Raises OSError, with none left open."""
        numbers = sorted(int(found[1]) for name in os.listdir(directory) if (found := _NAME.fullmatch(name)))
        segments: list[Segment] = []
        try:
            for number in numbers:
                segments.append(cls(directory / f"journal-{number}.log", number))  # noqa: PERF401 - closed on errors
        except OSError:
            for segment in segments:
                segment.close()
            raise
        return segments

    def append(self, data: bytes) -> None:
        """Write data at the end with one write(2): all of it or nothing.

        Raises:
            NoSpace, InputOutput: nothing was appended.
        """
        try:
            written = os.pwrite(self.fd, data, self.end)
        except OSError as error:
            self._cut_back()
            raise disk_error(error, str(self.path)) from error
        if written < len(data):  # regular files: the disk became full, or a limit was reached (write(2))
            self._cut_back()
            raise NoSpace(f"no space for {self.path}")
        self.end += written

    def _cut_back(self) -> None:
        with contextlib.suppress(OSError):  # else the next append writes over it, or replay finds it torn
            os.ftruncate(self.fd, self.end)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that were appended.

        Raises:
            InputOutput: the disk does not give them.
        """
        try:
            data = os.pread(self.fd, length, offset)
        except OSError as error:
            raise disk_error(error, str(self.path)) from error
        if len(data) < length:
            raise InputOutput(f"{self.path} ends early")
        return data

    def read_all(self) -> tuple[bytes, bool]:
        """Return the whole file, and whether the disk gave all of it: a block that it does not give is zeros here."""
        parts, unread = [], 0
        for offset in range(0, self.end, _READ_BYTES):
            length = min(_READ_BYTES, self.end - offset)
            try:
                parts.append(os.pread(self.fd, length, offset))
            except OSError:
                for block in range(offset, offset + length, _DISK_BLOCK_BYTES):
                    size = min(_DISK_BLOCK_BYTES, self.end - block)
                    try:
                        parts.append(os.pread(self.fd, size, block))
                    except OSError:
                        parts.append(bytes(size))
                        unread += 1
        return b"".join(parts), not unread

    def cut(self, end: int) -> None:
        """Take away what lies behind end. Raises OSError."""
        os.ftruncate(self.fd, end)
        self.end = end

    def remove(self) -> None:
        """Close and unlink it; what cannot be unlinked does not count and is unlinked at the next start."""
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)
