"""Clean content of object versions on local disk, kept over remounts, so that it is fetched once.

A file holds a *segment* of one version, 32 MiB of it: a head with a checksum for each block, then the blocks at their
places, with holes where nothing is cached. The file's name is a hash of the version, so what stands under a name is
true of that version for ever, whatever order writes reach the disk in. Hence nothing is synced: a crash costs the
blocks it tears, and their checksums show which. Whole segments are evicted, the least recently used first.

Head: 16 bytes of magic, then for each block a word in the host's byte order: 0 where the block is not cached, else its
CRC-32C (1 where that is 0). The name ends in the format's version; files with other names are never touched.

Every call may wait for the local disk, and may come from any thread. ``_lock`` is held for steps in memory only;
``_names``, taken before it, while files are made, renamed and removed: ``read`` and ``missing`` do without it.

What may not live here: content that is not in the bucket yet (the journal's), fetching, the event loop.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
from awscrt.checksums import crc32c

from volgate.core.eviction import UseOrder
from volgate.core.object_version import ObjectVersion

log = logging.getLogger(__name__)

BLOCK_BYTES: Final = 128 << 10
SEGMENT_BYTES: Final = 32 << 20
HEAD_BYTES: Final = 4096
WORDS_AT: Final = 16
"""Where the words of the blocks begin in the head."""
_BLOCKS: Final = SEGMENT_BYTES // BLOCK_BYTES
_MAGIC: Final = b"volgate blocks 1"
_OURS: Final = re.compile(r"[0-9a-f]{40}-[0-9a-f]+\.v1")
_MAX_OPEN_FILES: Final = 256
_DISK_UNIT_BYTES: Final = 4096
_GIVEN_WAY_BYTES: Final = 16 << 20
_LATE_SPACE_PAUSE_S: Final = 5.0
"""btrfs gives freed space back with its next commit: without a pause each write until then would evict more."""


@attrs.frozen
class BlockStoreStatistics:
    """What the store holds, and has done since it was opened.

    Attributes:
        cached_bytes: on disk, heads included. max_bytes: the limit of that.
        hits, misses: reads that were answered, and that were not.
        evicted_bytes: removed to make room.
        damaged_blocks: found not to fit their checksums, or unreadable; a file without a sound head counts as one.
        write_errors: writes that the disk refused.
    """

    cached_bytes: int
    max_bytes: int
    hits: int
    misses: int
    evicted_bytes: int
    damaged_blocks: int
    write_errors: int


class _SegmentFile:
    """An open segment and its words; closes itself once nobody holds it: no reader's descriptor becomes another's."""

    __slots__ = ("fd", "reserved_bytes", "words")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.reserved_bytes = 0  # for writes under way
        self.words: array[int] = array("I", bytes(4 * _BLOCKS))

    def __del__(self) -> None:
        os.close(self.fd)


class BlockStore:
    """See the module.

    Args:
        directory: of this store alone; made where it is missing.
        max_bytes: what the files may take on disk.
        min_free_bytes: what stays free on the file system; where others fill it, the store yields to them.

    Attributes:
        min_free_bytes: as given.
    """

    def __init__(self, directory: Path, *, max_bytes: int, min_free_bytes: int) -> None:
        self._directory = os.fspath(directory)
        self._max_bytes = max_bytes
        self.min_free_bytes = min_free_bytes
        self._lock = threading.Lock()
        self._names = threading.RLock()
        self._is_open = False
        self._order = UseOrder()
        self._files: OrderedDict[str, _SegmentFile] = OrderedDict()
        self._changes = 0  # of names and heads: who opens a file without ``_names`` sees whether it is still as it was
        self._hits = self._misses = 0
        self._evicted_bytes = self._damaged_blocks = self._write_errors = 0
        self._short_until = 0.0

    def open(self) -> None:
        """Find what is cached, and evict what is too much. Looks at names and sizes alone; heads are read when used.

        The order of use is taken from the files' times, as far as the file system keeps them (relatime: days).

        Raises:
            OSError: the directory cannot be made or read.
        """
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        found: list[tuple[float, str, int]] = []
        strange: list[str] = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append((max(status.st_atime, status.st_mtime), entry.name, status.st_blocks * 512))
                else:
                    strange.append(entry.name)
        if strange:
            facts = {"directory": self._directory, "files": len(strange), "first": min(strange)}
            log.warning("files of another format are in the block cache and stay there", extra=facts)
        for _, name, bytes_ in sorted(found):
            self._order.weigh(name, bytes_)
        with self._names:
            self._make_room(0)
        self._is_open = True

    def close(self) -> None:
        """Close the files. What is cached stays; later reads find nothing and later writes store nothing."""
        with self._names, self._lock:
            self._is_open = False
            self._files.clear()
            self._order = UseOrder()

    def statistics(self) -> BlockStoreStatistics:
        """Return what the store holds and has done."""
        with self._lock:
            return BlockStoreStatistics(
                cached_bytes=self._order.total_bytes,
                max_bytes=self._max_bytes,
                hits=self._hits,
                misses=self._misses,
                evicted_bytes=self._evicted_bytes,
                damaged_blocks=self._damaged_blocks,
                write_errors=self._write_errors,
            )

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, version: ObjectVersion, offset: int, length: int) -> bytes | None:
        """Return the bytes [offset, offset + length) that exist, None where not all of them are cached and sound.

        Damaged blocks are missing from then on, so that they are fetched and written again. For calls on the event
        loop: cached content in the page cache costs 65 us a MiB, a miss 3 us.
        """
        parts: list[bytes] = []
        digest = _digest(version)
        for segment, start, end in _split(offset, min(offset + length, version.size)):
            part = self._read_segment(_name(digest, segment), start, end, _segment_length(version, segment))
            if part is None:
                with self._lock:
                    self._misses += 1
                return None
            parts.append(part)
        with self._lock:
            self._hits += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def missing(self, version: ObjectVersion, start: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges [start, end) of blocks that are not cached, within the blocks of a range and the object."""
        found: list[tuple[int, int]] = []
        digest = _digest(version)
        start = start // BLOCK_BYTES * BLOCK_BYTES
        for segment, low, high in _split(start, min(end, version.size)):
            file = self._find(_name(digest, segment), _segment_length(version, segment))
            for block in range(low // BLOCK_BYTES, _blocks(high)):
                if file is not None and file.words[block]:
                    continue
                at = segment * SEGMENT_BYTES + block * BLOCK_BYTES
                until = min(at + BLOCK_BYTES, version.size)
                if found and found[-1][1] == at:
                    at = found.pop()[0]
                found.append((at, until))
        return found

    def _read_segment(self, name: str, start: int, end: int, length: int) -> bytes | None:
        """Return [start, end) of a segment that has ``length`` bytes, or None. Reads whole blocks, in one call."""
        file = self._find(name, length)
        if file is None:
            return None
        first, last = start // BLOCK_BYTES, _blocks(end)
        with self._lock:
            self._order.touch(name)
            words = file.words[first:last]
        if 0 in words:
            return None
        begin = first * BLOCK_BYTES
        try:
            data = os.pread(file.fd, min(last * BLOCK_BYTES, length) - begin, HEAD_BYTES + begin)
        except OSError:
            data = b""
        damaged = [first + n for n, word in enumerate(_checksums(data, len(words))) if word != words[n]]
        if damaged:
            self._drop_blocks(name, file, damaged, length)
            return None
        return data[start - begin : end - begin]

    def _find(self, name: str, length: int) -> _SegmentFile | None:
        """Return the file of a segment of ``length`` bytes, opened if need be; None where nothing of it is cached."""
        while True:
            with self._lock:
                file = self._files.get(name)
                if file is not None:
                    self._files.move_to_end(name)
                    return file
                if name not in self._order:
                    return None
                changes = self._changes
            try:
                opened = self._open_file(name)
            except OSError:  # no descriptor is free, the disk is read-only: what is there may be good yet
                return None
            with self._lock:
                if self._changes == changes and opened is not None:
                    return self._keep_open(name, opened, length)
            if opened is None:
                self._drop_damaged(name, changes)

    def _open_file(self, name: str) -> _SegmentFile | None:
        """Return a file as it stands on disk, None where it is gone or has no sound head."""
        try:
            file = _SegmentFile(os.open(f"{self._directory}/{name}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
        except FileNotFoundError:
            return None
        head = os.pread(file.fd, HEAD_BYTES, 0)
        if len(head) < HEAD_BYTES or not head.startswith(_MAGIC):
            return None
        file.words = array("I", head[WORDS_AT : WORDS_AT + 4 * _BLOCKS])
        return file

    def _keep_open(self, name: str, opened: _SegmentFile, length: int) -> _SegmentFile:
        """Return the file that stands for a segment from now on: the one another thread was quicker with, or this."""
        file = self._files.setdefault(name, opened)
        self._weigh(name, file, length)
        if len(self._files) > _MAX_OPEN_FILES:
            idle = next((other for other, known in self._files.items() if not known.reserved_bytes), name)
            if idle != name:
                del self._files[idle]
        return file

    def _weigh(self, name: str, file: _SegmentFile, length: int) -> None:
        """Charge a segment what is cached of it and being written; what ``open`` found on disk until it is used."""
        full, rest = divmod(length, BLOCK_BYTES)
        bytes_ = HEAD_BYTES + BLOCK_BYTES * (full - file.words[:full].count(0)) + file.reserved_bytes
        if rest and file.words[full]:
            bytes_ += _on_disk(rest)
        self._order.weigh(name, bytes_)

    def _drop_blocks(self, name: str, file: _SegmentFile, blocks: list[int], length: int) -> None:
        with self._lock:
            if self._files.get(name) is not file:  # evicted while it was read: cut, not damaged
                return
            for block in blocks:
                if file.words[block]:
                    file.words[block] = 0
                    self._damaged_blocks += 1
            self._weigh(name, file, length)
        log.warning("damaged blocks in the cache are fetched again", extra={"file": name, "blocks": len(blocks)})

    def _drop_damaged(self, name: str, changes: int) -> None:
        """Drop a file without a sound head, unless something changed since it was opened."""
        with self._names:
            with self._lock:
                if self._changes != changes:
                    return
                self._damaged_blocks += 1
            self._remove(name)
        log.warning("a damaged file was dropped from the block cache", extra={"file": name})

    # -- writing ------------------------------------------------------------------------------------------------

    def write(self, version: ObjectVersion, offset: int, data: bytes) -> None:
        """Cache content of a version, as far as there is room. Trouble with the disk is counted and logged only.

        Args:
            offset: a multiple of BLOCK_BYTES.
            data: whole blocks, or up to the end of the object.

        Raises:
            ValueError: the data is not that.
        """
        end = offset + len(data)
        if offset % BLOCK_BYTES or (end % BLOCK_BYTES and end != version.size) or end > version.size:
            raise ValueError(f"{offset}..{end} are no whole blocks of {version}")
        digest = _digest(version)
        view = memoryview(data)
        for segment, low, high in _split(offset, end):
            name = _name(digest, segment)
            at = segment * SEGMENT_BYTES - offset
            try:
                self._write_segment(name, low, view[at + low : at + high], _segment_length(version, segment))
            except OSError as error:
                with self._lock:
                    self._write_errors += 1
                with self._names:
                    self._remove(name)
                log.warning("the block cache cannot be written", extra={"file": name, "error": error.strerror})

    def _write_segment(self, name: str, start: int, data: memoryview, length: int) -> None:
        bytes_ = _on_disk(len(data))
        with self._names:
            if not self._is_open or not self._make_room(bytes_ + HEAD_BYTES):
                return
            found = self._find(name, length) or self._create(name)
            with self._lock:
                file = self._keep_open(name, found, length)
                file.reserved_bytes += bytes_
                self._weigh(name, file, length)
                self._order.touch(name)
        first, last = start // BLOCK_BYTES, _blocks(start + len(data))
        words = array("I", _checksums(data, last - first))
        _write_all(file.fd, data, HEAD_BYTES + start)
        _write_all(file.fd, memoryview(words).cast("B"), WORDS_AT + 4 * first)
        with self._lock:
            self._changes += 1
            file.words[first:last] = words
            file.reserved_bytes -= bytes_
            if self._files.get(name) is file:
                self._weigh(name, file, length)

    def _create(self, name: str) -> _SegmentFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        file = _SegmentFile(os.open(f"{self._directory}/{name}", flags, 0o600))
        _write_all(file.fd, memoryview(_MAGIC.ljust(HEAD_BYTES, b"\0")), 0)
        with self._lock:
            self._changes += 1
        return file

    def _make_room(self, bytes_: int) -> bool:
        """Evict until so many bytes may be written, and return whether they may. For who holds ``_names``."""
        if bytes_ > self._max_bytes:
            return False
        self._evict(self._order.total_bytes + bytes_ - self._max_bytes)
        return self._free_disk(bytes_, 0)

    def _free_disk(self, bytes_: int, spare_bytes: int) -> bool:
        """Evict, ``spare_bytes`` more than need be, until the disk has so many, and return whether it has."""
        lacking = self._lacking_bytes(bytes_)
        if lacking > 0 and time.monotonic() >= self._short_until:
            self._evict(lacking + spare_bytes)
            lacking = self._lacking_bytes(bytes_)
            if lacking > 0:
                self._short_until = time.monotonic() + _LATE_SPACE_PAUSE_S
        return lacking <= 0

    def _lacking_bytes(self, bytes_: int) -> int:
        """Return how far the free space would lie below the floor after so many bytes. Asks each time: 2 us."""
        file_system = os.statvfs(self._directory)
        return self.min_free_bytes + bytes_ - file_system.f_bavail * file_system.f_frsize

    def _evict(self, excess_bytes: int) -> None:
        with self._lock:
            victims = self._order.plan_eviction(excess_bytes)
        for name in victims:
            self._evicted_bytes += self._remove(name)

    # -- for others on the same disk ------------------------------------------------------------------------------

    def give_way(self, bytes_: int) -> bool:
        """Evict until so many bytes may be written beside the store, and return whether they may.

        Asks the disk each time (2 us). What was cached is given back some MiB at a time: not every write evicts.
        """
        if self._lacking_bytes(bytes_) <= 0:
            return True
        with self._names:
            return self._free_disk(bytes_, _GIVEN_WAY_BYTES)

    def lacking_bytes(self) -> int:
        """Return how much more must be free on the disk before anything can be written; 0 where something can."""
        return max(0, self._lacking_bytes(0) - self._order.total_bytes)

    # -- names --------------------------------------------------------------------------------------------------

    def rename(self, old: ObjectVersion, new: ObjectVersion) -> None:
        """Let what is cached of one version be what is cached of another one with the same content."""
        source, target = _digest(old), _digest(new)
        for segment in range(_segments(old)):
            self._rename_segment(_name(source, segment), _name(target, segment))

    def forget(self, version: ObjectVersion) -> None:
        """Drop what is cached of a version."""
        digest = _digest(version)
        for segment in range(_segments(version)):
            name = _name(digest, segment)
            if name in self._order:
                with self._names:
                    self._remove(name)

    def _rename_segment(self, old: str, new: str) -> None:
        if old not in self._order or old == new:
            return
        with self._names:
            self._remove(new)
            try:
                os.rename(f"{self._directory}/{old}", f"{self._directory}/{new}")
            except OSError:
                self._remove(old)
                return
            with self._lock:
                self._changes += 1
                self._order.weigh(new, self._order.remove(old))
                file = self._files.pop(old, None)
                if file is not None:
                    self._files[new] = file

    def _remove(self, name: str) -> int:
        """Remove a segment and return what it took. For who holds ``_names``."""
        with self._lock:
            self._changes += 1
            bytes_ = self._order.remove(name)
            self._files.pop(name, None)
        path = f"{self._directory}/{name}"
        try:
            os.truncate(path, 0)  # the space is back at once, while somebody reads too, and on xfs
            os.unlink(path)
        except OSError:
            pass  # not there, or the next open finds it
        return bytes_


def _digest(version: ObjectVersion) -> str:
    text = f"{version.size}/{len(version.etag)}/{version.etag}/{version.key}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def _name(digest: str, segment: int) -> str:
    return f"{digest}-{segment:x}.v1"


def _split(start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of [start, end) as (segment, start within it, end within it)."""
    while start < end:
        segment, low = divmod(start, SEGMENT_BYTES)
        length = min(end - start, SEGMENT_BYTES - low)
        yield segment, low, low + length
        start += length


def _segments(version: ObjectVersion) -> int:
    return -(-version.size // SEGMENT_BYTES)


def _segment_length(version: ObjectVersion, segment: int) -> int:
    return min(SEGMENT_BYTES, version.size - segment * SEGMENT_BYTES)


def _blocks(length: int) -> int:
    return -(-length // BLOCK_BYTES)


def _on_disk(length: int) -> int:
    return -(-length // _DISK_UNIT_BYTES) * _DISK_UNIT_BYTES


def _checksums(data: bytes | memoryview, blocks: int) -> list[int]:
    """Return the words of the blocks of data; those beyond its end fit no block."""
    view = memoryview(data)
    return [crc32c(view[n * BLOCK_BYTES : (n + 1) * BLOCK_BYTES]) or 1 for n in range(blocks)]


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written
