"""Bodies of requests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from volgate.control.dto.fields import (
    AbsolutePath,
    Count,
    Metadata,
    Model,
    Options,
    Policy,
    RelativePath,
    SnapshotId,
    SourceText,
    VolumeId,
)


class CreateVolumeRequest(Model):
    """A directory, bucket or share that is to be a volume. A limit that is null or left out is none."""

    volume_id: VolumeId
    source: SourceText
    quota_bytes: Count | None = None
    quota_inodes: Count | None = None
    mount_point: AbsolutePath | None = None
    options: Options = ""


class AdoptVolumeRequest(Model):
    """A volume that exists, to be entered into the catalog of this host under the name it has."""

    source: SourceText
    mount_point: AbsolutePath | None = None
    options: Options = ""


class UpdateVolumeRequest(Model):
    """What holds from the next mount on. A member that is left out stays as it is; null and "" take it away."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    mount_point: AbsolutePath | None = None
    options: Options | None = None


class UnmountRequest(Model):
    """How to unmount; ``lazy``: at once, whoever has files open."""

    lazy: bool = False


class SetQuotaRequest(Model):
    """Limits; null is none, and what is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    quota_bytes: Count | None = None
    quota_inodes: Count | None = None


class CreateSnapshotRequest(Model):
    """A snapshot to be taken; without an id it is named by the moment. With a path it holds only the file there."""

    snapshot_id: SnapshotId | None = None
    path: RelativePath = ""
    metadata: Metadata = Field(default_factory=dict)


class RestoreRequest(Model):
    """What is to be as it was."""

    path: RelativePath = ""


class SetScheduleRequest(Model):
    """When snapshots are taken and let go; null ends that."""

    policy: Policy | None


class SetSnapshotLimitRequest(Model):
    """How much snapshots may keep; null is as much as they need."""

    limit_bytes: Count | None


class CopySourceField(Model):
    """What is copied: a path in a volume, the same one where none is named, or in a directory or bucket of the host.

    ``source`` needs the role admin of all. ``snapshot_id``: of the volume, else as it is now.
    """

    volume_id: VolumeId | None = None
    source: SourceText | None = None
    snapshot_id: SnapshotId | None = None
    path: RelativePath = ""


class CreateCopyRequest(Model):
    """A copy makes what was not there, and shows it when it is whole; a sync makes what is there like the source.

    ``delete``: a sync removes what the source does not have. ``accept_losses``: copy also what the volume cannot keep
    all of. ``bytes_per_s``: not faster.
    """

    kind: Literal["copy", "sync"] = "copy"
    source: CopySourceField
    target_path: RelativePath
    delete: bool = False
    accept_losses: bool = False
    bytes_per_s: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None


class MakeDirectoryRequest(Model):
    """A directory to be made; ``parents``: with those above it, and one that is there is fine."""

    path: RelativePath
    parents: bool = False


class MoveFileRequest(Model):
    """A file or directory that shall have another path."""

    source: RelativePath
    target: RelativePath


class DeleteFileRequest(Model):
    """A file or directory to be removed; ``recursive``: with all below it."""

    path: RelativePath
    recursive: bool = False
