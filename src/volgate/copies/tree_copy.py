"""One copy, from looking at its source to showing it.

The source and what is there of the copy are compared, and what differs is made the same; then once more, until nothing
differs: so a copy that was cut off goes on where it was, and one whose source changes meanwhile is found out.
A "copy" is written where nobody sees it, and appears by one rename. A "sync" changes what is there, file by file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from volgate.cache.together import together
from volgate.copies.pacing import Pacer, Progress
from volgate.copies.preflight import Preflight
from volgate.copies.survey import Surveyor, is_kept, usage_of
from volgate.core.inode_table import FIRST_SHOWN_INO
from volgate.core.names import DRAFT_PREFIX, RESERVED_ROOT_NAMES
from volgate.core.sizes import format_count
from volgate.core.tree_diff import is_same_type, what_differs
from volgate.drivers.base import BackendDirectory, exists
from volgate.dto import AsyncCopyContext, FileAttributes, FileTransferMetadata, Usage
from volgate.errors import (
    AlreadyExists,
    AttributeTooLarge,
    Busy,
    FileTooLarge,
    IllegalName,
    InputOutput,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoSpace,
    NotADirectory,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    SourceChanged,
    Stale,
    StorageException,
    TooManyLinks,
    TooManySymlinks,
    Unavailable,
    Unsupported,
)
from volgate.vfs.paths import join
from volgate.vfs.tree_writer import Pair, TreeWriter
from volgate.volume.snapshots.base import Place
from volgate.volume.snapshots.comparing import TreeChange, compare, compare_details, open_directory, settle_links

if TYPE_CHECKING:
    from volgate.copies.request import CopyRequest
    from volgate.core.inode_table import Inode
    from volgate.vfs.file_system import FileSystem

log = logging.getLogger(__name__)

_PASSES: Final = 5
"""How often a source is compared; one that still differs then never stands still."""
_MEANWHILE: Final = (
    AlreadyExists, InvalidArgument, IsADirectory, NotADirectory, NotFound, Stale, TooManySymlinks,
)  # fmt: skip
"""What is raised where one thing was replaced by another while it was looked at."""
_OF_ONE_FILE: Final = (
    QuotaExceeded, NoSpace, InvalidArgument, IllegalName, NameTooLong, AttributeTooLarge, FileTooLarge, TooManyLinks,
    PermissionDenied,
)  # fmt: skip
"""What a target may refuse of one file; it is told which."""
_TRIES: Final = 3
"""How often a file is read that changes meanwhile, before the next pass has it."""
_RESTLESS: Final = "the source changes all the time, faster than it can be copied; copy a snapshot of it"
_PARALLEL: Final = 32
"""Files at once where the storage has to be waited for."""


class Stage:
    """How far a copy has come: durable, so that it can go on after a crash.

    Args:
        name: "new"; "begun": drafts are its own; "hidden": so is what has the target's name, which nobody sees;
            "publishing": it is whole, and perhaps shown already, so that what has the target's name is people's.
        keep: makes another name durable, with the source's number.

    Attributes:
        source_ino: the number of what is copied; 0 = not known, or another in each process.
    """

    def __init__(self, name: str, source_ino: int, keep: Callable[[str, int], Awaitable[None]]) -> None:
        self._name = name
        self._keep = keep
        self.source_ino = source_ino

    @property
    def begun(self) -> bool:
        """Whether anything was written."""
        return self._name != "new"

    @property
    def hidden(self) -> bool:
        """Whether what has the target's name is its own, and not shown."""
        return self._name == "hidden"

    @property
    def publishing(self) -> bool:
        """Whether it may have been shown."""
        return self._name == "publishing"

    async def note(self, name: str) -> None:
        """Note that it came that far, durably; never goes back."""
        if name != self._name and self._name != "publishing":
            await self._keep(name, self.source_ino)
            self._name = name


COUNTS: Final = ("created", "replaced", "removed", "adjusted")


@attrs.frozen
class CopyReport:
    """What a copy did, or would do.

    Attributes:
        created, replaced, removed, adjusted: names, as in a restore's report.
        losses: what the target cannot keep. changed: "", or that the source was another at the end than at first.
    """

    created: int = 0
    replaced: int = 0
    removed: int = 0
    adjusted: int = 0
    losses: tuple[str, ...] = ()
    changed: str = ""


