"""Internal values: immutable, validated, no I/O. Never sent over RPC as they are (see README.md)."""

from volgate.dto.backend import BUILTIN_BACKEND_TYPES, BackendType
from volgate.dto.error.operation import StorageOperationError
from volgate.dto.file.attributes import AttributeChanges, FileAttributes
from volgate.dto.file.copy import AsyncCopyContext
from volgate.dto.file.transfer import FileTransferMetadata
from volgate.dto.quota.info import StorageQuotaInfo
from volgate.dto.quota.usage import Usage
from volgate.dto.volume.location import StorageLocation
from volgate.dto.volume.operation import VolumeOperationContext
from volgate.dto.volume.snapshot import SnapshotInfo, VolumeSnapshotContext

__all__ = [
    "AsyncCopyContext",
    "AttributeChanges",
    "BUILTIN_BACKEND_TYPES",
    "BackendType",
    "FileAttributes",
    "FileTransferMetadata",
    "StorageLocation",
    "StorageOperationError",
    "StorageQuotaInfo",
    "Usage",
    "VolumeOperationContext",
    "SnapshotInfo",
    "VolumeSnapshotContext",
]
