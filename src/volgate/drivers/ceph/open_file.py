"""Inodes, directories and files that a CephFS client holds, and the door of its errors."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from volgate.drivers.base import BackendDirectory, BackendFile
from volgate.drivers.ceph import libcephfs
from volgate.drivers.ceph.libcephfs import CUT_OFF, STATX_WANTED, Client, Statx
from volgate.dto import AttributeChanges, FileAttributes
from volgate.errors import InputOutput, InvalidArgument, Stale, Unavailable
from volgate.errors.errno_map import from_oserror

R = TypeVar("R")
_MAX_ATTRIBUTE_BYTES: Final = 64 << 10
_LOST: Final = "what was not stored yet is lost: the cluster had cut this client off; write the file again"


def served(*, repeats: bool) -> Callable[[Callable[..., R]], Callable[..., Coroutine[Any, Any, R]]]:
    """Make a plain method, which blocks for the cluster, the port's coroutine; it raises StorageExceptions only.

    Where the cluster has cut the client off it is mounted anew; then what only reads is asked again, and what changes
    fails once, since nobody knows whether it happened.

    Args:
        repeats: the method may be called again.
    """

    def decorate(method: Callable[..., R]) -> Callable[..., Coroutine[Any, Any, R]]:
        @functools.wraps(method)
        async def guarded(self: Any, *args: Any, **kwargs: Any) -> R:
            generation = self.client.pin()
            try:
                try:
                    return method(self, *args, **kwargs)
                except OSError as error:
                    if error.errno not in CUT_OFF or not self.client.is_mounted:
                        raise
                    self.client.mount_anew(generation)
                    if not repeats:
                        raise Unavailable(
                            "the cluster had cut this client off; it is mounted anew: try again"
                        ) from error
                    return method(self, *args, **kwargs)
            except OSError as error:
                raise from_oserror(error) from error
            except (ValueError, OverflowError, ctypes.ArgumentError) as error:
                raise InvalidArgument(str(error)) from error
            finally:
                self.client.unpin()

        return guarded

    return decorate


def to_attributes(status: Statx) -> FileAttributes:
    """Return the driver's form of a struct ceph_statx."""
    return FileAttributes(
        status.ino,
        status.mode,
        status.nlink,
        status.uid,
        status.gid,
        status.rdev,
        status.size,
        status.blocks,
        status.atime.ns,
        status.mtime.ns,
        status.ctime.ns,
    )


