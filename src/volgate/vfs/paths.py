"""From a path to its inode, held as long as it is used. Symlinks are never followed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from volgate.errors import NotADirectory, NotFound

if TYPE_CHECKING:
    from volgate.core.inode_table import Inode
    from volgate.vfs.file_system import FileSystem
    from volgate.vfs.namespace import Namespace


def join(above: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory; either may be b"": the root, or the directory itself."""
    return above + b"/" + name if above and name else above or name


@contextlib.asynccontextmanager
async def held(file_system: FileSystem, names: Namespace, path: bytes) -> AsyncIterator[Inode]:
    """Hold the inode of a path; b"" = the root.

    Args:
        names: the users', or the gateway's own, which sees drafts.

    Raises:
        NotFound: nothing is there. NotADirectory: a part of it is none, though it may be a symlink to one.
    """
    inodes = file_system.tree.inodes
    inode, holding = inodes.root, []
    try:
        for name in path.split(b"/") if path else []:
            if not inode.is_directory:
                raise NotADirectory(f"{os.fsdecode(path)!r}: a part of it is no directory")
            found = await names.lookup(inode, name)
            if found is None:
                raise NotFound(f"there is no {os.fsdecode(path)!r}")
            inode = found[0]
            inodes.count_lookup(inode)
            holding.append(inode)
        yield inode
    finally:
        for inode in reversed(holding):
            inodes.forget(inode.ino, 1)
