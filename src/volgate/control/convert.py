r"""Where the API's models meet internal values: the only module that imports both.

Text that is not UTF-8 goes out as ``\xNN`` (``text.printable``) and does not come back. What an owner's socket answers
is picked member by member, so that an owner of a newer version may say more.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from volgate.control.dto.request import CreateCopyRequest, CreateSnapshotRequest, CreateVolumeRequest
from volgate.control.dto.response import (
    BacklogField,
    ChangeField,
    CopyReportField,
    EventField,
    FileField,
    GrantField,
    LocationField,
    OperationErrorField,
    PrincipalResponse,
    QuotaResponse,
    SnapshotLimitResponse,
    SnapshotResponse,
    StatusResponse,
    TaskResponse,
    VolumeProblemField,
    VolumeResponse,
)
from volgate.control.roles import Grant, Principal, Role
from volgate.control.text import printable
from volgate.control.volumes import VolumeDescription
from volgate.copies.request import describe as describe_copy
from volgate.copies.request import to_request as to_copy_request
from volgate.drivers.registry import Source
from volgate.dto import (
    FileAttributes,
    SnapshotInfo,
    StorageLocation,
    StorageOperationError,
    StorageQuotaInfo,
    VolumeOperationContext,
    VolumeSnapshotContext,
)
from volgate.events import Event
from volgate.volume.catalog import CatalogEntry
from volgate.volume.unmounted import StoredState

_VIEWS: Final = ".snapshots"
"""Where snapshots are read, from the root of a mount."""
_ANYWHERE: Final = Path("/")
"""Stands for the mount point of a volume that has none."""


# -- who asks --------------------------------------------------------------------------------------------------------

_ROLE_NAMES: Final[dict[Role, Literal["reader", "owner", "admin"]]] = {
    Role.READER: "reader",
    Role.OWNER: "owner",
    Role.ADMIN: "admin",
}


def to_principal_response(principal: Principal) -> PrincipalResponse:
    """Return who asks."""
    grants = [GrantField(role=_ROLE_NAMES[grant.role], volume_id=grant.volume_id) for grant in principal.grants]
    return PrincipalResponse(name=printable(principal.name), grants=grants)


def from_principal_response(response: PrincipalResponse) -> Principal:
    """Return the principal that a response stands for."""
    return Principal(
        response.name, tuple(Grant(Role[grant.role.upper()], grant.volume_id) for grant in response.grants)
    )


# -- volumes ---------------------------------------------------------------------------------------------------------


def to_operation_context(request: CreateVolumeRequest, backend_type: str, owner_id: str) -> VolumeOperationContext:
    """Return the context of making a volume; ``owner_id``: who asks."""
    return VolumeOperationContext(
        request.volume_id,
        Path(request.mount_point or _ANYWHERE),
        backend_type,
        owner_id,
        request.quota_bytes,
        quota_inodes=request.quota_inodes,
    )


def from_operation_context(context: VolumeOperationContext, source: str, options: str) -> CreateVolumeRequest:
    """Return the request that asks for this volume. Raises ValidationError: its mount point is not UTF-8."""
    return CreateVolumeRequest(
        volume_id=context.volume_id,
        source=source,
        quota_bytes=context.quota_bytes,
        quota_inodes=context.quota_inodes,
        mount_point=None if context.mount_path == _ANYWHERE else str(context.mount_path),
        options=options,
    )


def to_volume_response(found: VolumeDescription) -> VolumeResponse:
    """Return how a volume is."""
    entry = found.entry
    return VolumeResponse(
        volume_id=entry.volume_id,
        uuid=entry.uuid,
        source=printable(entry.source),
        mount_point=None if found.mount_point is None else printable(found.mount_point),
        configured_mount_point=printable(entry.mount_point) or None,
        options=printable(entry.options),
        added_at=entry.added_at,
        state=found.state,
        read_only=found.read_only,
        quota=None if found.quota is None else to_quota_response(found.quota),
    )


def from_volume_response(response: VolumeResponse) -> VolumeDescription:
    """Return the description that a response stands for."""
    entry = CatalogEntry(
        response.volume_id,
        response.uuid,
        response.source,
        response.configured_mount_point or "",
        response.options,
        response.added_at,
    )
    quota = None if response.quota is None else from_quota_response(response.quota)
    return VolumeDescription(entry, response.state, response.mount_point, response.read_only, quota)


# -- quota -----------------------------------------------------------------------------------------------------------


def to_quota_response(info: StorageQuotaInfo) -> QuotaResponse:
    """Return limits and usage as an owner counts them."""
    return QuotaResponse(
        volume_id=info.volume_id,
        backend_type=info.backend_type,
        is_live=True,
        used_bytes=info.used_bytes,
        quota_bytes=info.quota_bytes,
        file_count=info.file_count,
        quota_inodes=info.quota_inodes,
    )


def to_stored_quota_response(state: StoredState) -> QuotaResponse:
    """Return limits, and usage as last stored."""
    return QuotaResponse(
        volume_id=state.identity.volume_id,
        backend_type=state.backend_type,
        is_live=False,
        used_bytes=None if state.usage is None else state.usage.bytes_,
        quota_bytes=state.identity.quota_bytes,
        file_count=None if state.usage is None else state.usage.inodes,
        quota_inodes=state.identity.quota_inodes,
    )


def from_quota_response(response: QuotaResponse) -> StorageQuotaInfo:
    """Return the value that a response stands for. Raises ValueError: the volume was never counted."""
    if response.used_bytes is None or response.file_count is None:
        raise ValueError(f"volume {response.volume_id} was never counted")
    return StorageQuotaInfo(
        response.volume_id,
        response.used_bytes,
        response.quota_bytes,
        response.file_count,
        response.backend_type,
        quota_inodes=response.quota_inodes,
    )


def quota_from_owner(answer: Mapping[str, Any]) -> StorageQuotaInfo:
    """Return limits and usage of an owner's status."""
    return StorageQuotaInfo(
        answer["volume_id"],
        answer["used_bytes"],
        answer["quota_bytes"],
        answer["file_count"],
        answer["backend_type"],
        quota_inodes=answer["quota_inodes"],
    )