class CephInode:
    """A reference to an inode, found again by its number after the client was mounted anew.

    Args:
        pointer: of the client's present generation; given back by ``close``. ino: 0 = the root.
    """

    __slots__ = ("_held", "client", "ino")

    def __init__(self, client: Client, pointer: int, ino: int) -> None:
        self.client = client
        self.ino = ino
        self._held: tuple[int | None, int | None] = pointer, client.generation
        """Pointer and generation, in one, since threads of two generations may meet here."""

    @property
    def pointer(self) -> int:
        """The library's pointer. Raises OSError: the inode is gone, or was closed."""
        pointer, generation = self._held
        if pointer is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if generation != self.client.generation:
            self.client.check_pinned()
            found = ctypes.c_void_p()
            if self.ino:
                self.client.call("ll_lookup_inode", self.ino, ctypes.byref(found))
            else:
                self.client.call("ll_lookup_root", ctypes.byref(found))
            self.client.check_pinned()
            pointer = found.value
            self._held = pointer, self.client.generation
        assert pointer is not None
        return pointer

    def close(self) -> None:
        """Give the reference back; a second call does nothing."""
        (pointer, generation), self._held = self._held, (None, None)
        if pointer is not None:
            self.client.put(pointer, generation)

    def stat(self) -> Statx:
        """Return the attributes. Raises OSError."""
        status = Statx()
        self.client.call("ll_getattr", self.pointer, ctypes.byref(status), STATX_WANTED, 0, self.client.perms)
        return status

    def change(self, changes: AttributeChanges) -> bool:
        """Change attributes, all or none; returns whether there is any. Raises OSError."""
        wanted, mask = Statx(), 0
        if changes.mode is not None:
            wanted.mode, mask = changes.mode, mask | libcephfs.SETATTR_MODE
        if changes.uid is not None:
            wanted.uid, mask = changes.uid, mask | libcephfs.SETATTR_UID
        if changes.gid is not None:
            wanted.gid, mask = changes.gid, mask | libcephfs.SETATTR_GID
        if changes.atime_ns is not None:
            wanted.atime, mask = _timespec(changes.atime_ns), mask | libcephfs.SETATTR_ATIME
        if changes.mtime_ns is not None:
            wanted.mtime, mask = _timespec(changes.mtime_ns), mask | libcephfs.SETATTR_MTIME
        if mask:
            self.client.call("ll_setattr", self.pointer, ctypes.byref(wanted), mask, self.client.perms)
        return bool(mask)

    def resize(self, size: int) -> None:
        """Set the size, and the time: the library takes what stands there where a file grows. Raises OSError."""
        wanted = Statx()
        wanted.size, wanted.mtime = size, _timespec(time.time_ns())
        mask = libcephfs.SETATTR_SIZE | libcephfs.SETATTR_MTIME
        self.client.call("ll_setattr", self.pointer, ctypes.byref(wanted), mask, self.client.perms)

    def get_xattr(self, name: bytes) -> bytes:
        """Return an attribute's value. Raises OSError: ENODATA."""
        buffer = ctypes.create_string_buffer(_MAX_ATTRIBUTE_BYTES)
        length = self.client.call("ll_getxattr", self.pointer, name, buffer, _MAX_ATTRIBUTE_BYTES, self.client.perms)
        return buffer.raw[:length]

    def set_xattr(self, name: bytes, value: bytes) -> None:
        """Set an attribute. Raises OSError."""
        self.client.call("ll_setxattr", self.pointer, name, value, len(value), 0, self.client.perms)

    def list_xattrs(self) -> list[bytes]:
        """Return the names of the attributes, but for CephFS's virtual ones. Raises OSError."""
        buffer, length = ctypes.create_string_buffer(_MAX_ATTRIBUTE_BYTES), ctypes.c_size_t()
        self.client.call(
            "ll_listxattr", self.pointer, buffer, _MAX_ATTRIBUTE_BYTES, ctypes.byref(length), self.client.perms
        )
        return [name for name in buffer.raw[: length.value].split(b"\0") if name]

    def remove_xattr(self, name: bytes) -> None:
        """Remove an attribute. Raises OSError: ENODATA."""
        self.client.call("ll_removexattr", self.pointer, name, self.client.perms)


def _timespec(ns: int) -> libcephfs.Timespec:
    return libcephfs.Timespec(*divmod(ns, 1_000_000_000))


class CephDirectory(BackendDirectory):
    """A directory, held by its inode."""

    __slots__ = ("inode",)

    def __init__(self, inode: CephInode) -> None:
        self.inode = inode

    def close(self) -> None:
        """Give the inode back."""
        self.inode.close()


