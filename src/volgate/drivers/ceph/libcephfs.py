"""libcephfs's low-level calls by ctypes: every Python has them, and each call lets other threads run.

Names, types and flags are those of ``cephfs/libcephfs.h`` (Ceph 16.2); a test compiles a program that compares them.
All calls block without a time limit, so they belong into bounded threads.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from volgate.errors import BadConfiguration, Unavailable

_P, _S, _I, _U = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint
_OUT: Final = ctypes.POINTER(ctypes.c_void_p)
STATX_WANTED: Final = 0x7FF
"""CEPH_STATX_BASIC_STATS: what stat(2) has."""
SETATTR_MODE, SETATTR_UID, SETATTR_GID = 1 << 0, 1 << 1, 1 << 2
SETATTR_MTIME, SETATTR_ATIME, SETATTR_SIZE = 1 << 3, 1 << 4, 1 << 5
CUT_OFF: Final = frozenset({errno.ESHUTDOWN, errno.ENOTCONN})
"""What calls of a client say that the cluster has blocklisted (EBLOCKLISTED is ESHUTDOWN), or that is unmounted."""
_RECLAIM_RESET: Final = 1
_MAX_OPTION_BYTES: Final = 1 << 16
_LEAVE_S: Final = 5.0
"""How long an unmount may take. Without others it takes 1 s, a tick of the client's."""


