"""A volume in a directory of a mounted CephFS, by the kernel's client or ceph-fuse.

Data goes the way of every directory (``drivers.posix``). What only CephFS has goes through its virtual attributes and
the virtual directory ``.snap``: quotas, snapshots.

Measured with ceph-fuse 16.2: a client enforces CephFS's quota late (one wrote 2.06 times a limit of 1 MiB), so it is a
fence here and not the limit; ``ceph.dir.rbytes`` lags 5-6 s behind in directories above and counts symlinks, so usage
is counted instead.
"""

from __future__ import annotations

import errno
import os
from typing import ClassVar, Final

import attrs

from volgate.drivers.base import BackendDirectory, NativeQuota, NativeSnapshot, StorageInspection
from volgate.drivers.ceph.conventions import PROBE, SNAPSHOT_FOLDER, missing, refused_snapshot, snapshot_name
from volgate.drivers.posix.backend import PosixBackend
from volgate.drivers.posix.errors import converted_async
from volgate.drivers.posix.open_file import PosixDirectory
from volgate.dto import BackendType, VolumeOperationContext
from volgate.errors import NotFound, PermissionDenied

_OPEN_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def lies_on_cephfs(path: str) -> bool:
    """Return whether a directory lies on a mounted CephFS: only there this virtual attribute can be read."""
    try:
        os.getxattr(path, "ceph.dir.entries")
    except OSError:
        return False
    return True


class MountedCephBackend(PosixBackend):
    """A volume in a directory of a mounted CephFS; its calls may hang, so they belong into threads."""

    backend_type: ClassVar[BackendType] = "ceph"

    async def open_volume(self, context: VolumeOperationContext) -> PosixDirectory:
        """See BaseStorageBackend."""
        root = await super().open_volume(context)
        self._capabilities = attrs.evolve(
            self._capabilities,
            native_quota=True,
            native_snapshots=True,
            magic_names=frozenset({SNAPSHOT_FOLDER}),
        )
        return root

    @converted_async
    def get_native_quota(self) -> NativeQuota:
        """See BaseStorageBackend: ``ceph.quota.max_bytes`` and ``max_files`` of the volume's root."""
        return NativeQuota(int(self._get_quota("max_bytes")) or None, int(self._get_quota("max_files")) or None)

    @converted_async
    def set_native_quota(self, quota: NativeQuota) -> None:
        """See BaseStorageBackend; CephFS takes 0 for unlimited."""
        self._store_quota("max_bytes", b"%d" % (quota.bytes_ or 0))
        self._store_quota("max_files", b"%d" % (quota.inodes or 0))

    def _get_quota(self, which: str) -> bytes:
        """Return a limit as CephFS has it; one that is not set is shown as 0, or not at all."""
        try:
            return os.getxattr(f"/proc/self/fd/{self._root_fd()}", f"ceph.quota.{which}")
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            return b"0"

    def _store_quota(self, which: str, wanted: bytes) -> None:
        try:
            os.setxattr(f"/proc/self/fd/{self._root_fd()}", f"ceph.quota.{which}", wanted)
        except PermissionError as error:
            raise PermissionDenied(missing("p", "set quotas")) from error

    @converted_async
    def inspect(self) -> StorageInspection:
        """See BaseStorageBackend."""
        found = []
        try:
            self._store_quota("max_bytes", self._get_quota("max_bytes"))
        except PermissionDenied as error:
            found.append(str(error))
        try:
            os.mkdir(_snapshot_path(PROBE), dir_fd=self._root_fd())
        except PermissionError as error:
            found.append(str(refused_snapshot(error, "make snapshots")))
        else:
            os.rmdir(_snapshot_path(PROBE), dir_fd=self._root_fd())
        return StorageInspection(missing=tuple(found))

    def _root_fd(self) -> int:
        if self._root is None:
            raise NotFound("the volume is not open")
        return self._root.fd

    # -- snapshots ----------------------------------------------------------------------------------------------

    @converted_async
    def create_snapshot(self, name: str) -> None:
        """See BaseStorageBackend: mkdir(2) in ``.snap``, which includes what other clients have not written back."""
        try:
            os.mkdir(_snapshot_path(name), dir_fd=self._root_fd())
        except PermissionError as error:
            raise refused_snapshot(error, "make snapshots") from error

    @converted_async
    def list_snapshots(self) -> list[NativeSnapshot]:
        """See BaseStorageBackend; those of directories above, ``_NAME_INO``, are none of this volume."""
        folder = os.open(SNAPSHOT_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root_fd())
        try:
            names = [name for name in os.listdir(folder) if not name.startswith("_")]
        finally:
            os.close(folder)
        return [NativeSnapshot(name, self._born(name)) for name in names]

    def _born(self, name: str) -> float:
        fd = os.open(_snapshot_path(name), _OPEN_DIRECTORY, dir_fd=self._root_fd())
        try:
            return float(os.getxattr(f"/proc/self/fd/{fd}", "ceph.snap.btime"))
        finally:
            os.close(fd)

    @converted_async
    def open_snapshot(self, name: str) -> BackendDirectory:
        """See BaseStorageBackend."""
        return PosixDirectory(os.open(_snapshot_path(name), _OPEN_DIRECTORY, dir_fd=self._root_fd()))

    @converted_async
    def delete_snapshot(self, name: str) -> None:
        """See BaseStorageBackend."""
        try:
            os.rmdir(_snapshot_path(name), dir_fd=self._root_fd())
        except PermissionError as error:
            raise refused_snapshot(error, "delete snapshots") from error


def _snapshot_path(name: str) -> bytes:
    return SNAPSHOT_FOLDER + b"/" + snapshot_name(name)
