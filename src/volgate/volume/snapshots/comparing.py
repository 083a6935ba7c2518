"""The differences between two trees: of two snapshots, or of a snapshot and the volume as it is."""

from __future__ import annotations

import contextlib
import stat
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Set
from typing import Final, Literal

import attrs
import trio

from volgate.concurrency import give_turn, note_progress
from volgate.core.tree_diff import LinkGroups, is_same_type, is_untouched, pair_names, what_differs
from volgate.drivers.base import BackendDirectory, attributes_by_name, in_batches
from volgate.dto import FileAttributes
from volgate.errors import NotADirectory, NotFound, Stale
from volgate.volume.snapshots.base import Place
from volgate.volume.snapshots.recording import read_xattrs

_CHUNK_BYTES: Final = 1 << 20
_UNDONE: Final[dict[str, Literal["added", "removed", "changed"]]] = {
    "added": "removed", "removed": "added", "changed": "changed", "linked": "changed",
}  # fmt: skip


@attrs.frozen
class TreeChange:
    """What happened to one path on the way from one tree to the other.

    Attributes:
        path: names joined by ``/``, as bytes.
        kind: "added" and "removed" are said of everything below a directory too, parents first. "linked" is said of
            what is the same, and has several names in one of the trees.
        before, after: its attributes; None where it is not.
        what: of "changed": which of content, mode, owner, mtime, xattrs and links: other names lead to the same inode.
    """

    path: bytes
    kind: Literal["added", "removed", "changed", "linked"]
    before: FileAttributes | None
    after: FileAttributes | None
    what: tuple[str, ...] = ()

    @property
    def replaces(self) -> bool:
        """Whether what stands there later is replaced where it is made like the earlier."""
        return self.kind == "changed" and not {"content", "links"}.isdisjoint(self.what)

    @property
    def undone(self) -> Literal["added", "removed", "changed"]:
        """What becomes of the later one where it is made like the earlier."""
        return _UNDONE[self.kind]


async def compare(
    before: Place,
    after: Place | None,
    changed: Mapping[int, bytes | None],
    path: bytes = b"",
    *,
    directory_times: bool = False,
    of_one_volume: bool = True,
    keeps: Callable[[bytes], bool] | None = None,
    links: bool = False,
    below_added: bool = True,
    only: bytes | None = None,
) -> AsyncGenerator[TreeChange, None]:
    """Yield what differs, directory by directory, and of the first one itself.

    Args:
        after: None = nothing is there, so all of ``before`` was removed.
        changed: inodes of ``before`` that are known to have changed since, though size and mtime may be the same; each
            with its key, since its number may be another's by now.
        path: of a directory that both have, to begin with; b"" = the root.
        directory_times: see ``what_differs``.
        of_one_volume: else nothing is known to be the same without looking.
        keeps: which extended attributes count; None = all.
        links: say also which names of several are the same.
        below_added: say of all below what was added that it was, too.
        only: the one name of the first directory to look at; None = all.

    Of one volume, a name that leads to another file than before is told by its content, where size and mtime are the
    same. What comes and goes in ``after`` meanwhile is told as it was when it was looked at.

    Blocks for the storage; other tasks run between directories.
    """
    old_root = await open_directory(before, path)
    new_root = None if after is None else await open_directory(after, path)
    old: BackendDirectory | None
    new: BackendDirectory | None

    async def compare_one(
        old: BackendDirectory, new: BackendDirectory, name: bytes, was: FileAttributes, is_: FileAttributes
    ) -> tuple[str, ...]:
        assert after is not None
        is_same = stat.S_ISREG(was.mode) and was.ino == is_.ino and was.ino in changed
        is_changed = is_same and after.backend.key_of_node(new, name, is_.ino) == changed[was.ino]
        if not is_changed and is_untouched(was, is_):
            return ()
        try:
            content, xattrs = await compare_details((before, old, name), (after, new, name), was, keeps)
        except Stale:  # of an inode whose attributes are lost: nobody knows that it is the same
            return ("content", "xattrs") if stat.S_ISREG(was.mode) else ("xattrs",)
        found = what_differs(was, is_, content=content or is_changed, xattrs=xattrs, directory_times=directory_times)
        if of_one_volume and stat.S_ISREG(was.mode) and was.size and "content" not in found:
            tags = before.backend.content_tag(old, name, was), after.backend.content_tag(new, name, is_)
            if tags[0] != tags[1] and not await _have_same_content((before, old), (after, new), name, was, is_):
                return ("content", *found)
        return found

    async def after_has(directory: BackendDirectory, name: bytes) -> bool:
        assert after is not None
        with contextlib.suppress(NotFound, NotADirectory):
            return await after.backend.find_attributes(directory, name) is not None
        return False

    was_root = await before.backend.get_attributes(old_root, b"")
    if after is None or new_root is None:
        yield TreeChange(path, "removed", was_root, None)
    else:
        is_root = await after.backend.get_attributes(new_root, b"")
        if what := await compare_one(old_root, new_root, b"", was_root, is_root):
            yield TreeChange(path, "changed", was_root, is_root, what)
    waiting: list[tuple[bytes, _Below, _Below]] = []
    above, old, new = path, old_root, new_root
    while True:
        of_old, of_new = await _entries_that_may_differ((before, old), (after, new), marked=of_one_volume)
        for name, was, is_ in pair_names(of_old, of_new):
            if only is not None and name != only:
                continue
            here = above + b"/" + name if above else name
            if old and was and new and is_ and is_same_type(was, is_):
                try:
                    what = await compare_one(old, new, name, was, is_)
                except NotFound:
                    if await after_has(new, name):
                        raise
                    yield TreeChange(here, "removed", was, None)
                    continue
                if what:
                    yield TreeChange(here, "changed", was, is_, what)
                elif links and not _is_directory(was) and max(was.nlink, is_.nlink) > 1:
                    yield TreeChange(here, "linked", was, is_)
            else:
                if was is not None:
                    yield TreeChange(here, "removed", was, None)
                if is_ is not None:
                    yield TreeChange(here, "added", None, is_)
            if _is_directory(was) or (_is_directory(is_) and below_added):
                waiting.append((here, (old, name, was), (new, name, is_)))
        await trio.lowlevel.checkpoint()
        if not waiting:
            return
        only = None
        above, below_old, below_new = waiting.pop()
        old, new = await _open_below(before, below_old), None
        with contextlib.suppress(NotFound, NotADirectory):  # it went, or was replaced, meanwhile
            new = await _open_below(after, below_new)


