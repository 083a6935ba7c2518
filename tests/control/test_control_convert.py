"""API models and internal values: what goes out comes back, and nothing that a value may hold breaks the way out."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volgate.control import convert
from volgate.control.dto.request import (
    CopySourceField,
    CreateCopyRequest,
    CreateSnapshotRequest,
    CreateVolumeRequest,
)
from volgate.control.text import printable
from volgate.control.volumes import VolumeDescription
from volgate.copies.request import to_request
from volgate.copies.tasks import ENDED
from volgate.drivers.registry import Source
from volgate.dto import (
    SnapshotInfo,
    StorageLocation,
    StorageOperationError,
    StorageQuotaInfo,
    Usage,
    VolumeOperationContext,
)
from volgate.errors import InvalidArgument
from volgate.events import Event
from volgate.volume.catalog import CatalogEntry
from volgate.volume.identity import VolumeIdentity
from volgate.volume.unmounted import StoredState

ids = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
snapshot_ids = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}", fullmatch=True)
counts = st.integers(0, 2**63 - 1)
maybe = lambda strategy: st.none() | strategy  # noqa: E731
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
words = texts.filter(bool)
wild = st.text(st.characters(exclude_characters="\0"), max_size=40) | st.binary(max_size=20).map(
    lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)
paths = st.lists(texts.filter(lambda t: t not in ("", ".", "..") and "/" not in t), min_size=1, max_size=4).map(
    "/".join
)
absolute = paths.map("/{}".format)
times = st.floats(0, 1e12)
errors_ = st.builds(StorageOperationError, words, ids, texts, ids, texts, maybe(words))
quotas = st.builds(StorageQuotaInfo, ids, counts, maybe(counts), counts, words, quota_inodes=maybe(counts))
infos = st.builds(
    SnapshotInfo,
    snapshot_ids,
    times,
    maybe(counts),
    maybe(counts),
    maybe(counts),
    st.dictionaries(words, texts),
    texts,
    path=st.just("") | paths,
)
entries = st.builds(CatalogEntry, ids, words, words, absolute | st.just(""), texts, times)
descriptions = st.builds(VolumeDescription, entries, words, maybe(absolute), st.booleans(), maybe(quotas))


@given(ids, absolute, words, words, maybe(counts), maybe(counts), words, texts)
def test_a_request_for_a_volume_and_its_context(volume_id, mount, kind, owner, bytes_, inodes, rest, options):
    context = VolumeOperationContext(volume_id, Path(mount), kind, owner, bytes_, quota_inodes=inodes)
    request = convert.from_operation_context(context, f"/{rest}", options)
    assert convert.to_operation_context(request, kind, owner) == context
    assert CreateVolumeRequest.model_validate_json(request.model_dump_json()) == request


@given(ids, words, words)
def test_a_volume_without_a_mount_point_has_none_in_its_context_either(volume_id, kind, owner):
    request = CreateVolumeRequest(volume_id=volume_id, source="/srv")
    context = convert.to_operation_context(request, kind, owner)
    assert convert.from_operation_context(context, "/srv", "") == request


@given(descriptions)
def test_a_volume_and_its_answer(description):
    response = convert.to_volume_response(description)
    assert type(response).model_validate_json(response.model_dump_json()) == response
    assert convert.from_volume_response(response) == description


@given(quotas)
def test_a_quota_and_its_answer(quota):
    response = convert.to_quota_response(quota)
    assert type(response).model_validate_json(response.model_dump_json()) == response
    assert convert.from_quota_response(response) == quota


@given(ids, maybe(counts), maybe(counts), maybe(st.builds(Usage, counts, counts)))
def test_a_stored_quota_is_told_from_one_that_was_never_counted(volume_id, bytes_, inodes, usage):
    state = StoredState(VolumeIdentity(volume_id, "u", 0.0, bytes_, inodes), "posix", usage)
    response = convert.to_stored_quota_response(state)
    assert not response.is_live
    if usage is None:
        with pytest.raises(ValueError, match="never counted"):
            convert.from_quota_response(response)
    else:
        assert convert.from_quota_response(response).used_bytes == usage.bytes_


@given(errors_)
def test_an_error_and_its_field(error):
    assert convert.from_error_field(convert.to_error_field(error)) == error


@given(infos)
def test_a_snapshot_and_its_answer(info):
    response = convert.to_snapshot_response(info)
    assert type(response).model_validate_json(response.model_dump_json()) == response
    assert convert.from_snapshot_response(response) == info


@given(ids, absolute, paths)
def test_a_place_and_its_field(volume_id, mount, path):
    location = StorageLocation(volume_id, Path(mount), Path(path))
    assert convert.from_location_field(convert.to_location_field(location)) == location


@given(snapshot_ids, st.just("") | paths, st.dictionaries(words, texts), ids, times)
def test_a_request_for_a_snapshot_and_its_context(snapshot_id, path, metadata, volume_id, now):
    request = CreateSnapshotRequest(snapshot_id=snapshot_id, path=path, metadata=metadata)
    view = convert.from_location_field(
        convert.locate_view({"volume_id": volume_id, "mount_point": "/mnt"}, snapshot_id)
    )
    context = convert.to_snapshot_context(request, view, now)
    assert (context.volume_id, context.snapshot_path) == (volume_id, Path(".snapshots", snapshot_id))
    assert convert.from_snapshot_context(context) == request


@given(st.builds(StorageOperationError, words, ids, wild, ids, wild, maybe(words)), entries, wild)
def test_no_name_that_a_file_system_may_have_breaks_an_answer(error, entry, path):
    convert.to_error_field(error).model_dump_json()
    convert.changes_from_owner([{"path": path, "change": "added", "what": []}])[0].model_dump_json()
    location = StorageLocation("v", Path("/mnt"), Path(".") / path.replace("/", "").replace("..", ""))
    convert.to_location_field(location).model_dump_json()


@given(wild)
def test_printable_text_is_utf_8_and_stays_what_it_is(text):
    shown = printable(text)
    assert shown.encode().decode() == shown == printable(shown)


sources = st.builds(
    CopySourceField, volume_id=maybe(ids), source=st.none(), snapshot_id=maybe(snapshot_ids), path=paths
)  # fmt: skip
copies = st.builds(
    CreateCopyRequest, kind=st.just("copy"), source=sources, target_path=paths.map("into/{}".format),
    accept_losses=st.booleans(), bytes_per_s=maybe(st.integers(1, 2**63 - 1)),
)  # fmt: skip


@given(copies, st.booleans(), ids)
def test_a_copy_and_what_an_owner_is_asked(request, is_other, volume_id):
    source = Source("posix", "/data", {"a": "b"}) if is_other else None
    try:
        body = convert.to_copy_body(request, source, volume_id)
    except InvalidArgument:  # into itself
        assert not is_other
        return
    assert json.loads(json.dumps(body)) == body
    asked = to_request(body)
    assert (asked.kind, asked.source_path, asked.target_path) == ("copy", request.source.path, request.target_path)
    assert (asked.accept_losses, asked.bytes_per_s) == (request.accept_losses, request.bytes_per_s)
    assert asked.source_text == ("/data" if is_other else "")
    assert asked.snapshot_id == ("" if is_other else request.source.snapshot_id or "")


facts = st.dictionaries(words, texts | counts | st.booleans() | st.none() | st.floats(0, 1e9), max_size=4)
events = st.builds(Event, st.just("1-10"), times, words, texts, facts)


@given(events)
def test_an_event_and_its_field(event):
    field = convert.to_event_field(event)
    assert type(field).model_validate_json(field.model_dump_json()) == field
    assert convert.from_event_field(field) == event


@given(st.builds(Event, st.just("1-10"), times, wild, wild, st.dictionaries(wild, wild | st.lists(wild), max_size=3)))
def test_an_event_of_whatever_bytes_goes_out(event):
    field = convert.to_event_field(event)
    assert json.loads(field.model_dump_json())["cursor"] == "1-10"


@given(wild, wild, wild, st.lists(wild, max_size=2), counts, maybe(st.floats(0, 1e9)), st.sampled_from(sorted(ENDED)))
def test_a_task_of_whatever_bytes_goes_out(source, target, error, losses, count, speed, state):
    answer = {
        "operation_id": "0" * 16, "state": state, "created_at": 1.0, "ended_at": 0.0, "total_bytes": count,
        "total_files": count, "done_bytes": count, "done_files": count, "bytes_per_s": speed, "remaining_s": speed,
        "error": error, "error_code": "", "source": source, "request": {"kind": "sync", "target_path": target},
        "report": {"created": count, "replaced": 0, "removed": 0, "adjusted": 0, "losses": losses, "changed": error},
        "later": "more",
    }  # fmt: skip
    response = convert.task_from_owner(answer)
    assert json.loads(response.model_dump_json())["ended_at"] is None
