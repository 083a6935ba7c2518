"""The driver of ``hammerspace://``: data in the locally mounted share, in threads; control calls to the Anvil on trio.

The data path needs no Anvil: a mount goes on while it is away. Control calls never run in the threads of the data.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs
import trio

from volgate.core.sizes import format_size
from volgate.drivers.base import (
    BackendDirectory,
    BaseStorageBackend,
    Capabilities,
    NativeQuota,
    NativeSnapshot,
    StorageInspection,
)
from volgate.drivers.hammerspace.anvil import Anvil
from volgate.drivers.hammerspace.file_snapshot import FileSnapshotTree, StepDirectory
from volgate.drivers.hammerspace.settings import HammerspaceSettings
from volgate.drivers.hammerspace.share_directory import FILE_SNAPSHOTS, SNAPSHOTS, ShareDirectory, SnapshotDirectory
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.dto import VolumeOperationContext
from volgate.errors import AlreadyExists, NotADirectory, NotFound, StorageException

log = logging.getLogger(__name__)

_ALIASES: Final = "snapshots.json"
_FILES: Final = "file-snapshots.json"
_APART_S: Final = 1.1
"""Between two snapshots of files: the Anvil deletes those of a file by the second in which they were taken."""
_UNDO_S: Final = 30
_TIME: Final = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[T_-]?(\d\d)[-:]?(\d\d)[-:]?(\d\d)")


@attrs.frozen
class _OfFile:
    """A snapshot of a file.

    Attributes:
        path: of the file when it was taken. made: where the Anvil put it; both relative to the share.
    """

    path: str = attrs.field(validator=attrs.validators.instance_of(str))
    made: str = attrs.field(validator=attrs.validators.matches_re("(?s).+/[^/]+"))

    @property
    def folder(self) -> str:
        """Where the snapshots of the file lie."""
        return self.made.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The snapshot's, there."""
        return self.made.rpartition("/")[2]