class Timespec(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    @property
    def ns(self) -> int:
        """UNIX nanoseconds."""
        return int(self.seconds) * 1_000_000_000 + int(self.nanoseconds)


class Statx(ctypes.Structure):
    """struct ceph_statx."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("nlink", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("mode", ctypes.c_uint16),
        ("ino", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("dev", ctypes.c_uint64),
        ("rdev", ctypes.c_uint64),
        ("atime", Timespec),
        ("ctime", Timespec),
        ("mtime", Timespec),
        ("btime", Timespec),
        ("version", ctypes.c_uint64),
    )


class Statvfs(ctypes.Structure):
    """struct statvfs."""

    _fields_ = (
        *((name, ctypes.c_ulong) for name in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree")),
        *((name, ctypes.c_ulong) for name in ("favail", "fsid", "flag", "namemax")),
        ("spare", ctypes.c_int * 6),
    )


class Flock(ctypes.Structure):
    """struct flock."""

    _fields_ = (
        ("type", ctypes.c_short),
        ("whence", ctypes.c_short),
        ("start", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("pid", ctypes.c_int),
    )


_STATX, _STATVFS, _FLOCK = ctypes.POINTER(Statx), ctypes.POINTER(Statvfs), ctypes.POINTER(Flock)
_CALLS: Final[dict[str, tuple[Any, ...]]] = {
    "ceph_create": (_OUT, _S),
    "ceph_conf_read_file": (_P, _S),
    "ceph_conf_set": (_P, _S, _S),
    "ceph_conf_get": (_P, _S, _P, ctypes.c_size_t),
    "ceph_select_filesystem": (_P, _S),
    "ceph_init": (_P,),
    "ceph_mount": (_P, _S),
    "ceph_unmount": (_P,),
    "ceph_sync_fs": (_P,),
    "ceph_abort_conn": (_P,),
    "ceph_release": (_P,),
    "ceph_mkdirs": (_P, _S, _U),
    "ceph_start_reclaim": (_P, _S, _U),
    "ceph_getdnames": (_P, _P, _P, _I),
    "ceph_ll_lookup_root": (_P, _OUT),
    "ceph_ll_lookup_inode": (_P, ctypes.c_uint64, _OUT),
    "ceph_ll_lookup": (_P, _P, _S, _OUT, _STATX, _U, _U, _P),
    "ceph_ll_put": (_P, _P),
    "ceph_ll_getattr": (_P, _P, _STATX, _U, _U, _P),
    "ceph_ll_setattr": (_P, _P, _STATX, _I, _P),
    "ceph_ll_open": (_P, _P, _I, _OUT, _P),
    "ceph_ll_read": (_P, _P, ctypes.c_int64, ctypes.c_uint64, _P),
    "ceph_ll_write": (_P, _P, ctypes.c_int64, ctypes.c_uint64, _S),
    "ceph_ll_fsync": (_P, _P, _I),
    "ceph_ll_sync_inode": (_P, _P, _I),
    "ceph_ll_close": (_P, _P),
    "ceph_ll_getxattr": (_P, _P, _S, _P, ctypes.c_size_t, _P),
    "ceph_ll_setxattr": (_P, _P, _S, _S, ctypes.c_size_t, _I, _P),
    "ceph_ll_listxattr": (_P, _P, _P, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t), _P),
    "ceph_ll_removexattr": (_P, _P, _S, _P),
    "ceph_ll_create": (_P, _P, _S, _U, _I, _OUT, _OUT, _STATX, _U, _U, _P),
    "ceph_ll_mknod": (_P, _P, _S, _U, ctypes.c_uint64, _OUT, _STATX, _U, _U, _P),
    "ceph_ll_mkdir": (_P, _P, _S, _U, _OUT, _STATX, _U, _U, _P),
    "ceph_ll_link": (_P, _P, _P, _S, _P),
    "ceph_ll_opendir": (_P, _P, _OUT, _P),
    "ceph_ll_releasedir": (_P, _P),
    "ceph_ll_rename": (_P, _P, _S, _P, _S, _P),
    "ceph_ll_unlink": (_P, _P, _S, _P),
    "ceph_ll_rmdir": (_P, _P, _S, _P),
    "ceph_ll_statfs": (_P, _P, _STATVFS),
    "ceph_ll_readlink": (_P, _P, _P, ctypes.c_size_t, _P),
    "ceph_ll_symlink": (_P, _P, _S, _S, _OUT, _STATX, _U, _U, _P),
    "ceph_ll_setlk": (_P, _P, _FLOCK, ctypes.c_uint64, _I),
}
"""Calls that return 0 or more, or a negative errno."""
_OTHERS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "ceph_set_uuid": (None, (_P, _S)),
    "ceph_mount_perms": (_P, (_P,)),
    "ceph_userperm_new": (_P, (_U, _U, _I, _P)),
    "ceph_userperm_destroy": (None, (_P,)),
}


@functools.cache
def library() -> ctypes.CDLL:
    """Return the library. Raises BadConfiguration where it is not installed."""
    try:
        found = ctypes.CDLL("libcephfs.so.2")
    except OSError as error:
        raise BadConfiguration("libcephfs is missing: apt-get install libcephfs2 (dnf install libcephfs2)") from error
    for name, argument_types in _CALLS.items():
        getattr(found, name).argtypes = argument_types
    for name, (result_type, argument_types) in _OTHERS.items():
        getattr(found, name).restype, getattr(found, name).argtypes = result_type, argument_types
    return found


class Client:
    """One client of a cluster, mounted at a directory of a CephFS; mounted anew after the cluster cut it off.

    Pointers that calls return belong to one ``generation``, and would crash the process in another one. So a thread
    pins the generation for as long as it handles them; mounts of before are never released. Thread-safe.

    Args:
        options: ``conf``, ``client`` (without ``client.``), ``keyring``, ``filesystem``; what is missing is as ceph(8)
            has it.

    Attributes:
        perms: the library's UserPerm of this process.
        on_mounted_anew: called then; where it returns False nothing works any more, since another owns the volume.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = options
        self._root = b"/"
        self._lock = threading.Lock()
        self._name: socket.socket | None = None
        self._session = str(uuid.uuid4())
        self._mount: int | None = None
        self._pinned = threading.local()
        self.perms: int | None = None
        self.on_mounted_anew: Callable[[], bool] = lambda: True
        self._is_fenced = False

    def _make(self) -> int:
        """Return a client that is configured and not mounted."""
        mount = ctypes.c_void_p()
        lib, options = library(), self._options
        _check(lib.ceph_create(ctypes.byref(mount), options.get("client", "admin").encode()))
        assert mount.value is not None
        conf = options.get("conf") or os.environ.get("CEPH_CONF")
        if lib.ceph_conf_read_file(mount, conf.encode() if conf else None) < 0:
            raise BadConfiguration(
                f"{conf or '/etc/ceph/ceph.conf'} cannot be read: name the cluster's by -o conf=FILE"
            )
        if "keyring" in options:
            _check(lib.ceph_conf_set(mount, b"keyring", options["keyring"].encode()))
        # The kernel has checked permissions by the mode bits already, and knows the caller's further groups.
        _check(lib.ceph_conf_set(mount, b"client_permissions", b"false"))
        _check(lib.ceph_conf_set(mount, b"fuse_default_permissions", b"true"))
        if "filesystem" in options:
            _check(lib.ceph_select_filesystem(mount, options["filesystem"].encode()))
        return mount.value

    def make_directory(self, path: bytes) -> None:
        """Make a directory of the file system, with those above it; one that stands there is fine. Raises OSError."""
        mount = self._connect(b"/")
        try:
            if (result := library().ceph_mkdirs(mount, path, 0o755)) != -errno.EEXIST:
                _check(result)
        finally:
            _leave(mount)

    def _connect(self, root: bytes) -> int:
        mount = self._make()
        result = library().ceph_init(mount)
        if result == 0:
            library().ceph_set_uuid(mount, self._session.encode())
            result = library().ceph_mount(mount, root)
        if result < 0:
            library().ceph_release(mount)
            if -result in (errno.ETIMEDOUT, errno.ECONNREFUSED, errno.EHOSTUNREACH):
                raise Unavailable("the Ceph cluster does not answer")
            _check(result)
        return mount

    def mount(self, root: bytes) -> None:
        """Mount a directory of the file system. Raises OSError, Unavailable. Blocks for the cluster."""
        self._root = root
        self._take_name()
        try:
            self._mount_root()
        except BaseException:
            self._give_name_back()
            raise

    def _mount_root(self) -> None:
        if self._name is not None:
            self._end_session()
        self._mount = self._connect(self._root)
        self.perms = library().ceph_mount_perms(self._mount)

    def _take_name(self) -> None:
        """Give this client's sessions the name that all clients of this directory on this host have, one at a time.

        A process that was killed leaves a session that holds its locks and caches for a minute; who has the name knows
        that such a session belongs to nobody. An abstract socket is free again when its process ends (unix(7)).
        """
        filesystem, root = self._options.get("filesystem", ""), os.fsdecode(self._root)
        name = f"volgate:{socket.gethostname()}:{self._monitors()}:{filesystem}:{root}"
        digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            found.bind(f"\0volgate-ceph-{digest}")
        except OSError:
            found.close()  # another process has it and lives
        else:
            self._name, self._session = found, digest

    def _monitors(self) -> str:
        """Return what tells a cluster from others that this host has: where its monitors are."""
        mount, found = self._make(), ctypes.create_string_buffer(_MAX_OPTION_BYTES)
        try:
            _check(library().ceph_conf_get(mount, b"mon_host", found, len(found)))
        finally:
            library().ceph_release(mount)
        return os.fsdecode(found.value)

    def _give_name_back(self) -> None:
        name, self._name = self._name, None
        if name is not None:
            name.close()

    def _end_session(self) -> None:
        """End what sessions of this client's name are left, with the locks that they hold. Raises OSError."""
        mount = self._make()
        try:
            result = library().ceph_start_reclaim(mount, self._session.encode(), _RECLAIM_RESET)
            if result not in (-errno.ENOENT, -errno.EOPNOTSUPP):
                _check(result)
        finally:
            library().ceph_release(mount)

    @property
    def generation(self) -> int | None:
        """The mount that this thread's pointers belong to: the one it pinned, else the present one."""
        return getattr(self._pinned, "mount", None) or self._mount

    def pin(self) -> int | None:
        """Let this thread's calls go to the present mount until ``unpin``, whatever other threads do; returns it."""
        self._pinned.mount = self._mount
        return self._mount

    def unpin(self) -> None:
        """End what ``pin`` began."""
        self._pinned.mount = None

    def check_pinned(self) -> None:
        """Refuse to go on with a mount that is not the present one any more. Raises OSError: one of ``CUT_OFF``."""
        if self.generation != self._mount:
            raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))

    def mount_anew(self, generation: int | None) -> None:
        """Mount again after the cluster cut off the client of a generation, unless another thread just did.

        This thread's calls go to the new mount then.
        """
        with self._lock:
            if generation != self._mount:
                self.pin()
                return
            old = self._mount
            self._mount_root()
            self.pin()
        if old is not None:  # never released: other threads may still be in its calls
            library().ceph_abort_conn(old)
        self._is_fenced = not self.on_mounted_anew()

    def close(self) -> None:
        """Store what is left, and leave. Blocks for the cluster. Raises OSError: not all could be stored."""
        mount, self._mount = self._mount, None
        try:
            if mount is not None:
                result = library().ceph_sync_fs(mount)
                _leave(mount)
                _check(result)
        finally:
            self._give_name_back()

    def call(self, name: str, *arguments: Any) -> int:
        """Return what ``ceph_NAME(mount, ...)`` does. Raises OSError for a negative errno."""
        if self._is_fenced:
            raise Unavailable("the cluster had cut this client off, and another owner has the volume now: unmount it")
        mount = self.generation
        if mount is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return _check(getattr(library(), f"ceph_{name}")(mount, *arguments))

    def put(self, inode: int, generation: int | None) -> None:
        """Give a reference to an inode back, unless its client is gone. Does not wait."""
        if generation is not None and generation == self._mount:
            library().ceph_ll_put(generation, inode)

    def close_file(self, handle: int, generation: int | None) -> None:
        """Close a file, unless its client is gone. Errors of late writes were reported by fsync before."""
        if generation is not None and generation == self._mount:
            library().ceph_ll_close(generation, handle)

    @property
    def is_mounted(self) -> bool:
        """Whether calls can be made."""
        return self._mount is not None

    def as_user(self, uid: int, gid: int, act: Callable[[int], int]) -> int:
        """Return what a call does for a user, who will own what it makes."""
        perms = library().ceph_userperm_new(uid, gid, 0, None)
        try:
            return act(perms)
        finally:
            library().ceph_userperm_destroy(perms)


def _leave(mount: int) -> None:
    """Unmount; where that takes long, cut the connection: all is stored, and the cluster forgets the session."""

    def unmount() -> None:
        library().ceph_unmount(mount)
        library().ceph_release(mount)

    thread = threading.Thread(target=unmount, daemon=True)
    thread.start()
    thread.join(_LEAVE_S)
    if thread.is_alive():
        library().ceph_abort_conn(mount)


def _check(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
