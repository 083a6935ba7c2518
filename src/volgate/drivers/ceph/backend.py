"""A volume in a directory of a CephFS, reached by libcephfs: no mount of CephFS is needed.

Calls are inode by inode (``ceph_ll_*``), block for the cluster without a time limit, and so run in bounded threads. The
client's uid is nobody's concern: permissions are the kernel's, and nodes are made for their owners.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Final

from volgate.core.names import GATEWAY_NAME
from volgate.drivers.base import (
    BackendDirectory,
    BackendFile,
    BackendSpace,
    BaseStorageBackend,
    Capabilities,
    NativeQuota,
    NativeSnapshot,
    NodeOwner,
    StorageInspection,
)
from volgate.drivers.ceph.conventions import PROBE, SNAPSHOT_FOLDER, missing, refused_snapshot, snapshot_name
from volgate.drivers.ceph.libcephfs import STATX_WANTED, Client, Flock, Statvfs, Statx
from volgate.drivers.ceph.open_file import CephDirectory, CephFile, CephInode, open_inode, served, to_attributes
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.dto import AttributeChanges, BackendType, FileAttributes, VolumeOperationContext
from volgate.errors import (
    BadConfiguration,
    Busy,
    InvalidArgument,
    IsADirectory,
    NotFound,
    PermissionDenied,
    Stale,
)

OPTIONS: Final = frozenset({"conf", "client", "keyring", "filesystem"})
_URL: Final = re.compile(r"ceph://(/.*)", re.DOTALL)
_LOCK, _DRAFT = b"owner.lock", b".new"
_NAMES_BYTES: Final = 256 << 10
_TARGET_BYTES: Final = 4096


class CephBackend(BaseStorageBackend):
    """A volume in a directory of a CephFS; its calls may hang, so they belong into threads.

    Args:
        path: of the directory in the file system, absolute. options: see ``Client``.
    """

    backend_type: ClassVar[BackendType] = "ceph"

    def __init__(self, path: str, options: Mapping[str, str]) -> None:
        self._path = os.fsencode(path)
        self.client = Client(options)
        self.client.on_mounted_anew = self._lock_again
        self._root: CephDirectory | None = None
        self._lock: CephFile | None = None

    @classmethod
    def from_source(cls, source: str, options: Mapping[str, str]) -> BaseStorageBackend:
        """Return the backend of ``ceph:///PATH``.

        Raises:
            BadConfiguration: another URL, or an option that is none of CephFS's.
        """
        url = _URL.fullmatch(source)
        if url is None:
            raise BadConfiguration(f"'{source}' is no CephFS: write ceph:///PATH and name the cluster by -o conf=FILE")
        if unknown := options.keys() - OPTIONS:
            raise BadConfiguration(f"option {min(unknown)} is none of CephFS's: {', '.join(sorted(OPTIONS))}")
        backend: BaseStorageBackend = ThreadedBackend(cls(url[1], options))
        return backend

    @property
    def capabilities(self) -> Capabilities:
        """See BaseStorageBackend."""
        return _CAPABILITIES

    @served(repeats=True)
    def create_volume(self, context: VolumeOperationContext) -> None:
        """See BaseStorageBackend."""
        self.client.make_directory(self._path)

    @served(repeats=False)
    def open_volume(self, context: VolumeOperationContext) -> CephDirectory:
        """See BaseStorageBackend."""
        where = os.fsdecode(self._path)
        try:
            self.client.mount(self._path)
        except FileNotFoundError as error:
            raise NotFound(f"there is no {where} in this CephFS; make the directory first") from error
        except PermissionError as error:
            raise PermissionDenied(f"this client may not mount {where}: see 'ceph auth get CLIENT'") from error
        pointer = ctypes.c_void_p()
        self.client.call("ll_lookup_root", ctypes.byref(pointer))
        assert pointer.value is not None
        self._root = CephDirectory(CephInode(self.client, pointer.value, 0))
        return self._root

    # -- names and attributes -----------------------------------------------------------------------------------

    def _look_up(self, directory: BackendDirectory, name: bytes) -> tuple[CephInode, Statx]:
        """Return what stands under a name, to be closed. Raises FileNotFoundError."""
        parent, status, pointer = _inode(directory), Statx(), ctypes.c_void_p()
        if not name:
            return parent, parent.stat()
        perms = self.client.perms
        self.client.call(
            "ll_lookup", parent.pointer, name, ctypes.byref(pointer), ctypes.byref(status), STATX_WANTED, 0, perms
        )
        assert pointer.value is not None
        return CephInode(self.client, pointer.value, status.ino), status

    @contextmanager
    def _looked_up(self, directory: BackendDirectory, name: bytes, ino: int) -> Iterator[tuple[CephInode, Statx]]:
        """Look up a name and give it back behind; b"" is the directory. Raises Stale where another inode stands."""
        inode, status = self._look_up(directory, name)
        try:
            if ino and status.ino != ino:
                raise Stale
            yield inode, status
        finally:
            if name:
                inode.close()

    @served(repeats=True)
    def open_directory(self, parent: BackendDirectory, name: bytes, ino: int) -> CephDirectory:
        """See BaseStorageBackend."""
        inode, status = self._look_up(parent, name)
        if not stat.S_ISDIR(status.mode) or (ino and status.ino != ino):
            inode.close()
            if ino and status.ino != ino:
                raise Stale
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return CephDirectory(inode)

    @served(repeats=True)
    def list_names(self, directory: BackendDirectory) -> list[bytes]:
        """See BaseStorageBackend."""
        return self._list(directory)

    def _list(self, directory: BackendDirectory) -> list[bytes]:
        opened, names = ctypes.c_void_p(), []
        buffer = ctypes.create_string_buffer(_NAMES_BYTES)
        self.client.call("ll_opendir", _inode(directory).pointer, ctypes.byref(opened), self.client.perms)
        try:
            while length := self.client.call("getdnames", opened, buffer, _NAMES_BYTES):
                names += ctypes.string_at(buffer, length).split(b"\0")[:-1]
        finally:
            self.client.call("ll_releasedir", opened)
        return [name for name in names if name not in (b".", b"..")]

    @served(repeats=True)
    def get_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes:
        """See BaseStorageBackend."""
        with self._looked_up(directory, name, 0) as (_, status):
            return to_attributes(status)

    @served(repeats=True)
    def find_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes | None:
        """See BaseStorageBackend."""
        try:
            with self._looked_up(directory, name, 0) as (_, status):
                return to_attributes(status)
        except FileNotFoundError:
            return None

    @served(repeats=True)
    def set_attributes(
        self, directory: BackendDirectory, name: bytes, ino: int, changes: AttributeChanges
    ) -> FileAttributes:
        """See BaseStorageBackend. The cluster has them after return: a client keeps them back for seconds else."""
        with self._looked_up(directory, name, ino) as (inode, _):
            if inode.change(changes):
                self.client.call("ll_sync_inode", inode.pointer, 0)
            return to_attributes(inode.stat())

    @served(repeats=True)
    def get_space(self) -> BackendSpace:
        """See BaseStorageBackend."""
        space = Statvfs()
        self.client.call("ll_statfs", self._root_inode().pointer, ctypes.byref(space))
        return BackendSpace(space.blocks * space.frsize, space.bavail * space.frsize, 0, 0, 255)

    # -- files and nodes ----------------------------------------------------------------------------------------

    @served(repeats=True)
    def open_file(
        self, directory: BackendDirectory, name: bytes, ino: int, *, writable: bool
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        inode, status = self._look_up(directory, name)
        try:
            if ino and status.ino != ino:
                raise Stale
            if stat.S_ISLNK(status.mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if not stat.S_ISREG(status.mode):
                raise IsADirectory if stat.S_ISDIR(status.mode) else InvalidArgument("not a regular file")
            file = CephFile(inode, open_inode(inode, writable=writable), writable=writable)
        except BaseException:
            inode.close()
            raise
        return file, to_attributes(status)

    @served(repeats=False)
    def create_file(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner
    ) -> tuple[BackendFile, FileAttributes]:
        """See BaseStorageBackend."""
        file, status = self._create(_inode(directory), name, mode & ~owner.umask, owner)
        return file, to_attributes(status)

    def _create(self, parent: CephInode, name: bytes, mode: int, owner: NodeOwner) -> tuple[CephFile, Statx]:
        pointer, handle, status = ctypes.c_void_p(), ctypes.c_void_p(), Statx()
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR

        def act(perms: int) -> int:
            out = ctypes.byref(pointer), ctypes.byref(handle), ctypes.byref(status)
            return self.client.call("ll_create", parent.pointer, name, mode, flags, *out, STATX_WANTED, 0, perms)

        self.client.as_user(owner.uid, owner.gid, act)
        assert pointer.value is not None and handle.value is not None
        return CephFile(CephInode(self.client, pointer.value, status.ino), handle.value, writable=True), status

    @served(repeats=False)
    def create_node(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner, *, rdev: int = 0
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        if stat.S_ISDIR(mode):
            return self._make(directory, "ll_mkdir", owner, name, mode & 0o7777 & ~owner.umask)
        return self._make(directory, "ll_mknod", owner, name, mode & ~owner.umask, rdev)

    @served(repeats=False)
    def create_symlink(
        self, directory: BackendDirectory, name: bytes, target: bytes, owner: NodeOwner
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        return self._make(directory, "ll_symlink", owner, name, target)

    def _make(self, directory: BackendDirectory, call: str, owner: NodeOwner, *what: Any) -> FileAttributes:
        pointer, status, parent = ctypes.c_void_p(), Statx(), _inode(directory)

        def act(perms: int) -> int:
            out = ctypes.byref(pointer), ctypes.byref(status)
            return self.client.call(call, parent.pointer, *what, *out, STATX_WANTED, 0, perms)

        self.client.as_user(owner.uid, owner.gid, act)
        assert pointer.value is not None
        CephInode(self.client, pointer.value, status.ino).close()
        return to_attributes(status)

    # -- changes of names ---------------------------------------------------------------------------------------

    @served(repeats=False)
    def remove(self, directory: BackendDirectory, name: bytes, *, is_directory: bool) -> None:
        """See BaseStorageBackend."""
        self._remove(_inode(directory), name, is_directory=is_directory)

    def _remove(self, parent: CephInode, name: bytes, *, is_directory: bool) -> None:
        self.client.call("ll_rmdir" if is_directory else "ll_unlink", parent.pointer, name, self.client.perms)

    @served(repeats=False)
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
            raise InvalidArgument("CephFS cannot exchange names, nor keep a target")
        parents = _inode(source).pointer, source_name, _inode(target).pointer, target_name
        self.client.call("ll_rename", *parents, self.client.perms)

    @served(repeats=False)
    def link(
        self, source: BackendDirectory, source_name: bytes, ino: int, target: BackendDirectory, target_name: bytes
    ) -> FileAttributes:
        """See BaseStorageBackend."""
        with self._looked_up(source, source_name, ino) as (inode, _):
            self.client.call("ll_link", inode.pointer, _inode(target).pointer, target_name, self.client.perms)
            return to_attributes(inode.stat())

    @served(repeats=True)
    def read_link(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes:
        """See BaseStorageBackend."""
        buffer = ctypes.create_string_buffer(_TARGET_BYTES)
        with self._looked_up(directory, name, ino) as (inode, _):
            length = self.client.call("ll_readlink", inode.pointer, buffer, _TARGET_BYTES, self.client.perms)
        return buffer.raw[:length]

    @served(repeats=True)
    def sync_directory(self, directory: BackendDirectory) -> None:
        """See BaseStorageBackend."""
        self.client.call("ll_sync_inode", _inode(directory).pointer, 0)

    @served(repeats=False)
    def sync_volume(self) -> None:
        """See BaseStorageBackend."""
        self.client.call("sync_fs")

    # -- extended attributes ------------------------------------------------------------------------------------

    @served(repeats=True)
    def get_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> bytes:
        """See BaseStorageBackend."""
        with self._looked_up(directory, name, ino) as (inode, _):
            return inode.get_xattr(attribute)

    @served(repeats=True)
    def set_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes, value: bytes) -> None:
        """See BaseStorageBackend."""
        with self._looked_up(directory, name, ino) as (inode, _):
            inode.set_xattr(attribute, value)

    @served(repeats=True)
    def list_xattrs(self, directory: BackendDirectory, name: bytes, ino: int) -> list[bytes]:
        """See BaseStorageBackend."""
        with self._looked_up(directory, name, ino) as (inode, _):
            return inode.list_xattrs()

    @served(repeats=False)
    def remove_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> None:
        """See BaseStorageBackend."""
        with self._looked_up(directory, name, ino) as (inode, _):
            inode.remove_xattr(attribute)

    # -- the gateway's own --------------------------------------------------------------------------------------

    def _root_inode(self) -> CephInode:
        if self._root is None:
            raise NotFound("the volume is not open")
        return self._root.inode

    @contextmanager
    def _folder(self, *, make: bool) -> Iterator[CephDirectory]:
        """Return ``.volgate``. Raises FileNotFoundError: there is none, and none is to be made."""
        self._root_inode()
        assert self._root is not None
        if make:
            with suppress(FileExistsError):
                self._make(self._root, "ll_mkdir", _ROOT, GATEWAY_NAME, 0o700)
        inode, _ = self._look_up(self._root, GATEWAY_NAME)
        try:
            yield CephDirectory(inode)
        finally:
            inode.close()

    @served(repeats=True)
    def load_reserved(self, name: str) -> bytes | None:
        """See BaseStorageBackend."""
        try:
            with self._folder(make=False) as folder, self._looked_up(folder, name.encode(), 0) as (inode, status):
                return self._read_all(inode, status.size)
        except FileNotFoundError:
            return None

    def _read_all(self, inode: CephInode, size: int) -> bytes:
        handle, buffer = open_inode(inode, writable=False), ctypes.create_string_buffer(max(1, size))
        try:
            return ctypes.string_at(buffer, self.client.call("ll_read", handle, 0, size, buffer))
        finally:
            self.client.call("ll_close", handle)

    @served(repeats=True)
    def store_reserved(self, name: str, content: bytes) -> None:
        """See BaseStorageBackend."""
        draft = name.encode() + _DRAFT
        with self._folder(make=True) as folder:
            with suppress(FileNotFoundError):
                self._remove(folder.inode, draft, is_directory=False)
            file, _ = self._create(folder.inode, draft, 0o600, _ROOT)
            try:
                self.client.call("ll_write", file.handle, 0, len(content), content)
                self.client.call("ll_fsync", file.handle, 0)
            finally:
                file.close_now()
            pointer = folder.inode.pointer
            self.client.call("ll_rename", pointer, draft, pointer, name.encode(), self.client.perms)
            self.client.call("ll_sync_inode", pointer, 0)

    @served(repeats=True)
    def remove_reserved(self, name: str) -> None:
        """See BaseStorageBackend."""
        with suppress(FileNotFoundError), self._folder(make=False) as folder:
            self._remove(folder.inode, name.encode(), is_directory=False)
            self.client.call("ll_sync_inode", folder.inode.pointer, 0)

    @served(repeats=False)
    def acquire_ownership(self, holder: bytes) -> None:
        """See BaseStorageBackend: a lock of fcntl(2)'s kind on ``.volgate/owner.lock``, which all clients see.

        That of a process of this host that died went with its session (``Client``).
        """
        with self._folder(make=True) as folder:
            file = self._open_lock(folder)
            try:
                self._lock_or_refuse(file)
                file.inode.resize(0)
                self.client.call("ll_write", file.handle, 0, len(holder), holder)
                self.client.call("ll_fsync", file.handle, 0)
            except BaseException:
                file.close_now()
                raise
        self._lock = file

    def _open_lock(self, folder: CephDirectory) -> CephFile:
        with suppress(FileExistsError):
            return self._create(folder.inode, _LOCK, 0o600, _ROOT)[0]
        inode, _ = self._look_up(folder, _LOCK)
        return CephFile(inode, open_inode(inode, writable=True), writable=True)

    def _lock_or_refuse(self, file: CephFile) -> None:
        if not self._try_lock(file):
            holder = self._read_all(file.inode, file.inode.stat().size)
            raise Busy(holder.decode("utf-8", "replace").strip())

    def _lock_again(self) -> bool:
        """Take the owner's lock anew; False where another has it."""
        return self._lock is None or self._try_lock(self._lock)

    def _try_lock(self, file: CephFile) -> bool:
        wanted = Flock(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, os.getpid())
        try:
            self.client.call("ll_setlk", file.handle, ctypes.byref(wanted), os.getpid(), 0)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False
        return True

    @served(repeats=True)
    def release_ownership(self) -> None:
        """See BaseStorageBackend."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close_now()

    # -- limits and snapshots of CephFS -------------------------------------------------------------------------

    @served(repeats=True)
    def get_native_quota(self) -> NativeQuota:
        """See BaseStorageBackend: ``ceph.quota.max_bytes`` and ``max_files`` of the volume's root."""
        return NativeQuota(int(self._get_quota(b"max_bytes")) or None, int(self._get_quota(b"max_files")) or None)

    @served(repeats=True)
    def set_native_quota(self, quota: NativeQuota) -> None:
        """See BaseStorageBackend; CephFS takes 0 for unlimited."""
        self._store_quota(b"max_bytes", b"%d" % (quota.bytes_ or 0))
        self._store_quota(b"max_files", b"%d" % (quota.inodes or 0))

    def _get_quota(self, which: bytes) -> bytes:
        try:
            return self._root_inode().get_xattr(b"ceph.quota." + which)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            return b"0"

    def _store_quota(self, which: bytes, wanted: bytes) -> None:
        try:
            self._root_inode().set_xattr(b"ceph.quota." + which, wanted)
        except PermissionError as error:
            raise PermissionDenied(missing("p", "set quotas")) from error

    @served(repeats=False)
    def inspect(self) -> StorageInspection:
        """See BaseStorageBackend."""
        found = []
        try:
            self._store_quota(b"max_bytes", self._get_quota(b"max_bytes"))
        except PermissionDenied as error:
            found.append(str(error))
        with self._snapshots() as folder:
            try:
                self._make(folder, "ll_mkdir", _ROOT, snapshot_name(PROBE), 0o755)
            except PermissionError as error:
                found.append(str(refused_snapshot(error, "make snapshots")))
            else:
                self._remove(folder.inode, snapshot_name(PROBE), is_directory=True)
        return StorageInspection(missing=tuple(found))

    @contextmanager
    def _snapshots(self) -> Iterator[CephDirectory]:
        self._root_inode()
        assert self._root is not None
        inode, _ = self._look_up(self._root, SNAPSHOT_FOLDER)
        try:
            yield CephDirectory(inode)
        finally:
            inode.close()

    @served(repeats=False)
    def create_snapshot(self, name: str) -> None:
        """See BaseStorageBackend: mkdir(2) in ``.snap``, which includes what other clients have not written back."""
        wanted = snapshot_name(name)
        with self._snapshots() as folder:
            try:
                self._make(folder, "ll_mkdir", _ROOT, wanted, 0o755)
            except PermissionError as error:
                raise refused_snapshot(error, "make snapshots") from error

    @served(repeats=True)
    def list_snapshots(self) -> list[NativeSnapshot]:
        """See BaseStorageBackend; those of directories above, ``_NAME_INO``, are none of this volume."""
        with self._snapshots() as folder:
            names = [name for name in self._list(folder) if not name.startswith(b"_")]
            return [NativeSnapshot(os.fsdecode(name), self._born(folder, name)) for name in names]

    def _born(self, folder: CephDirectory, name: bytes) -> float:
        with self._looked_up(folder, name, 0) as (inode, _):
            return float(inode.get_xattr(b"ceph.snap.btime"))

    @served(repeats=True)
    def open_snapshot(self, name: str) -> BackendDirectory:
        """See BaseStorageBackend."""
        wanted = snapshot_name(name)
        with self._snapshots() as folder:
            inode, _ = self._look_up(folder, wanted)
            return CephDirectory(inode)

    @served(repeats=False)
    def delete_snapshot(self, name: str) -> None:
        """See BaseStorageBackend."""
        wanted = snapshot_name(name)
        with self._snapshots() as folder:
            try:
                self._remove(folder.inode, wanted, is_directory=True)
            except PermissionError as error:
                raise refused_snapshot(error, "delete snapshots") from error

    @served(repeats=True)
    def close(self) -> None:
        """See BaseStorageBackend."""
        if self._lock is not None:
            self._lock.close_now()
            self._lock = None
        if self._root is not None:
            self._root.close()
        self.client.close()


_ROOT: Final = NodeOwner(0, 0, 0)
_CAPABILITIES: Final = Capabilities(
    hard_links=True,
    symlinks=True,
    special_files=True,
    xattrs=True,
    ownership=True,
    close_reports_errors=True,
    native_quota=True,
    native_snapshots=True,
    survives_kill=False,
    magic_names=frozenset({SNAPSHOT_FOLDER}),
)


def _inode(directory: BackendDirectory) -> CephInode:
    return directory.inode  # type: ignore[attr-defined, no-any-return]
