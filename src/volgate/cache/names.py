"""What the bucket has, as a tree of nodes: lookups, listings, and how long their answers are trusted.

A directory is asked for by one listing; where that is longer than a page, single names are asked for. An answer is
trusted for ``ttl_s``, then the next use asks again. What was changed here stands above every answer. Where an object
was replaced by others, its name gets a new node: whoever holds the old one open keeps the old version, or gets Stale.
"""

from __future__ import annotations

import contextlib
import itertools
import stat
import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from volgate.cache.nodes import (
    ASIDE_PREFIX,
    FIRST_NEW_INO,
    MADE_HERE,
    NEVER,
    ROOT_KEY,
    Directory,
    Listing,
    Node,
    attach,
    decode_name,
    descendants,
    detach,
    hashed_ino,
    new_ino,
)
from volgate.cache.together import together
from volgate.core.names import GATEWAY_NAME, RCLONE_LINK, RESERVED_ROOT_NAMES, name_of, why_not_shown
from volgate.core.object_metadata import decode
from volgate.errors import CrossDevice, IllegalName, NotFound, StorageException

if TYPE_CHECKING:
    from volgate.cache.entries import Entries
    from volgate.drivers.object_store import ListedObject, ObjectInfo, ObjectReader

MAX_RENAMED: Final = 10_000
"""How many objects a rename of a directory moves at most; beyond it, copying is the user's business (EXDEV)."""
_TOO_MANY: Final = f"a directory of more than {MAX_RENAMED} objects is not renamed"
_DIRECTORY_TYPE: Final = "application/x-directory"
_FILE, _DIRECTORY, _LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
_PARALLEL_HEADS: Final = 96
_SURE_BYTES: Final = 4 << 10
"""An object of more bytes is a regular file, not a link: a listing says enough to show its name."""
_AHEAD: Final = 1000
"""How many names are asked for ahead of who looks them up in the order of their listing."""
_IN_ORDER: Final = 2
"""Where nobody listed a directory, so many names looked up in order show that more will be."""
_MAX_ABSENT: Final = 10_000
_MAX_UNSHOWN: Final = 1000
_SETTLED_S: Final = 2
"""An object younger than this may change again without a change of its etag and time, which counts seconds."""


class Changes(Protocol):
    """What was changed here; see Overlay."""

    @property
    def entries(self) -> Entries:
        """By key."""

    def set_base_key(self, node: Node, key: str | None) -> None:
        """Note where the object of a node lies."""


