"""The mounts of this mount namespace, as the kernel lists them (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import attrs

FILE_SYSTEM_TYPE: Final = "fuse.volgate"
_USER_ID: Final = re.compile(r"\buser_id=(\d+)")


@attrs.frozen
class MountEntry:
    """One line of /proc/self/mountinfo.

    Attributes:
        mount_id: as in /proc/self/fdinfo of what is open there.
        device: ``MAJOR:MINOR`` of the file system; the minor of FUSE is under /sys/fs/fuse/connections.
        root: the path, in the file system, of what is mounted: not ``/`` where a directory is bound.
        mount_point: as the kernel has it.
        file_system_type: ``fuse.volgate`` for ours.
        source: ``volgate:ID`` for ours.
        user_id: who mounted it, for FUSE; 0 where it does not say.
    """

    mount_id: int
    device: str
    root: str
    mount_point: str
    file_system_type: str
    source: str
    user_id: int

    @property
    def device_minor(self) -> int:
        """Number of the FUSE connection under /sys/fs/fuse/connections."""
        return int(self.device.partition(":")[2])


def list_mounts() -> list[MountEntry]:
    """Return this mount namespace's mounts, later ones last."""
    entries = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.rstrip("\n").split(" ")
            separator = fields.index("-")
            entries.append(
                MountEntry(
                    int(fields[0]),
                    fields[2],
                    _unescape(fields[3]),
                    _unescape(fields[4]),
                    fields[separator + 1],
                    _unescape(fields[separator + 2]),
                    int(user.group(1)) if (user := _USER_ID.search(fields[separator + 3])) else 0,
                )
            )
    return entries


def mount_id_of(fd: int) -> int:
    """Return the id of the mount that an open descriptor lies in."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def mount_around(path: str) -> MountEntry | None:
    """Return the mount that a path leads into, or will where it is not there yet. Raises OSError: it cannot be told."""
    while True:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            path = os.path.dirname(path)
            continue
        try:
            mount_id = mount_id_of(fd)
        finally:
            os.close(fd)
        return next((entry for entry in list_mounts() if entry.mount_id == mount_id), None)


def directories_above(path: str) -> list[str]:
    """Return where the directories above an absolute path without symlinks are reached, some maybe twice.

    Also where it, or one above it, is bound elsewhere (mount --bind): by other mounts of its file system.
    """
    above = [str(place) for place in Path(path).parents]
    mount = mount_around(path)
    if mount is None:
        return above
    within = Path(os.path.normpath(os.path.join(mount.root, os.path.relpath(path, mount.mount_point))))
    for entry in list_mounts():
        if entry.device != mount.device:
            continue
        for place in within.parents:
            if place.is_relative_to(entry.root):
                there = str(Path(entry.mount_point, place.relative_to(entry.root)))
                above += [there] if _leads_into(there, entry) else []
    return above


def _leads_into(path: str, entry: MountEntry) -> bool:
    """Return whether a path leads into a mount: another one may stand over it."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return mount_id_of(fd) == entry.mount_id
    finally:
        os.close(fd)


def _unescape(text: str) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    for code in (b"040", b"011", b"012", b"134"):
        raw = raw.replace(b"\\" + code, bytes([int(code, 8)]))
    return raw.decode("utf-8", "surrogateescape")
