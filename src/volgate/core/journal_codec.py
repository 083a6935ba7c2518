"""The format of the cache's journal. Pure: bytes in, bytes out.

A journal is a row of segments, files that are numbered without gaps. All numbers are little-endian.

    segment  header {magic, format version, uuid of the volume, segment's number, crc}, then records
    record   head {magic, crc, crc of the table, length, sequence, oldest segment that counts, number of entries,
             is there a usage, usage, relative usage}, table {crc, length of the head, length in all} of the entries,
             the entries
    entry    head in JSON, then the inline content as it is

A record counts as a whole or not at all. The crc of its head begins with volume, segment and offset: what looks like a
record inside a file's content is none. The table has the entries' own crcs: an entry is moved as it is, and damage in
one leaves the others' keys legible. Every version of the format keeps the segment's header as it is. CRCs are CRC-32C.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs
from awscrt import checksums

from volgate.core.object_metadata import StoredAttributes
from volgate.core.object_version import ObjectVersion
from volgate.core.pending import DoneEntry, PendingContent, PendingEntry
from volgate.dto import Usage

FORMAT_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sI16sQI")
_HEADER_MAGIC: Final = b"volgatej"
_HEAD: Final = struct.Struct("<4sIIQQQII4q")
_HEAD_MAGIC: Final = b"\xf7vJ\x01"
_HEAD_CHECKED: Final = 8  # the head's crc covers what follows it
_ROW: Final = struct.Struct("<III")
_OFFSET: Final = struct.Struct("<Q")
HEADER_BYTES: Final = _HEADER.size
EMPTY_RECORD_BYTES: Final = _HEAD.size

_dump: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@attrs.frozen
class SegmentHeader:
    """What a segment says of itself."""

    version: int
    uuid: bytes
    number: int


@attrs.frozen
class RawEntry:
    """An entry as it lies in a record.

    Attributes:
        key: the object's.
        pending: False for a DoneEntry.
        body: head and inline content.
        head_length: bytes of body before the inline content.
        crc: of body.
    """

    key: str
    pending: bool
    body: bytes
    head_length: int
    crc: int

    @property
    def inline(self) -> bytes:
        """The inline content; empty where there is none."""
        return self.body[self.head_length :]


@attrs.frozen
class RecordHead:
    """What a record says beside its entries.

    Attributes:
        sequence: one more than that of the record before.
        oldest: number of the first segment that counts.
        usage: of the volume, after the record; None: never counted.
        relative: usage since some point in time, parts may be negative.
    """

    sequence: int
    oldest: int
    usage: Usage | None
    relative: Usage


@attrs.frozen
class Record:
    """A record in a segment, whole.

    Attributes:
        start: offset in the segment. body: offset of the first entry's body. end: offset of what follows.
    """

    head: RecordHead
    entries: tuple[RawEntry, ...]
    start: int
    body: int
    end: int


@attrs.frozen
class Damage:
    """Bytes of a segment, [start, end), that are no record, or one that does not count.

    Attributes:
        keys: those of the damaged record, as far as they are legible.
    """

    start: int
    end: int
    keys: tuple[str, ...]


def crc32c(data: bytes, before: int = 0) -> int:
    """Return the CRC-32C of data, begun with that of what lies before."""
    return int(checksums.crc32c(data, before))


# -- writing ----------------------------------------------------------------------------------------------------


def encode_header(uuid: bytes, number: int) -> bytes:
    """Return the first bytes of a segment."""
    fields = _HEADER.pack(_HEADER_MAGIC, FORMAT_VERSION, uuid, number, 0)[:-4]
    return fields + crc32c(fields).to_bytes(4, "little")


def seed_of(uuid: bytes, number: int) -> int:
    """Return what the crcs of a segment's records begin with."""
    return crc32c(uuid + _OFFSET.pack(number))