class TreeCopy:
    """Copies one file or tree into a volume.

    Args:
        context: its backends, paths and id; the destination is the file system's volume.
        source: the tree that the context's source path lies in.
        request: how. progress, pacer: told how far it is, and asked whether it may go on.
        stage: how far it had come when it was cut off. counts: by ``COUNTS``, what was done before; it is added to.

    Attributes:
        touched: names that lead to another inode than before, each with its directory's number.
    """

    def __init__(
        self,
        file_system: FileSystem,
        context: AsyncCopyContext,
        source: Place,
        request: CopyRequest,
        progress: Progress,
        pacer: Pacer,
        stage: Stage,
        counts: dict[str, int],
    ) -> None:
        self._fs = file_system
        self._backend = file_system.volume.backend
        self._context = context
        self._source = source
        self._request = request
        self._progress = progress
        self._pacer = pacer
        self._stage = stage
        self._source_path, self._path = (
            b"" if path == "." else os.fsencode(path) for path in (context.source_path, context.destination_path)
        )
        self._counts = counts
        self._preflight = Preflight(file_system.volume, source, request, progress)
        self._changed = ""
        self._live_inodes: dict[int, int] = {}
        self._unkept = ""
        self._made: dict[bytes, tuple[int, int]] = {}
        self.touched: set[tuple[int, bytes]] = set()

    async def run(self) -> CopyReport:
        """Copy, durably: what was acknowledged is in the storage after return. Cancelled, it can be run again.

        Raises:
            NotFound: there is no source, or no directory to copy into. AlreadyExists: the target is there ("copy").
            InvalidArgument: something would be lost, and that was not accepted.
            QuotaExceeded, NoSpace: it does not fit; says how much is missing.
            Busy: the source changes all the time. InputOutput: what was written is not what was read.
        """
        directory, name, top = await self._find_source()
        self._check_identity(top)
        await self._preflight.survey(directory, name, top)
        self._progress.begin(0, 0)
        if self._request.kind == "copy":
            await self._copy(name, top)
        else:
            await self._sync(name, top)
        return CopyReport(**self._counts, losses=self._preflight.losses, changed=self._changed)

    async def _find_source(self) -> tuple[BackendDirectory, bytes, FileAttributes]:
        """Return the directory that has the source, its name there, and what it is. Raises NotFound."""
        above, _, name = self._source_path.rpartition(b"/")
        if self._source_path.split(b"/")[0] in self._source.reserved:
            raise NotFound(f"{self._context.source_path!r} is not the users'")
        try:
            directory = await open_directory(self._source, above)
            return directory, name, await self._source.backend.get_attributes(directory, name)
        except (NotFound, NotADirectory) as error:
            raise NotFound(f"the source has no {self._context.source_path!r}") from error

    def _check_identity(self, top: FileAttributes) -> None:
        """Raise NotFound where another thing has the source's name than when the copy was begun."""
        if self._stage.source_ino not in (0, top.ino):
            raise NotFound(
                "the source is another than when this was begun: is the file system that it lies on mounted? Begin anew"
            )
        if self._source.backend.capabilities.directory_rename and top.ino < FIRST_SHOWN_INO:  # it outlives processes
            self._stage.source_ino = top.ino

    # -- copy ---------------------------------------------------------------------------------------------------

    async def _copy(self, name: bytes, top: FileAttributes) -> None:
        above, _, target = self._path.rpartition(b"/")
        source_above = self._source_path.rpartition(b"/")[0]
        writer = self._writer(in_place=stat.S_ISDIR(top.mode))
        async with self._parent(writer, above) as parent:
            pair = Pair(source_above, above, parent)
            try:
                await (self._copy_tree if stat.S_ISDIR(top.mode) else self._copy_file)(writer, pair, name, target, top)
            except StorageException as error:
                if not error.retryable:
                    await self._discard(writer, parent)
                raise

    @contextlib.asynccontextmanager
    async def _parent(self, writer: TreeWriter, path: bytes) -> AsyncIterator[Inode]:
        """Hold the directory to copy into. Raises NotFound, NotADirectory."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                parent = await stack.enter_async_context(writer.at(path))
            except Stale as error:
                raise NotFound(f"there is no directory {os.fsdecode(path)!r} to copy into") from error
            if not parent.is_directory:
                raise NotADirectory(f"{os.fsdecode(path)!r} is no directory")
            yield parent

    async def _copy_file(self, writer: TreeWriter, pair: Pair, name: bytes, target: bytes, top: FileAttributes) -> None:
        if not self._stage.publishing:
            found = await self._fs.own_names.lookup(pair.live, target)
            if found is None:
                if self._stage.begun:  # what a cut-off left is charged
                    await writer.remove(pair.live, writer.draft_of(target))
                await self._preflight.check_room(Usage(0, 0))
                await self._stage.note("begun")
                if not await self._patiently(partial(writer.create, pair, name, top, target)):
                    raise Busy(_RESTLESS)
            elif not self._stage.begun or (found[1].size, found[1].mtime_ns) != (top.size, top.mtime_ns):
                raise self._taken()
            await self._stage.note("publishing")
        self._counts["created"] += 1
        await self._store()

    async def _copy_tree(self, writer: TreeWriter, pair: Pair, name: bytes, target: bytes, top: FileAttributes) -> None:
        names, parent, draft = self._fs.own_names, pair.live, self._draft_of(target)
        if draft == target and self._stage.publishing:
            return  # it was shown just before this process began
        if draft == target and not self._stage.hidden:
            await self._take_name(parent, target)
        elif draft == target and not self._fs.tree.is_draft(parent, target):
            raise NotFound(f"the directory that {self._context.destination_path!r} was copied into is gone")
        there = await names.lookup(parent, draft)
        if draft != target:
            if await names.lookup(parent, target) is not None:
                if self._stage.publishing and there is None:
                    return  # likewise
                raise self._taken()
            await self._stage.note("begun")
        try:
            await self._preflight.check_room(
                Usage(0, 0) if there is None else await self._survey_draft(parent, draft, there[1])
            )
            if there is None:
                await writer.create(pair, name, top, draft)
            path = join(pair.path, draft)
            await self._make_same(writer, path)
            await writer.adjust(pair, name, top, path)
            await self._note_what_is_there(parent, draft)
            await self._store()
            await self._stage.note("publishing")
            if draft != target:
                await self._show(parent, draft, target)
        finally:
            self.touched.add((parent.ino, target))
        self._fs.tree.show(parent, target)

    async def _take_name(self, parent: Inode, target: bytes) -> None:
        """Make a name the copy's own, seen by nobody, where nothing has it. Raises AlreadyExists: something has."""
        tree = self._fs.tree
        if tree.is_draft(parent, target):  # another copy's, which may not stand there yet
            raise self._taken()
        tree.hide(parent, target)
        try:
            if await self._fs.own_names.lookup(parent, target) is not None:
                raise self._taken()
            await self._stage.note("hidden")
        except BaseException:
            tree.show(parent, target)
            raise

    async def _note_what_is_there(self, parent: Inode, draft: bytes) -> None:
        """Tell what was copied, which may be more or less than there was to be copied at first."""
        found = await self._fs.own_names.lookup(parent, draft)
        if found is None:
            raise Stale("the copy was removed while it was made")
        expected = self._progress.total_files
        await self._survey_draft(parent, draft, found[1])
        self._progress.total_bytes, self._progress.total_files = self._progress.done_bytes, self._progress.done_files
        if expected != self._progress.done_files:
            was, is_ = format_count(expected, "file"), self._progress.done_files
            self._changed = f"the source changed meanwhile: it had {was} at first, and {is_} at the end"

    async def _show(self, parent: Inode, draft: bytes, target: bytes) -> None:
        """Give the draft its name, durably."""
        async with self._fs.turnstile.passed():
            try:
                await self._fs.own_names.rename(parent, draft, parent, target, 0, replaces=False)
            except AlreadyExists as error:
                raise self._taken() from error
        await self._store()

    def _taken(self) -> AlreadyExists:
        return AlreadyExists(
            f"{self._context.destination_path!r} is there already, and a copy replaces nothing: 'sync' does; with a "
            "slash at its end the target is a directory to copy into"
        )

    def _draft_of(self, target: bytes) -> bytes:
        """Return the name that a copy has until it is whole: its own where a directory cannot be renamed at once."""
        if not self._backend.capabilities.directory_rename:
            return target
        return DRAFT_PREFIX + self._context.operation_id.encode()

    async def hide(self) -> None:
        """Hide what is there of a copy that was cut off, before anybody looks. Raises StorageException: not now."""
        above, _, target = self._path.rpartition(b"/")
        if self._stage.hidden:
            with contextlib.suppress(NotADirectory, Stale):  # others took away the directory, and the copy with it
                async with self._writer(in_place=True).at(above) as parent:
                    self._fs.tree.hide(parent, target)

    async def _survey_draft(self, parent: Inode, draft: bytes, attributes: FileAttributes) -> Usage:
        place = Place(self._backend, self._fs.volume.root)
        surveyor = Surveyor(place, self._backend.capabilities)
        await surveyor.look(await self._fs.tree.directory_of(parent), draft, attributes)
        self._progress.begin(surveyor.found.bytes_, surveyor.found.files)
        return usage_of(surveyor.found)

    async def discard(self) -> None:
        """Remove what is there of a copy that is not whole; nothing happens where nothing is."""
        writer = self._writer(in_place=True)
        with contextlib.suppress(NotFound, NotADirectory):
            async with self._parent(writer, self._path.rpartition(b"/")[0]) as parent:
                await self._discard(writer, parent)

    async def _discard(self, writer: TreeWriter, parent: Inode) -> None:
        if not self._stage.begun:
            return  # what is there is another's
        target = self._path.rpartition(b"/")[2]
        draft = self._draft_of(target)
        with trio.CancelScope(shield=True):
            is_own = self._stage.hidden and self._fs.tree.is_draft(parent, target)
            if draft != target or is_own:  # else it is somebody's
                await writer.remove(parent, draft)
            await writer.remove(parent, writer.draft_of(target))
            self._fs.tree.show(parent, target)

    # -- sync ---------------------------------------------------------------------------------------------------

    async def _sync(self, name: bytes, top: FileAttributes) -> None:
        is_directory = stat.S_ISDIR(top.mode)
        writer = self._writer(in_place=False)
        above, _, target = self._path.rpartition(b"/")
        async with self._parent(writer, above) as parent:
            pair = Pair(self._source_path.rpartition(b"/")[0], above, parent)
            there = await self._look(parent, target, is_directory=is_directory)
            await self._stage.note("begun")
            if not is_directory:
                await self._sync_file(writer, pair, name, target, top, there)
                return
            live = None if there is None else await self._live_place(self._path)
            await self._preflight.check_growth(live, partial(self._differences, live))
            if there is None:
                with contextlib.suppress(AlreadyExists):  # others made it meanwhile
                    await writer.create(pair, name, top, target)
                await self._look(parent, target, is_directory=True)
            await self._make_same(writer, self._path)
            if target:  # a volume's own root keeps what it has
                await writer.adjust(pair, name, top, self._path)
        await self._store()

    async def _sync_file(
        self,
        writer: TreeWriter,
        pair: Pair,
        name: bytes,
        target: bytes,
        top: FileAttributes,
        there: FileAttributes | None,
    ) -> None:
        if there is None:
            is_done = await self._patiently(partial(writer.create, pair, name, top, target))
            self._counts["created"] += is_done
        else:
            is_done, what = True, await self._what_differs(name, top, there)
            if "content" in what or (what and there.nlink > 1):  # else other names of it change, too
                is_done = await self._patiently(partial(writer.replace, pair, name, top, target))
                self._counts["replaced"] += is_done
            elif what:
                await writer.adjust(pair, name, top, self._path)
                self._counts["adjusted"] += 1
        if not is_done:
            raise Busy(_RESTLESS)
        await self._store()

    async def plan(self) -> list[TreeChange]:
        """Return what a sync would change; nothing is changed. Raises as the sync."""
        directory, name, top = await self._find_source()
        await self._preflight.survey(directory, name, top)
        is_directory = stat.S_ISDIR(top.mode)
        above, _, target = self._path.rpartition(b"/")
        async with self._parent(self._writer(in_place=False), above) as parent:
            there = await self._look(parent, target, is_directory=is_directory)
        if not is_directory:
            if there is None:
                return [TreeChange(b"", "removed", top, None)]
            what = await self._what_differs(name, top, there)
            return [TreeChange(b"", "changed", top, there, what)] if what else []
        live = None if there is None else await self._live_place(self._path)
        async with contextlib.aclosing(self._differences(live)) as changes:
            found, _ = await settle_links(changes)
        replaced = {change.path for change in found if change.kind == "removed"}
        for change in found:
            if change.kind == "added" and change.path in replaced:
                self._check_replaceable(change)
        await self._preflight.check_growth(live, partial(self._differences, live))
        return [c for c in found if c.kind != "added" or self._request.delete or c.path in replaced]

    async def _what_differs(self, name: bytes, top: FileAttributes, there: FileAttributes) -> tuple[str, ...]:
        """Return in what a file that is synced alone differs; its name may be another here."""
        if not is_same_type(top, there):
            return ("content",)
        source = self._source, await open_directory(self._source, self._source_path.rpartition(b"/")[0]), name
        above, _, target = self._path.rpartition(b"/")
        live = Place(self._backend, self._fs.volume.root)
        other = live, await open_directory(live, above), target
        content, xattrs = await compare_details(source, other, top, self._keeps)
        found = what_differs(top, there, content=content, xattrs=xattrs, directory_times=False)
        return tuple(name for name in found if name not in self._ignored)

    async def _look(self, parent: Inode, target: bytes, *, is_directory: bool) -> FileAttributes | None:
        """Return what stands where a sync goes. Raises NotADirectory, InvalidArgument: it cannot go there."""
        if not target:
            if not is_directory:
                raise InvalidArgument("a file needs a name in the volume")
            return await self._fs.attributes.get(parent)
        found = await self._fs.own_names.lookup(parent, target)
        if found is not None and found[0].is_directory != is_directory:
            place = self._context.destination_path
            if is_directory:
                raise NotADirectory(f"the source is a directory, and {place!r} is none")
            raise NotADirectory(
                f"{place!r} is a directory, and the source is none: say {place + '/'!r} to sync into it"
            )
        return None if found is None else found[1]

    # -- making the same ----------------------------------------------------------------------------------------

    def _writer(self, *, in_place: bool) -> TreeWriter:
        writer = TreeWriter(
            self._fs, self._source, self._context.operation_id,
            in_place=in_place, pace=self._pacer.passed, on_file=self._note_file,
        )  # fmt: skip
        writer.touched = self.touched
        return writer

    def _note_file(self, moved: FileTransferMetadata) -> None:
        self._progress.done_files += 1
        self._progress.path = moved.source_path
        if log.isEnabledFor(logging.DEBUG):
            log.debug("copied", extra=attrs.asdict(moved))

    async def _live_place(self, path: bytes) -> Place:
        root = await open_directory(Place(self._backend, self._fs.volume.root), path)
        return Place(self._backend, root, reserved=frozenset() if path else RESERVED_ROOT_NAMES)

    async def _source_place(self) -> Place:
        root = await open_directory(self._source, self._source_path)
        reserved = frozenset[bytes]() if self._source_path else self._source.reserved
        return Place(self._source.backend, root, reserved=reserved)

    async def _differences(self, live: Place | None) -> AsyncGenerator[TreeChange, None]:
        source, target = self._source.backend.capabilities, self._backend.capabilities
        changes = compare(
            await self._source_place(), live, {},
            directory_times=source.directory_times and target.directory_times,
            of_one_volume=False, links=target.hard_links, below_added=False, keeps=self._keeps,
        )  # fmt: skip
        async with contextlib.aclosing(changes):
            async for change in changes:
                if change.kind != "changed":
                    yield change
                elif what := tuple(name for name in change.what if name not in self._ignored):
                    yield attrs.evolve(change, what=what)

    def _keeps(self, xattr: bytes) -> bool:
        return is_kept(self._source.backend.capabilities, xattr) and is_kept(self._backend.capabilities, xattr)

    @property
    def _ignored(self) -> frozenset[str]:
        """In what a file may differ that one of the ends cannot keep."""
        is_kept_here = self._source.backend.capabilities.ownership and self._backend.capabilities.ownership
        return frozenset() if is_kept_here else frozenset({"owner"})

    async def _make_same(self, writer: TreeWriter, path: bytes) -> None:
        """Compare and change until nothing differs.

        Raises:
            Busy: it never ends. Unsupported: what is written is another when it is read, as a time beyond what a file
            system can store.
        """
        self._made.clear()
        for number in range(1, _PASSES + 1):
            await self._check_source()
            try:
                if not await self._pass(writer, path, await self._live_place(path)):
                    return
            except _MEANWHILE as error:  # of the source, most likely: it changes
                if number == _PASSES:
                    raise
                log.info("the source changed while it was copied", extra={"error": str(error)})
        if self._unkept:
            raise Unsupported(f"the target does not keep {self._unkept}: leave that out")
        raise Busy(_RESTLESS)

    async def _check_source(self) -> None:
        """Raise NotFound where the source as a whole is gone: a snapshot that is may still be seen, as empty."""
        snapshot_id = self._request.snapshot_id
        try:
            is_there = not snapshot_id or await self._fs.volume.snapshots.open(snapshot_id) is self._source
            if is_there:
                place = await self._source_place()
                is_there = (await place.backend.get_attributes(place.root, b"")).nlink > 0
        except (NotFound, NotADirectory, Stale):
            is_there = False
        if not is_there:
            raise NotFound("the source was taken away while it was copied")

    async def _pass(self, writer: TreeWriter, path: bytes, live: Place) -> bool:
        """Make the same what differs; returns whether anything did."""
        directories: dict[bytes, FileAttributes] = {}
        changed = False
        self._unkept = ""
        batch: list[TreeChange] = []
        self._live_inodes.clear()
        writer.links.clear()
        async with contextlib.aclosing(self._differences(live)) as changes:
            async for change in changes:
                if change.path == b"":
                    continue  # the caller's
                changed |= change.kind not in ("linked", "added")
                if change.kind == "changed" and change.before is not None:
                    self._look_again(change, change.before)
                if batch and _above(batch[-1].path) != _above(change.path):
                    changed |= await self._apply(writer, path, batch, directories)
                    batch = []
                batch.append(change)
        if batch:
            changed |= await self._apply(writer, path, batch, directories)
        for below in sorted(directories, key=lambda below: -below.count(b"/")):
            above, _, name = below.rpartition(b"/")
            async with writer.within(join(self._source_path, above), join(path, above)) as pair:
                await writer.adjust(pair, name, directories[below], join(path, below))
        return changed

    def _look_again(self, change: TreeChange, was: FileAttributes) -> None:
        """Note what differs though it was made the same and its source is as it was: the target has another."""
        if self._made.get(change.path) == (was.ino, was.ctime_ns) and not self._unkept:
            what = " and ".join(name for name in change.what if name != "content") or "content"
            self._unkept = f"the {what} of {os.fsdecode(change.path)!r}"

    async def _apply(
        self, writer: TreeWriter, path: bytes, batch: list[TreeChange], directories: dict[bytes, FileAttributes]
    ) -> bool:
        """Make one directory's differences the same; returns whether something was removed or linked anew."""
        above = _above(batch[0].path)
        is_changed = False
        if above:
            directory = await open_directory(self._source, join(self._source_path, above))
            directories.setdefault(above, await self._source.backend.get_attributes(directory, b""))
        async with writer.within(join(self._source_path, above), join(path, above)) as pair:
            wanted = {change.path for change in batch if change.kind == "removed"}
            gone = [c for c in batch if c.kind == "added" and (self._deletes or c.path in wanted)]
            for change in gone:
                self._check_replaceable(change)
            if self._deletes and gone:
                await self._check_source()
            for change in gone:
                await writer.remove(pair.live, _name(change.path))
                self._counts["removed"] += 1
                is_changed = True
            files, later = list[TreeChange](), list[TreeChange]()
            for change in batch:
                was = change.before
                if was is None:
                    continue
                if stat.S_ISDIR(was.mode):
                    directories[change.path] = was
                    await self._change(writer, pair, change)
                else:
                    is_linked = was.nlink > 1 or (change.after is not None and change.after.nlink > 1)
                    (later if is_linked else files).append(change)
            if self._parallel == 1:
                for change in files:
                    await self._change(writer, pair, change)
            else:
                await together(*(partial(self._change, writer, pair, change) for change in files), limit=self._parallel)
            for change in later:
                is_changed |= await self._change_link(writer, pair, change)
        return is_changed

    @property
    def _deletes(self) -> bool:
        """Whether what the source does not have, or has no longer, is removed: a draft is nobody's."""
        return self._request.delete or self._request.kind == "copy"

    @property
    def _parallel(self) -> int:
        is_local = self._source.backend.capabilities.inline_io and self._backend.capabilities.inline_io
        return 1 if is_local else _PARALLEL

    def _check_replaceable(self, change: TreeChange) -> None:
        if change.after is not None and stat.S_ISDIR(change.after.mode) and not self._deletes:
            raise InvalidArgument(
                f"{os.fsdecode(change.path)!r} is a directory here and none in the source; --delete replaces it"
            )

    async def _change(self, writer: TreeWriter, pair: Pair, change: TreeChange) -> None:
        was, name = change.before, _name(change.path)
        assert was is not None
        try:
            if change.kind == "removed":
                try:
                    await self._patiently(partial(writer.create, pair, name, was))
                    self._counts["created"] += 1
                except AlreadyExists:  # others made it meanwhile; the next pass compares it
                    if self._request.kind == "copy":
                        raise
                    self._unkept = self._unkept or f"the name {os.fsdecode(change.path)!r}"
                return
            if "content" in change.what:
                if self._request.kind == "copy" and change.after is not None and stat.S_ISREG(change.after.mode):
                    self._progress.take_back(change.after.size)
                if await self._patiently(partial(writer.replace, pair, name, was)):
                    self._made[change.path] = was.ino, was.ctime_ns
                self._counts["replaced"] += 1
                return
        except _OF_ONE_FILE as error:
            raise type(error)(f"{os.fsdecode(change.path)!r}: {error}") from error
        if not stat.S_ISDIR(was.mode):
            await writer.adjust(pair, name, was, join(pair.path, name))
            self._made[change.path] = was.ino, was.ctime_ns
            self._counts["adjusted"] += 1

    async def _change_link(self, writer: TreeWriter, pair: Pair, change: TreeChange) -> bool:
        """Make what has several names, there or here, the same; returns whether names had to be joined or parted."""
        was, is_, name = change.before, change.after, _name(change.path)
        assert was is not None
        if is_ is None or "content" in change.what:
            await self._change(writer, pair, change)
            return False
        if was.nlink > 1 and was.ino in writer.links:
            is_right = self._live_inodes.get(is_.ino) == was.ino
        else:
            is_right = self._live_inodes.setdefault(is_.ino, was.ino) == was.ino
        if not is_right or (change.kind == "changed" and is_.nlink > was.nlink):  # else other names change with it
            await self._patiently(partial(writer.replace, pair, name, was))
            self._counts["replaced"] += 1
            return True
        if was.nlink > 1:
            writer.links.setdefault(was.ino, join(pair.path, name))
        if change.kind == "changed":
            await self._change(writer, pair, change)
        return False

    async def _patiently(self, call: Callable[[], Awaitable[None]]) -> bool:
        """Run what reads a file, again where that changed meanwhile; returns False where it does not stand still."""
        await self._pacer.wait()
        for _ in range(_TRIES):
            with contextlib.suppress(SourceChanged):
                await call()
                return True
        return False

    async def _store(self) -> None:
        """Return when all is in the storage.

        Raises:
            InputOutput: it refuses something of the copy for good. Unavailable: it did not take all of it yet.
        """
        with contextlib.suppress(Unsupported):
            await self._backend.sync_volume()
        if not await self._backend.drain():
            return
        left = [refused for path, refused in self._backend.unstored(self._path) if await self._has_source(path)]
        if any(left):
            refused = format_count(sum(left), "file")
            raise InputOutput(f"the storage refuses {refused} of it; see 'volgate quarantine list' and the log")
        if left:
            report = self._backend.report()
            why = report.last_error if report else ""
            raise Unavailable("the storage does not take all of it yet" + (f": {why}" if why else ""))

    async def _has_source(self, path: bytes) -> bool:
        """Return whether the source has what stands at a path of the target: else that is of others."""
        above, _, name = join(self._source_path, path[len(self._path) :].lstrip(b"/")).rpartition(b"/")
        try:
            directory = await open_directory(self._source, above)
            return await exists(self._source.backend, directory, name)
        except (NotFound, NotADirectory):
            return False


def _above(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]
