"""Making and removing the kernel's mount: mount(2) as root, fusermount3 for ordinary users; mountinfo for the rest.

Nothing here calls stat on a mount point that may be ours: a mount whose daemon hangs would hang the caller too.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import socket
import subprocess
from pathlib import Path
from typing import Final

from volgate.errors import Busy, NotPermitted, StorageException, Unsupported, errno_map
from volgate.mount_table import FILE_SYSTEM_TYPE, MountEntry, list_mounts

_DEVICE: Final = "/dev/fuse"
_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_FUSERMOUNT_S: Final = 20.0
_libc = ctypes.CDLL(None, use_errno=True)


class Mounter:
    """Who makes and removes the mount: this process, or one that has the rights to."""

    def mount(self, mount_point: Path, *, source: str, read_only: bool, allow_other: bool) -> int:
        """See ``mount``."""
        return mount(mount_point, source=source, read_only=read_only, allow_other=allow_other)

    def unmount(self, mount_point: Path, *, lazy: bool) -> None:
        """See ``unmount``."""
        unmount(mount_point, lazy=lazy)


def find_mount(mount_point: Path) -> MountEntry | None:
    """Return what is mounted last on exactly this absolute path, None if nothing is."""
    found = [entry for entry in list_mounts() if entry.mount_point == str(mount_point)]
    return found[-1] if found else None


def mount(mount_point: Path, *, source: str, read_only: bool, allow_other: bool) -> int:
    """Mount on a directory and return the descriptor of /dev/fuse that serves it. Always nosuid, nodev.

    Raises:
        NotPermitted, NotFound, Unsupported, ...: one line that says what is missing.
    """
    if os.geteuid() == 0:
        return _mount_as_root(mount_point, source, read_only=read_only, allow_other=allow_other)
    return _mount_by_fusermount(mount_point, source, read_only=read_only, allow_other=allow_other)


def count_waiting(device_minor: int) -> int:
    """Return how many requests of a connection the kernel holds, 0 where it does not say (fusectl not mounted)."""
    try:
        return int(Path(f"/sys/fs/fuse/connections/{device_minor}/waiting").read_text())
    except (OSError, ValueError):
        return 0


def set_read_ahead(device_minor: int, bytes_: int) -> None:
    """Set how far the kernel reads ahead of a file's reader; it stays at 128 KiB where sysfs may not be written."""
    with contextlib.suppress(OSError):
        Path(f"/sys/class/bdi/0:{device_minor}/read_ahead_kb").write_text(str(bytes_ >> 10))


def abort(device_minor: int) -> None:
    """End a connection (fuse(4), "abort"); nothing happens where fusectl is not mounted or the connection is gone."""
    with contextlib.suppress(OSError):
        Path(f"/sys/fs/fuse/connections/{device_minor}/abort").write_text("1")


def _mount_as_root(mount_point: Path, source: str, *, read_only: bool, allow_other: bool) -> int:
    try:
        device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _device_error(error) from error
    options = f"fd={device},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},default_permissions"
    if allow_other:
        options += ",allow_other"
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if read_only else 0)
    if _libc.mount(os.fsencode(source), os.fsencode(mount_point), FILE_SYSTEM_TYPE.encode(), flags, options.encode()):
        number = ctypes.get_errno()
        os.close(device)
        raise errno_map.from_errno(number, f"cannot mount on {mount_point}: {os.strerror(number)}")
    return device


def _device_error(error: OSError) -> StorageException:
    if isinstance(error, FileNotFoundError):
        return Unsupported(
            f"{_DEVICE} is missing: load the module with 'modprobe fuse', or give the container the device"
        )
    return NotPermitted(f"{_DEVICE} cannot be opened ({error.strerror}): ask for mode 0666 on it, or run as root")


def _mount_by_fusermount(mount_point: Path, source: str, *, read_only: bool, allow_other: bool) -> int:
    """Ask the setuid helper to mount; it hands the descriptor over a socket (fusermount3(1), _FUSE_COMMFD)."""
    options = f"fsname={source},subtype=volgate,nosuid,nodev,default_permissions"
    options += ",ro" if read_only else ",rw"
    options += ",allow_other" if allow_other else ""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(_FUSERMOUNT_S)
        try:
            done = subprocess.run(
                ["fusermount3", "-o", options, "--", str(mount_point)],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_FUSERMOUNT_S,
                check=False,
            )
        except FileNotFoundError as error:
            raise Unsupported("fusermount3 is missing: install the package fuse3") from error
        if done.returncode != 0:
            raise NotPermitted(f"cannot mount on {mount_point}: {done.stderr.strip() or 'fusermount3 failed'}")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2][:4])
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def unmount(mount_point: Path, *, lazy: bool) -> None:
    """Unmount; blocks while the kernel writes back. ``lazy`` detaches at once, whoever uses it.

    Raises:
        Busy: files are open on it. InvalidArgument: nothing is mounted there.
    """
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(mount_point), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)):
            number = ctypes.get_errno()
            raise errno_map.from_errno(number, f"cannot unmount {mount_point}: {os.strerror(number)}")
        return
    done = subprocess.run(
        ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(mount_point)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        message = done.stderr.strip() or "fusermount3 failed"
        raise Busy(message) if "busy" in message.lower() else NotPermitted(message)
