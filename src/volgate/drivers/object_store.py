"""The ObjectStore port: whole objects under keys, of one bucket or one prefix of it.

Guarantees every driver gives (``testing.object_store_contract`` proves them):

1. Whatever fails raises a ``StorageException``; a vendor's exception never leaves a driver.
2. A key is taken as it is: ``a//b``, ``./a``, ``a/../b`` and ``a/`` are four keys, none of which means another.
3. An object is put, copied, completed and deleted whole: who reads sees one version of it, all or nothing.
4. What ``put`` and ``complete_upload`` returned for is stored durably, as far as the store keeps its promises, and is
   seen by the next ``head``, ``get_range`` and ``list_page``.
5. A condition (``if_absent``, ``if_match``, ``source_etag``) that does not hold changes nothing. Where the store
   ignores it, ``capabilities`` says so after ``open``. A reply that was lost is no failed condition: a driver that
   tries again finds out whether its first try was done.
6. Temporary failures are tried again inside, with growing pauses, up to the driver's limit of time; then
   ``Unavailable`` or ``TimedOut`` says that trying later may help. Cancelling a call gives its connection back.

What may not live here: files, directories, attributes, caching, quota. ``cache`` makes a Backend from this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import ClassVar, Final

import attrs

from volgate.dto import BackendType
from volgate.errors import InputOutput, NotFound

IDENTITY_KEY: Final = ".volgate/identity.json"
"""Where a volume's identity lies, so below which prefix one begins."""
COMMIT_KEY: Final = "volgate-commit"
"""Metadata that names the ``put`` or upload that made an object, to tell a lost reply from a lost race. Who passes it
finds that object again by it; else the driver gives each its own."""
MAX_KEY_BYTES: Final = 1024
"""S3's limit of a key in UTF-8, the prefix of the volume included (Amazon S3 User Guide, "Naming objects")."""


@attrs.frozen
class StoreCapabilities:
    """Which promises a store keeps; found out by trying, since servers differ and some ignore what they do not know.

    Attributes:
        conditional_put: ``put`` heeds ``if_absent`` and ``if_match``.
        conditional_complete: ``complete_upload`` heeds ``if_absent`` and ``if_match``.
        conditional_delete: ``delete`` heeds ``if_match``.
        conditional_copy: ``copy`` and ``copy_part`` heed ``source_etag``.
        checksums: content that does not fit the checksum sent along is refused.
    """

    conditional_put: bool = False
    conditional_complete: bool = False
    conditional_delete: bool = False
    conditional_copy: bool = False
    checksums: bool = False


@attrs.frozen
class ListedObject:
    """An object as a listing shows it.

    Attributes:
        key: relative to the volume. size: in bytes.
        etag: changes with the content, without quotes; no checksum of it (a copy of metadata keeps it).
        modified_at: UNIX seconds, whole: S3 has no finer time.
        storage_class: as the store names it, "" where it does not say.
    """

    key: str
    size: int
    etag: str
    modified_at: int
    storage_class: str = ""


@attrs.frozen
class ObjectInfo(ListedObject):
    """An object with what only asking for it shows.

    Attributes:
        content_type: its media type, "" where it has none.
        metadata: the user's metadata, keys in lower case.
    """

    content_type: str = ""
    metadata: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class ListPage:
    """A part of a listing, in the order of the keys' UTF-8.

    Attributes:
        objects: what lies here.
        prefixes: with a delimiter, the common beginnings of the keys that go on, each with the delimiter at its end.
        next_page: what to ask with for the page after this one; None at the end.
    """

    objects: tuple[ListedObject, ...]
    prefixes: tuple[str, ...] = ()
    next_page: str | None = None


@attrs.frozen
class UploadedPart:
    """A part of an upload that is stored.

    Attributes:
        number: from 1. etag: as the store gave it. size: in bytes.
        checksum: what the store wants to hear again when the upload is completed; "" where nothing.
    """

    number: int
    etag: str
    size: int
    checksum: str = ""


@attrs.frozen
class PendingUpload:
    """An upload that was neither completed nor aborted. Attributes: key, upload_id; started_at: UNIX seconds."""

    key: str
    upload_id: str
    started_at: int


class ObjectReader(ABC):
    """What is read of objects: of a bucket, or of what it held once."""

    @abstractmethod
    async def head(self, key: str) -> ObjectInfo:
        """Return what is known of an object. Raises NotFound."""

    @abstractmethod
    async def list_page(
        self, prefix: str = "", *, delimiter: str = "", page: str | None = None, limit: int = 1000
    ) -> ListPage:
        """Return a page of the objects whose keys begin with a prefix.

        Args:
            delimiter: "/" folds what lies deeper into ``prefixes``; "" lists all.
            page: ``next_page`` of the page before.
            limit: 1..1000 objects and prefixes together; a page may hold fewer and yet not be the last.
        """

    @abstractmethod
    async def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        """Return the bytes [offset, offset + length) that exist; shorter only at the end of the object.

        Raises:
            NotFound: no such object. Stale: it has another etag than the one asked for.
        """

    async def list_objects(self, prefix: str = "") -> AsyncIterator[ListedObject]:
        """Yield every object whose key begins with a prefix, page by page.

        Raises:
            InputOutput: the store gives the same page again and again.
        """
        page: str | None = None
        while True:
            found = await self.list_page(prefix, page=page)
            for listed in found.objects:
                yield listed
            if found.next_page is None:
                return
            if found.next_page == page:
                raise InputOutput(f"the listing of {prefix!r} does not come to an end")
            page = found.next_page