class HammerspaceBackend(ThreadedBackend):  # type: ignore[misc]
    """A volume in a share.

    Args:
        settings: which share, mounted where. anvil: whom to ask; made of the settings.
    """

    def __init__(self, settings: HammerspaceSettings, anvil: Anvil | None = None) -> None:
        path = settings.mount_path
        hint = f"mount it (mount -t nfs DATA-PORTAL:/{settings.share} {path}), or say where it is with mount_path="
        super().__init__(ShareDirectory(path, hint))
        self._settings = settings
        self._aliasing = trio.Lock()
        self._next_at = -math.inf
        self._has_login = settings.credentials_file is not None
        self._anvil = anvil or Anvil(settings)

    @classmethod
    def from_source(cls, source: str, options: Mapping[str, str]) -> BaseStorageBackend:
        """Return the backend of ``hammerspace://ANVIL[:PORT]/SHARE``; nothing is asked yet. Raises BadConfiguration."""
        made: BaseStorageBackend = cls(HammerspaceSettings.from_source(source, options))
        return made

    @property
    def capabilities(self) -> Capabilities:
        """See BaseStorageBackend; without a login the share is a directory only."""
        found: Any = super().capabilities
        able = self._has_login
        told: Capabilities = attrs.evolve(
            found,
            native_quota=able,
            native_snapshots=able,
            file_snapshots=able,
            magic_names=frozenset({FILE_SNAPSHOTS}),
        )
        return told

    async def create_volume(self, context: VolumeOperationContext) -> None:
        """See BaseStorageBackend. The share has to be mounted afterwards. Raises AlreadyExists: it is another's."""
        await self._anvil.create_share(context.volume_id)

    async def delete_volume(self, context: VolumeOperationContext) -> None:
        """See BaseStorageBackend."""
        await self._anvil.delete_share(context.volume_id)

    async def get_native_quota(self) -> NativeQuota:
        """See BaseStorageBackend; shares have no limit of inodes."""
        return NativeQuota(await self._anvil.read_limit(), None)

    async def set_native_quota(self, quota: NativeQuota) -> None:
        """See BaseStorageBackend. Raises PermissionDenied: the share was not made by volgate."""
        await self._anvil.resize_share(quota.bytes_)

    async def inspect(self) -> StorageInspection:
        """See BaseStorageBackend: what the Anvil says of the share, mounted or not."""
        if not self._has_login:
            why = "credentials_file= names no login, so the Anvil is not asked: it sets no limit and takes no snapshots"
            return StorageInspection(missing=(why,))
        try:
            share, free_bytes = await self._anvil.describe_share(), await self._anvil.read_free_bytes()
        except StorageException as error:
            return StorageInspection(missing=(str(error),))
        made_for = f"made for the volume {share.volume_id}, " if share.volume_id else ""
        used = f"{_or_unknown(share.used_bytes)} of {_or_unknown(share.size_bytes)} used"
        facts = {
            "anvil": f"it answers, and the login holds; {_or_unknown(free_bytes)} are free in the cluster",
            "share": f"{made_for}{used}, limit {format_size(share.limit_bytes)}",
            "objectives": ", ".join(share.objectives) or "none",
        }
        missing = [f"the share lacks the objective {name!r}: set it on the Anvil"
                   for name in self._settings.objectives if name not in share.objectives]  # fmt: skip
        if not self._settings.verify_tls:
            missing.append(
                "any certificate is trusted, so another may get the login: name its authority with ca_bundle="
            )
        if not share.volume_id:
            missing.append("the share was not made by volgate: it is served, but neither limited nor removed")
        return StorageInspection(facts, tuple(missing))

    async def create_snapshot(self, name: str) -> None:
        """See BaseStorageBackend; the Anvil names its snapshots itself, the name wanted is kept beside the data."""
        async with self._aliasing:
            aliases = await self._check_free(name)
            made = await self._anvil.create_snapshot()
            async with _undone(lambda: self._anvil.delete_snapshot(made)):
                await self._store_aliases({**aliases, name: made})

    async def create_file_snapshot(self, name: str, path: str) -> None:
        """See BaseStorageBackend. What is taken goes wherever the file's directory goes."""
        async with self._aliasing:
            await self._check_free(name)
            files = await self._load_files()
            await trio.sleep_until(self._next_at)
            made = await self._anvil.create_file_snapshot(path)
            self._next_at = trio.current_time() + _APART_S
            async with _undone(lambda: self._anvil.delete_file_snapshot(path, made)):
                await self._store_files({**files, name: _OfFile(path, made)})

    async def _check_free(self, name: str) -> dict[str, str]:
        """Return the aliases where no snapshot has a name. Raises AlreadyExists."""
        there = await self._anvil.list_snapshots()
        aliases = await self._load_aliases(there)
        if name in aliases or name in there or name in await self._load_files():
            raise AlreadyExists(f"there is a snapshot {name}; take another name, or delete that one")
        return aliases

    async def list_snapshots(self) -> list[NativeSnapshot]:
        """See BaseStorageBackend; the time is what the Anvil's name tells, 0 where it tells none."""
        there = await self._anvil.list_snapshots()
        shown = {made: name for name, made in (await self._load_aliases(there)).items()}
        found = [NativeSnapshot(shown.get(made, made), _time_of(made)) for made in there]
        for name, file in (await self._load_files()).items():
            damaged = ""
            try:
                (await self._open_folder(file)).close()
            except NotFound as error:
                damaged = str(error)
            found.append(NativeSnapshot(name, _time_of(file.made), damaged=damaged, path=file.path))
        return found

    async def _open_folder(self, file: _OfFile) -> SnapshotDirectory:
        """Return the directory that has a snapshot of a file. Raises NotFound: it, or the snapshot, is not there."""
        try:
            folder: SnapshotDirectory = await super().open_snapshot(file.folder)
            with contextlib.ExitStack() as opened:
                opened.callback(folder.close)
                await self.get_attributes(folder, os.fsencode(file.name))
                opened.pop_all()
        except (NotFound, NotADirectory) as error:
            raise NotFound(f"the share has no {file.made} any more: it went with its directory") from error
        return folder

    async def open_snapshot(self, name: str) -> BackendDirectory:
        """See BaseStorageBackend."""
        file = (await self._load_files()).get(name)
        if file is not None:
            folder = await self._open_folder(file)
            return StepDirectory(FileSnapshotTree(self, self.inner.root, file.path, folder, file.name), 0)
        made = (await self._load_aliases(await self._anvil.list_snapshots())).get(name, name)
        opened: BackendDirectory = await super().open_snapshot(f"{os.fsdecode(SNAPSHOTS)}/{made}")
        return opened

    def backend_of_snapshot(self, root: BackendDirectory) -> BaseStorageBackend:
        """See BaseStorageBackend."""
        return root.tree if isinstance(root, StepDirectory) else self

    async def delete_snapshot(self, name: str) -> None:
        """See BaseStorageBackend."""
        async with self._aliasing:
            files = await self._load_files()
            file = files.pop(name, None)
            if file is not None:
                with contextlib.suppress(NotFound):  # it went with its directory
                    await self._anvil.delete_file_snapshot(file.path, file.made)
                await self._store_files(files)
                return
            aliases = await self._load_aliases(await self._anvil.list_snapshots())
            await self._anvil.delete_snapshot(aliases.pop(name, name))
            await self._store_aliases(aliases)

    async def _load_aliases(self, there: Sequence[str]) -> dict[str, str]:
        """Return the Anvil's names of snapshots by the names that were wanted, of those that are there still."""
        content = await self.load_reserved(_ALIASES)
        try:
            found = json.loads(content or b"{}")
        except ValueError:  # only names: the snapshots themselves are the Anvil's
            return {}
        if not isinstance(found, dict):
            return {}
        return {name: made for name, made in found.items() if made in there}

    async def _store_aliases(self, aliases: Mapping[str, str]) -> None:
        await self.store_reserved(_ALIASES, json.dumps(aliases).encode())

    async def _load_files(self) -> dict[str, _OfFile]:
        """Return the snapshots of files by their names."""
        content = await self.load_reserved(_FILES)
        try:
            return {name: _OfFile(**members) for name, members in dict(json.loads(content or b"{}")).items()}
        except (ValueError, TypeError) as error:
            log.warning("the list of files' snapshots is damaged, and left out", extra={"error": str(error)})
            return {}

    async def _store_files(self, files: Mapping[str, _OfFile]) -> None:
        content = json.dumps({name: attrs.asdict(file) for name, file in files.items()})
        await self.store_reserved(_FILES, content.encode())


@contextlib.asynccontextmanager
async def _undone(undo: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Undo a snapshot whose name could not be stored."""
    try:
        yield
    except BaseException:
        with trio.move_on_after(_UNDO_S, shield=True), contextlib.suppress(StorageException):
            await undo()
        raise


def _or_unknown(size: int | None) -> str:
    return "an unknown size" if size is None else format_size(size)


def _time_of(name: str) -> float:
    found = _TIME.search(name)
    try:
        return datetime(*map(int, found.groups()), tzinfo=UTC).timestamp() if found else 0.0  # type: ignore[arg-type, misc]
    except ValueError:
        return 0.0
