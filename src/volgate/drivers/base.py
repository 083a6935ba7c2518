"""The Backend port: names, open files and space of one volume on some storage.

Guarantees every driver gives (``testing.backend_contract`` proves them):

1. Whatever fails raises a ``StorageException``; an OSError or a vendor's exception never leaves a driver.
2. A name is one path component of 1..max_name_bytes bytes, never ``.``, ``..``, with ``/`` or NUL: the caller checked
   it. Nothing outside the volume's root is reached, whatever symlinks or renames others make meanwhile.
3. ``ino`` arguments are what the caller believes the name means. A driver that finds another inode there raises
   ``Stale`` and changes nothing; 0 = do not check.
4. The name ``b""`` means the directory itself.
5. Create, rename, remove, link are atomic: all or nothing, and seen by the next call.
6. A read returns fewer bytes than asked only at end of file; a write either writes all it reports or raises.
7. After ``sync`` returns, content survives a power cut (as far as the storage keeps its promises).
8. With ``Capabilities.inline_io`` no call waits for anything but the local disk, and none but ``sync`` and
   ``sync_directory`` awaits: the caller may rely on each other call being one atomic step of the event loop.

What may not live here: quota, caching, inode numbers of the kernel, errno. Callers ask ``capabilities``, never the
backend's type.
"""

from __future__ import annotations

import contextlib
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import ClassVar, Final

import attrs

from volgate.drivers.allowance import Allowance
from volgate.drivers.report import BackendQuarantine, BackendReport, Garbage
from volgate.dto import AttributeChanges, BackendType, FileAttributes, Usage, VolumeOperationContext
from volgate.errors import CrossDevice, NotFound, Stale, StorageException, Unsupported

RENAME_NOREPLACE: Final = 1
"""rename(2): fail if the target exists."""
RENAME_EXCHANGE: Final = 2
"""rename(2): swap source and target."""
_BATCH: Final = 512
"""How many names' attributes are asked for in one call by who walks through a volume."""


@attrs.frozen
class Capabilities:
    """What a backend can do; asked by callers instead of its type.

    Attributes:
        inline_io: calls may run on the event loop (guarantee 8).
        hard_links: ``link`` works.
        symlinks: ``create_symlink`` and ``read_link`` work.
        special_files: fifos, sockets and (as root) device nodes can be made.
        xattrs: ``user.*`` attributes work.
        acls: ``system.posix_acl_*`` attributes work and the backing obeys them.
        rename_flags: NOREPLACE and EXCHANGE work.
        ownership: new nodes get the caller's uid and gid; else all belong to the daemon's user.
        close_reports_errors: ``BackendFile.flush`` can fail, so the kernel has to ask at each close.
        durable_keys: ``key_of_*`` and ``measure_key`` work, so a crash needs no recount.
        keeps_usage: ``load_usage`` knows the volume's usage after a crash, so no ledger is needed.
        charges_links: a symlink counts its target's bytes, since what counts them cannot tell it from a file.
        native_quota: the storage has limits of its own, which hold for others than the gateway too.
        preserves: ``open_reserved``, ``clone``, ``key_of_node`` and ``open_node`` work, of which snapshots are made.
        native_snapshots: the storage takes snapshots of the whole volume by itself; ``create_snapshot`` etc. work.
        file_snapshots: of one file as well; ``create_file_snapshot`` works.
        directory_rename: a directory is renamed in one step, whatever is in it.
        directory_times: a directory's times are stored as names in it change.
        survives_kill: sizes stay as they are when this process is killed; else those that nobody synced may be lost.
        magic_names: names that mean something to the storage in every directory; they can neither be seen nor made.
        max_read_bytes: the largest length of one read.
    """

    inline_io: bool = False
    hard_links: bool = False
    symlinks: bool = False
    special_files: bool = False
    xattrs: bool = False
    acls: bool = False
    rename_flags: bool = False
    ownership: bool = False
    close_reports_errors: bool = True
    durable_keys: bool = False
    keeps_usage: bool = False
    charges_links: bool = False
    native_quota: bool = False
    preserves: bool = False
    native_snapshots: bool = False
    file_snapshots: bool = False
    directory_rename: bool = True
    directory_times: bool = True
    survives_kill: bool = True
    magic_names: frozenset[bytes] = frozenset()
    max_read_bytes: int = 1 << 20