class Names:
    """The tree.

    Args:
        store: open. overlay: what was changed here.
        ttl_s: how long answers are trusted, seconds.

    Attributes:
        root: its root.
        aside: what is in quarantine because another writer's object took its name; no name leads there.
    """

    def __init__(self, store: ObjectReader, overlay: Changes, *, ttl_s: float) -> None:
        self._store = store
        self._overlay = overlay
        self._ttl_s = ttl_s
        self._heads = trio.CapacityLimiter(_PARALLEL_HEADS)
        self._asked: dict[Node, trio.Event] = {}
        self._wanted: deque[Node] = deque()
        self._woken = trio.Event()
        self._taken: set[int] = set()
        self._odd: set[Node] = set()
        """Directories that have keys which no name can show."""
        self.root = Node(1, None, b"", _DIRECTORY)
        self.root.recorded = 0
        self.aside = Node(new_ino(), None, b"", _DIRECTORY)
        _directory(self.aside).prefix = ASIDE_PREFIX

    async def open(self) -> None:
        """Learn the root's attributes."""
        try:
            info = await self._store.head(ROOT_KEY)
        except NotFound:
            now = time.time_ns()
            self.root.mtime_ns = self.root.ctime_ns = self.root.atime_ns = now
            return
        self.take(self.root, info)

    async def run(self) -> None:
        """Ask for the attributes of what was listed, ahead of who wants them, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(_PARALLEL_HEADS):
                nursery.start_soon(self._ask_ahead)

    async def _ask_ahead(self) -> None:
        while True:
            while not self._wanted:
                await self._woken.wait()
            node = self._wanted.popleft()
            if not node.known and node.parent is not None and node not in self._asked:
                with contextlib.suppress(StorageException):  # who wants it asks again, and hears why
                    await self._ask_for_attributes(node)

    def _want(self, nodes: Iterable[Node]) -> None:
        """Have attributes asked for in the background, where ``run`` does."""
        self._wanted.extend(nodes)
        self._woken.set()
        self._woken = trio.Event()

    def _ask_further(self, directory: Directory, node: Node) -> None:
        """Where names are looked up in the order of their listing, ask for those that follow."""
        while directory.next_name is not None and directory.next_name.known and directory.next_name is not node:
            directory.next_name = next(directory.following, None)
        if directory.next_name is not node:
            if directory.in_order < _IN_ORDER:
                directory.in_order = 0
            return
        directory.in_order += 1
        if directory.in_order > _IN_ORDER:
            self._want(itertools.islice(directory.following, _AHEAD))
        directory.next_name = next(directory.following, None)

    # -- looking up ---------------------------------------------------------------------------------------------

    async def find(self, parent: Node, name: bytes) -> Node | None:
        """Return what stands under a name, with its attributes known; None where nothing does."""
        directory = _directory(parent)
        now = time.monotonic()
        node = directory.children.get(name)
        if node is not None:
            if node.work is not None:
                return node if node.known else await self._learn(node)
            if node.known and node.checked_at + self._ttl_s > now:
                return node
            if node.checked_at + self._ttl_s > now:
                self._ask_further(directory, node)
                return await self._ask_for_attributes(node)
        elif directory.complete_until > now or directory.absent.get(name, NEVER) > now:
            return None
        if not directory.is_large:
            await self._list(parent, all_pages=False)
            if not directory.is_large:
                found = directory.children.get(name)
                if found is None or found.known:
                    return found
                self._ask_further(directory, found)
                return await self._ask_for_attributes(found)
        return await self._ask_for_name(parent, name)

    async def find_all(self, parent: Node, names: Sequence[bytes]) -> list[Node | None]:
        """Return what stands under several names, None for each where nothing does or that cannot be asked for.

        Of what is a regular file for sure, the attributes may be those of the listing: then it is not ``known``.
        """
        found: list[Node | None] = [None] * len(names)
        waiting: list[int] = []
        children = _directory(parent).children
        for index, name in enumerate(names):
            node = children.get(name)
            if node is not None and (node.known or _is_sure(node)):
                found[index] = node
            else:
                waiting.append(index)

        async def ask(index: int) -> None:
            async with self._heads:
                try:
                    found[index] = await self.find(parent, names[index])
                except StorageException:
                    found[index] = None

        if waiting:
            async with trio.open_nursery() as nursery:
                for index in waiting:
                    nursery.start_soon(ask, index)
        return found

    async def _ask_for_attributes(self, node: Node) -> Node | None:
        """Complete a node that a listing showed; one request for all who ask at once."""
        parent, name = node.parent, node.name
        assert parent is not None
        asked = self._asked.get(node)
        if asked is not None:
            await asked.wait()
            return await self.find(parent, name)
        self._asked[node] = trio.Event()
        try:
            return await self._ask(node, parent, name)
        finally:
            self._asked.pop(node).set()

    async def _ask(self, node: Node, parent: Node, name: bytes) -> Node | None:
        try:
            info = await self._store.head(node.object_key)
        except NotFound:
            if node.work is not None or node.parent is not parent:
                return node
            if node.directory is None:
                return self._note_absent(parent, name)
            node.known = True  # no marker: its attributes are the default ones
            node.etag = None
            node.mtime_ns = node.ctime_ns = node.atime_ns = node.mtime_ns or time.time_ns()
            node.checked_at = time.monotonic()
            return node
        return self._install(parent, name, info, is_directory=node.directory is not None)

    async def _learn(self, node: Node) -> Node:
        """Ask for the attributes of a node that was moved before anybody looked at it.

        Where others deleted its object, it has those that its listing showed, so that it can be removed.
        """
        info = None
        with contextlib.suppress(NotFound):
            info = await self._store.head(node.object_key)
        if not node.known:
            if info is not None:
                self._take_attributes(node, info)
            node.known = True
        return node

    async def _ask_for_name(self, parent: Node, name: bytes) -> Node | None:
        """Ask for a name by itself: an object, a directory, or a link as rclone stores them."""
        try:
            key = _directory(parent).prefix + decode_name(name)
        except IllegalName:
            return None
        found: dict[str, ObjectInfo] = {}
        below: list[ListedObject] = []

        async def head(asked: str) -> None:
            try:
                found[asked] = await self._store.head(asked)
            except NotFound:
                return

        async def look_below() -> None:
            below.extend((await self._store.list_page(key + "/", limit=1)).objects)

        leaving = self._leaving_below(parent)
        await together(partial(head, key), partial(head, key + RCLONE_LINK), look_below)
        if below and (name not in leaving | self._leaving_below(parent) or await self._has_staying(key + "/")):
            if below[0].key == key + "/":
                await head(key + "/")
            return self._install(parent, name, found.get(key + "/"), is_directory=True)
        for asked in (key, key + RCLONE_LINK):
            if asked in found and name_of(asked[len(_directory(parent).prefix) :]).encode() == name:
                return self._install(parent, name, found[asked], is_directory=False)
        return self._note_absent(parent, name)

    def _note_absent(self, parent: Node, name: bytes) -> Node | None:
        """Note that the bucket has nothing under a name; returns what was made here meanwhile, if anything was."""
        directory = _directory(parent)
        node = directory.children.get(name)
        if node is not None and (node.work is not None or _has_work_below(node)):
            return node
        if node is not None:
            self._lose(node)
        if len(directory.absent) >= _MAX_ABSENT:
            directory.absent.clear()
        directory.absent[name] = time.monotonic() + self._ttl_s
        return None

    # -- what the bucket says becomes nodes -----------------------------------------------------------------------

    def _install(self, parent: Node, name: bytes, info: ObjectInfo | None, *, is_directory: bool) -> Node | None:
        """Make a name mean what the bucket says; ``info`` is None for a directory without an object of its own."""
        node = _directory(parent).children.get(name)
        if node is not None and node.work is not None:
            return node
        if node is None and (self._was_removed(parent, name) or (info is not None and self._is_leaving(info.key))):
            return None
        if info is not None and not is_directory and info.content_type.startswith(_DIRECTORY_TYPE):
            is_directory = True
        if node is not None and not _is_same(node, info, is_directory=is_directory):
            if _has_work_below(node):
                return node
            self._lose(node)
            node = self._make(parent, name, is_directory=is_directory, ino=new_ino())
        if node is None:
            node = self._make(parent, name, is_directory=is_directory)
        if info is not None:
            self.take(node, info)
        node.known = True
        node.checked_at = time.monotonic()
        return node

    def _make(self, parent: Node, name: bytes, *, is_directory: bool, ino: int = 0) -> Node:
        node = Node(ino, parent, name, _DIRECTORY if is_directory else _FILE)
        attach(node, parent, name)
        if not ino:
            node.ino = hashed_ino(node.key)
            if node.ino in self._taken:
                node.ino = new_ino()
        node.recorded = 0
        if is_directory:
            node.mtime_ns = node.ctime_ns = node.atime_ns = time.time_ns()
        return node

    def _is_leaving(self, key: str) -> bool:
        """Whether an object was removed or renamed here, and the bucket still has it."""
        entry = self._overlay.entries.get(key)
        return entry is not None and entry.node is None

    def _leaving_keys(self) -> set[str]:
        """Return what is leaving now; looked at before a request, since it may have left when the answer is there."""
        return {key for key, entry in self._overlay.entries.items() if entry.node is None}

    def _leaving_below(self, parent: Node) -> set[bytes]:
        """Return the names of directories in which objects are leaving; the bucket may show them for these alone."""
        prefix = _directory(parent).prefix
        return {
            below[0].encode()
            for key, entry in self._overlay.entries.items()
            if entry.node is None and key.startswith(prefix) and (below := key[len(prefix) :].split("/", 1))[1:]
        }

    async def _has_staying(self, prefix: str) -> bool:
        """Whether the bucket has an object below a prefix that is not leaving."""
        page = None
        while True:
            leaving = self._leaving_keys()
            listed = await self._store.list_page(prefix, page=page)
            page = listed.next_page
            if not all(each.key in leaving or self._is_leaving(each.key) for each in listed.objects):
                return True
            if page is None:
                return False

    async def _leave_out(self, leaving: set[bytes], parent: Node, found: dict[bytes, ListedObject | None]) -> None:
        """Take out of a listing the directories that it shows just for objects that are leaving, or did meanwhile."""
        directory = _directory(parent)
        shown = [name for name in leaving | self._leaving_below(parent) if name in found and found[name] is None]
        for name in shown:
            key = directory.prefix + name.decode() + "/"
            if name not in directory.children and not await self._has_staying(key):
                del found[name]

    def _was_removed(self, parent: Node, name: bytes) -> bool:
        """Whether a name, which was asked for, was removed here before the answer came."""
        return _directory(parent).absent.get(name, NEVER) > time.monotonic()

    def keep_ino(self, node: Node) -> None:
        """Note that a node's number stays its own though another may come to stand under its key."""
        if node.ino < FIRST_NEW_INO:
            self._taken.add(node.ino)

    def take(self, node: Node, info: ObjectInfo) -> None:
        """Take what an object says of its node, and where it lies."""
        self._take_attributes(node, info)
        node.etag = info.etag
        node.modified_at = info.modified_at if info.modified_at + _SETTLED_S <= time.time() else 0
        node.size = 0 if node.directory is not None else info.size
        if node.symlink_target is not None:
            node.size = len(node.symlink_target)
        if info.key != node.key:
            self._overlay.set_base_key(node, info.key)
        node.recorded = 0 if node.directory is not None else info.size

    def _take_attributes(self, node: Node, info: ObjectInfo) -> None:
        is_link = info.key.endswith(RCLONE_LINK) and info.key != node.key
        default = node.mode if node.directory is not None else _LINK if is_link else _FILE
        stored = decode(info.metadata, stat.S_IFMT(default))
        node.take_stored(stored, info.modified_at, default)
        if node.directory is not None:
            node.mode = _DIRECTORY & stat.S_IFDIR | stat.S_IMODE(node.mode)
        elif stat.S_ISDIR(node.mode):
            node.mode = stat.S_IFREG | stat.S_IMODE(node.mode)
        node.take_metadata(info.metadata, info.content_type)

    def _lose(self, node: Node, *, keep: bool = False) -> None:
        """Take away a node that the bucket does not have any more; who holds it open keeps it."""
        if node.handles or keep:
            self.keep_ino(node)
            if node.etag is not None and node.base_key is None:
                node.base_key = node.key  # without the overlay's knowledge: that object is not there to be kept
        detach(node)

    # -- listing ------------------------------------------------------------------------------------------------

    async def list_names(self, parent: Node) -> list[bytes]:
        """Return all names in a directory."""
        directory = _directory(parent)
        if directory.complete_until <= time.monotonic():
            await self._list(parent, all_pages=True)
        return [name for name in directory.children if parent is not self.root or name != GATEWAY_NAME]

    async def is_empty(self, parent: Node) -> bool:
        """Return whether nothing is in a directory, be it shown or not."""
        directory = _directory(parent)
        if directory.complete_until <= time.monotonic() and not _has_work_below(parent, besides=parent):
            await self._list(parent, all_pages=False)
        return not directory.children and not directory.unshown

    async def _list(self, parent: Node, *, all_pages: bool) -> None:
        """Take a directory's listing; its first page only, where that is not all, unless all are wanted."""
        directory = _directory(parent)
        while directory.listing is not None:
            await directory.listing.done.wait()
            if directory.complete_until > time.monotonic() or (directory.is_large and not all_pages):
                return
        listing = directory.listing = Listing()
        began = time.monotonic()
        try:
            found: dict[bytes, ListedObject | None] = {}
            unshown: dict[str, str] = {}
            page = None
            leaving = self._leaving_below(parent)
            while True:
                listed = await self._store.list_page(directory.prefix, delimiter="/", page=page)
                _read_page(listed.objects, listed.prefixes, directory.prefix, found, unshown)
                page = listed.next_page
                if page is None or not all_pages:
                    break
            directory.is_large = page is not None
            await self._leave_out(leaving, parent, found)
            self._merge(parent, found, listing, is_whole=page is None)
            directory.unshown = unshown
            if unshown:
                self._odd.add(parent)
            if page is None:
                unknown = [node for node in directory.children.values() if not node.known]
                if all_pages:
                    self._want([node for node in unknown if not _is_sure(node)])
                directory.following = iter([node for node in unknown if _is_sure(node)])
                directory.next_name = next(directory.following, None)
                directory.in_order = _IN_ORDER if all_pages else 0
            if page is None:
                directory.complete_until = began + self._ttl_s
        finally:
            directory.listing = None
            listing.done.set()

    def _merge(
        self, parent: Node, found: dict[bytes, ListedObject | None], listing: Listing, *, is_whole: bool
    ) -> None:
        directory = _directory(parent)
        now = time.monotonic()
        for name, listed in found.items():
            if name in listing.changed or (parent is self.root and name == GATEWAY_NAME):
                continue
            node = directory.children.get(name)
            if node is None and listed is not None and self._is_leaving(listed.key):
                continue
            if node is not None and (node.work is not None or (listed is not None and _has_work_below(node))):
                continue
            is_directory = listed is None
            is_odd = node is not None and node.directory is not None and node.base_key is not None
            if node is not None and (node.directory is not None) != is_directory and not is_odd:
                self._lose(node)
                node = None
            if node is not None and listed is not None and node.directory is None:
                if node.etag is not None and (node.etag, node.size) != (listed.etag, listed.size):
                    self._lose(node)
                    node = self._make(parent, name, is_directory=False, ino=new_ino())
                    node.known = False
                elif node.modified_at == MADE_HERE:
                    node.modified_at = listed.modified_at
                elif node.modified_at != listed.modified_at:
                    node.known = False
            if node is None:
                node = self._make(parent, name, is_directory=is_directory)
                node.known = False
            if listed is not None and not node.known:
                node.etag, node.size, node.modified_at = listed.etag, listed.size, listed.modified_at
                node.recorded = listed.size
                node.mtime_ns = node.ctime_ns = node.atime_ns = listed.modified_at * 10**9
                if listed.key != node.key:
                    self._overlay.set_base_key(node, listed.key)
            node.checked_at = now
        if is_whole:
            for name, node in list(directory.children.items()):
                gone = name not in found and name not in listing.changed and node.work is None
                if gone and not _has_work_below(node):
                    self._lose(node)

    async def load_below(self, top: Node) -> None:
        """Make every object below a directory known. Raises CrossDevice: there are more than ``MAX_RENAMED``."""
        if not all(_is_complete(node) for node in descendants(top)):
            await self._list_below(top)
        elif sum(1 for _ in descendants(top)) > MAX_RENAMED:
            raise CrossDevice(_TOO_MANY)
        # A directory's object is written anew under its new key, so what it says has to be known.
        unknown = [node for node in descendants(top) if node.directory is not None and not node.known]

        async def ask(node: Node) -> None:
            async with self._heads:
                await self._ask_for_attributes(node)

        await together(*(partial(ask, node) for node in unknown if node.work is None))

    async def _list_below(self, top: Node) -> None:
        prefix = _directory(top).prefix
        listed: list[ListedObject] = []
        page = None
        while True:
            leaving = self._leaving_keys()
            found = await self._store.list_page(prefix, page=page)
            listed.extend(each for each in found.objects if each.key not in leaving and not self._is_leaving(each.key))
            page = found.next_page
            if len(listed) > MAX_RENAMED:
                raise CrossDevice(_TOO_MANY)
            if page is None:
                break
        objects: dict[str, list[ListedObject]] = {}
        below: dict[str, set[str]] = {}
        for each in listed:
            folder = each.key[: each.key.rfind("/") + 1]
            if each.key != folder:
                objects.setdefault(folder, []).append(each)
            while folder != prefix:
                above = folder[: folder.rfind("/", 0, -1) + 1]
                below.setdefault(above, set()).add(folder)
                folder = above
        waiting = [top]
        while waiting:
            node = waiting.pop()
            own = _directory(node).prefix
            names: dict[bytes, ListedObject | None] = {}
            _read_page(objects.get(own, []), sorted(below.get(own, ())), own, names, {})
            self._merge(node, names, Listing(), is_whole=False)
            waiting.extend(child for child in _directory(node).children.values() if child.directory is not None)

    # -- changes made by others ---------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Trust nothing any more that the bucket said: the next use of each name asks again."""
        for node in descendants(self.root):
            node.checked_at = NEVER
            if node.directory is not None:
                node.directory.complete_until = NEVER
                node.directory.absent.clear()

    def unshown(self) -> dict[str, str]:
        """Return keys that no name can show, of the directories listed so far, each with the reason."""
        found: dict[str, str] = {}
        for node in list(self._odd):
            if node.is_unlinked or node.directory is None or not node.directory.unshown:
                self._odd.discard(node)
            elif len(found) < _MAX_UNSHOWN:
                found.update(node.directory.unshown)
        return found

    # -- races with others --------------------------------------------------------------------------------------

    def replace(self, node: Node, winner: ObjectInfo) -> Node:
        """Let another writer's object have a node's name, as a new inode; returns that."""
        parent, name = node.parent, node.name
        assert parent is not None
        self._lose(node, keep=True)
        found = self._install(parent, name, winner, is_directory=False)
        assert found is not None
        return found

    def put_aside(self, node: Node, key: str) -> None:
        """Give a node that lost its name a key aside; whoever holds it open is refused from now on."""
        attach(node, self.aside, key[len(ASIDE_PREFIX) :].encode())
        node.generation += 1

    async def find_place(self, key: str) -> tuple[Node, bytes]:
        """Return the directory and the name that a key stands for. Raises NotFound: the directory is not there."""
        *above, name = key.encode().split(b"/")
        parent = self.root
        for part in above:
            child = await self.find(parent, part)
            if child is None or child.directory is None:
                raise NotFound(f"its directory is not there: {part.decode()}")
            parent = child
        return parent, name

    def take_back(self, node: Node, parent: Node, name: bytes) -> None:
        """Give a node that was put aside a name; what the bucket has there is lost to who holds it open."""
        standing = _directory(parent).children.get(name)
        if standing is not None:
            self._lose(standing)
        detach(node)
        attach(node, parent, name)

    # -- after a crash ------------------------------------------------------------------------------------------

    def place(self, key: str, ino: int) -> Node:
        """Return the node of a key that the journal has; it and the directories above are made where not known."""
        if key == ROOT_KEY:
            return self.root
        if key.startswith(ASIDE_PREFIX):
            aside = Node(ino, None, b"", _FILE)
            attach(aside, self.aside, key[len(ASIDE_PREFIX) :].encode())
            return aside
        *above, name = key.rstrip("/").split("/")
        parent = self.root
        for part in above:
            child = _directory(parent).children.get(part.encode())
            if child is None or child.directory is None:
                child = self._make(parent, part.encode(), is_directory=True)
                child.known = False
            parent = child
        node = _directory(parent).children.get(name.encode())
        if node is None or (node.directory is None) == key.endswith("/"):
            node = self._make(parent, name.encode(), is_directory=key.endswith("/"), ino=ino)
        node.ino = ino
        return node


