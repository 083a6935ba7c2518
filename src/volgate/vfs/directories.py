"""Open directories: listings with stable cursors.

A listing is taken when a directory is read from its start, and kept by its handle. Cursor N means the N-th entry of
that listing: names made later are not in it, names removed meanwhile are left out, and every name that stands
throughout comes exactly once. ``.`` and ``..`` are cursors 1 and 2.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from volgate.core.handle_table import Fh
from volgate.drivers.base import ask_again
from volgate.errors import Stale
from volgate.vfs.open_file import OpenDirectory

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.dto import FileAttributes
    from volgate.vfs.tree import Tree

_BATCH: Final = 64
_DOTS: Final = 2


class Directories:
    """Open directories of a tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._backend = tree.backend

    async def open(self, inode: Inode) -> Fh:
        """Open a directory and return its number."""
        await self._tree.directory_of(inode)
        return self._tree.directories.add(OpenDirectory(inode))

    def get(self, fh: int) -> OpenDirectory:
        """Return an open directory. Raises Stale."""
        opened = self._tree.directories.get(fh)
        if opened is None:
            raise Stale(f"open directory {fh} is not known any more")
        return opened

    async def entries(self, opened: OpenDirectory, cursor: int) -> AsyncIterator[tuple[bytes, FileAttributes, int]]:
        """Yield (name, attributes, next cursor) from a cursor on; 0 takes a new listing. Without . and .."""
        inode = opened.inode
        if opened.names is None or cursor == 0:
            opened.names = await self._list(inode)
            opened.ahead.clear()
        names = opened.names
        position = max(0, cursor - _DOTS)
        while position < len(names):
            if position not in opened.ahead or opened.changes != inode.changes:
                await self._fetch(opened, position)
            attributes = opened.ahead[position]
            if attributes is None:  # it is gone, or mounted there; else the caller has to hear why it is not listed
                directory = await self._tree.directory_of(inode)
                attributes = await ask_again(self._backend, directory, names[position])
            if attributes is not None:
                yield names[position], attributes, position + _DOTS + 1
            opened.ahead.pop(position, None)
            position += 1

    async def _list(self, inode: Inode) -> list[bytes]:
        if inode.unlinked:
            return []
        names = await self._backend.list_names(await self._tree.directory_of(inode))
        return [name for name in names if not self._tree.is_hidden(inode, name)]

    async def _fetch(self, opened: OpenDirectory, position: int) -> None:
        """Ask for entries from a position on; what is asked for while a name is changed here may be of before."""
        inode = opened.inode
        directory = await self._tree.directory_of(inode)
        batch = (opened.names or [])[position : position + _BATCH]
        opened.changes = inode.changes
        found = await self._backend.get_attributes_of(directory, batch)
        if opened.changes != inode.changes:
            async with self._tree.names_held(inode, change=False):
                found = await self._backend.get_attributes_of(directory, batch)
                opened.changes = inode.changes
        opened.ahead.clear()
        opened.ahead.update(enumerate(found, position))

    async def sync(self, fh: int) -> None:
        """Make a directory's names durable (fsync(2) of a directory)."""
        opened = self.get(fh)
        if not opened.inode.unlinked:
            await self._backend.sync_directory(await self._tree.directory_of(opened.inode))

    def release(self, fh: int) -> None:
        """Close a directory."""
        self._tree.directories.remove(fh)
