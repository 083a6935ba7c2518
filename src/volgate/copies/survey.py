"""Looking at a tree before it is copied: how much it is, and what of it the target could not keep."""

from __future__ import annotations

import stat

import attrs
import trio

from volgate.concurrency import note_progress
from volgate.core.sizes import format_count
from volgate.drivers.base import BackendDirectory, Capabilities, attributes_by_name, charged_usage, in_batches
from volgate.dto import FileAttributes, Usage
from volgate.errors import CrossDevice
from volgate.volume.snapshots.base import Place
from volgate.volume.snapshots.recording import read_xattrs

_ACLS = frozenset({b"system.posix_acl_access", b"system.posix_acl_default"})


@attrs.define
class Survey:
    """What was found.

    Attributes:
        bytes_: of regular files, each inode once. stored_bytes: without their holes.
        inodes: all of them, each once, the top included.
        files: names of regular files.
        mounted: file systems that are mounted in it, which are not crossed.
        linked: names of files that have several. special: fifos, sockets and devices. links: symlinks.
        with_xattrs, with_acls: how many have such that the target cannot keep.
    """

    bytes_: int = 0
    stored_bytes: int = 0
    inodes: int = 0
    files: int = 0
    linked: int = 0
    special: int = 0
    mounted: int = 0
    links: int = 0
    with_xattrs: int = 0
    with_acls: int = 0


def is_kept(capabilities: Capabilities, xattr: bytes) -> bool:
    """Return whether a backend can keep an extended attribute. ``security.*`` is the host's, and goes nowhere."""
    if xattr in _ACLS:
        return capabilities.acls
    return capabilities.xattrs and xattr.startswith((b"user.", b"trusted."))


class Surveyor:
    """Walks through a tree.

    Args:
        target: what the target can keep; attributes are only looked at where it cannot keep them.
    """

    def __init__(self, place: Place, target: Capabilities) -> None:
        self._place = place
        self._target = target
        self._seen: set[int] = set()
        self.found = Survey()

    async def look(self, directory: BackendDirectory, name: bytes, attributes: FileAttributes) -> None:
        """Add what stands under a name, with all below it. Blocks for the storage."""
        backend = self._place.backend
        await self._add(directory, name, attributes)
        if not stat.S_ISDIR(attributes.mode):
            return
        waiting = [(directory, name)]
        while waiting:
            above, name = waiting.pop()
            here = await backend.open_directory(above, name, 0) if name else above
            names = [name for name in await backend.list_names(here) if not self._place.hides(here, name)]
            for batch in in_batches(names):
                known = await attributes_by_name(backend, here, batch)
                if len(known) < len(batch):
                    await self._look_for_mounts(here, set(batch) - {child for child, _ in known})
                for child, found in known:
                    await self._add(here, child, found)
                    if stat.S_ISDIR(found.mode):
                        waiting.append((here, child))
                note_progress()
                await trio.lowlevel.checkpoint()

    async def _look_for_mounts(self, directory: BackendDirectory, names: set[bytes]) -> None:
        for name in names:
            try:
                await self._place.backend.find_attributes(directory, name)
            except CrossDevice:
                self.found.mounted += 1

    async def _add(self, directory: BackendDirectory, name: bytes, attributes: FileAttributes) -> None:
        found, mode = self.found, attributes.mode
        found.files += stat.S_ISREG(mode)
        found.links += stat.S_ISLNK(mode)
        found.special += not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode))
        found.linked += not stat.S_ISDIR(mode) and attributes.nlink > 1
        if not self.add_usage(attributes):
            return
        if not stat.S_ISLNK(mode) and not (self._target.xattrs and self._target.acls):
            there = await read_xattrs(self._place.backend, directory, name)
            lost = [key for key in there if _is_lost(self._target, key)]
            found.with_acls += any(key in _ACLS for key in lost)
            found.with_xattrs += any(key not in _ACLS for key in lost)

    def add_usage(self, attributes: FileAttributes) -> bool:
        """Count what the target is charged for an inode; returns False for a further name of one that was counted."""
        found = self.found
        if not stat.S_ISDIR(attributes.mode) and attributes.nlink > 1 and self._target.hard_links:
            if attributes.ino in self._seen:
                return False
            self._seen.add(attributes.ino)
        usage = charged_usage(attributes, charges_links=self._target.charges_links)
        found.bytes_ += usage.bytes_
        found.stored_bytes += min(usage.bytes_, attributes.blocks * 512)
        found.inodes += usage.inodes
        return True


def _is_lost(target: Capabilities, xattr: bytes) -> bool:
    return not xattr.startswith(b"security.") and not is_kept(target, xattr)


def find_losses(found: Survey, source: Capabilities, target: Capabilities) -> list[str]:
    """Return what a copy would lose; a line each, for people."""
    losses = []
    if found.mounted:
        losses.append(f"{format_count(found.mounted, 'file system')} mounted within it: what lies there is not copied")
    if found.linked and source.hard_links and not target.hard_links:
        losses.append(f"{format_count(found.linked, 'name')} of hard links become files of their own")
    if found.special and not target.special_files:
        losses.append(f"{format_count(found.special, 'special file')} (fifos, sockets, devices) cannot be made")
    if found.links and not target.symlinks:
        losses.append(f"{format_count(found.links, 'symlink')} cannot be made")
    if source.ownership and not target.ownership:
        losses.append("owner and group: all will belong to the user that the target's daemon runs as")
    if found.with_acls:
        losses.append(f"the ACLs of {format_count(found.with_acls, 'file')}")
    if found.with_xattrs:
        losses.append(f"the extended attributes of {format_count(found.with_xattrs, 'file')}")
    return losses


def usage_of(found: Survey) -> Usage:
    """Return what a volume would be charged for it."""
    return Usage(found.bytes_, found.inodes)