# -- status ----------------------------------------------------------------------------------------------------------


def to_error_field(error: StorageOperationError) -> OperationErrorField:
    """Return what failed where."""
    return OperationErrorField(
        operation=error.operation,
        volume_id=error.volume_id,
        path=printable(error.path),
        backend_type=error.backend_type,
        error_message=printable(error.error_message),
        error_code=error.error_code,
    )


def from_error_field(field: OperationErrorField) -> StorageOperationError:
    """Return the value that a field stands for."""
    return StorageOperationError(
        field.operation, field.volume_id, field.path, field.backend_type, field.error_message, field.error_code
    )


def status_from_owner(answer: Mapping[str, Any]) -> StatusResponse:
    """Return what an owner says of its mount."""
    figures, storage = answer["statistics"], answer["storage"]
    return StatusResponse(
        volume_id=answer["volume_id"],
        uuid=answer["uuid"],
        mount_point=None if answer["mount_point"] is None else printable(answer["mount_point"]),
        pid=answer["pid"],
        source=printable(answer["source"]),
        state=answer["state"],
        read_only=answer["read_only"],
        quota=to_quota_response(quota_from_owner(answer)),
        problems=[
            VolumeProblemField(code=found["code"], message=printable(found["message"]), degrades=found["degrades"])
            for found in answer["problems"]
        ],
        open_files=figures["open_files"],
        inodes_in_use=figures["inodes"],
        in_flight=figures["in_flight"],
        oldest_request_s=figures["oldest_request_s"],
        read_bytes=figures["read_bytes"],
        written_bytes=figures["written_bytes"],
        requests=figures["requests"],
        errors=figures["errors"],
        recent_errors=[to_error_field(StorageOperationError(**error)) for error in figures["recent_errors"]],
        storage=None if storage is None else _to_backlog(storage),
    )


def _to_backlog(storage: Mapping[str, Any]) -> BacklogField:
    known = {name: storage[name] for name in BacklogField.model_fields}
    return BacklogField(**{**known, "last_error": printable(known["last_error"])})


# -- snapshots and places --------------------------------------------------------------------------------------------


def to_location_field(location: StorageLocation) -> LocationField:
    """Return a place."""
    return LocationField(
        backend_id=location.backend_id,
        mount_point=printable(str(location.mount_point)),
        relative_path=printable(str(location.relative_path)),
    )


def from_location_field(field: LocationField) -> StorageLocation:
    """Return the place that a field stands for. Raises ValueError: it is absolute, or leaves its volume."""
    return StorageLocation(field.backend_id, Path(field.mount_point), Path(field.relative_path))


def locate_view(status: Mapping[str, Any], snapshot_id: str) -> LocationField | None:
    """Return where a snapshot's files are to be read; ``status``: of its volume's owner. None: it has no mount."""
    if status["mount_point"] is None:
        return None
    mount_point = Path(status["mount_point"])
    return to_location_field(StorageLocation(status["volume_id"], mount_point, Path(_VIEWS, snapshot_id)))


def to_snapshot_context(
    request: CreateSnapshotRequest, view: StorageLocation, created_at: float
) -> VolumeSnapshotContext:
    """Return the context of taking a snapshot whose name was chosen, which is to be read at ``view``.

    Raises:
        ValueError: its name was left to the owner.
    """
    if request.snapshot_id is None:
        raise ValueError("the owner names it")
    return VolumeSnapshotContext(
        view.backend_id, request.snapshot_id, view.relative_path, created_at, dict(request.metadata), path=request.path
    )


def from_snapshot_context(context: VolumeSnapshotContext) -> CreateSnapshotRequest:
    """Return the request that asks for this snapshot."""
    return CreateSnapshotRequest(snapshot_id=context.snapshot_id, path=context.path, metadata=dict(context.metadata))