class ObjectStore(ObjectReader):
    """One bucket, or one prefix of it. Used by one event loop; every method may block for the net."""

    backend_type: ClassVar[BackendType]
    max_key_bytes: int = MAX_KEY_BYTES
    """The longest key in UTF-8; what all keys of the volume begin with is taken off."""
    min_part_bytes: ClassVar[int] = 5 << 20
    """Every part of an upload but the last has at least this size."""
    max_parts: ClassVar[int] = 10_000
    max_put_bytes: ClassVar[int] = 5 << 30
    """The largest object that ``put`` and ``copy`` make; beyond it lie uploads in parts."""
    keeps_versions: bool | None = None
    """Whether the store keeps what is replaced and deleted; known after ``open``, None where it does not say."""

    @property
    @abstractmethod
    def capabilities(self) -> StoreCapabilities:
        """What this store keeps of the conditions; known after ``open``."""

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests were made, by the store's name of the operation; empty where nobody counts."""
        return {}

    @abstractmethod
    async def open(self, *, writable: bool) -> None:
        """Prove that the store answers and the credentials suffice; where writable, find the capabilities out.

        Raises:
            NotFound: no such bucket. PermissionDenied: the credentials do not suffice; says for what.
            BadConfiguration: a setting is wrong. Unavailable: nobody answers.
        """

    async def find_version(self, key: str, etag: str, modified_at: int) -> str | None:
        """Return the id of a content that was replaced or deleted, and that the store keeps; None where it does not.

        Args:
            modified_at: when that object was made; where several with this etag were, another one's may be given.
        """
        return None

    async def get_version(self, key: str, version_id: str, offset: int, length: int) -> bytes:
        """Return what ``get_range`` does, of a version. Raises NotFound."""
        raise NotFound(f"no version {version_id} of {key}")

    async def head_version(self, key: str, version_id: str) -> ObjectInfo:
        """Return what ``head`` does, of a version. Raises NotFound."""
        raise NotFound(f"no version {version_id} of {key}")

    @abstractmethod
    async def put(
        self,
        key: str,
        body: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "",
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Store an object whole, replacing one that stands there; return its etag.

        Args:
            body: up to ``max_put_bytes``.
            metadata: printable ASCII, 2 KiB together; keys in lower case, values without spaces round them.

        Raises:
            AlreadyExists: if_absent, and one stands there. Stale: if_match, and another one stands there, or none.
        """

    @abstractmethod
    async def delete(self, key: str, *, if_match: str | None = None) -> None:
        """Delete an object; nothing happens where there is none. Raises Stale: another one stands there."""

    @abstractmethod
    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_etag: str | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "",
        of: ObjectReader | None = None,
        size: int = 0,
    ) -> str:
        """Have the store copy an object and return the copy's etag; onto itself to change its metadata.

        Args:
            metadata: None keeps metadata and content type; else both are replaced.
            of: the store that has the source, one that ``can_copy_of``; None = this one.
            size: of the source, where it is known: how long to wait for an answer goes by it.

        Raises:
            NotFound: no source. Stale: the source is another one than meant. PermissionDenied: this store's
                credentials may not read it.
        """

    def can_copy_of(self, other: ObjectReader) -> bool:
        """Return whether ``copy`` and ``copy_part`` may reach what another store has; asks nobody."""
        return other is self

    @abstractmethod
    async def begin_upload(self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str = "") -> str:
        """Begin an object stored in parts and return the upload's id. Nothing is seen of it until it is complete."""

    @abstractmethod
    async def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> UploadedPart:
        """Store part ``number``, 1..max_parts, again if need be."""

    @abstractmethod
    async def copy_part(
        self, key: str, upload_id: str, number: int, source: str, offset: int, length: int, *,
        source_etag: str | None, of: ObjectReader | None = None,
    ) -> UploadedPart:  # fmt: skip
        """Take [offset, offset + length) of another object for a part. Raises NotFound, Stale as ``copy`` does."""

    @abstractmethod
    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[UploadedPart],
        *,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Make the object of its parts, in order of their numbers; return its etag.

        Raises:
            AlreadyExists: if_absent, and one stands there; the upload stays. NotFound: no such upload.
            Stale: if_match, and another one stands there, or none; the upload stays.
        """

    @abstractmethod
    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Give an upload and its parts up; nothing happens where it is gone."""

    @abstractmethod
    async def list_uploads(self, prefix: str = "") -> list[PendingUpload]:
        """Return the uploads under way, of others too."""

    async def close(self) -> None:
        """Give back all connections. Nothing may be called afterwards."""
