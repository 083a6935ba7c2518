"""The DTOs: immutable, validated, with the fields they always had, first and in order."""

from pathlib import Path

import attrs
import pytest

import volgate.dto as dto

BACKEND = object()
MADE = {
    dto.VolumeOperationContext: ("vol-1", Path("/mnt"), "posix", "uid:0"),
    dto.StorageLocation: ("vol-1", Path("/mnt"), Path("a/b")),
    dto.StorageQuotaInfo: ("vol-1", 10, 100, 3, "posix"),
    dto.AsyncCopyContext: ("op", BACKEND, BACKEND, "a", "b", 10, 1.0),
    dto.StorageOperationError: ("write", "vol-1", "a", "posix", "it failed"),
    dto.VolumeSnapshotContext: ("vol-1", "s1", Path(".snapshots/s1"), 1.0, {"by": "me"}),
    dto.FileTransferMetadata: ("a", "b", 10, "sha256:00ff", "t1"),
}
FIELDS = {
    dto.VolumeOperationContext: ["volume_id", "mount_path", "backend_type", "owner_id", "quota_bytes"],
    dto.StorageLocation: ["backend_id", "mount_point", "relative_path"],
    dto.StorageQuotaInfo: ["volume_id", "used_bytes", "quota_bytes", "file_count", "backend_type"],
    dto.AsyncCopyContext: [
        "operation_id", "source_backend", "destination_backend", "source_path", "destination_path", "total_bytes",
        "started_at",
    ],
    dto.StorageOperationError: ["operation", "volume_id", "path", "backend_type", "error_message", "error_code"],
    dto.VolumeSnapshotContext: ["volume_id", "snapshot_id", "snapshot_path", "created_at", "metadata"],
    dto.FileTransferMetadata: ["source_path", "destination_path", "file_size", "checksum", "transfer_id"],
}  # fmt: skip


@pytest.mark.parametrize("class_", MADE, ids=lambda c: c.__name__)
def test_fields_stand_in_their_order_and_additions_are_keyword_only(class_):
    fields = attrs.fields(class_)
    positional = [field.name for field in fields if not field.kw_only]
    assert positional == FIELDS[class_]


@pytest.mark.parametrize("class_", MADE, ids=lambda c: c.__name__)
def test_a_value_cannot_be_changed(class_):
    value = class_(*MADE[class_])
    for field in attrs.fields(class_):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, field.name, None)
    with pytest.raises((AttributeError, attrs.exceptions.FrozenInstanceError)):
        value.something_new = 1
    assert value == class_(*MADE[class_])


def test_containers_inside_cannot_be_changed_either():
    metadata = {"by": "me"}
    context = dto.VolumeSnapshotContext("vol-1", "s1", Path("x"), 1.0, metadata)
    metadata["by"] = "you"
    assert context.metadata["by"] == "me"
    with pytest.raises(TypeError):
        context.metadata["by"] = "you"


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", "nul\0byte"])
def test_a_location_cannot_leave_its_volume(path):
    with pytest.raises(ValueError, match="relative_path"):
        dto.StorageLocation("vol-1", Path("/mnt"), Path(path))


def test_a_location_knows_its_absolute_path():
    assert dto.StorageLocation("vol-1", Path("/mnt"), Path("a/b")).absolute_path == Path("/mnt/a/b")


@pytest.mark.parametrize("volume_id", ["", "Upper", "-first", "a" * 64, "sl/ash", "nul\0"])
def test_a_volume_id_is_checked(volume_id):
    with pytest.raises(ValueError, match="volume_id"):
        dto.VolumeOperationContext(volume_id, Path("/mnt"), "posix", "uid:0")


@pytest.mark.parametrize(
    ("class_", "change"),
    [
        (dto.StorageQuotaInfo, {"used_bytes": -1}),
        (dto.StorageQuotaInfo, {"quota_bytes": -1}),
        (dto.FileTransferMetadata, {"file_size": -1}),
        (dto.FileTransferMetadata, {"checksum": "no-colon"}),
        (dto.FileTransferMetadata, {"checksum": "md5:XYZ"}),
        (dto.VolumeOperationContext, {"mount_path": Path("relative")}),
        (dto.AsyncCopyContext, {"total_bytes": -5}),
        (dto.StorageOperationError, {"operation": ""}),
    ],
)
def test_what_makes_no_sense_is_refused(class_, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        attrs.evolve(class_(*MADE[class_]), **change)


def test_a_number_must_be_a_number():
    with pytest.raises(TypeError):
        dto.StorageQuotaInfo("vol-1", "10", 100, 3, "posix")


def test_free_space_follows_from_limit_and_usage():
    info = dto.StorageQuotaInfo("vol-1", 30, 100, 3, "posix", quota_inodes=2)
    assert (info.free_bytes, info.free_inodes) == (70, 0)
    assert dto.StorageQuotaInfo("vol-1", 30, None, 3, "posix").free_bytes is None
