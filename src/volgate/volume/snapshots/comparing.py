"""The differences between two trees: of two snapshots, or of a snapshot and the volume as it is."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Callable
from typing import Final, Literal

import attrs
import trio

from volgate.core.names import RESERVED_ROOT_NAMES
from volgate.core.tree_diff import is_same_type, is_untouched, pair_names, what_differs
from volgate.drivers.base import BackendDirectory, BaseStorageBackend
from volgate.dto import FileAttributes
from volgate.errors import NoAttribute

_BATCH: Final = 512


@attrs.frozen
class Place:
    """A tree. Attributes: backend: whose calls work in it. root: its root."""

    backend: BaseStorageBackend
    root: BackendDirectory


@attrs.frozen
class TreeChange:
    """What happened to one path on the way from one tree to the other.

    Attributes:
        path: names joined by ``/``, as bytes.
        kind: "added" and "removed" are said of everything below a directory too, parents first.
        before, after: its attributes; None where it is not.
        what: of "changed": which of content, mode, owner, mtime and xattrs.
    """

    path: bytes
    kind: Literal["added", "removed", "changed"]
    before: FileAttributes | None
    after: FileAttributes | None
    what: tuple[str, ...] = ()


async def compare(
    before: Place, after: Place, is_kept: Callable[[int], bool], path: bytes = b"", *, directory_times: bool = False
) -> AsyncIterator[TreeChange]:
    """Yield what differs, directory by directory.

    Args:
        is_kept: whether an inode of ``before`` is known to have changed since, though size and mtime may be the same.
        path: of a directory that both have, to begin with; b"" = the root.
        directory_times: see ``what_differs``.

    Blocks for the storage; other tasks run between directories.
    """
    waiting: list[tuple[bytes, BackendDirectory | None, BackendDirectory | None]] = [
        (path, await open_directory(before, path), await open_directory(after, path))
    ]
    while waiting:
        above, old, new = waiting.pop()
        of_old, of_new = await _entries(before, old), await _entries(after, new)
        for name, was, is_ in pair_names(of_old, of_new):
            here = above + b"/" + name if above else name
            if was is not None and is_ is not None and is_same_type(was, is_):
                change = await _compare_one(
                    before, after, (old, new), name, (was, is_), is_kept, directory_times=directory_times
                )
                if change is not None:
                    yield attrs.evolve(change, path=here)
            else:
                if was is not None:
                    yield TreeChange(here, "removed", was, None)
                if is_ is not None:
                    yield TreeChange(here, "added", None, is_)
            below_old = await _below(before, old, name, was)
            below_new = await _below(after, new, name, is_)
            if below_old is not None or below_new is not None:
                waiting.append((here, below_old, below_new))
        await trio.lowlevel.checkpoint()


async def _compare_one(
    before: Place,
    after: Place,
    directories: tuple[BackendDirectory | None, BackendDirectory | None],
    name: bytes,
    found: tuple[FileAttributes, FileAttributes],
    is_kept: Callable[[int], bool],
    *,
    directory_times: bool,
) -> TreeChange | None:
    was, is_ = found
    old, new = directories
    assert old is not None
    assert new is not None
    kept = stat.S_ISREG(was.mode) and was.ino == is_.ino and is_kept(was.ino)
    if not kept and is_untouched(was, is_):
        return None
    content = kept
    if stat.S_ISLNK(was.mode):
        content = await before.backend.read_link(old, name, 0) != await after.backend.read_link(new, name, 0)
        xattrs = False
    else:
        xattrs = await read_xattrs(before, old, name) != await read_xattrs(after, new, name)
    what = what_differs(was, is_, content=content, xattrs=xattrs, directory_times=directory_times)
    return TreeChange(name, "changed", was, is_, what) if what else None


async def open_directory(place: Place, path: bytes) -> BackendDirectory:
    """Return the directory of a path. Raises NotFound, NotADirectory."""
    directory = place.root
    for name in path.split(b"/") if path else []:
        directory = await place.backend.open_directory(directory, name, 0)
    return directory


async def read_xattrs(place: Place, directory: BackendDirectory, name: bytes) -> dict[bytes, bytes]:
    """Return all extended attributes of what stands under a name."""
    found: dict[bytes, bytes] = {}
    if not place.backend.capabilities.xattrs:
        return found
    for attribute in await place.backend.list_xattrs(directory, name, 0):
        try:
            found[attribute] = await place.backend.get_xattr(directory, name, 0, attribute)
        except NoAttribute:  # of a name space that may be listed and not read
            continue
    return found


async def _below(
    place: Place, directory: BackendDirectory | None, name: bytes, attributes: FileAttributes | None
) -> BackendDirectory | None:
    if directory is None or attributes is None or not stat.S_ISDIR(attributes.mode):
        return None
    return await place.backend.open_directory(directory, name, attributes.ino)


async def _entries(place: Place, directory: BackendDirectory | None) -> dict[bytes, FileAttributes]:
    if directory is None:
        return {}
    hidden = place.backend.capabilities.magic_names
    if directory is place.root:
        hidden = hidden | RESERVED_ROOT_NAMES
    names = [name for name in await place.backend.list_names(directory) if name not in hidden]
    found: dict[bytes, FileAttributes] = {}
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        attributes = await place.backend.get_attributes_of(directory, batch)
        found.update({name: each for name, each in zip(batch, attributes, strict=True) if each is not None})
    return found
