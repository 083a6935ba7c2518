"""The volumes of this host, mounted or not: what the verbs ``volume ...`` and the API do with them, once for both.

The catalog says which there are, the owners' sockets how they are; what no daemon has to be asked for is done by
``volgate.volume``. All of it blocks, on a daemon for its time limit, on storage as long as that takes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import attrs

from volgate import paths
from volgate.control.client import TIMEOUT_S, ask
from volgate.control.mounts import MountTable, is_headless, join
from volgate.dto import StorageQuotaInfo, VolumeOperationContext
from volgate.errors import Busy, StorageException
from volgate.events import EventLog
from volgate.volume import registration
from volgate.volume.catalog import Catalog, CatalogEntry
from volgate.volume.mount_options import parse_options
from volgate.volume.sources import Locator

log = logging.getLogger(__name__)

NOT_MOUNTED: Final = "not mounted"


@attrs.frozen
class VolumeDescription:
    """One volume of the catalog, and how it is.

    Attributes:
        entry: what the catalog knows.
        state: of its mount, or ``NOT_MOUNTED``, also behind the state of an owner without a mount.
        mount_point: where it is mounted, else where it would be; None where neither is known.
        read_only: it is mounted, but only to be read.
        quota: limits and usage as its mount has them; None where none answers.
    """

    entry: CatalogEntry
    state: str
    mount_point: str | None
    read_only: bool
    quota: StorageQuotaInfo | None


class Volumes:
    """See the module.

    Args:
        catalog, locator: of this user. table: the kernel's mounts of ours.
        state_directory: where ledgers lie.
        timeout_s: how long a mount has to say how it is.
    """

    def __init__(
        self,
        catalog: Catalog,
        locator: Locator,
        table: MountTable,
        state_directory: Path,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._catalog = catalog
        self._locator = locator
        self._table = table
        self._state_directory = state_directory

    def list_entries(self) -> list[CatalogEntry]:
        """Return what the catalog has, by name."""
        return self._catalog.list()

    def find_entry(self, volume_id: str) -> CatalogEntry:
        """Return what the catalog has of a volume. Raises NotFound."""
        return self._catalog.find(volume_id)

    def describe(self, entries: Iterable[CatalogEntry]) -> list[VolumeDescription]:
        """Return how volumes are. Only their own mounts are asked: others may hang."""
        entries = list(entries)
        mounts: dict[str, dict[str, Any]] = {}
        for mount in join(self._table, {entry.volume_id for entry in entries}, self._timeout_s):
            if not _is_ours(mount):
                continue
            known = mounts.get(mount["volume_id"])
            if known is None or known["read_only"]:  # who writes it is its owner, and says most
                mounts[mount["volume_id"]] = mount
        return [_describe(entry, mounts.get(entry.volume_id)) for entry in entries]

    def check_source(self, text: str, options: str) -> str:
        """Return the name of the driver of a source. Raises InvalidArgument: options are none, or not for it."""
        parse_options(options)
        return self._locator.locate(text, options).backend_type

    async def create(
        self, context: VolumeOperationContext, source: str, *, mount_point: str, options: str
    ) -> CatalogEntry:
        """Make a volume, and its mount point where one is given. See ``registration.create_volume``."""
        parse_options(options)
        entry = await registration.create_volume(
            self._catalog, context, self._locator.locate(source, options), mount_point=mount_point, options=options
        )
        self._tell("volume.created", "a volume was made", entry)
        return _with_mount_point(entry)

    async def adopt(self, source: str, *, mount_point: str, options: str) -> CatalogEntry:
        """Enter a volume that exists. See ``registration.adopt_volume``."""
        parse_options(options)
        entry = await registration.adopt_volume(
            self._catalog, self._locator.locate(source, options), mount_point=mount_point, options=options
        )
        self._tell("volume.adopted", "a volume was entered into the catalog", entry)
        return _with_mount_point(entry)

    def change(self, volume_id: str, *, mount_point: str | None, options: str | None) -> CatalogEntry:
        """Change where and how it is mounted from the next mount on; None = as it is.

        Raises:
            NotFound: no such volume. InvalidArgument: options are none, or not for it.
        """
        if options is not None:
            parse_options(options)
            self._locator.locate(self._catalog.find(volume_id).source, options)
        return _with_mount_point(
            registration.change_volume(self._catalog, volume_id, mount_point=mount_point, options=options)
        )

    def find_deletable(self, volume_id: str, *, with_share: bool) -> CatalogEntry:
        """Return a volume that may be deleted now.

        Raises:
            NotFound: no such volume. Busy: it is mounted. Unsupported: ``with_share``, and it lies in none.
        """
        entry = self._catalog.find(volume_id)
        owner = next(iter(join(self._table, {volume_id})), None)
        if owner is not None:
            how = "served without a mount; end that" if is_headless(owner) else "mounted; unmount it"
            raise Busy(f"volume {volume_id} is {how} first: volgate umount {volume_id}")
        if with_share:
            registration.check_share(self._locator.locate(volume_id))
        return entry

    def end_brief(self, volume_id: str) -> None:
        """End an owner that a verb or a call started and that would end soon; waits for that, ``TIMEOUT_S`` at most."""
        for owner in join(self._table, {volume_id}):
            if not (_is_ours(owner) and is_headless(owner)) or owner["until_idle_s"] is None:
                continue
            with contextlib.suppress(ProcessLookupError, StorageException):
                process = os.pidfd_open(owner["pid"])
                try:
                    ask(Path(owner["socket"]), "POST", "/v1/release")
                    select.select([process], [], [], TIMEOUT_S)
                finally:
                    os.close(process)

    async def delete(self, volume_id: str, *, with_share: bool) -> CatalogEntry:
        """Take a volume out of the catalog; ``with_share``: with all its data. Raises as ``find_deletable``."""
        entry = self.find_deletable(volume_id, with_share=with_share)
        share = self._locator.locate(volume_id) if with_share else None
        await registration.delete_volume(self._catalog, entry, self._state_directory, share=share)
        self._tell("volume.deleted", "a volume was taken out of the catalog", entry)
        return entry

    def _tell(self, kind: str, message: str, entry: CatalogEntry) -> None:
        """Note an event; the work is done whatever becomes of that."""
        facts = {"volume_id": entry.volume_id, "source": entry.source}
        try:
            EventLog(self._state_directory / "events").append(time.time(), kind, message, facts)
        except OSError as error:
            log.warning("an event could not be noted", extra={"kind": kind, "error": str(error)})


def _with_mount_point(entry: CatalogEntry) -> CatalogEntry:
    if entry.mount_point:
        registration.make_mount_point(entry.mount_point)
    return entry


def _is_ours(mount: dict[str, Any]) -> bool:
    """Return whether a mount is this user's: others call their own as they like."""
    if mount.get("socket"):
        return Path(mount["socket"]).parent == paths.runtime_directory()
    return bool(mount["uid"] == os.geteuid())


def _describe(entry: CatalogEntry, mount: dict[str, Any] | None) -> VolumeDescription:
    if mount is None:
        return VolumeDescription(entry, NOT_MOUNTED, entry.mount_point or None, False, None)
    quota = None
    if mount["used_bytes"] is not None:
        quota = StorageQuotaInfo(
            entry.volume_id,
            mount["used_bytes"],
            mount["quota_bytes"],
            mount["file_count"],
            mount["backend_type"],
            quota_inodes=mount["quota_inodes"],
        )
    where = mount["mount_point"] or entry.mount_point or None
    state = f"{mount['state']}, {NOT_MOUNTED}" if is_headless(mount) else mount["state"]
    return VolumeDescription(entry, state, where, bool(mount["read_only"]), quota)