async def compare_at(
    before: Place, after: Place, changed: Mapping[int, bytes | None], path: bytes
) -> AsyncGenerator[TreeChange, None]:
    """Yield what differs at one name, which need be no directory, and below it, and its links. See ``compare``."""
    above, _, name = path.rpartition(b"/")
    where: Place | None = after
    try:
        await open_directory(after, above)
    except (NotFound, NotADirectory):
        where = None
    async for change in compare(before, where, changed, above, only=name, links=True):
        if (change.path + b"/").startswith(path + b"/"):
            yield change


async def settle_links(
    changes: AsyncIterable[TreeChange], own_links: Callable[[int], int] | None = None
) -> tuple[list[TreeChange], dict[int, bytes]]:
    """Return the changes, of which "linked" is said only where names lead to one inode in one of the trees alone.

    And, of inodes that have several names in the earlier tree, one where the later tree has the same content.

    Args:
        own_links: how many names an inode of the later tree has that are no user's. Where it is given, the trees are
            parts of others, and "links" is said also where a change would reach names that lie outside, or an inode
            has such in the later one alone.
    """
    seen = [change async for change in changes]
    named_before = Counter(was.ino for change in seen if (was := change.before) is not None and _has_several(was))
    named_after = Counter(is_.ino for change in seen if (is_ := change.after) is not None and _has_several(is_))

    def reaches_out(change: TreeChange, was: FileAttributes, is_: FileAttributes) -> bool:
        if own_links is None or is_.nlink - own_links(is_.ino) <= max(1, named_after[is_.ino]):
            return False
        return change.kind == "changed" or was.nlink <= max(1, named_before[was.ino])

    groups, found, links = LinkGroups(), list[TreeChange](), dict[int, bytes]()
    for change in seen:
        was, is_ = change.before, change.after
        if was is None or is_ is None or "content" in change.what or not (_has_several(was) or _has_several(is_)):
            found.append(change)
        elif reaches_out(change, was, is_) or not groups.agree(was.ino, is_.ino):
            found.append(attrs.evolve(change, kind="changed", what=(*change.what, "links")))
        else:
            if was.nlink > 1:
                links.setdefault(was.ino, change.path)
            if change.kind != "linked":
                found.append(change)
    return found, links