def to_snapshot_response(info: SnapshotInfo) -> SnapshotResponse:
    """Return what is known of a snapshot."""
    return SnapshotResponse(
        snapshot_id=info.snapshot_id,
        created_at=float(info.created_at),
        file_count=info.file_count,
        used_bytes=info.used_bytes,
        preserved_bytes=info.preserved_bytes,
        metadata={printable(key): printable(value) for key, value in info.metadata.items()},
        damaged=printable(info.damaged),
        path=printable(info.path),
    )


def from_snapshot_response(response: SnapshotResponse) -> SnapshotInfo:
    """Return the value that a response stands for."""
    return SnapshotInfo(
        response.snapshot_id,
        response.created_at,
        response.file_count,
        response.used_bytes,
        response.preserved_bytes,
        response.metadata,
        response.damaged,
        path=response.path,
    )


def snapshot_from_owner(answer: Mapping[str, Any]) -> SnapshotInfo:
    """Return a snapshot of an owner's answer."""
    names = "snapshot_id", "created_at", "file_count", "used_bytes", "preserved_bytes", "metadata", "damaged"
    return SnapshotInfo(*(answer[name] for name in names), path=answer["path"])


def changes_from_owner(answer: Sequence[Mapping[str, Any]]) -> list[ChangeField]:
    """Return the differences that an owner found."""
    return [
        ChangeField(path=printable(found["path"]), change=found["change"], what=list(found["what"])) for found in answer
    ]


def limit_from_owner(answer: Mapping[str, Any] | None) -> SnapshotLimitResponse:
    """Return what snapshots keep, as an owner says; None where its storage keeps what it likes."""
    if answer is None:
        return SnapshotLimitResponse(kept_bytes=None, limit_bytes=None, is_full=None)
    return SnapshotLimitResponse(**{name: answer[name] for name in ("kept_bytes", "limit_bytes", "is_full")})


# -- copies and events -----------------------------------------------------------------------------------------------


def to_copy_body(request: CreateCopyRequest, source: Source | None, source_volume: str) -> dict[str, Any]:
    """Return what an owner is asked for. Raises InvalidArgument: it is no copy.

    Args:
        source: where the source lies, None = in the volume itself. source_volume: the volume that is, "" = none.
    """
    lies = {} if source is None else {
        "source_type": source.backend_type, "source_text": source.text, "source_options": dict(source.options),
    }  # fmt: skip
    return describe_copy(
        to_copy_request(
            {
                "kind": request.kind,
                "source_path": request.source.path,
                "target_path": request.target_path,
                "snapshot_id": (request.source.snapshot_id or "") if source is None else "",
                "source_volume": source_volume,
                "delete": request.delete,
                "accept_losses": request.accept_losses,
                "bytes_per_s": request.bytes_per_s,
                **lies,
            }
        )
    )


def task_from_owner(answer: Mapping[str, Any]) -> TaskResponse:
    """Return a task of an owner's answer."""
    same = "operation_id", "state", "created_at", "total_bytes", "total_files", "done_bytes", "done_files"
    measured = "bytes_per_s", "remaining_s"
    report = answer["report"]
    return TaskResponse(
        **{name: answer[name] for name in (*same, *measured, "error_code")},
        kind=answer["request"]["kind"],
        source=printable(answer["source"]),
        target_path=printable(answer["request"]["target_path"]),
        ended_at=answer["ended_at"] or None,
        error=printable(answer["error"]),
        report=CopyReportField(
            **{name: report[name] for name in ("created", "replaced", "removed", "adjusted")},
            losses=[printable(loss) for loss in report["losses"]],
            changed=printable(report["changed"]),
        ),
    )


def to_event_field(event: Event) -> EventField:
    """Return an event; what is no number among its facts is told as text."""
    facts = {
        printable(str(key)): value if value is None or isinstance(value, int | float) else printable(str(value))
        for key, value in event.facts.items()
    }
    return EventField(
        cursor=event.cursor, at=event.at, kind=printable(event.kind), message=printable(event.message), facts=facts
    )


def from_event_field(field: EventField) -> Event:
    """Return the event that a field stands for."""
    return Event(field.cursor, field.at, field.kind, field.message, dict(field.facts))


# -- files -----------------------------------------------------------------------------------------------------------


def file_from_owner(answer: Mapping[str, Any]) -> FileField:
    """Return an entry of an owner's answer."""
    attributes = FileAttributes(**{name: answer[name] for name in _ATTRIBUTES})
    return to_file_field(attributes, answer["name"], answer["target"])


def to_file_field(attributes: FileAttributes, name: str, target: str | None) -> FileField:
    """Return what stands under a name."""
    shown = printable(name)
    return FileField(
        name=shown,
        addressable=shown == name,
        type=_FILE_TYPES[stat.S_IFMT(attributes.mode)],
        size=attributes.size,
        mode=stat.S_IMODE(attributes.mode),
        uid=attributes.uid,
        gid=attributes.gid,
        links=attributes.nlink,
        mtime=attributes.mtime_ns / 1e9,
        target=None if target is None else printable(target),
    )


_ATTRIBUTES: Final = tuple(field.name for field in attrs.fields(FileAttributes))
_FILE_TYPES: Final[dict[int, Any]] = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "character device", stat.S_IFBLK: "block device",
}  # fmt: skip
