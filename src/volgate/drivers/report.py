"""What a backend that caches says of itself, and of the changes that its storage refuses.

Part of the Backend port; plain data and one small interface. What may not live here: wording for people.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import attrs


@attrs.frozen
class BackendReport:
    """What the storage does not have yet, and how well the backend gets on with it.

    Attributes:
        backlog_files: changes that the storage does not have, the refused ones included.
        backlog_bytes: of content in them. stored_bytes: of content that was stored since the start.
        oldest_s: age of the oldest one that is not refused, seconds; 0.0 without one. oldest_key: its key.
        refused: how many the storage refuses for good.
        last_error: what the last failure said, "" once all is well.
        lease: "held", "fenced" (not renewed in time, may come back), "lost" (another has it), "none".
        lease_holder: who has it where it is lost, as a line of JSON; else "".
        keeps_versions: the storage keeps what is replaced and deleted, uncounted; None where it does not say.
        volumes_within: prefixes that are volumes of their own, as of the last count: their files count here too.
        broken_promises: names of the ``StoreCapabilities`` that the server does not keep.
        cached_bytes: of clean content on local disk. max_cached_bytes: their limit.
        cache_lacking_bytes: how much more must be free on the local disk before anything can be written here.
        cache_hits: reads answered by it. cache_misses: reads that were not.
        staged_bytes: of content on local disk that is not stored yet. max_staged_bytes: their limit.
        requests: how many were made, by the name of the operation.
    """

    backlog_files: int
    backlog_bytes: int
    stored_bytes: int
    oldest_s: float
    oldest_key: str
    refused: int
    last_error: str
    lease: str
    lease_holder: str
    keeps_versions: bool | None
    volumes_within: tuple[str, ...]
    broken_promises: tuple[str, ...]
    cached_bytes: int
    max_cached_bytes: int
    cache_lacking_bytes: int
    cache_hits: int
    cache_misses: int
    staged_bytes: int
    max_staged_bytes: int
    requests: Mapping[str, int]


@attrs.frozen
class RefusedChange:
    """A change that is kept on local disk, since the storage refuses it or nobody said that it counts.

    Attributes:
        name: the file's key; KEY@ERA where another writer's file has that key now; or the name of an orphan.
        size: bytes of its content; None for a deletion.
        since: UNIX seconds. reason: why it is not in the storage.
        is_orphan: it belongs to no key: it was never closed or synced, and is charged to nobody.
    """

    name: str
    size: int | None
    since: float
    reason: str
    is_orphan: bool = False


@attrs.frozen
class Garbage:
    """What a collection removed. Attributes: uploads: abandoned ones; objects: of the gateway's own, left behind."""

    uploads: int
    objects: int


class BackendQuarantine(ABC):
    """The refused changes of a volume. All methods raise NotFound for a name that none has."""

    @abstractmethod
    def list(self) -> list[RefusedChange]:
        """Return them all, the oldest first."""

    @abstractmethod
    async def retry(self, name: str) -> None:
        """Let a change be stored over whatever the storage has now.

        Raises:
            InvalidArgument: it is an orphan. NotFound: its directory is gone. Busy: its name has other changes.
        """

    @abstractmethod
    async def export(self, name: str, path: Path) -> None:
        """Write the content into a new local file of mode 0600.

        Raises:
            AlreadyExists: there is one. InvalidArgument: the change has no content. Stale: it was changed in part, and
                the rest lay in an object that others replaced.
        """

    @abstractmethod
    async def drop(self, name: str) -> None:
        """Give the change up and show what the storage has.

        Raises:
            Busy: somebody has the file open.
        """
