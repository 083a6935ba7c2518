"""Volumes kept in a directory: the driver.

Only single-component calls on directory descriptors with O_NOFOLLOW, so nothing outside the root is reached, whatever
symlinks and renames others make meanwhile. What is mounted inside the root is not crossed: st_dev is compared.
Attributes are changed through /proc/self/fd of an O_PATH descriptor whose inode was checked first.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from volgate.core.names import GATEWAY_NAME, IDENTITY_NAME
from volgate.drivers.base import (
    BackendDirectory,
    BackendFile,
    BackendSpace,
    BaseStorageBackend,
    Capabilities,
    NativeQuota,
    NodeOwner,
    charged_usage,
)
from volgate.drivers.posix import btrfs, syscalls
from volgate.drivers.posix.errors import converted_async, converted_waiting
from volgate.drivers.posix.open_file import (
    PosixDirectory,
    PosixFile,
    change_attributes,
    copy_content,
    run_in_thread,
    to_attributes,
)
from volgate.drivers.posix.reserved import ReservedFiles
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.dto import AttributeChanges, BackendType, FileAttributes, Usage, VolumeOperationContext
from volgate.errors import CrossDevice, InvalidArgument, IsADirectory, NotADirectory, NotFound, PermissionDenied, Stale
from volgate.mount_table import directories_above

_OPEN: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_OPEN_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_NODE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DRAFT: Final = b".new"
_KEY_OF_FILE: Final = b"f"
_KEY_OF_NAME: Final = b"n"
_NAME_KEY: Final = struct.Struct("=cQB")


class PosixBackend(BaseStorageBackend):
    """A volume in a local directory.

    Args:
        source: the directory.
    """

    backend_type: ClassVar[BackendType] = "posix"

    def __init__(self, source: Path) -> None:
        self.source = source
        self._capabilities = Capabilities()
        self._device = 0
        self._root: PosixDirectory | None = None
        self._handles_fd = -1
        self._chown = syscalls.has_capability(syscalls.CAP_CHOWN)
        self._reserved: ReservedFiles | None = None

    @classmethod
    def from_source(cls, source: str, options: Mapping[str, str]) -> BaseStorageBackend:
        """Return the backend of a directory's path; with its calls in threads where its storage can hang."""
        backend = cls(Path(source))
        return backend if _is_local(source) else ThreadedBackend(backend)

    @property
    def capabilities(self) -> Capabilities:
        """See BaseStorageBackend; known after ``open_volume``."""
        return self._capabilities

    @converted_async
    def create_volume(self, context: VolumeOperationContext) -> None:
        """See BaseStorageBackend."""
        self._refuse_inside_another()
        self.source.mkdir(mode=0o755, parents=True, exist_ok=True)

    @converted_async
    def open_volume(self, context: VolumeOperationContext) -> PosixDirectory:
        """See BaseStorageBackend."""
        self._refuse_inside_another()
        try:
            root = PosixDirectory(os.open(self.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            self._handles_fd = os.open(self.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f"{self.source} does not exist; make the directory first") from error
        except NotADirectoryError as error:
            raise NotADirectory(f"{self.source} is not a directory") from error
        except PermissionError as error:
            raise PermissionDenied(f"{self.source} may not be read by this user") from error
        self._device = os.fstat(root.fd).st_dev
        self._root = root
        self._reserved = ReservedFiles(root.fd)
        kind = syscalls.file_system_type(root.fd)
        local = kind in syscalls.LOCAL_FILE_SYSTEMS
        durable_keys = kind != syscalls.FUSE and self._has_handles()
        self._capabilities = Capabilities(
            inline_io=local,
            hard_links=True,
            symlinks=True,
            special_files=True,
            xattrs=self._has_attributes(root, "user.volgate.probe"),
            acls=self._has_attributes(root, "system.posix_acl_access"),
            rename_flags=local,
            ownership=self._chown,
            close_reports_errors=not local,
            durable_keys=durable_keys,
            preserves=durable_keys,
            native_quota=btrfs.has_quota_group(self._handles_fd),
        )
        return root

    @converted_async
    def get_native_quota(self) -> NativeQuota:
        """See BaseStorageBackend: of the quota group of a btrfs subvolume, which has no limit of inodes."""
        return NativeQuota(btrfs.read_limit(self._handles_fd), None)

    @converted_async
    def set_native_quota(self, quota: NativeQuota) -> None:
        """See BaseStorageBackend."""
        try:
            btrfs.store_limit(self._handles_fd, quota.bytes_)
        except PermissionError as error:
            raise PermissionDenied("only root may limit a btrfs quota group: mount the volume as root") from error

    def _refuse_inside_another(self) -> None:
        """Refuse a directory inside another volume: what is written by both ways would be counted by one only.

        In the mount of another volume it may be one: what is written there both count.
        """
        for place in directories_above(os.path.realpath(self.source)):
            reserved = os.path.join(place, os.fsdecode(GATEWAY_NAME))
            if os.path.lexists(os.path.join(reserved, os.fsdecode(IDENTITY_NAME))):
                raise InvalidArgument(
                    f"{self.source} lies inside the volume in {place}; mount that one, move it out, or, where nobody "
                    f"wants that as a volume, unmount it and remove {reserved}"
                )

    @staticmethod
    def _has_attributes(root: PosixDirectory, name: str) -> bool:
        try:
            os.getxattr(f"/proc/self/fd/{root.fd}", name)
        except OSError as error:
            return error.errno == errno.ENODATA
        return True

    def _has_handles(self) -> bool:
        try:
            os.close(syscalls.open_handle(self._handles_fd, syscalls.file_handle(self._handles_fd)))
        except OSError:
            return False
        return True

    @converted_async
    def open_directory(self, parent: BackendDirectory, name: bytes, ino: int) -> PosixDirectory:
        """See BaseStorageBackend."""
        opened = PosixDirectory(os.open(name, _OPEN_DIRECTORY, dir_fd=_fd(parent)))
        self._check(os.fstat(opened.fd), ino)
        return opened

    def _check(self, status: os.stat_result, ino: int) -> os.stat_result:
        if status.st_dev != self._device:
            raise CrossDevice("another file system is mounted there")
        if ino and status.st_ino != ino:
            raise Stale
        return status

    # -- names and attributes -----------------------------------------------------------------------------------

    @converted_async
    def list_names(self, directory: BackendDirectory) -> list[bytes]:
        """See BaseStorageBackend."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=_fd(directory))
        try:
            return [os.fsencode(name) for name in os.listdir(fd)]
        finally:
            os.close(fd)

    def _stat(self, directory: BackendDirectory, name: bytes) -> os.stat_result:
        if name:
            return os.stat(name, dir_fd=_fd(directory), follow_symlinks=False)
        return os.fstat(_fd(directory))

    @converted_async
    def get_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes:
        """See BaseStorageBackend."""
        return to_attributes(self._check(self._stat(directory, name), 0))

    @converted_async
    def find_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes | None:
        """See BaseStorageBackend."""
        try:
            status = self._stat(directory, name)
        except FileNotFoundError:
            return None
        return to_attributes(self._check(status, 0))

    async def get_attributes_of(
        self, directory: BackendDirectory, names: Sequence[bytes]
    ) -> list[FileAttributes | None]:
        """See BaseStorageBackend."""
        found: list[FileAttributes | None] = []
        fd, device = _fd(directory), self._device
        for name in names:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:
                found.append(None)
            else:
                found.append(to_attributes(status) if status.st_dev == device else None)
        return found

    def _open_node(self, directory: BackendDirectory, name: bytes, ino: int) -> int:
        """Return an O_PATH descriptor of the inode meant. Raises Stale, CrossDevice."""
        fd = os.open(name or b".", _OPEN_NODE, dir_fd=_fd(directory))
        try:
            self._check(os.fstat(fd), ino)
        except BaseException:
            os.close(fd)
            raise
        return fd

    @converted_async
    def set_attributes(
        self, directory: BackendDirectory, name: bytes, ino: int, changes: AttributeChanges
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        fd = self._open_node(directory, name, ino)
        try:
            change_attributes(f"/proc/self/fd/{fd}", changes, os.fstat(fd))
            return to_attributes(os.fstat(fd))
        finally:
            os.close(fd)

    @converted_async
    def get_space(self) -> BackendSpace:
        """See BaseStorageBackend."""
        space = os.statvfs(self._handles_fd)
        counts_inodes = space.f_favail >= 0  # CephFS says -1
        return BackendSpace(
            space.f_blocks * space.f_frsize,
            space.f_bavail * space.f_frsize,
            space.f_files if counts_inodes else 0,
            max(0, space.f_favail),
            space.f_namemax,
        )

    # -- files and nodes ----------------------------------------------------------------------------------------

    @converted_async
    def open_file(
        self, directory: BackendDirectory, name: bytes, ino: int, *, writable: bool
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        try:
            fd = os.open(name, (os.O_RDWR if writable else os.O_RDONLY) | _OPEN, dir_fd=_fd(directory))
        except OSError as error:
            if error.errno == errno.ENXIO:  # a socket, or a fifo that nobody reads
                raise InvalidArgument("not a regular file") from error
            raise
        try:
            status = self._check(os.fstat(fd), ino)
            if not stat.S_ISREG(status.st_mode):
                raise IsADirectory if stat.S_ISDIR(status.st_mode) else InvalidArgument("not a regular file")
        except BaseException:
            os.close(fd)
            raise
        return PosixFile(fd), to_attributes(status)

    @converted_async
    def create_file(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        umask = os.umask(owner.umask)
        try:
            fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | _OPEN, mode, dir_fd=_fd(directory))
        finally:
            os.umask(umask)
        try:
            status = self._own(os.fstat(fd), fd, directory, mode, owner)
        except BaseException:
            os.close(fd)
            os.unlink(name, dir_fd=_fd(directory))
            raise
        return PosixFile(fd), to_attributes(status)

    @converted_async
    def create_node(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner, *, rdev: int = 0
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        is_directory = stat.S_ISDIR(mode)
        umask = os.umask(owner.umask)
        try:
            if is_directory:
                os.mkdir(name, mode & 0o7777, dir_fd=_fd(directory))
            else:
                os.mknod(name, mode, rdev, dir_fd=_fd(directory))
        finally:
            os.umask(umask)
        return self._own_node(directory, name, stat.S_IMODE(mode), owner, is_directory=is_directory)

    @converted_async
    def create_symlink(
        self, directory: BackendDirectory, name: bytes, target: bytes, owner: NodeOwner
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        os.symlink(target, name, dir_fd=_fd(directory))
        return self._own_node(directory, name, 0, owner, is_directory=False)

    def _own_node(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner, *, is_directory: bool
    ) -> FileAttributes:
        try:
            status = self._stat(directory, name)
            if self._needs_owner(status, directory, owner) or mode & ~0o777:
                fd = self._open_node(directory, name, status.st_ino)
                try:
                    status = self._own(status, f"/proc/self/fd/{fd}", directory, mode, owner)
                finally:
                    os.close(fd)
        except BaseException:
            (os.rmdir if is_directory else os.unlink)(name, dir_fd=_fd(directory))
            raise
        return to_attributes(status)

    def _needs_owner(self, status: os.stat_result, directory: BackendDirectory, owner: NodeOwner) -> bool:
        return self._chown and (status.st_uid != owner.uid or status.st_gid != owner.gid)

    def _own(
        self, status: os.stat_result, node: int | str, directory: BackendDirectory, mode: int, owner: NodeOwner
    ) -> os.stat_result:
        """Give a new node to its owner; a setgid parent has given it its group already (open(2), mkdir(2))."""
        if not self._needs_owner(status, directory, owner):
            return status
        inherited = os.fstat(_fd(directory)).st_mode & stat.S_ISGID
        os.chown(node, owner.uid, -1 if inherited else owner.gid)
        bits = stat.S_IMODE(status.st_mode)
        if bits & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(status.st_mode):
            os.chmod(node, bits)  # chown(2) cleared them
        return os.stat(node)

    # -- changes of names ---------------------------------------------------------------------------------------

    @converted_async
    def remove(self, directory: BackendDirectory, name: bytes, *, is_directory: bool) -> None:
        """See BaseStorageBackend."""
        (os.rmdir if is_directory else os.unlink)(name, dir_fd=_fd(directory))

    @converted_async
    def rename(
        self,
        source: BackendDirectory,
        source_name: bytes,
        target: BackendDirectory,
        target_name: bytes,
        flags: int = 0,
    ) -> None:
        """See BaseStorageBackend."""
        if flags:
            syscalls.rename(_fd(source), source_name, _fd(target), target_name, flags)
        else:
            os.rename(source_name, target_name, src_dir_fd=_fd(source), dst_dir_fd=_fd(target))

    @converted_async
    def link(
        self, source: BackendDirectory, source_name: bytes, ino: int, target: BackendDirectory, target_name: bytes
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        self._check(self._stat(source, source_name), ino)
        os.link(source_name, target_name, src_dir_fd=_fd(source), dst_dir_fd=_fd(target), follow_symlinks=False)
        return to_attributes(self._stat(target, target_name))

    @converted_async
    def read_link(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes:
        """See BaseStorageBackend."""
        fd = self._open_node(directory, name, ino)
        try:
            return os.readlink(b"", dir_fd=fd)
        except FileNotFoundError as error:  # of an empty path: what the descriptor holds is not a symlink
            raise InvalidArgument("not a symlink") from error
        finally:
            os.close(fd)

    @converted_waiting
    async def sync_directory(self, directory: BackendDirectory) -> None:
        """See BaseStorageBackend."""
        await run_in_thread(_sync_directory, _fd(directory))

    # -- extended attributes ------------------------------------------------------------------------------------

    @converted_async
    def get_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> bytes:
        """See BaseStorageBackend."""
        fd = self._open_node(directory, name, ino)
        try:
            return os.getxattr(f"/proc/self/fd/{fd}", attribute)
        finally:
            os.close(fd)

    @converted_async
    def set_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes, value: bytes) -> None:
        """See BaseStorageBackend."""
        fd = self._open_node(directory, name, ino)
        try:
            os.setxattr(f"/proc/self/fd/{fd}", attribute, value)
        finally:
            os.close(fd)

    @converted_async
    def list_xattrs(self, directory: BackendDirectory, name: bytes, ino: int) -> list[bytes]:
        """See BaseStorageBackend."""
        if not ino:  # whatever stands there: one call, where a walk makes one for each file
            path = b"/proc/self/fd/%d/%s" % (_fd(directory), name or b".")
            return [os.fsencode(found) for found in os.listxattr(path, follow_symlinks=False)]
        fd = self._open_node(directory, name, ino)
        try:
            return [os.fsencode(found) for found in os.listxattr(f"/proc/self/fd/{fd}")]
        finally:
            os.close(fd)

    @converted_async
    def remove_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> None:
        """See BaseStorageBackend."""
        fd = self._open_node(directory, name, ino)
        try:
            os.removexattr(f"/proc/self/fd/{fd}", attribute)
        finally:
            os.close(fd)

    # -- keys ---------------------------------------------------------------------------------------------------

    def key_of_name(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes | None:
        """See BaseStorageBackend: the parent's file handle, the name, and the inode meant."""
        if not self._capabilities.durable_keys:
            return None
        assert isinstance(directory, PosixDirectory)
        if directory.handle is None:
            try:
                directory.handle = syscalls.file_handle(directory.fd)
            except OSError:
                return None
        return _NAME_KEY.pack(_KEY_OF_NAME, ino, len(directory.handle)) + directory.handle + name

    def key_of_file(self, file: BackendFile) -> bytes | None:
        """See BaseStorageBackend: the inode's file handle."""
        if not self._capabilities.durable_keys:
            return None
        assert isinstance(file, PosixFile)
        try:
            return _KEY_OF_FILE + syscalls.file_handle(file.fd)
        except OSError:
            return None

    async def measure_key(self, key: bytes) -> Usage:
        """See BaseStorageBackend."""
        try:
            if key[:1] == _KEY_OF_FILE:
                return self._measure_handle(key[1:])
            return self._measure_name(key)
        except OSError as error:
            if error.errno in (errno.ESTALE, errno.ENOENT):
                return Usage(0, 0)
            raise Stale(f"a key cannot be resolved: {error.strerror}") from error
        except (struct.error, ValueError) as error:
            raise Stale("a key is damaged") from error

    def _measure_handle(self, handle: bytes) -> Usage:
        fd = syscalls.open_handle(self._handles_fd, handle)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        return charged_usage(to_attributes(status)) if status.st_nlink else Usage(0, 0)

    def _measure_name(self, key: bytes) -> Usage:
        _, ino, length = _NAME_KEY.unpack_from(key)
        start = _NAME_KEY.size
        parent = syscalls.open_handle(self._handles_fd, key[start : start + length])
        try:
            status = os.stat(key[start + length :], dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)
        return charged_usage(to_attributes(status)) if ino in (0, status.st_ino) else Usage(0, 0)

    # -- the gateway's own --------------------------------------------------------------------------------------

    def _own_files(self) -> ReservedFiles:
        if self._reserved is None:
            raise NotFound("the volume is not open")
        return self._reserved

    @converted_async
    def load_reserved(self, name: str) -> bytes | None:
        """See BaseStorageBackend."""
        return self._own_files().load(name)

    @converted_async
    def store_reserved(self, name: str, content: bytes) -> None:
        """See BaseStorageBackend."""
        self._own_files().store(name, content)

    @converted_async
    def remove_reserved(self, name: str) -> None:
        """See BaseStorageBackend."""
        self._own_files().remove(name)

    @converted_async
    def open_reserved(self, path: str) -> PosixDirectory:
        """See BaseStorageBackend."""
        return PosixDirectory(self._own_files().open_folder(path))

    @converted_waiting
    async def clone(self, file: BackendFile, directory: BackendDirectory, name: bytes) -> None:
        """See BaseStorageBackend."""
        assert isinstance(file, PosixFile)
        await run_in_thread(_clone, file.fd, _fd(directory), name)

    def key_of_node(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes | None:
        """See BaseStorageBackend: the inode's file handle."""
        try:
            return syscalls.file_handle(_fd(directory), name)
        except OSError:
            return None

    @converted_async
    def open_node(self, key: bytes) -> BackendFile:
        """See BaseStorageBackend."""
        found = syscalls.open_handle(self._handles_fd, key)
        try:
            status = os.fstat(found)
            if not status.st_nlink or not stat.S_ISREG(status.st_mode):
                raise Stale
            return PosixFile(os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            os.close(found)

    @converted_waiting
    async def sync_volume(self) -> None:
        """See BaseStorageBackend: all of the file system below, by syncfs(2)."""
        await run_in_thread(syscalls.sync_file_system, self._handles_fd)

    @converted_async
    def acquire_ownership(self, holder: bytes) -> None:
        """See BaseStorageBackend: flock(2) on ``.volgate/owner.lock``."""
        self._own_files().lock(holder)

    @converted_async
    def release_ownership(self) -> None:
        """See BaseStorageBackend."""
        self._own_files().unlock()

    async def close(self) -> None:
        """See BaseStorageBackend."""
        if self._reserved is not None:
            self._reserved.unlock()
        if self._root is not None:
            self._root.close()
        if self._handles_fd >= 0:
            os.close(self._handles_fd)
            self._handles_fd = -1


def _is_local(source: str) -> bool:
    """Return whether a directory lies on a local file system; true for a missing one, which opening will refuse."""
    try:
        fd = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return syscalls.file_system_type(fd) in syscalls.LOCAL_FILE_SYSTEMS
    finally:
        os.close(fd)


def _clone(source: int, directory: int, name: bytes) -> None:
    draft = name + _DRAFT
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    target = os.open(draft, flags, 0o600, dir_fd=directory)
    try:
        copy_content(source, target)
        os.fsync(target)
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(draft, dir_fd=directory)
        raise
    finally:
        os.close(target)
    _sync_directory(directory)


def _sync_directory(directory: int) -> None:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _fd(directory: BackendDirectory) -> int:
    return directory.fd  # type: ignore[attr-defined, no-any-return]
