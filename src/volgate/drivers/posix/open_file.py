"""Open files and directories of the posix driver: descriptors with their calls."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from volgate.drivers.base import BackendDirectory, BackendFile
from volgate.drivers.posix import syscalls
from volgate.drivers.posix.errors import converted_async, converted_waiting
from volgate.dto import AttributeChanges, FileAttributes
from volgate.errors import InputOutput, SourceChanged, Unsupported

T = TypeVar("T")
_COPY_BYTES: Final = 64 << 20


def to_attributes(status: os.stat_result) -> FileAttributes:
    """Return the driver's form of a stat(2)."""
    return FileAttributes(
        status.st_ino,
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_rdev,
        status.st_size,
        status.st_blocks,
        status.st_atime_ns,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def change_attributes(path: str | int, changes: AttributeChanges, status: os.stat_result) -> None:
    """Apply changes to what a path or descriptor means; chown first, since it clears suid and sgid."""
    if changes.uid is not None or changes.gid is not None:
        os.chown(path, -1 if changes.uid is None else changes.uid, -1 if changes.gid is None else changes.gid)
    if changes.mode is not None:
        if stat.S_ISLNK(status.st_mode):
            raise Unsupported("a symlink has no mode of its own")
        os.chmod(path, changes.mode)
    if changes.atime_ns is not None or changes.mtime_ns is not None:
        atime_ns = status.st_atime_ns if changes.atime_ns is None else changes.atime_ns
        mtime_ns = status.st_mtime_ns if changes.mtime_ns is None else changes.mtime_ns
        os.utime(path, ns=(atime_ns, mtime_ns))


async def run_in_thread(call: Callable[..., T], *args: object) -> T:
    """Run what takes milliseconds to minutes in a thread, unless this is one already."""
    if trio.lowlevel.in_trio_task():
        return await trio.to_thread.run_sync(call, *args)
    return call(*args)


def copy_content(source: int, target: int) -> None:
    """Copy a file's content into an empty one, its holes as holes; share its blocks where that can be done."""
    size = os.fstat(source).st_size
    if not size or syscalls.share_blocks(source, target):
        return
    os.ftruncate(target, size)
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = os.lseek(source, offset, os.SEEK_HOLE)
        while offset < end:
            copied = os.copy_file_range(source, target, min(_COPY_BYTES, end - offset), offset, offset)
            if not copied:
                return  # it was cut meanwhile
            offset += copied


class PosixDirectory(BackendDirectory):
    """A directory, held by an O_PATH descriptor; its file handle is asked for once."""

    __slots__ = ("fd", "handle")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.handle: bytes | None = None

    def close(self) -> None:
        """Close the descriptor."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class PosixFile(BackendFile):
    """A regular file, held by a descriptor. Calls but ``sync`` run where they are called: on the event loop."""

    __slots__ = ("fd", "sync_failed")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.sync_failed = False

    def __del__(self) -> None:
        if self.fd >= 0:  # its open was given up and returned it to nobody
            os.close(self.fd)

    @converted_async
    def read(self, offset: int, length: int) -> bytes:
        """See BackendFile. A pread(2) of a regular file is short only at its end."""
        return os.pread(self.fd, length, offset)

    @converted_async
    def write(self, offset: int, data: bytes) -> int:
        """See BackendFile. What was written before an error counts as success; the next write meets the error."""
        written = os.pwrite(self.fd, data, offset)
        while written < len(data):
            try:
                written += os.pwrite(self.fd, memoryview(data)[written:], offset + written)
            except OSError:
                break
        return written

    @converted_async
    def truncate(self, size: int) -> None:
        """See BackendFile."""
        os.ftruncate(self.fd, size)

    def can_take(self, source: BackendFile) -> bool:
        """See BackendFile: of any other file that a descriptor holds."""
        return isinstance(source, PosixFile)

    @converted_waiting
    async def take_content(self, source: BackendFile, size: int) -> None:
        """See BackendFile: by sharing the blocks (ioctl_ficlone(2))."""
        assert isinstance(source, PosixFile)
        if not await run_in_thread(syscalls.share_blocks, source.fd, self.fd):
            raise Unsupported
        if os.fstat(self.fd).st_size != size:  # it grew just now
            os.ftruncate(self.fd, size)
            raise SourceChanged

    @converted_waiting
    async def sync(self, *, data_only: bool) -> None:
        """See BackendFile. After one failure the kernel forgets the pages, so all later ones fail too (fsync(2))."""
        if self.sync_failed:
            raise InputOutput("an earlier fsync of this file failed; its content is in doubt")
        try:
            await run_in_thread(os.fdatasync if data_only else os.fsync, self.fd)
        except OSError:
            self.sync_failed = True
            raise

    @converted_async
    def get_attributes(self) -> FileAttributes:
        """See BackendFile."""
        return to_attributes(os.fstat(self.fd))

    @converted_async
    def set_attributes(self, changes: AttributeChanges) -> FileAttributes:
        """See BackendFile."""
        change_attributes(self.fd, changes, os.fstat(self.fd))
        return to_attributes(os.fstat(self.fd))

    @converted_async
    def reopen(self, *, writable: bool) -> BackendFile:
        """See BackendFile; by /proc/self/fd, so that the name does not matter."""
        return PosixFile(os.open(f"/proc/self/fd/{self.fd}", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC))

    @converted_async
    def get_xattr(self, name: bytes) -> bytes:
        """See BackendFile."""
        return os.getxattr(self.fd, name)

    @converted_async
    def set_xattr(self, name: bytes, value: bytes) -> None:
        """See BackendFile."""
        os.setxattr(self.fd, name, value)

    @converted_async
    def list_xattrs(self) -> list[bytes]:
        """See BackendFile."""
        return [os.fsencode(name) for name in os.listxattr(self.fd)]

    @converted_async
    def remove_xattr(self, name: bytes) -> None:
        """See BackendFile."""
        os.removexattr(self.fd, name)

    @converted_async
    def flush(self) -> None:
        """See BackendFile: closing a duplicate makes a network file system say what it could not write (close(2))."""
        os.close(os.dup(self.fd))

    async def close(self) -> None:
        """See BackendFile. close(2) of a local file has nothing to report."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
