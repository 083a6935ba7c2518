"""Bodies of answers. A list has ``items``, and ``next_cursor`` where it has more: nothing is left out silently."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from volgate.control.dto.fields import Count, Model, Seconds


class HealthResponse(Model):
    """The daemon answers."""

    status: Literal["ok"] = "ok"


class VersionResponse(Model):
    """Which volgate answers, and which API."""

    version: str
    api: Literal["v1"] = "v1"


class GrantField(Model):
    """A role; ``volume_id``: null is all volumes."""

    role: Literal["reader", "owner", "admin"]
    volume_id: str | None


class PrincipalResponse(Model):
    """Who asks, and what that one may do."""

    name: str
    grants: list[GrantField]


class QuotaResponse(Model):
    """Limits and usage, the same for every kind of storage.

    ``is_live``: as its owner counts; else as its last one stored it. ``used_bytes``, ``file_count``: null where the
    volume was never counted. A limit that is null is none.
    """

    volume_id: str
    backend_type: str
    is_live: bool
    used_bytes: Count | None
    quota_bytes: Count | None
    file_count: Count | None
    quota_inodes: Count | None


class VolumeResponse(Model):
    """A volume of the catalog.

    ``quota``: of one that is not mounted what was last stored, null in lists; null also where its storage, or its
    owner, does not answer.
    """

    volume_id: str
    uuid: str
    source: str
    mount_point: str | None
    configured_mount_point: str | None
    options: str
    added_at: Seconds
    state: str
    read_only: bool
    quota: QuotaResponse | None


class VolumePage(Model):
    """Volumes by name."""

    items: list[VolumeResponse]
    next_cursor: str | None


class ReadyResponse(Model):
    """The volume serves as it should."""

    volume_id: str
    ready: Literal[True] = True
    state: str


class OperationErrorField(Model):
    """Where and how an operation on storage failed."""

    operation: str
    volume_id: str
    path: str
    backend_type: str
    error_message: str
    error_code: str | None


class VolumeProblemField(Model):
    """One thing that is wrong with a mount; ``code`` is stable."""

    code: str
    message: str
    degrades: bool


class BacklogField(Model):
    """What storage behind a cache does not have yet."""

    backlog_files: Count
    backlog_bytes: Count
    oldest_s: Seconds
    refused: Count
    last_error: str
    lease: str
    cached_bytes: Count
    max_cached_bytes: Count
    cache_lacking_bytes: Count
    staged_bytes: Count
    max_staged_bytes: Count


class StatusResponse(Model):
    """What the owner of a volume says of it. ``storage``: null where nothing is kept back.

    ``mount_point``: null where the owner has no mount.
    """

    volume_id: str
    uuid: str
    mount_point: str | None
    pid: int
    source: str
    state: str
    read_only: bool
    quota: QuotaResponse
    problems: list[VolumeProblemField]
    open_files: Count
    inodes_in_use: Count
    in_flight: Count
    oldest_request_s: Seconds
    read_bytes: Count
    written_bytes: Count
    requests: dict[str, Count]
    errors: dict[str, Count]
    recent_errors: list[OperationErrorField]
    storage: BacklogField | None


class LocationField(Model):
    """A place in a volume."""

    backend_id: str
    mount_point: str
    relative_path: str


class SnapshotResponse(Model):
    """A snapshot; counts are null where the storage does not tell. ``damaged``: "", or why it cannot be read.

    ``path``: of the one file that it holds; "" = all of the volume.
    """

    snapshot_id: str
    created_at: Seconds
    file_count: Count | None
    used_bytes: Count | None
    preserved_bytes: Count | None
    metadata: dict[str, str]
    damaged: str
    path: str


class SnapshotDetailResponse(Model):
    """A snapshot, and where its files are to be read; null where the volume has no mount."""

    snapshot: SnapshotResponse
    view: LocationField | None


class SnapshotPage(Model):
    """Snapshots, the oldest first."""

    items: list[SnapshotResponse]
    next_cursor: str | None


class ChangeField(Model):
    """One difference. ``what``: of a changed file, in what it differs."""

    path: str
    change: Literal["added", "removed", "changed"]
    what: list[str]


class ChangePage(Model):
    """Differences by path."""

    items: list[ChangeField]
    next_cursor: str | None


class RestoreResponse(Model):
    """What a restore did."""

    created: Count
    replaced: Count
    removed: Count
    adjusted: Count


class RestorePlanResponse(Model):
    """What a restore would do. ``refused``: "", or why it would be. ``items``: from the snapshot to what is now."""

    created: Count
    replaced: Count
    removed: Count
    adjusted: Count
    refused: str
    items: list[ChangeField]
    next_cursor: str | None


class ScheduleResponse(Model):
    """When snapshots are taken and let go; null: never."""

    policy: str | None


class SnapshotLimitResponse(Model):
    """What snapshots keep and may keep; all null where the storage keeps what it likes and tells nobody.

    ``is_full``: more is kept than may be, or what was to be kept last was refused.
    """

    kept_bytes: Count | None
    limit_bytes: Count | None
    is_full: bool | None


class CopyReportField(Model):
    """What a copy did: numbers of names. ``losses``: what the volume cannot keep, for people.

    ``changed``: "", or that the source was another at the end than at first.
    """

    created: Count
    replaced: Count
    removed: Count
    adjusted: Count
    losses: list[str]
    changed: str


class TaskResponse(Model):
    """A copy or sync. ``error``: why it failed, or what it waits for; ``error_code``: an errno's name.

    ``remaining_s``, ``bytes_per_s``: null where nobody knows. ``ended_at``: null while it has not ended.
    """

    operation_id: str
    kind: Literal["copy", "sync"]
    state: Literal["waiting", "running", "paused", "cancelling", "done", "failed", "cancelled"]
    source: str
    target_path: str
    created_at: Seconds
    ended_at: Seconds | None
    total_bytes: Count
    total_files: Count
    done_bytes: Count
    done_files: Count
    bytes_per_s: Seconds | None
    remaining_s: Seconds | None
    error: str
    error_code: str
    report: CopyReportField


class TaskPage(Model):
    """Tasks, the oldest first."""

    items: list[TaskResponse]
    next_cursor: str | None


class EventField(Model):
    """What happened. ``cursor``: ask for what follows by it. ``kind``: stable. ``facts``: texts, but for numbers."""

    cursor: str
    at: Seconds
    kind: str
    message: str
    facts: dict[str, str | int | float | bool | None]


class EventPage(Model):
    """Events, the oldest first; later ones begin at ``next_after``."""

    items: list[EventField]
    next_after: str


class FileField(Model):
    r"""What stands under a name. ``name``: "" for the root. ``target``: where a symlink leads.

    ``addressable``: whether ``name`` can stand in a path. Else it is not UTF-8, and its other bytes are shown as
    ``\xNN``, which may be the name of another file; only a mount reaches it.
    """

    name: str
    addressable: bool
    type: Literal["file", "directory", "symlink", "fifo", "socket", "character device", "block device"]
    size: Count
    mode: Annotated[int, Field(ge=0, le=0o7777)]
    uid: Count
    gid: Count
    links: Count
    mtime: float
    target: str | None


class FilePage(Model):
    """Entries of a directory by name."""

    items: list[FileField]
    next_cursor: str | None


class InvalidField(Model):
    """What is wrong in a request, and where."""

    place: str
    reason: str


class ProblemResponse(Model):
    """What went wrong (RFC 9457). ``code`` is stable; ``context`` says where, ``invalid`` what in the request."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    context: OperationErrorField | None = None
    invalid: list[InvalidField] | None = None