class CephFile(BackendFile):
    """A regular file, open in the client. What it keeps back goes to the cluster at ``flush`` and ``sync``.

    Args:
        inode: given back by ``close``. handle: the library's Fh. writable: opened for writing too.
    """

    __slots__ = ("_held", "_lost", "_sync_failed", "_unstored", "client", "inode", "writable")

    def __init__(self, inode: CephInode, handle: int, *, writable: bool) -> None:
        self.inode = inode
        self.client = inode.client
        self.writable = writable
        self._held: tuple[int | None, int | None] = handle, self.client.generation
        self._unstored = False
        self._lost = False
        self._sync_failed = False

    def __del__(self) -> None:
        self.close_now()

    @property
    def handle(self) -> int:
        """The library's Fh. Raises InputOutput: content is lost. OSError: the inode is gone, or the file closed."""
        handle, generation = self._held
        if handle is None:
            raise Stale
        if generation != self.client.generation:
            self.client.check_pinned()
            if self._unstored:
                self._lost = True
            if not self._lost:
                handle = open_inode(self.inode, writable=self.writable)
                self.client.check_pinned()
                self._held = handle, self.client.generation
        if self._lost:
            raise InputOutput(_LOST)
        return handle

    @served(repeats=True)
    def read(self, offset: int, length: int) -> bytes:
        """See BackendFile."""
        buffer = ctypes.create_string_buffer(length)
        got = self.client.call("ll_read", self.handle, offset, length, buffer)
        return ctypes.string_at(buffer, got)

    @served(repeats=False)
    def write(self, offset: int, data: bytes) -> int:
        """See BackendFile."""
        handle = self.handle
        self._unstored = True
        return self.client.call("ll_write", handle, offset, len(data), bytes(data))

    @served(repeats=False)
    def truncate(self, size: int) -> None:
        """See BackendFile."""
        self.handle  # noqa: B018 - raises where content is lost
        grows = size > self.inode.stat().size
        self._unstored = True
        self.inode.resize(size)
        if grows:  # nothing in the cluster would tell of it
            self._store(data_only=False)

    @served(repeats=False)
    def sync(self, *, data_only: bool) -> None:
        """See BackendFile."""
        self._store(data_only=data_only)

    @served(repeats=False)
    def flush(self) -> None:
        """See BackendFile: what close(2) acknowledged is in the cluster, since it would end with this process."""
        if self._unstored:
            self._store(data_only=True)

    def _store(self, *, data_only: bool) -> None:
        if self._sync_failed:
            raise InputOutput("an earlier fsync of this file failed; its content is in doubt")
        handle, unstored = self.handle, self._unstored
        self._unstored = False  # what is written meanwhile sets it again
        try:
            self.client.call("ll_fsync", handle, data_only)
        except OSError as error:
            self._unstored, self._sync_failed = unstored, error.errno not in CUT_OFF
            raise

    @served(repeats=True)
    def get_attributes(self) -> FileAttributes:
        """See BackendFile."""
        return to_attributes(self.inode.stat())

    @served(repeats=True)
    def set_attributes(self, changes: AttributeChanges) -> FileAttributes:
        """See BackendFile. The cluster has them after return, as with those of a path."""
        if self.inode.change(changes):
            self._store(data_only=False)
        return to_attributes(self.inode.stat())

    @served(repeats=True)
    def reopen(self, *, writable: bool) -> BackendFile:
        """See BackendFile."""
        found = ctypes.c_void_p()
        self.client.call("ll_lookup_inode", self.inode.ino, ctypes.byref(found))
        assert found.value is not None
        inode = CephInode(self.client, found.value, self.inode.ino)
        return CephFile(inode, open_inode(inode, writable=writable), writable=writable)

    @served(repeats=True)
    def get_xattr(self, name: bytes) -> bytes:
        """See BackendFile."""
        return self.inode.get_xattr(name)

    @served(repeats=True)
    def set_xattr(self, name: bytes, value: bytes) -> None:
        """See BackendFile."""
        self.inode.set_xattr(name, value)

    @served(repeats=True)
    def list_xattrs(self) -> list[bytes]:
        """See BackendFile."""
        return self.inode.list_xattrs()

    @served(repeats=False)
    def remove_xattr(self, name: bytes) -> None:
        """See BackendFile."""
        self.inode.remove_xattr(name)

    async def close(self) -> None:
        """See BackendFile."""
        self.close_now()

    def close_now(self) -> None:
        """Give handle and inode back; a second call does nothing. Blocks for what was not stored."""
        (handle, generation), self._held = self._held, (None, None)
        if handle is not None:
            self.client.close_file(handle, generation)
            self.inode.close()


def open_inode(inode: CephInode, *, writable: bool) -> int:
    """Open a regular file and return the library's Fh. Raises OSError."""
    opened = ctypes.c_void_p()
    flags = os.O_RDWR if writable else os.O_RDONLY
    inode.client.call("ll_open", inode.pointer, flags, ctypes.byref(opened), inode.client.perms)
    assert opened.value is not None
    return opened.value
