"""System calls that Python does not wrap: renameat2, file handles, the type of a file system. All raise OSError."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_AT_EMPTY_PATH: Final = 0x1000
_MAX_HANDLE_BYTES: Final = 128
_FICLONE: Final = 0x40049409

CAP_CHOWN: Final = 0

BTRFS: Final = 0x9123683E
LOCAL_FILE_SYSTEMS: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        BTRFS,
        0xF2F52010,  # f2fs
        0x01021994,  # tmpfs
    }
)
"""f_type of file systems whose calls wait for nothing but the local disk (statfs(2))."""


FUSE: Final = 0x65735546
"""f_type of FUSE: a handle of an inode that its daemon forgot cannot be told from a deleted inode's."""


class _FileHandle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * _MAX_HANDLE_BYTES),
    )


class _Statfs(ctypes.Structure):
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_ubyte * 256))


_libc.name_to_handle_at.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(_FileHandle),
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_int,
)
_libc.open_by_handle_at.argtypes = (ctypes.c_int, ctypes.POINTER(_FileHandle), ctypes.c_int)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.POINTER(_Statfs))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


_handle = _FileHandle()
_handle_reference = ctypes.byref(_handle)
_handle_bytes = memoryview(_handle).cast("B")
_mount_id_reference = ctypes.byref(ctypes.c_int())


def file_handle(fd: int, name: bytes = b"") -> bytes:
    """Return a handle of the inode behind a descriptor: its type in 4 bytes, then the handle (name_to_handle_at(2)).

    With a name that of what stands under it in the directory behind the descriptor; a symlink's own.

    For the event loop's thread only: the structures are made once, since making them costs as much as the call.
    """
    _handle.handle_bytes = _MAX_HANDLE_BYTES
    flags = 0 if name else _AT_EMPTY_PATH
    _check(_libc.name_to_handle_at(fd, name, _handle_reference, _mount_id_reference, flags))
    return bytes(_handle_bytes[4 : 8 + _handle.handle_bytes])


def sync_file_system(fd: int) -> None:
    """Write back the file system behind a descriptor (syncfs(2))."""
    _check(_libc.syncfs(fd))


def share_blocks(source: int, target: int) -> bool:
    """Let a file, no longer than another, share that one's blocks; returns whether it does (ioctl_ficlone(2))."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS):
            return False
        raise
    return True


def open_handle(mount_fd: int, handle: bytes) -> int:
    """Return an O_PATH descriptor of a handle's inode.

    ESTALE: it is deleted. EPERM: no CAP_DAC_READ_SEARCH. EINVAL: not a handle.
    """
    if not 4 <= len(handle) <= 4 + _MAX_HANDLE_BYTES:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    wanted = _FileHandle(len(handle) - 4, int.from_bytes(handle[:4], "little", signed=True))
    ctypes.memmove(wanted.f_handle, handle[4:], len(handle) - 4)
    return _check(_libc.open_by_handle_at(mount_fd, ctypes.byref(wanted), os.O_PATH | os.O_CLOEXEC))


def rename(source: int, source_name: bytes, target: int, target_name: bytes, flags: int) -> None:
    """Rename with flags (renameat2(2))."""
    _check(_libc.renameat2(source, source_name, target, target_name, flags))


def file_system_type(fd: int) -> int:
    """Return f_type of the file system behind a descriptor (statfs(2))."""
    found = _Statfs()
    _check(_libc.fstatfs(fd, ctypes.byref(found)))
    return int(found.f_type) & 0xFFFFFFFF


def has_capability(number: int) -> bool:
    """Return whether this process has a capability in force (capabilities(7))."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> number & 1)
