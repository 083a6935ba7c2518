"""Writing down what stands in a volume: the walk that makes a manifest."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path

import trio

from volgate.drivers.base import BackendDirectory, BaseStorageBackend, attributes_by_name, in_batches
from volgate.dto import FileAttributes
from volgate.errors import NoAttribute, NotADirectory, NotFound, Stale
from volgate.volume.snapshots.base import Place
from volgate.volume.snapshots.manifest import ManifestNode, ManifestWriter


async def write_manifest(backend: BaseStorageBackend, root: BackendDirectory, draft: Path) -> ManifestWriter:
    """Write down a volume, of which nobody may change anything meanwhile; returns what was counted.

    Cancelled cleanly: the draft is the caller's to remove. Blocks for the storage; other tasks run between batches.
    """
    writer = ManifestWriter(draft)
    try:
        await _Walk(backend, root, writer).run()
        writer.finish()
    except BaseException:
        writer.discard()
        raise
    return writer


class _Walk:
    def __init__(self, backend: BaseStorageBackend, root: BackendDirectory, writer: ManifestWriter) -> None:
        self._backend = backend
        self._place = Place(backend, root)
        self._writer = writer
        self._waiting: list[tuple[BackendDirectory, bytes, int]] = []

    async def run(self) -> None:
        backend, root = self._backend, self._place.root
        node = await record(backend, root, b"", await backend.get_attributes(root, b""))
        self._writer.add_root(node)
        await self._enter(root, node.attributes.ino)
        while self._waiting:
            above, name, ino = self._waiting.pop()
            with contextlib.suppress(NotFound, NotADirectory, Stale):  # others changed it behind the mount
                await self._enter(await backend.open_directory(above, name, ino), ino)

    async def _enter(self, directory: BackendDirectory, ino: int) -> None:
        names = await self._backend.list_names(directory)
        for batch in in_batches([name for name in names if not self._place.hides(directory, name)]):
            await self._record(directory, ino, await attributes_by_name(self._backend, directory, batch))
            await trio.lowlevel.checkpoint()

    async def _record(
        self, directory: BackendDirectory, parent: int, batch: list[tuple[bytes, FileAttributes]]
    ) -> None:
        entries: list[tuple[bytes, int, ManifestNode | None]] = []
        for name, attributes in batch:
            node = None
            if not self._writer.meet(attributes):
                node = await record(self._backend, directory, name, attributes)
                if node.is_directory:
                    self._waiting.append((directory, name, attributes.ino))
            entries.append((name, attributes.ino, node))
        self._writer.add(parent, entries)


async def record(
    backend: BaseStorageBackend, directory: BackendDirectory, name: bytes, attributes: FileAttributes
) -> ManifestNode:
    """Return what a manifest keeps of an inode as it is now."""
    mode, ino = attributes.mode, attributes.ino
    key = target = None
    xattrs: dict[bytes, bytes] = {}
    if stat.S_ISREG(mode):
        key = backend.key_of_node(directory, name, ino)
    elif stat.S_ISLNK(mode):
        target = await backend.read_link(directory, name, ino)
    if not stat.S_ISLNK(mode):
        xattrs = await read_xattrs(backend, directory, name, ino)
    return ManifestNode(attributes, key, target, tuple(xattrs.items()))


async def read_xattrs(
    backend: BaseStorageBackend, directory: BackendDirectory, name: bytes, ino: int = 0
) -> dict[bytes, bytes]:
    """Return all extended attributes of what stands under a name; none where the backend has no such."""
    found: dict[bytes, bytes] = {}
    if not backend.capabilities.xattrs:
        return found
    for attribute in await backend.list_xattrs(directory, name, ino):
        with contextlib.suppress(NoAttribute):  # of a name space that may be listed and not read
            found[attribute] = await backend.get_xattr(directory, name, ino, attribute)
    return found


def same_content(one: FileAttributes, other: FileAttributes) -> bool:
    """Return whether an inode's content was not changed between two looks at it, as far as attributes tell."""
    return (one.ino, one.size, one.mtime_ns) == (other.ino, other.size, other.mtime_ns)
