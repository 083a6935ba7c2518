"""The changes that a bucket refuses, and contents that nobody had closed or synced when a process died: kept here.

A refused change stays an entry of the overlay, so it is journalled, charged and shown by its name until somebody
decides. What lost its name to another writer's object is an entry under a key aside: journalled and charged, but not
shown. An orphan is a file of ``CACHE/quarantine`` that belongs to no entry.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import trio

from volgate.cache.nodes import ASIDE_PREFIX, detach
from volgate.cache.open_file import CachedFile
from volgate.drivers.report import BackendQuarantine, RefusedChange
from volgate.dto import Usage
from volgate.errors import Busy, InvalidArgument, NotFound, Stale
from volgate.errors.errno_map import from_oserror_at

if TYPE_CHECKING:
    from volgate.cache.backend import CachedBackend
    from volgate.cache.overlay import Entry
    from volgate.drivers.object_store import ObjectInfo, ObjectStore

_ORPHAN: Final = "orphan-"
_NOTHING: Final = Usage(0, 0)
_PIECE_BYTES: Final = 4 << 20
_ERA_LETTERS: Final = 8


class Quarantine(BackendQuarantine):
    """See the module.

    Args:
        backend: open. store: its store, open.
        directory: of the orphans; it need not exist.
    """

    def __init__(self, backend: CachedBackend, store: ObjectStore, directory: Path) -> None:
        self._backend = backend
        self._overlay = backend.overlay
        self._store = store
        self._directory = directory

    def list(self) -> list[RefusedChange]:
        """See BackendQuarantine."""
        found = [
            RefusedChange(
                _name_of(entry), entry.node.size if entry.node is not None else None, entry.since, entry.refused
            )
            for entry in self._overlay.entries.values()
            if entry.refused
        ]
        if self._directory.is_dir():
            for file in os.scandir(self._directory):
                status = file.stat()
                reason = "its writer was neither closed nor synced when the daemon died"
                found.append(RefusedChange(file.name, status.st_size, status.st_mtime, reason, is_orphan=True))
        return sorted(found, key=lambda change: change.since)

    def _find(self, name: str) -> Entry | Path:
        for entry in self._overlay.entries.values():
            if entry.refused and _name_of(entry) == name:
                return entry
        orphan = self._directory / name
        if name.startswith(_ORPHAN) and "/" not in name and orphan.exists():
            return orphan
        raise NotFound(f"'{name}' is not in quarantine")

    async def retry(self, name: str) -> None:
        """See BackendQuarantine; the condition of the upload is the version that the bucket has now."""
        entry = self._find(name)
        if isinstance(entry, Path):
            raise InvalidArgument(f"'{name}' belongs to no file any more: export it, or drop it")
        if entry.key.startswith(ASIDE_PREFIX):
            await self._take_back(entry, name)
            return
        found = await self._ask(name)
        entry.remote_etag = None if found is None else found.etag
        entry.refused, entry.error, entry.failures = "", "", 0
        entry.changes += 1
        self._overlay.change(entry)

    async def _take_back(self, entry: Entry, name: str) -> None:
        """Let a file that was put aside have its name again; what the bucket has there will be replaced."""
        node, key = entry.node, _key_of(entry)
        assert node is not None
        try:
            parent, last = await self._backend.names.find_place(key)
        except NotFound as error:
            raise NotFound(f"'{name}' cannot go back, {error}; make that again, or export the content") from error
        found = await self._ask(key)
        standing = await self._backend.names.find(parent, last)
        if standing is not None and (standing.work is not None or standing.directory is not None):
            raise Busy(f"{key} has changes of its own, or is a directory: move it away, or export the content")
        self._check_still_there(entry, name)
        before = _NOTHING
        if standing is not None:
            before = Usage(max(0, standing.recorded), 1)
            self._overlay.discount(standing)
        self._backend.names.take_back(node, parent, last)
        if node.base_key == key:
            self._overlay.set_base_key(node, None)
        taken = self._overlay.rekey(entry, key)
        taken.remote_etag = None if found is None else found.etag
        self._overlay.record(node)
        self._backend.note_replaced(before, _NOTHING)

    def _check_still_there(self, entry: Entry, name: str) -> None:
        if self._overlay.entries.get(entry.key) is not entry or not entry.refused:
            raise NotFound(f"'{name}' is not in quarantine any more")

    async def _ask(self, key: str) -> ObjectInfo | None:
        try:
            return await self._store.head(key)
        except NotFound:
            return None

    async def export(self, name: str, path: Path) -> None:
        """See BackendQuarantine."""
        entry = self._find(name)
        if isinstance(entry, Path):
            await trio.to_thread.run_sync(partial(_copy_file, entry, path))
            return
        node = entry.node
        if node is None or node.directory is not None:
            raise InvalidArgument(f"'{name}' has no content: it is {'a directory' if node else 'a deletion'}")
        file = CachedFile(self._backend, node)
        try:
            await _write_out(file, node.size, path)
        except Stale as error:
            await trio.Path(path).unlink(missing_ok=True)
            raise Stale(
                f"'{name}' was only changed in part here, and the rest lay in the object that others replaced; an "
                "earlier version of that, where the bucket keeps them, has it"
            ) from error
        finally:
            await file.close()

    async def drop(self, name: str) -> None:
        """See BackendQuarantine."""
        entry = self._find(name)
        if isinstance(entry, Path):
            entry.unlink()
            return
        if entry.key.startswith(ASIDE_PREFIX):
            self._give_up(entry, None)
            return
        found = await self._ask(name)
        if entry.node is not None and entry.node.handles:
            raise Busy(f"'{name}' is open; close it first")
        self._check_still_there(entry, name)
        self._give_up(entry, found)

    def _give_up(self, entry: Entry, found: ObjectInfo | None) -> None:
        """Forget a change, and let its name mean what the bucket has. Without an await since that is known."""
        node = entry.node
        lives_on = node is not None and node.directory is not None and bool(node.directory.children)
        before = Usage(node.recorded, 1) if node is not None and node.recorded >= 0 else _NOTHING
        after = Usage(found.size, 1) if found is not None else Usage(0, 1) if lives_on else _NOTHING
        if node is not None:
            self._overlay.discount(node)
        self._overlay.add_usage(after)
        self._overlay.give_up(entry)
        if node is not None:
            self._overlay.discard_work(node)
            self._overlay.set_base_key(node, None)
            if lives_on:
                node.etag = found.etag if found is not None else None
                node.known, node.recorded = False, 0
            elif node.parent is not None:
                self._backend.names.keep_ino(node)
                detach(node)
        self._overlay.record()
        self._backend.names.refresh()
        self._backend.note_replaced(before, after)


def _key_of(entry: Entry) -> str:
    """Return the key that an entry is, or was before it was put aside."""
    return entry.key[len(ASIDE_PREFIX) :].split("/", 1)[1] if entry.key.startswith(ASIDE_PREFIX) else entry.key


def _name_of(entry: Entry) -> str:
    """Return what people call an entry."""
    if not entry.key.startswith(ASIDE_PREFIX):
        return entry.key
    era, key = entry.key[len(ASIDE_PREFIX) :].split("/", 1)
    return f"{key}@{era[:_ERA_LETTERS]}"


async def _write_out(file: CachedFile, size: int, path: Path) -> None:
    try:
        with _create(path) as out:
            offset = 0
            while offset < size and (data := await file.read(offset, _PIECE_BYTES)):
                await trio.to_thread.run_sync(out.write, data)
                offset += len(data)
    except OSError as error:
        raise from_oserror_at(error) from error


def _copy_file(source: Path, target: Path) -> None:
    try:
        with open(source, "rb") as content, _create(target) as out:
            shutil.copyfileobj(content, out)
    except OSError as error:
        raise from_oserror_at(error) from error


def _create(path: Path) -> BinaryIO:
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))