@attrs.frozen
class BackendSpace:
    """Space of the storage below, as statvfs(3) has it.

    Attributes:
        total_bytes: size, 0 where the storage does not tell. free_bytes: free for the daemon's user.
        total_inodes: 0 where the backing does not count inodes. free_inodes: likewise.
        max_name_bytes: longest name, 255 nearly everywhere.
    """

    total_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int
    max_name_bytes: int = 255


@attrs.frozen
class NativeQuota:
    """Limits that the storage itself holds a volume to, as it counts.

    Attributes:
        bytes_: None = unlimited. inodes: None = unlimited, or the storage has no such limit.
    """

    bytes_: int | None
    inodes: int | None


@attrs.frozen
class NativeSnapshot:
    """A snapshot that the storage keeps by itself, whoever made it.

    Attributes:
        name: unique in the volume. created_at: UNIX seconds.
        preserved_bytes: what is kept for it and earlier ones alone; None where the storage does not tell.
        damaged: "" where it is whole, else why it cannot be read.
        path: of the one file that it holds, relative to the volume's root; "" = all of the volume.
    """

    name: str
    created_at: float
    preserved_bytes: int | None = None
    damaged: str = ""
    path: str = ""


@attrs.frozen
class StorageInspection:
    """What was found of the storage behind a volume.

    Attributes:
        facts: lines for people, by their subject.
        missing: what the storage does not let this client do, or lacks; each a line that says how to mend it.
    """

    facts: Mapping[str, str] = attrs.field(factory=dict)
    missing: tuple[str, ...] = ()


@attrs.frozen
class NodeOwner:
    """Who makes a node.

    Attributes:
        uid: owner of the new node. gid: its group, unless the parent is setgid.
        umask: applied to the mode unless the parent has a default ACL (acl(5), umask(2)).
    """

    uid: int
    gid: int
    umask: int = 0


class BackendDirectory(ABC):
    """A directory held open by the driver; stays valid while it is renamed."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Give back what the handle holds. Does not block; a second call does nothing."""

    def __del__(self) -> None:
        # The cache that drops a handle cannot know whether a call in a thread still uses it; the last reference can.
        self.close()


class BackendFile(ABC):
    """A regular file held open; goes on working while it is renamed or unlinked."""

    __slots__ = ()

    @abstractmethod
    async def read(self, offset: int, length: int) -> bytes:
        """Return the bytes [offset, offset + length) that exist; shorter only at end of file."""

    @abstractmethod
    async def write(self, offset: int, data: bytes) -> int:
        """Write data at offset and return how many bytes were written, > 0 unless data is empty.

        Raises:
            NoSpace: the backing is full; nothing of this call was written.
        """

    @abstractmethod
    async def truncate(self, size: int) -> None:
        """Cut or lengthen the file to this many bytes; growing makes a hole."""

    @abstractmethod
    async def sync(self, *, data_only: bool) -> None:
        """Make the content (and the attributes, unless data_only) durable. Blocks for the storage.

        Raises:
            InputOutput: content may be lost; every later ``sync`` of this handle fails too.
        """

    @abstractmethod
    async def get_attributes(self) -> FileAttributes:
        """Return the open inode's attributes; nlink is 0 once it is unlinked."""

    @abstractmethod
    async def close(self) -> None:
        """Give the handle back; a second close does nothing. Errors of late writes belong to ``flush``, none here."""

    def can_take(self, source: BackendFile) -> bool:
        """Return whether ``take_content`` of that file may work and is worth it; asks nobody."""
        return False

    async def take_content(self, source: BackendFile, size: int) -> None:
        """Have the storage itself make this file's content that of another, which has this size.

        Called for what has that size already, and where ``can_take`` says so. Blocks for the storage.

        Raises:
            Unsupported: it does not do that between these; the content is as it was. SourceChanged: it is another one.
        """
        raise Unsupported

    async def flush(self) -> None:  # noqa: B027 - nothing to report is the default
        """Report what close(2) has to report; nothing by default. May block."""

    async def reopen(self, *, writable: bool) -> BackendFile:
        """Open the same inode anew, unlinked or not. Raises Stale where the backend cannot."""
        raise Stale

    async def set_attributes(self, changes: AttributeChanges) -> FileAttributes:
        """Change the open inode's attributes, unlinked or not, and return the new ones."""
        raise Unsupported

    async def get_xattr(self, name: bytes) -> bytes:
        """Return an attribute's value of the open inode. Raises NoAttribute."""
        raise Unsupported

    async def set_xattr(self, name: bytes, value: bytes) -> None:
        """Set an attribute of the open inode, new or not."""
        raise Unsupported

    async def list_xattrs(self) -> list[bytes]:
        """Return the names of the open inode's attributes."""
        raise Unsupported

    async def remove_xattr(self, name: bytes) -> None:
        """Remove an attribute of the open inode. Raises NoAttribute."""
        raise Unsupported