def encode_entry(entry: PendingEntry | DoneEntry) -> RawEntry:
    """Return the entry as it is written."""
    if isinstance(entry, DoneEntry):
        head, inline = _dump([entry.key]).encode(), b""
    else:
        content = entry.content
        fields = [entry.key, entry.remote_etag, entry.since, entry.commit_id, entry.refused]
        head = _dump([*fields, None if content is None else _content_fields(content)]).encode()
        inline = (content and content.inline) or b""
    body = head + inline
    return RawEntry(entry.key, isinstance(entry, PendingEntry), body, len(head), crc32c(body))


def encode_record(head: RecordHead, entries: Sequence[RawEntry], seed: int, offset: int) -> tuple[bytes, int]:
    """Return a record that lies at an offset of a segment, and the length of all before its entries' bodies."""
    table = b"".join([_ROW.pack(entry.crc, entry.head_length, len(entry.body)) for entry in entries])
    bodies = [entry.body for entry in entries]
    before = _HEAD.size + len(table)
    usage = head.usage or Usage(0, 0)
    fields = _HEAD.pack(
        _HEAD_MAGIC,
        0,
        crc32c(table),
        before + sum(map(len, bodies)),
        head.sequence,
        head.oldest,
        len(entries),
        head.usage is not None,
        usage.bytes_,
        usage.inodes,
        head.relative.bytes_,
        head.relative.inodes,
    )[_HEAD_CHECKED:]
    return b"".join([_HEAD_MAGIC, _head_crc(fields, seed, offset), fields, table, *bodies]), before


def _head_crc(fields: bytes, seed: int, offset: int) -> bytes:
    return crc32c(fields, crc32c(_OFFSET.pack(offset), seed)).to_bytes(4, "little")


def _content_fields(content: PendingContent) -> list[Any]:
    stored, base = content.attributes, content.base
    return [
        content.ino,
        content.size,
        None if base is None else [base.key, base.etag, base.size],
        content.base_end,
        content.dirty,
        content.staging,
        content.inline is not None,
        content.keeps_metadata,
        dict(content.extra_metadata),
        content.content_type,
        [stored.mode, stored.uid, stored.gid, stored.rdev, stored.atime_ns, stored.mtime_ns, stored.ctime_ns],
        None if stored.symlink_target is None else stored.symlink_target.decode("latin-1"),
        {name.decode("latin-1"): value.decode("latin-1") for name, value in stored.xattrs.items()},
    ]


# -- reading ----------------------------------------------------------------------------------------------------


def decode_header(data: bytes) -> SegmentHeader | None:
    """Return what a segment's first bytes say; None: they are damaged, or no segment's."""
    if len(data) < _HEADER.size:
        return None
    magic, version, uuid, number, crc = _HEADER.unpack_from(data)
    intact = magic == _HEADER_MAGIC and crc == crc32c(data[: _HEADER.size - 4])
    return SegmentHeader(version, uuid, number) if intact else None


def scan(data: bytes, seed: int) -> Iterator[Record | Damage]:
    """Return all that lies in a segment behind its header, in order, without a gap. Total."""
    offset = _HEADER.size
    while offset < len(data):
        found = _read_record(data, offset, seed)
        yield found
        offset = found.end


def decode_entry(raw: RawEntry) -> PendingEntry | DoneEntry:
    """Return the entry.

    Raises:
        ValueError: the body is none.
    """
    fields = _parse(raw.body[: raw.head_length])
    if len(fields) == 1:
        return DoneEntry(fields[0])
    key, remote_etag, since, commit_id, refused, content = _typed(fields, _ENTRY_TYPES)
    found = None if content is None else _decode_content(content, raw.inline)
    return PendingEntry(key, remote_etag, found, since, commit_id, refused)


def _read_record(data: bytes, offset: int, seed: int) -> Record | Damage:
    found = _read_head(data, offset, seed)
    if found is None:
        return Damage(offset, _find_head(data, offset + 1, seed), ())
    head, length, count, table_crc = found
    body = offset + _HEAD.size + count * _ROW.size
    end = min(offset + length, len(data))
    table = data[offset + _HEAD.size : body]
    if crc32c(table) != table_crc or len(table) != count * _ROW.size:
        return Damage(offset, end, ())
    rows = list(_ROW.iter_unpack(table))
    entries, keys, at = [], [], body
    for crc, head_length, entry_length in rows:
        part = data[at : at + entry_length]
        at += entry_length
        try:
            fields = _parse(part[:head_length])
        except ValueError:
            continue
        keys.append(fields[0])
        if len(part) == entry_length and crc32c(part) == crc:
            entries.append(RawEntry(fields[0], len(fields) > 1, part, head_length, crc))
    if len(entries) < count or at != offset + length:
        return Damage(offset, end, tuple(keys))
    return Record(head, tuple(entries), offset, body, end)