def _has_several(attributes: FileAttributes) -> bool:
    """Return whether an inode that is no directory has several names."""
    return attributes.nlink > 1 and not stat.S_ISDIR(attributes.mode)


_Below = tuple[BackendDirectory | None, bytes, FileAttributes | None]
"""Where a directory lies, to be opened when its turn comes: there may be more than descriptors."""


async def compare_details(
    before: tuple[Place, BackendDirectory, bytes],
    after: tuple[Place, BackendDirectory, bytes],
    was: FileAttributes,
    keeps: Callable[[bytes], bool] | None,
) -> tuple[bool, bool]:
    """Return whether two symlinks lead elsewhere, and whether the extended attributes of two other inodes differ."""
    (old, in_old, name), (new, in_new, new_name) = before, after
    if stat.S_ISLNK(was.mode):
        return await old.backend.read_link(in_old, name, 0) != await new.backend.read_link(in_new, new_name, 0), False
    of_old, of_new = await read_xattrs(old.backend, in_old, name), await read_xattrs(new.backend, in_new, new_name)
    if keeps is not None:
        of_old, of_new = ({key: found[key] for key in found if keeps(key)} for found in (of_old, of_new))
    return False, of_old != of_new


async def _have_same_content(
    before: tuple[Place, BackendDirectory],
    after: tuple[Place, BackendDirectory],
    name: bytes,
    was: FileAttributes,
    is_: FileAttributes,
) -> bool:
    """Return whether two regular files of one size have the same bytes; those that are lost are not the same."""
    (old, in_old), (new, in_new) = before, after
    async with contextlib.AsyncExitStack() as stack:
        try:
            one, _ = await old.backend.open_file(in_old, name, was.ino, writable=False)
            stack.push_async_callback(one.close)
            other, _ = await new.backend.open_file(in_new, name, is_.ino, writable=False)
            stack.push_async_callback(other.close)
            for start in range(0, was.size, _CHUNK_BYTES):
                if await one.read(start, _CHUNK_BYTES) != await other.read(start, _CHUNK_BYTES):
                    return False
                note_progress()
                await give_turn()
        except Stale:
            return False
    return True


async def open_directory(place: Place, path: bytes) -> BackendDirectory:
    """Return the directory of a path. Raises NotFound, NotADirectory."""
    directory = place.root
    for name in path.split(b"/") if path else []:
        directory = await place.backend.open_directory(directory, name, 0)
    return directory


def _is_directory(attributes: FileAttributes | None) -> bool:
    return attributes is not None and stat.S_ISDIR(attributes.mode)


async def _open_below(place: Place | None, below: _Below) -> BackendDirectory | None:
    above, name, attributes = below
    if place is None or above is None or attributes is None or not _is_directory(attributes):
        return None
    return await place.backend.open_directory(above, name, attributes.ino)


_Entries = dict[bytes, FileAttributes]


async def _entries_that_may_differ(
    before: tuple[Place, BackendDirectory | None], after: tuple[Place | None, BackendDirectory | None], *, marked: bool
) -> tuple[_Entries, _Entries]:
    """Return what stands in a directory of either tree, but for what is known to be the same without asking."""
    (old, in_old), (new, in_new) = before, after
    of_old, of_new = await _names(old, in_old), await _names(new, in_new)
    if marked and new is not None and in_old is not None and in_new is not None:
        both = sorted(of_old & of_new)
        marks = zip(both, old.backend.marks_of(in_old, both), new.backend.marks_of(in_new, both), strict=True)
        same = {name for name, one, other in marks if one is not None and one == other}
        of_old, of_new = of_old - same, of_new - same
    return await _entries(old, in_old, of_old), await _entries(new, in_new, of_new)


async def _names(place: Place | None, directory: BackendDirectory | None) -> set[bytes]:
    if place is None or directory is None:
        return set()
    return {name for name in await place.backend.list_names(directory) if not place.hides(directory, name)}


async def _entries(place: Place | None, directory: BackendDirectory | None, names: Set[bytes]) -> _Entries:
    found: _Entries = {}
    if place is not None and directory is not None:
        for batch in in_batches(sorted(names)):
            found.update(await attributes_by_name(place.backend, directory, batch))
    return found