class BaseStorageBackend(ABC):
    """One volume on one storage. Made by its driver's ``from_source``; used by one event loop."""

    backend_type: ClassVar[BackendType]

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this backend can do; fixed after ``open_volume``."""

    @abstractmethod
    async def create_volume(self, context: VolumeOperationContext) -> None:
        """Make the volume's root where there is none; nothing happens where there is one."""

    @abstractmethod
    async def open_volume(self, context: VolumeOperationContext) -> BackendDirectory:
        """Return the root. Proves that the storage answers. Raises NotFound, PermissionDenied, NotADirectory."""

    @abstractmethod
    async def open_directory(self, parent: BackendDirectory, name: bytes, ino: int) -> BackendDirectory:
        """Hold a directory open. Raises NotFound, NotADirectory, Stale."""

    @abstractmethod
    async def list_names(self, directory: BackendDirectory) -> list[bytes]:
        """Return all names but . and .. in any order; each name that stands throughout the call comes once."""

    @abstractmethod
    async def get_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes:
        """Return attributes; a symlink's own. Raises NotFound; CrossDevice for what is mounted inside the volume."""

    @abstractmethod
    async def set_attributes(
        self, directory: BackendDirectory, name: bytes, ino: int, changes: AttributeChanges
    ) -> FileAttributes:
        """Change attributes and return the new ones; a symlink's own. A chown clears suid and sgid as chown(2) says."""

    @abstractmethod
    async def open_file(
        self, directory: BackendDirectory, name: bytes, ino: int, *, writable: bool
    ) -> tuple[BackendFile, FileAttributes]:
        """Open a regular file for reading, and for writing where asked. Never truncates, never appends by itself."""

    @abstractmethod
    async def create_file(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner
    ) -> tuple[BackendFile, FileAttributes]:
        """Make an empty regular file and open it for reading and writing. Raises AlreadyExists."""

    @abstractmethod
    async def create_node(
        self, directory: BackendDirectory, name: bytes, mode: int, owner: NodeOwner, *, rdev: int = 0
    ) -> FileAttributes:
        """Make a directory, an empty regular file, a fifo, a socket or a device node by the type bits of mode."""

    @abstractmethod
    async def remove(self, directory: BackendDirectory, name: bytes, *, is_directory: bool) -> None:
        """Remove a name. Raises NotFound, DirectoryNotEmpty, NotADirectory, IsADirectory."""

    @abstractmethod
    async def rename(
        self,
        source: BackendDirectory,
        source_name: bytes,
        target: BackendDirectory,
        target_name: bytes,
        flags: int = 0,
    ) -> None:
        """Rename, replacing the target. flags: 0, RENAME_NOREPLACE or RENAME_EXCHANGE."""

    @abstractmethod
    async def get_space(self) -> BackendSpace:
        """Return size and free space of the storage below."""

    # -- defaults over the above, or gated by capabilities ------------------------------------------------------

    async def find_attributes(self, directory: BackendDirectory, name: bytes) -> FileAttributes | None:
        """Return what ``get_attributes`` does, None where nothing stands under the name."""
        try:
            return await self.get_attributes(directory, name)
        except NotFound:
            return None

    async def get_attributes_of(
        self, directory: BackendDirectory, names: Sequence[bytes]
    ) -> list[FileAttributes | None]:
        """Return the attributes of several names, None for each that is gone or cannot be read."""
        found: list[FileAttributes | None] = []
        for name in names:
            try:
                found.append(await self.get_attributes(directory, name))
            except StorageException:
                found.append(None)
        return found

    def marks_of(self, directory: BackendDirectory, names: Sequence[bytes]) -> list[object | None]:
        """Return for each name what is equal in two trees only where it is the same inode, unchanged; asks nobody.

        None = that is not known, or it is a directory.
        """
        return [None] * len(names)

    def content_tag(self, directory: BackendDirectory, name: bytes, attributes: FileAttributes) -> object:
        """Return what is equal of two looks at a volume only where a file is the same one; asks nobody.

        Here its number: whether that file's content was changed is told by others (``Snapshots.changed_since``).
        """
        return attributes.ino

    async def link(
        self, source: BackendDirectory, source_name: bytes, ino: int, target: BackendDirectory, target_name: bytes
    ) -> FileAttributes:
        """Give an inode another name and return its attributes. Needs ``hard_links``."""
        raise Unsupported

    async def create_symlink(
        self, directory: BackendDirectory, name: bytes, target: bytes, owner: NodeOwner
    ) -> FileAttributes:
        """Make a symlink, whatever its target says. Needs ``symlinks``."""
        raise Unsupported

    async def read_link(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes:
        """Return a symlink's target. Needs ``symlinks``."""
        raise Unsupported

    async def get_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> bytes:
        """Return an attribute's value. Raises NoAttribute. Needs ``xattrs``."""
        raise Unsupported

    async def set_xattr(
        self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes, value: bytes
    ) -> None:
        """Set an attribute, new or not. Needs ``xattrs``."""
        raise Unsupported

    async def list_xattrs(self, directory: BackendDirectory, name: bytes, ino: int) -> list[bytes]:
        """Return the names of all attributes. Needs ``xattrs``."""
        raise Unsupported

    async def remove_xattr(self, directory: BackendDirectory, name: bytes, ino: int, attribute: bytes) -> None:
        """Remove an attribute. Raises NoAttribute. Needs ``xattrs``."""
        raise Unsupported

    async def load_reserved(self, name: str) -> bytes | None:
        """Return the content of a file of the gateway's own beside the data, None where there is none.

        Such files lie under the reserved name ``.volgate`` at the root, are never charged and never shown.
        """
        raise Unsupported

    async def store_reserved(self, name: str, content: bytes) -> None:
        """Replace a file of the gateway's own, atomically and durably."""
        raise Unsupported

    async def remove_reserved(self, name: str) -> None:
        """Remove a file of the gateway's own, durably; nothing happens where there is none. Takes no room."""
        raise Unsupported

    async def open_reserved(self, path: str) -> BackendDirectory:
        """Return a directory of the gateway's own, made where it is missing; all calls work in it, nothing is charged.

        Args:
            path: names below ``.volgate``, with ``/`` between them. Needs ``preserves``.
        """
        raise Unsupported

    async def clone(self, file: BackendFile, directory: BackendDirectory, name: bytes) -> None:
        """Store a file's content as it is now under a name, whole and durable, or not at all; replaces what is there.

        Shares the blocks where the storage can (ioctl_ficlone(2)), else copies what is no hole. What the file has else
        (owner, times, attributes) is not taken along. Blocks for the storage. Needs ``preserves``.

        Raises:
            NoSpace: the backing is full; nothing is left of it.
        """
        raise Unsupported

    def key_of_node(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes | None:
        """Return a key by which ``open_node`` finds this inode, whatever its name is then. Needs ``preserves``."""
        return None

    async def open_node(self, key: bytes) -> BackendFile:
        """Open the regular file of a key for reading. Raises Stale: it is deleted. Needs ``preserves``."""
        raise Unsupported

    async def sync_volume(self) -> None:
        """Make everything durable that was changed in the volume before the call. Blocks for the storage."""
        raise Unsupported

    async def acquire_ownership(self, holder: bytes) -> None:
        """Become the volume's one writable owner until ``release_ownership`` or the end of the process.

        Args:
            holder: one line that names this owner to those who are refused (JSON: pid, host, mount_point, since).

        Raises:
            Busy: another holds it; the message is that holder's line.
        """
        raise Unsupported

    async def release_ownership(self) -> None:
        """Give the ownership up; nothing happens where it was not held."""
        raise Unsupported

    async def sync_directory(self, directory: BackendDirectory) -> None:  # noqa: B027 - a default, not a duty
        """Make the names in a directory durable."""

    def key_of_name(self, directory: BackendDirectory, name: bytes, ino: int) -> bytes | None:
        """Return a key by which ``measure_key`` finds what stands under this name, even after a crash.

        Args:
            directory: the parent. name: the name, existing or about to be made.
            ino: the inode meant; when another stands there it measures as nothing. 0 = whichever is there.
        """
        return None

    def key_of_file(self, file: BackendFile) -> bytes | None:
        """Return a key by which ``measure_key`` finds this inode after a crash, whatever its name is then."""
        return None

    async def measure_key(self, key: bytes) -> Usage:
        """Return what the inode of a key counts now; nothing for one that is gone or unlinked.

        Raises:
            Stale: the key cannot be resolved; the caller recounts the volume.
        """
        raise Unsupported

    def load_usage(self) -> Usage | None:
        """Return the volume's usage as of the last owner; None: it has to be counted. Needs ``keeps_usage``.

        Call once, after ``acquire_ownership``.
        """
        raise Unsupported

    def watch_usage(self, on_replaced: Callable[[Usage, Usage], None]) -> None:  # noqa: B027 - a default, not a duty
        """Have a function called with what something counted, and counts now, when others changed it in the storage."""

    def watch_inodes(self, on_lost: Callable[[int], None]) -> None:  # noqa: B027 - a default, not a duty
        """Have a function called with the number of an inode that loses its name to what others stored."""

    async def count_usage(self, on_progress: Callable[[Usage], None], *, keep: bool = True) -> Usage:
        """Return what the volume counted at the call, though it may change meanwhile; ``keep`` it, or only look.

        Needs ``keeps_usage``. Blocks for the storage.
        """
        raise Unsupported

    async def run(self) -> None:  # noqa: B027 - a default, not a duty
        """Do what goes on in the background until cancelled; called once, when the volume is open."""

    async def drain(self, *, last: bool = False) -> int:
        """Return once the storage has everything that was acknowledged; the number of files it does not take.

        Args:
            last: nothing is changed any more, and ``close`` shall not try again.
        """
        return 0

    def unstored(self, below: bytes) -> list[tuple[bytes, bool]]:
        """Return the paths at or below one that the storage does not hold as was acknowledged; b"" = the root.

        Each with whether the storage refuses that for good. Asks nobody.
        """
        return []

    @property
    def oldest_call_s(self) -> float:
        """Age of the oldest call to the storage that has not returned, though it may be given up; 0.0 where none is."""
        return 0.0

    # -- of storage with limits and snapshots of its own --------------------------------------------------------

    async def delete_volume(self, context: VolumeOperationContext) -> None:
        """Remove what ``create_volume`` made, with all that is in it. Raises Unsupported where it is not ours to do."""
        raise Unsupported

    async def get_native_quota(self) -> NativeQuota:
        """Return the storage's own limits of the volume, whoever set them. Needs ``native_quota``."""
        raise Unsupported

    async def set_native_quota(self, quota: NativeQuota) -> None:
        """Set the storage's own limits, as far as it has such. Needs ``native_quota``. Blocks for the storage.

        Raises:
            PermissionDenied: the credentials do not suffice; the message says what they lack.
        """
        raise Unsupported

    async def inspect(self) -> StorageInspection:
        """Return what an administrator should know of the storage behind the volume.

        Leaves all as it was, but may try: make and remove a snapshot, set a limit to what it is. Raises NotFound where
        the volume has to be open for that, and is not.
        """
        return StorageInspection()

    @property
    def allowance(self) -> Allowance | None:
        """How much snapshots may keep; None where the storage keeps what it likes."""
        return None

    async def measure_kept(self, names: Set[str]) -> int:
        """Return how many bytes would be kept if there were no snapshots but these. Needs an ``allowance``."""
        raise Unsupported

    async def create_snapshot(self, name: str) -> None:
        """Take a snapshot of the whole volume, drained and not changed meanwhile: all of it or nothing, durably.

        Needs ``native_snapshots``. Cancelled cleanly.

        Raises:
            AlreadyExists: the name is taken. PermissionDenied: the message says which right is missing.
        """
        raise Unsupported

    async def create_file_snapshot(self, name: str, path: str) -> None:
        """Take a snapshot of one regular file, which nobody changes meanwhile. Needs ``file_snapshots``.

        Its root, and the directories down to the file, have that one name each. Durable after return.

        Args:
            path: relative to the volume's root.

        Raises:
            AlreadyExists: the name is taken. InvalidArgument: the storage cannot be told of such a path.
        """
        raise Unsupported

    async def list_snapshots(self) -> list[NativeSnapshot]:
        """Return all snapshots of the volume that the storage has. Needs ``native_snapshots``."""
        raise Unsupported

    async def open_snapshot(self, name: str) -> BackendDirectory:
        """Return the root of a snapshot: what only reads works below it, what changes raises ReadOnly.

        Raises:
            NotFound: no such snapshot. Needs ``native_snapshots``.
        """
        raise Unsupported

    def backend_of_snapshot(self, root: BackendDirectory) -> BaseStorageBackend:
        """Return whose calls work below what ``open_snapshot`` returned."""
        return self

    async def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot. Raises NotFound. Needs ``native_snapshots``."""
        raise Unsupported

    # -- of backends that cache ---------------------------------------------------------------------------------

    def report(self) -> BackendReport | None:
        """Return what is not stored yet and how the cache does; None for a backend that keeps nothing back."""
        return None

    def unshown(self) -> dict[str, str]:
        """Return what the storage has that no name can show, each with the reason; as far as it was looked at."""
        return {}

    def refresh(self) -> None:  # noqa: B027 - a default, not a duty
        """Believe nothing any more that the storage said before: ask again at the next use."""

    @property
    def quarantine(self) -> BackendQuarantine | None:
        """The changes that the storage refuses; None for a backend that keeps none."""
        return None

    async def collect_garbage(self, older_than_s: float) -> Garbage:
        """Remove what an earlier process left unfinished in the storage that long ago. Needs the ownership."""
        return Garbage(0, 0)

    async def close(self) -> None:  # noqa: B027 - a default, not a duty
        """Give back all that the driver holds. Nothing may be called afterwards."""


async def exists(backend: BaseStorageBackend, directory: BackendDirectory, name: bytes) -> bool:
    """Return whether a name stands in a directory."""
    return await backend.find_attributes(directory, name) is not None


def in_batches(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield names some hundred at a time, for ``attributes_by_name``."""
    for start in range(0, len(names), _BATCH):
        yield names[start : start + _BATCH]


async def attributes_by_name(
    backend: BaseStorageBackend, directory: BackendDirectory, names: Sequence[bytes]
) -> list[tuple[bytes, FileAttributes]]:
    """Return names of a directory, each with its attributes; those that are gone, or mounted there, are left out.

    Raises what ``get_attributes`` raises of a name that stands there and cannot be read: it must not pass for gone.
    """
    found = await backend.get_attributes_of(directory, names)
    known: list[tuple[bytes, FileAttributes]] = []
    for name, attributes in zip(names, found, strict=True):
        if attributes is None or attributes.provisional:
            attributes = await ask_again(backend, directory, name)
        if attributes is not None:
            known.append((name, attributes))
    return known


async def ask_again(backend: BaseStorageBackend, directory: BackendDirectory, name: bytes) -> FileAttributes | None:
    """Return the attributes that ``get_attributes_of`` did not; None for what is gone, or mounted there.

    Raises why they cannot be read.
    """
    with contextlib.suppress(CrossDevice):
        return await backend.find_attributes(directory, name)
    return None


def charged_usage(attributes: FileAttributes, *, charges_links: bool = False) -> Usage:
    """Return what an inode counts: one inode, and the size of a regular file; of a link where the backend says so."""
    mode = attributes.mode
    charged = stat.S_ISREG(mode) or (charges_links and stat.S_ISLNK(mode))
    return Usage(attributes.size if charged else 0, 1)
