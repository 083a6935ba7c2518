"""The inodes that the kernel or an open file refers to, and the names by which the backing knows them.

Pure: no I/O, no clock; all calls are steps of one event loop. Only the vfs calls it.

An inode lives while its reference count ``nlookup + open files + children`` is above zero; the root lives for ever.
``children`` counts the names of other inodes below a directory, so a directory stays while anything in the table needs
it to be reached.

The kernel's number of an inode is the backing's, unless the kernel still knows that number for another inode (deleted,
and its number given away again): then one from 2**63 on, so that a FORGET always means one inode only.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NewType

import attrs

if TYPE_CHECKING:
    from volgate.dto import FileAttributes

Ino = NewType("Ino", int)

ROOT_INO: Final = Ino(1)
"""FUSE_ROOT_ID."""
FIRST_OWN_INO: Final = 1 << 63
FIRST_SHOWN_INO: Final = 3 << 62
"""Numbers from here on are of inodes in snapshots, which have a table of their own."""
_REMOVED_AT_LEAST: Final = 1000


class Inode:
    """One inode.

    Attributes:
        ino: the kernel's number (nodeid).
        backing_ino: the backend's number.
        file_type: S_IFMT bits.
        nlookup: references of the kernel, as FORGET counts them.
        parent: directory of the primary name; None for the root, and for what has no known name left.
        name: primary name; b"" without a parent.
        other_names: further hard links that were seen, or None.
        children: names in the table that lie in this directory.
        unlinked: its last name was removed through the mount; storage may go on showing a name until the last close.
        links: names left as counted here, where names were removed while it was open: storage that keeps a removed file
            under a name of its own until then counts that one, too. None: as many as storage says.
        open_files: the vfs's open files of this inode; () when there are none.
        charge: the quota's record while it is open for writing or unlinked but open.
        directory: the driver's open directory, kept by the vfs's directory cache.
        removals: of its names, that are under way. settled: how often a record of the quota ended.
        changes: of the names in this directory that have ended.
        names_lock: the vfs's, over such a change; None before the first. size_lock: likewise, over changes of its size.
        version: (mtime_ns, size) that the kernel's page cache holds, or None.
    """

    __slots__ = (
        "backing_ino",
        "changes",
        "charge",
        "children",
        "directory",
        "file_type",
        "ino",
        "links",
        "name",
        "names_lock",
        "nlookup",
        "open_files",
        "other_names",
        "parent",
        "removals",
        "settled",
        "size_lock",
        "unlinked",
        "version",
    )

    def __init__(self, ino: Ino, backing_ino: int, file_type: int) -> None:
        self.ino = ino
        self.backing_ino = backing_ino
        self.file_type = file_type
        self.nlookup = 0
        self.parent: Inode | None = None
        self.name = b""
        self.other_names: set[tuple[Inode, bytes]] | None = None
        self.children = 0
        self.unlinked = False
        self.links: int | None = None
        self.open_files: tuple[object, ...] = ()
        self.removals = self.settled = self.changes = 0
        self.names_lock: object | None = None
        self.size_lock: object | None = None
        self.charge: object | None = None
        self.directory: object | None = None
        self.version: tuple[int, int] | None = None

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.file_type == stat.S_IFDIR

    def names(self) -> Iterator[tuple[Inode, bytes]]:
        """Yield the known (directory, name) pairs, the primary one first."""
        if self.parent is not None:
            yield self.parent, self.name
        if self.other_names:
            yield from tuple(self.other_names)


@attrs.frozen
class InodeTableStatistics:
    """Size and balance of the table.

    Attributes:
        inodes: entries, the root included.
        lookups: references ever given to the kernel.
        forgets: references the kernel gave back.
        held: references the kernel holds by the entries' own counts; lookups - forgets, or something leaks.
    """

    inodes: int
    lookups: int
    forgets: int
    held: int


class InodeTable:
    """All inodes in use, by the kernel's and by the backend's number; its length is how many.

    Attributes:
        lookups: references ever given to the kernel. forgets: references the kernel gave back.

    Args:
        first_ino: of the root, and of numbers that are not the backing's; None = as of a volume's own root.
    """

    def __init__(self, first_ino: int | None = None) -> None:
        root_ino = Ino(ROOT_INO if first_ino is None else first_ino)
        self.root = Inode(root_ino, 0, stat.S_IFDIR)  # reached by its open directory, never by number
        self._by_ino: dict[int, Inode] = {root_ino: self.root}
        self._by_backing: dict[int, Inode] = {}
        self._next_own_ino = FIRST_OWN_INO if first_ino is None else first_ino + 1
        self._removed = 0
        self.lookups = 0
        self.forgets = 0

    def __len__(self) -> int:
        return len(self._by_ino)

    def get(self, ino: int) -> Inode | None:
        """Return the inode of a kernel's number, None if it is not in use."""
        return self._by_ino.get(ino)

    def numbers(self) -> list[int]:
        """Return the kernel's numbers of all inodes in use."""
        return list(self._by_ino)

    def find_backing(self, backing_ino: int) -> Inode | None:
        """Return the living inode of a backend's number, None if it is not in use."""
        return self._by_backing.get(backing_ino)

    def observe(self, parent: Inode, name: bytes, attributes: FileAttributes) -> Inode:
        """Return the inode that stands under a name now, entered if need be.

        It has one reference less than it needs to stay: call ``count_lookup``, open it, or ``drop_unused``.
        """
        file_type = stat.S_IFMT(attributes.mode)
        inode = self._by_backing.get(attributes.ino)
        if inode is not None and inode.file_type != file_type:
            self.mark_gone(inode)  # replaced behind the mount, and the number was given away again
            inode = None
        if inode is None:
            inode = Inode(self._choose_ino(attributes.ino), attributes.ino, file_type)
            self._by_ino[inode.ino] = inode
            self._by_backing[attributes.ino] = inode
            inode.parent, inode.name = parent, name
            parent.children += 1
        elif inode.parent is not parent or inode.name != name:
            self._add_name(inode, parent, name, sole=attributes.nlink <= 1 or inode.is_directory)
        return inode

    def observe_made(self, parent: Inode, name: bytes, attributes: FileAttributes) -> Inode:
        """Return, as ``observe``, the inode that was just made: what else had its number is gone, told or not."""
        known = self._by_backing.get(attributes.ino)
        if known is not None and (parent, name) not in known.names():
            self.mark_gone(known)
            self.drop_unused(known)
        return self.observe(parent, name, attributes)

    def _choose_ino(self, backing_ino: int) -> Ino:
        if backing_ino > ROOT_INO and backing_ino < FIRST_OWN_INO and backing_ino not in self._by_ino:
            return Ino(backing_ino)
        ino = Ino(self._next_own_ino)
        self._next_own_ino += 1
        return ino

    def _add_name(self, inode: Inode, parent: Inode, name: bytes, *, sole: bool) -> None:
        if inode is self.root or (inode.parent is parent and inode.name == name):
            return
        parent.children += 1  # first, so that dropping the old name cannot drop this parent
        if sole:
            self.drop_names(inode)
        elif inode.other_names and (parent, name) in inode.other_names:
            parent.children -= 1
            return
        if inode.parent is None:
            inode.parent, inode.name = parent, name
        else:
            if inode.other_names is None:
                inode.other_names = set()
            inode.other_names.add((parent, name))

    def drop_name(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Forget that an inode stands under a name; nothing happens if it did not."""
        if inode.parent is parent and inode.name == name:
            inode.parent, inode.name = None, b""
            if inode.other_names:
                inode.parent, inode.name = inode.other_names.pop()
        elif inode.other_names and (parent, name) in inode.other_names:
            inode.other_names.discard((parent, name))
        else:
            return
        if not inode.other_names:
            inode.other_names = None
        parent.children -= 1
        self.drop_unused(parent)

    def drop_names(self, inode: Inode) -> None:
        """Forget all names of an inode."""
        for parent, name in list(inode.names()):
            self.drop_name(inode, parent, name)

    def move_name(self, inode: Inode, source: tuple[Inode, bytes], target: tuple[Inode, bytes]) -> None:
        """Follow a rename of one of an inode's names."""
        target[0].children += 1  # keeps the target while the source's directory may be dropped
        self.drop_name(inode, *source)
        self._add_name(inode, *target, sole=inode.is_directory)
        target[0].children -= 1

    def mark_gone(self, inode: Inode) -> None:
        """Note that the backing's inode is deleted: its number may mean another one from now on."""
        if self._by_backing.get(inode.backing_ino) is inode:
            del self._by_backing[inode.backing_ino]
        self.drop_names(inode)

    def count_lookup(self, inode: Inode) -> None:
        """Count one reference that a reply gives to the kernel."""
        inode.nlookup += 1
        self.lookups += 1

    def forget(self, ino: int, count: int) -> None:
        """Take references back; the inode goes when they were the last."""
        inode = self._by_ino.get(ino)
        self.forgets += count
        if inode is not None:
            inode.nlookup = max(0, inode.nlookup - count)
            self.drop_unused(inode)

    def drop_unused(self, inode: Inode) -> bool:
        """Remove an inode that nothing refers to, and directories that only it kept; returns whether it was removed."""
        waiting = [inode]
        while waiting:  # a loop, not recursion: trees may be thousands of levels deep
            unused = waiting.pop()
            if unused.nlookup or unused.children or unused.open_files or unused is self.root:
                continue
            if self._by_ino.get(unused.ino) is not unused:
                continue
            del self._by_ino[unused.ino]
            if self._by_backing.get(unused.backing_ino) is unused:
                del self._by_backing[unused.backing_ino]
            unused.directory = None
            for parent, _ in unused.names():
                parent.children -= 1
                waiting.append(parent)
            unused.parent, unused.name, unused.other_names = None, b"", None
            self._removed += 1
        if self._removed > _REMOVED_AT_LEAST and self._removed > 4 * len(self._by_ino):
            self._shrink()
        return self._by_ino.get(inode.ino) is not inode

    def _shrink(self) -> None:
        """Give back the memory of what was removed: a dict stays as large as it ever was."""
        self._by_ino = dict(self._by_ino)
        self._by_backing = dict(self._by_backing)
        self._removed = 0

    def statistics(self) -> InodeTableStatistics:
        """Return size and balance. Walks the table: milliseconds for each ten thousand inodes."""
        held = sum(inode.nlookup for inode in self._by_ino.values())
        return InodeTableStatistics(len(self._by_ino), self.lookups, self.forgets, held)
