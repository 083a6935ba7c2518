"""The journal's format: all that is written is read, nothing else is, and no input ends in an error."""

import contextlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volgate.core import journal_codec as codec
from volgate.core.object_metadata import StoredAttributes
from volgate.core.object_version import ObjectVersion
from volgate.core.pending import DoneEntry, PendingContent, PendingEntry
from volgate.dto import Usage

UUID = bytes(range(16))
SEED = codec.seed_of(UUID, 1)
HEADER = codec.encode_header(UUID, 1)

texts = st.text(max_size=12) | st.binary(max_size=12).map(os.fsdecode)
sizes = st.integers(0, 2**63 - 1)
maybe_sizes = st.none() | sizes
versions = st.builds(ObjectVersion, key=texts, etag=texts, size=sizes)
stored = st.builds(
    StoredAttributes,
    mode=maybe_sizes,
    uid=maybe_sizes,
    gid=maybe_sizes,
    rdev=maybe_sizes,
    atime_ns=st.none() | st.integers(),
    mtime_ns=st.none() | st.integers(),
    ctime_ns=st.none() | st.integers(),
    symlink_target=st.none() | st.binary(max_size=20),
    xattrs=st.dictionaries(st.binary(max_size=8), st.binary(max_size=20), max_size=3),
)
contents = st.builds(
    PendingContent,
    ino=sizes,
    attributes=stored,
    size=sizes,
    base=st.none() | versions,
    base_end=sizes,
    dirty=st.lists(st.tuples(sizes, sizes), max_size=3).map(tuple),
    staging=st.none() | texts,
    inline=st.none() | st.binary(max_size=300),
    keeps_metadata=st.booleans(),
    extra_metadata=st.dictionaries(texts, texts, max_size=3),
    content_type=texts,
)
pending = st.builds(
    PendingEntry,
    key=texts,
    remote_etag=st.none() | texts,
    content=st.none() | contents,
    since=st.floats(allow_nan=False),
    commit_id=texts,
    refused=texts,
)
entries = pending | st.builds(DoneEntry, key=texts)
signed = st.integers(-(2**63), 2**63 - 1)
usages = st.builds(Usage, bytes_=signed, inodes=signed)
heads = st.builds(codec.RecordHead, sequence=sizes, oldest=sizes, usage=st.none() | usages, relative=usages)
records = st.tuples(heads, st.lists(entries, max_size=4))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=13) | st.dictionaries(texts, inner, max_size=3),
)


def segment_of(written):
    """Return a segment of these records, and where each begins."""
    data, starts = HEADER, []
    for head, items in written:
        starts.append(len(data))
        data += codec.encode_record(head, [codec.encode_entry(item) for item in items], SEED, len(data))[0]
    return data, starts


def read(data):
    return [
        (found.head, [codec.decode_entry(raw) for raw in found.entries])
        for found in codec.scan(data, SEED)
        if isinstance(found, codec.Record)
    ]


@given(st.lists(records, max_size=4))
def test_what_is_written_is_read(written):
    data, starts = segment_of(written)
    assert read(data) == written
    found = list(codec.scan(data, SEED))
    assert [record.start for record in found] == starts
    assert [record.end for record in found] == [*starts, len(data)][1:]
    for record in found:
        assert data[record.body : record.end] == b"".join(raw.body for raw in record.entries)


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_a_changed_byte_costs_its_own_record_and_no_other(written, draw):
    data, starts = segment_of(written)
    at = draw.draw(st.integers(len(HEADER), len(data) - 1))
    damaged = data[:at] + bytes([data[at] ^ draw.draw(st.integers(1, 255))]) + data[at + 1 :]
    hit = max(index for index, start in enumerate(starts) if start <= at)
    assert read(damaged) == written[:hit] + written[hit + 1 :]
    (damage,) = (found for found in codec.scan(damaged, SEED) if isinstance(found, codec.Damage))
    assert (damage.start, damage.end) == (starts[hit], [*starts, len(data)][hit + 1])


@given(st.lists(records, min_size=1, max_size=3), st.data())
def test_a_cut_leaves_the_records_before_it(written, draw):
    data, starts = segment_of(written)
    end = draw.draw(st.integers(len(HEADER), len(data)))
    whole = [record for record, record_end in zip(written, [*starts, len(data)][1:], strict=True) if record_end <= end]
    assert read(data[:end]) == whole


@given(st.binary(max_size=600))
def test_garbage_is_damage_and_nothing_more(garbage):
    found = list(codec.scan(HEADER + garbage, SEED))
    assert all(isinstance(piece, codec.Damage) for piece in found)
    assert sum(piece.end - piece.start for piece in found) == len(garbage)
    assert codec.decode_header(garbage) is None


@given(json_values | st.lists(json_values, min_size=6, max_size=6), st.binary(max_size=8))
def test_a_head_that_is_no_entry_is_a_value_error(value, inline):
    head = json.dumps(value).encode()
    with contextlib.suppress(ValueError):
        codec.decode_entry(codec.RawEntry("", True, head + inline, len(head), 0))


@given(pending, st.data())
def test_a_head_with_one_field_of_another_kind_is_a_value_error_or_an_entry(entry, draw):
    raw = codec.encode_entry(entry)
    fields = json.loads(raw.body[: raw.head_length])
    where = fields[5] if fields[5] is not None and draw.draw(st.booleans()) else fields
    where[draw.draw(st.integers(0, len(where) - 1))] = draw.draw(json_values)
    head = json.dumps(fields).encode()
    with contextlib.suppress(ValueError):
        codec.decode_entry(codec.RawEntry("", True, head, len(head), 0))


@pytest.mark.parametrize("head", [b"", b"[" * 100_000, b"\xff", b"[]", b"{}", b"[1]", b'["a",1]', b"[1e999]"])
def test_heads_that_are_none_are_value_errors(head):
    with pytest.raises(ValueError):
        codec.decode_entry(codec.RawEntry("", True, head, len(head), 0))


def test_the_keys_of_a_damaged_record_are_told_where_they_are_legible():
    head = codec.RecordHead(1, 1, None, Usage(0, 0))
    data, _ = segment_of([(head, [DoneEntry("a"), DoneEntry("bbbb"), DoneEntry("c")])])
    at = data.index(b"bbbb") - 1  # the quotation mark
    (damage,) = codec.scan(data[:at] + b"x" + data[at + 1 :], SEED)
    assert damage.keys == ("a", "c")


def test_a_record_inside_a_files_content_is_no_record():
    """Neither one of another place of the same segment nor one of another segment or volume."""
    head = codec.RecordHead(7, 1, None, Usage(0, 0))
    inner = [codec.encode_entry(DoneEntry("victim"))]
    forged = b"".join(
        codec.encode_record(head, inner, seed, offset)[0]
        for seed in (SEED, codec.seed_of(UUID, 2), codec.seed_of(bytes(16), 1))
        for offset in (0, len(HEADER))
    )
    content = PendingContent(
        1, StoredAttributes(), len(forged), None, 0, (), None, forged, False, {}, "application/octet-stream"
    )
    data, starts = segment_of([(head, [PendingEntry("mine", None, content, 0.0, "", "")])])
    headless = data[: starts[0]] + b"\0" + data[starts[0] + 1 :]
    assert read(headless) == []


@given(st.binary(min_size=16, max_size=16), sizes)
def test_a_segments_header_is_read(uuid, number):
    header = codec.encode_header(uuid, number)
    assert len(header) == codec.HEADER_BYTES
    assert codec.decode_header(header + b"more") == codec.SegmentHeader(codec.FORMAT_VERSION, uuid, number)
    assert codec.decode_header(header[:-1]) is None