def _directory(node: Node) -> Directory:
    assert node.directory is not None
    return node.directory


def _is_sure(node: Node) -> bool:
    """Return whether a listing alone shows that a node is a regular file."""
    return node.directory is None and node.size > _SURE_BYTES and node.base_key is None


def _is_complete(node: Node) -> bool:
    return node.directory is None or node.directory.complete_until > time.monotonic()


def _has_work_below(node: Node, *, besides: Node | None = None) -> bool:
    return node.directory is not None and any(
        found.work is not None for found in descendants(node) if found is not besides
    )


def _is_same(node: Node, info: ObjectInfo | None, *, is_directory: bool) -> bool:
    if node.directory is not None or is_directory:
        return is_directory and node.directory is not None
    return info is not None and node.etag in (None, info.etag)


def _why_not_shown(prefix: str, name: str) -> str:
    if not prefix and name.encode() in RESERVED_ROOT_NAMES - {GATEWAY_NAME}:
        return "a name that the gateway keeps"
    return why_not_shown(name)


def _read_page(
    objects: Iterable[ListedObject],
    prefixes: Iterable[str],
    prefix: str,
    found: dict[bytes, ListedObject | None],
    unshown: dict[str, str],
) -> None:
    """Sort a page into names, and into keys that no name can show."""
    for listed in objects:
        text = listed.key[len(prefix) :]
        if not text:
            continue  # the directory's own object
        name = name_of(text).encode()
        reason = _why_not_shown(prefix, name_of(text))
        if reason:
            unshown[listed.key] = reason
            continue
        if name in found:
            unshown[listed.key] = "another object has its name"
        else:
            found[name] = listed
    for below in prefixes:
        text = below[len(prefix) : -1]
        reason = _why_not_shown(prefix, text)
        if reason:
            unshown[below] = reason
            continue
        other = found.get(text.encode())
        if other is not None:
            unshown[other.key] = "a directory has its name"
        found[text.encode()] = None
