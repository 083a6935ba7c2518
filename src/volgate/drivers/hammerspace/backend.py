"""The driver of ``hammerspace://``: data in the locally mounted share, in threads; control calls to the Anvil on trio.

The data path needs no Anvil: a mount goes on while it is away. Control calls never run in the threads of the data.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
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
from volgate.drivers.hammerspace.settings import HammerspaceSettings
from volgate.drivers.hammerspace.share_directory import ShareDirectory
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.dto import VolumeOperationContext
from volgate.errors import AlreadyExists, StorageException

_ALIASES: Final = "snapshots.json"
_UNDO_S: Final = 30
_TIME: Final = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[T_-]?(\d\d)[-:]?(\d\d)[-:]?(\d\d)")


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
        told: Capabilities = attrs.evolve(found, native_quota=self._has_login, native_snapshots=self._has_login)
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
            there = await self._anvil.list_snapshots()
            aliases = await self._load_aliases(there)
            if name in aliases or name in there:
                raise AlreadyExists(f"there is a snapshot {name}")
            made = await self._anvil.create_snapshot()
            try:
                await self._store_aliases({**aliases, name: made})
            except BaseException:
                with trio.move_on_after(_UNDO_S, shield=True), contextlib.suppress(StorageException):
                    await self._anvil.delete_snapshot(made)
                raise

    async def list_snapshots(self) -> list[NativeSnapshot]:
        """See BaseStorageBackend; the time is what the Anvil's name tells, 0 where it tells none."""
        there = await self._anvil.list_snapshots()
        shown = {made: name for name, made in (await self._load_aliases(there)).items()}
        return [NativeSnapshot(shown.get(made, made), _time_of(made)) for made in there]

    async def open_snapshot(self, name: str) -> BackendDirectory:
        """See BaseStorageBackend."""
        made = (await self._load_aliases(await self._anvil.list_snapshots())).get(name, name)
        opened: BackendDirectory = await super().open_snapshot(made)
        return opened

    async def delete_snapshot(self, name: str) -> None:
        """See BaseStorageBackend."""
        async with self._aliasing:
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


def _or_unknown(size: int | None) -> str:
    return "an unknown size" if size is None else format_size(size)


def _time_of(name: str) -> float:
    found = _TIME.search(name)
    try:
        return datetime(*map(int, found.groups()), tzinfo=UTC).timestamp() if found else 0.0  # type: ignore[arg-type, misc]
    except ValueError:
        return 0.0
