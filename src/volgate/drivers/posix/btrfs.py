"""The quota group of a btrfs subvolume: a limit of the storage's own (btrfs-qgroup(8), linux/btrfs.h)."""

from __future__ import annotations

import fcntl
import os
import struct
import uuid
from typing import Final

from volgate.drivers.posix import syscalls

_SUBVOLUME_INO: Final = 256
"""The inode number of every subvolume's root, and of nothing else (BTRFS_FIRST_FREE_OBJECTID)."""
_MAX_REFERENCED: Final = 1
_NO_LIMIT: Final = 2**64 - 1
_LOOKUP: Final = struct.Struct("=QQ4080s")  # btrfs_ioctl_ino_lookup_args: tree, inode, name
_FS_INFO: Final = struct.Struct("=QQ16s992s")  # btrfs_ioctl_fs_info_args: ..., fsid, ...
_LIMIT: Final = struct.Struct("=QQQQQQ")  # btrfs_ioctl_qgroup_limit_args: group, flags, four limits
_READ, _WRITE = 2, 1


def _request(direction: int, number: int, size: int) -> int:
    """Return the number of an ioctl of btrfs (ioctl(2): direction, size, type 0x94, number)."""
    return direction << 30 | size << 16 | 0x94 << 8 | number


_INO_LOOKUP: Final = _request(_READ | _WRITE, 18, _LOOKUP.size)
_IOC_FS_INFO: Final = _request(_READ, 31, _FS_INFO.size)
_QGROUP_LIMIT: Final = _request(_READ, 43, _LIMIT.size)


def has_quota_group(fd: int) -> bool:
    """Return whether a directory is the root of a subvolume whose file system has its quotas enabled."""
    if syscalls.file_system_type(fd) != syscalls.BTRFS or os.fstat(fd).st_ino != _SUBVOLUME_INO:
        return False
    return os.path.isdir(_group(fd))


def _group(fd: int) -> str:
    """Return where sysfs has the quota group of a subvolume."""
    info = bytearray(_FS_INFO.size)
    fcntl.ioctl(fd, _IOC_FS_INFO, info)
    lookup = bytearray(_LOOKUP.pack(0, _SUBVOLUME_INO, b""))
    fcntl.ioctl(fd, _INO_LOOKUP, lookup)
    fsid, subvolume = _FS_INFO.unpack(info)[2], _LOOKUP.unpack(lookup)[0]
    return f"/sys/fs/btrfs/{uuid.UUID(bytes=fsid)}/qgroups/0_{subvolume}"


def read_limit(fd: int) -> int | None:
    """Return what the subvolume of a directory may refer to, in bytes on disk with metadata; None = unlimited."""
    with open(f"{_group(fd)}/max_referenced", encoding="ascii") as file:
        limit = int(file.read())
    return None if limit in (0, _NO_LIMIT) else limit


def store_limit(fd: int, limit: int | None) -> None:
    """Limit what the subvolume of a directory refers to; None lifts the limit.

    Needs CAP_SYS_ADMIN (EPERM). Raises OSError.
    """
    referenced = _NO_LIMIT if limit is None else limit
    fcntl.ioctl(fd, _QGROUP_LIMIT, _LIMIT.pack(0, _MAX_REFERENCED, referenced, 0, 0, 0))
