"""Files, directories and links as this gateway sees them: what the bucket has, with what was changed here on top.

Plain records in memory; whoever changes one is in ``names``, ``overlay`` or ``uploads``. All calls are steps of one
event loop. A node with ``work`` differs from the bucket; one without is a copy of what the bucket said at
``checked_at``.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import trio

from volgate.core.object_metadata import StoredAttributes
from volgate.core.object_version import ObjectVersion
from volgate.dto import FileAttributes
from volgate.errors import IllegalName

if TYPE_CHECKING:
    from volgate.cache.overlay import Work

ROOT_KEY: Final = ".volgate/root"
"""The object that has the root's attributes."""
ASIDE_PREFIX: Final = ".volgate/quarantine/"
"""What is kept though its name is somebody else's now has a key here. The bucket never has such an object."""
NOTHING: Final[Mapping[str, str]] = {}
NO_XATTRS: Final[Mapping[bytes, bytes]] = {}
NEVER: Final = float("-inf")
MADE_HERE: Final = -1
"""When an object was made that was uploaded here: nobody said, the next listing does."""
FIRST_NEW_INO: Final = 1 << 62
"""Numbers of inodes made here begin at or after it; those found in the bucket lie below."""
_OWN_KEYS: Final = frozenset(
    {"mode", "uid", "gid", "rdev", "atime", "mtime", "ctime", "xattr", "volgate-commit", "volgate-times"}
)
"""Metadata that says what a node's attributes say; all other metadata is somebody else's, and kept."""


class Node:
    """One inode.

    Attributes:
        ino: 1 for the root; else stable while the node is known.
        parent: its directory; None for the root, and for what was removed while open.
        name: b"" for the root.
        mode: type and permission bits, and so on as in ``FileAttributes``.
        xattrs: names in full. symlink_target: None where it was not read yet.
        content_type, extra: the object's media type, and metadata of others, both kept.
        etag: of the object that has the content, or what is left of it; None = no object.
        modified_at: when that object was made, UNIX seconds, or MADE_HERE.
        base_key: where that object lies; None = under the node's own key.
        recorded: bytes that the journal's usage counts for it; -1 = not counted.
        known: attributes were asked for; else only a listing showed the object.
        checked_at: when the bucket was last asked about it, on the monotonic clock.
        handles: how often it is held open.
        work: what was changed here and is not in the bucket.
        directory: what lies in it; None unless it is a directory.
        generation: counts how often it lost its name to another writer's object; handles of before are stale.
    """

    __slots__ = (
        "atime_ns", "base_key", "checked_at", "content_type", "ctime_ns", "directory", "etag", "extra", "generation",
        "gid", "handles", "ino", "known", "mode", "modified_at", "mtime_ns", "name", "parent", "rdev", "recorded",
        "size", "symlink_target", "uid", "work", "xattrs",
    )  # fmt: skip

    def __init__(self, ino: int, parent: Node | None, name: bytes, mode: int) -> None:
        self.ino = ino
        self.parent = parent
        self.name = name
        self.mode = mode
        self.uid = self.gid = self.rdev = self.size = 0
        self.atime_ns = self.mtime_ns = self.ctime_ns = 0
        self.xattrs = NO_XATTRS
        self.symlink_target: bytes | None = None
        self.content_type = ""
        self.extra = NOTHING
        self.etag: str | None = None
        self.modified_at = 0
        self.base_key: str | None = None
        self.recorded = -1
        self.known = True
        self.checked_at = NEVER
        self.handles = 0
        self.generation = 0
        self.work: Work | None = None
        self.directory: Directory | None = Directory() if stat.S_ISDIR(mode) else None

    @property
    def key(self) -> str:
        """Where its object belongs. Raises IllegalName where a name is not UTF-8."""
        if self.parent is None:
            return ROOT_KEY
        assert self.parent.directory is not None
        return self.parent.directory.prefix + decode_name(self.name) + ("/" if self.directory is not None else "")

    @property
    def object_key(self) -> str:
        """Where its object lies in the bucket now."""
        return self.base_key if self.base_key is not None else self.key

    @property
    def base(self) -> ObjectVersion | None:
        """The object that its content is made of; None where there is none."""
        if self.etag is None:
            return None
        work = self.work
        return ObjectVersion(self.object_key, self.etag, self.size if work is None else work.base_size)

    @property
    def mark(self) -> object | None:
        """What is equal wherever its object is the same, content and metadata; None where a listing does not tell."""
        if self.work is not None or self.directory is not None or self.etag is None or self.modified_at <= 0:
            return None
        return self.etag, self.modified_at

    @property
    def is_unlinked(self) -> bool:
        """Whether it has lost its name while somebody held it open."""
        return self.parent is None and self.ino != 1

    @property
    def charged_size(self) -> int:
        """What it counts in bytes."""
        return self.size if stat.S_ISREG(self.mode) or stat.S_ISLNK(self.mode) else 0

    def to_attributes(self) -> FileAttributes:
        """Return its attributes as a backend reports them."""
        size = self.size
        return FileAttributes(
            self.ino, self.mode, 0 if self.parent is None and self.ino != 1 else 1, self.uid, self.gid, self.rdev, size,
            (size + 511) // 512, self.atime_ns, self.mtime_ns, self.ctime_ns,
            not self.known,
        )  # fmt: skip

    def to_stored(self) -> StoredAttributes:
        """Return what its object's metadata is to say; nothing where it is not known yet, and so not changed."""
        if not self.known:
            return StoredAttributes()
        return StoredAttributes(
            mode=self.mode, uid=self.uid, gid=self.gid, rdev=self.rdev, atime_ns=self.atime_ns or None,
            mtime_ns=self.mtime_ns, ctime_ns=self.ctime_ns, symlink_target=self.symlink_target, xattrs=self.xattrs,
        )  # fmt: skip

    def take_stored(self, stored: StoredAttributes, modified_at: int, default_mode: int) -> None:
        """Take its attributes from an object's metadata; times that are not there are the object's."""
        ns = modified_at * 10**9
        self.mode = stored.mode if stored.mode is not None else default_mode
        self.uid = stored.uid or 0
        self.gid = stored.gid or 0
        self.rdev = stored.rdev or 0
        self.mtime_ns = stored.mtime_ns if stored.mtime_ns is not None else ns
        self.atime_ns = stored.atime_ns if stored.atime_ns is not None else self.mtime_ns
        self.ctime_ns = stored.ctime_ns if stored.ctime_ns is not None else ns
        self.symlink_target = stored.symlink_target
        self.xattrs = stored.xattrs or NO_XATTRS

    def take_metadata(self, metadata: Mapping[str, str], content_type: str) -> None:
        """Keep what other tools wrote beside the attributes."""
        others = {key: value for key, value in metadata.items() if key not in _OWN_KEYS}
        self.extra = others or NOTHING
        self.content_type = content_type

    def touch(self, now_ns: int) -> None:
        """Note a change of content."""
        self.mtime_ns = self.ctime_ns = now_ns


