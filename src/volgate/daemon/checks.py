"""What must be true before a mount: one clear line for each thing that is not. Never touches a mount that may hang."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Final

from volgate.errors import Busy, InvalidArgument, NotADirectory, NotFound, StorageException
from volgate.fuse import mounting
from volgate.mount_table import FILE_SYSTEM_TYPE, list_mounts

_ASK_S: Final = 3.0
_AUTOMOUNT: Final = "autofs"
_DEAD: Final = (errno.ENOTCONN, errno.ECONNABORTED)


def resolve_mount_point(text: str) -> Path:
    """Return the absolute path of a mount point, symlinks resolved.

    What is mounted there already is not looked at: a dead mount gives an error, and a hung one no answer at all.
    """
    path = Path(os.path.abspath(text))
    path = Path(os.path.realpath(path.parent)) / path.name if path.name else path
    return path if mounting.find_mount(path) is not None else Path(os.path.realpath(path))


def list_ours() -> list[tuple[str, str, int]]:
    """Return the mounts of volgate in this mount namespace: (volume's id, mount point, user who mounted it)."""
    return [
        (entry.source.removeprefix("volgate:"), entry.mount_point, entry.user_id)
        for entry in list_mounts()
        if entry.file_system_type == FILE_SYSTEM_TYPE
    ]


def detach_dead_mount(mount_point: Path) -> bool:
    """Detach a mount of ours whose daemon is gone. Returns whether there was one.

    Raises:
        Busy: something is mounted there and alive.
    """
    entry = mounting.find_mount(mount_point)
    if entry is None or entry.file_system_type == _AUTOMOUNT:
        return False
    if entry.file_system_type == FILE_SYSTEM_TYPE and _is_dead(mount_point):
        mounting.unmount(mount_point, lazy=True)
        return True
    raise Busy(f"{mount_point} is a mount point already ({entry.source}); unmount it first")


def _is_dead(mount_point: Path) -> bool:
    """Return whether a mount's connection is gone: its kernel side then answers ENOTCONN at once.

    A live mount whose daemon hangs would hang the caller, unkillably; so a child asks, and is left alone if it hangs.
    """
    child = subprocess.Popen(
        ["stat", "--", str(mount_point)],
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, message = child.communicate(timeout=_ASK_S)
    except subprocess.TimeoutExpired:
        return False
    return child.returncode != 0 and any(os.strerror(number) in message for number in _DEAD)


def check_mount_point(mount_point: Path, source: Path, *, nonempty: bool) -> None:
    """Refuse a mount point that would not do.

    Raises:
        NotFound, NotADirectory, InvalidArgument: one line that says why.
    """
    entry = mounting.find_mount(mount_point)
    if entry is not None and entry.file_system_type == _AUTOMOUNT:
        return  # looking at it would wait for the very mount that is being made
    try:
        entries = os.listdir(mount_point)
    except FileNotFoundError as error:
        raise NotFound(f"mount point {mount_point} does not exist; make the directory first") from error
    except NotADirectoryError as error:
        raise NotADirectory(f"mount point {mount_point} is not a directory") from error
    except OSError as error:
        raise StorageException(f"mount point {mount_point} cannot be used: {error.strerror}") from error
    real, inside = Path(os.path.realpath(mount_point)), Path(os.path.realpath(source))
    if real == inside:
        raise InvalidArgument(f"{mount_point} is the source itself; mount on another directory")
    if real.is_relative_to(inside) or inside.is_relative_to(real):
        raise InvalidArgument(f"{mount_point} and {source} lie in each other: the mount would serve itself")
    if entries and not nonempty:
        raise InvalidArgument(f"mount point {mount_point} is not empty; '-o nonempty' mounts over what is in it")


def holders_of(mount_point: Path) -> list[str]:
    """Return who has files open on a mount, as ``PID NAME``; found in /proc without touching the mount."""
    return [_name_of(process) for process in _processes() if _holds(process, str(mount_point))]


def copies_of(device_minor: int) -> list[str]:
    """Return who keeps a mount in a mount namespace of its own (a container), as ``PID NAME``."""
    found = []
    for process in _processes():
        try:
            lines = Path(process, "mountinfo").read_text(errors="replace").splitlines()
        except OSError:
            continue
        if any(line.split(" ", 3)[2] == f"0:{device_minor}" for line in lines):
            found.append(_name_of(process))
    return found


def _processes() -> list[str]:
    return [entry.path for entry in os.scandir("/proc") if entry.name.isdigit() and int(entry.name) != os.getpid()]


def _holds(process: str, mount_point: str) -> bool:
    links = [f"{process}/cwd", f"{process}/root"]
    try:
        links += [entry.path for entry in os.scandir(f"{process}/fd")]
    except OSError:
        return False
    for link in links:
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target == mount_point or target.startswith(mount_point + "/"):
            return True
    return False


def _name_of(process: str) -> str:
    try:
        name = Path(process, "comm").read_text().strip()
    except OSError:
        name = "?"
    return f"{os.path.basename(process)} {name}"