def _read_head(data: bytes, offset: int, seed: int) -> tuple[RecordHead, int, int, int] | None:
    """Return a record's head, its length, its number of entries and its table's crc; None: there is none."""
    if len(data) - offset < _HEAD.size:
        return None
    magic, _, table_crc, length, sequence, oldest, count, counted, *usages = _HEAD.unpack_from(data, offset)
    crc = data[offset + 4 : offset + 8]
    if magic != _HEAD_MAGIC or crc != _head_crc(data[offset + _HEAD_CHECKED : offset + _HEAD.size], seed, offset):
        return None
    usage = Usage(usages[0], usages[1]) if counted else None
    return RecordHead(sequence, oldest, usage, Usage(usages[2], usages[3])), length, count, table_crc


def _find_head(data: bytes, offset: int, seed: int) -> int:
    """Return where the next record begins, or the end of data."""
    while (offset := data.find(_HEAD_MAGIC, offset)) >= 0:
        if _read_head(data, offset, seed) is not None:
            return offset
        offset += 1
    return len(data)


_TEXT, _NUMBER = (str,), (int,)
_MAYBE_TEXT, _MAYBE_NUMBER, _MAYBE_LIST = (str, type(None)), (int, type(None)), (list, type(None))
_ENTRY_TYPES: Final = (_TEXT, _MAYBE_TEXT, (float, int), _TEXT, _TEXT, _MAYBE_LIST)
_BASE_TYPES: Final = (_TEXT, _TEXT, _NUMBER)
_RANGE_TYPES: Final = (_NUMBER, _NUMBER)
_STORED_TYPES: Final = (_MAYBE_NUMBER,) * 7
_CONTENT_TYPES: Final = (
    *(_NUMBER, _NUMBER, _MAYBE_LIST, _NUMBER, (list,), _MAYBE_TEXT, (bool,), (bool,), (dict,), _TEXT),
    *((list,), _MAYBE_TEXT, (dict,)),
)


def _parse(head: bytes) -> list[Any]:
    """Return the fields of an entry's head, the key first; raises ValueError."""
    try:
        fields = json.loads(head)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(fields, list) or not fields or not isinstance(fields[0], str):
        raise ValueError("no entry")
    return fields


def _typed(fields: Any, types: Sequence[tuple[type, ...]]) -> list[Any]:
    if not isinstance(fields, list) or len(fields) != len(types) or not all(map(isinstance, fields, types)):
        raise ValueError("fields are missing or of the wrong type")
    return fields


def _texts(pairs: dict[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in pairs.values()):
        raise ValueError("a value is no text")
    return pairs


def _decode_content(fields: list[Any], inline: bytes) -> PendingContent:
    ino, size, base, base_end, dirty, staging, is_inline, keeps, extra, content_type, *kept = _typed(
        fields, _CONTENT_TYPES
    )
    numbers, target, xattrs = kept
    mode, uid, gid, rdev, atime_ns, mtime_ns, ctime_ns = _typed(numbers, _STORED_TYPES)
    stored = StoredAttributes(
        *(mode, uid, gid, rdev, atime_ns, mtime_ns, ctime_ns),
        None if target is None else target.encode("latin-1"),
        {name.encode("latin-1"): value.encode("latin-1") for name, value in _texts(xattrs).items()},
    )
    return PendingContent(
        ino,
        stored,
        size,
        None if base is None else ObjectVersion(*_typed(base, _BASE_TYPES)),
        base_end,
        tuple((start, end) for start, end in (_typed(pair, _RANGE_TYPES) for pair in dirty)),
        staging,
        inline if is_inline else None,
        keeps,
        _texts(extra),
        content_type,
    )