class Directory:
    """What lies in a directory node.

    Attributes:
        prefix: of the keys in it, "" for the root; set when the node gets its place.
        children: by name; those that are known.
        complete_until: until when, on the monotonic clock, there are no others than these.
        following: what the last listing showed and nobody asked for yet, in its order, from ``next_name`` on.
        next_name: the first of them; None = there is none.
        in_order: how many of them were looked up one after the other.
        is_large: a listing had more than one page, so single names are asked for.
        absent: names known not to exist, and until when.
        listing: the listing that is under way.
        unshown: keys in it that no name can show, by key with the reason.
    """

    __slots__ = (
        "absent",
        "children",
        "complete_until",
        "following",
        "in_order",
        "is_large",
        "listing",
        "next_name",
        "prefix",
        "unshown",
    )

    def __init__(self) -> None:
        self.prefix = ""
        self.children: dict[bytes, Node] = {}
        self.complete_until = NEVER
        self.is_large = False
        self.following: Iterator[Node] = iter(())
        self.next_name: Node | None = None
        self.in_order = 0
        self.absent: dict[bytes, float] = {}
        self.listing: Listing | None = None
        self.unshown: dict[str, str] = {}


class Listing:
    """A listing under way. Attributes: changed: names changed here meanwhile, which it must not undo; done: its end."""

    __slots__ = ("changed", "done")

    def __init__(self) -> None:
        self.changed: set[bytes] = set()
        self.done = trio.Event()


_new_inos: Final = itertools.count(FIRST_NEW_INO + secrets.randbits(61))


def new_ino() -> int:
    """Return the number of an inode that is made here."""
    return next(_new_inos)


def hashed_ino(key: str) -> int:
    """Return the number of an inode that was found in the bucket: the same after every mount."""
    return 2 + int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") % (FIRST_NEW_INO - 2)


def decode_name(name: bytes) -> str:
    """Return a name as a part of a key. Raises IllegalName: it is not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise IllegalName("an object's key is UTF-8, and this name is not") from error


def attach(node: Node, parent: Node, name: bytes) -> None:
    """Give a node a name; whatever had it was detached before."""
    directory = parent.directory
    assert directory is not None
    node.parent, node.name = parent, name
    directory.children[name] = node
    directory.absent.pop(name, None)
    note_change(directory, name)
    if node.directory is not None:
        _set_prefixes(node)


def detach(node: Node) -> None:
    """Take a node's name away."""
    assert node.parent is not None and node.parent.directory is not None
    directory = node.parent.directory
    if directory.children.get(node.name) is node:
        del directory.children[node.name]
    note_change(directory, node.name)
    node.parent = None


def note_change(directory: Directory, name: bytes) -> None:
    """Keep a listing that is under way from undoing what was done with a name."""
    if directory.listing is not None:
        directory.listing.changed.add(name)


def descendants(node: Node) -> Iterator[Node]:
    """Yield a node and all known nodes below it, parents first."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        if found.directory is not None:
            waiting.extend(found.directory.children.values())


def _set_prefixes(node: Node) -> None:
    for found in descendants(node):
        if found.directory is not None:
            found.directory.prefix = found.key
