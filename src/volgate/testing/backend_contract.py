"""The contract suite of the Backend port: a driver proves itself by subclassing it in ten lines.

```
class TestMyDriver(BackendContract):
    @pytest.fixture
    def make_backend(self, tmp_path):
        return lambda: MyBackend(tmp_path)
```
Each call of ``make_backend`` returns a fresh object for the same volume, which exists and is empty at first. What a
backend cannot do by its capabilities must raise ``Unsupported``; the rest of that test is then done.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from volgate import errors
from volgate.drivers.base import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    BackendDirectory,
    BaseStorageBackend,
    NodeOwner,
    exists,
)
from volgate.dto import AttributeChanges, Usage, VolumeOperationContext

MakeBackend = Callable[[], BaseStorageBackend]
CONTEXT = VolumeOperationContext("contract", Path("/contract"), "contract", "uid:0")
OWNER = NodeOwner(0, 0, 0)


@contextlib.asynccontextmanager
async def opened(make_backend: MakeBackend) -> AsyncIterator[tuple[BaseStorageBackend, BackendDirectory]]:
    """Open a volume for a test."""
    backend = make_backend()
    await backend.create_volume(CONTEXT)
    root = await backend.open_volume(CONTEXT)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run)
            try:
                yield backend, root
            finally:
                nursery.cancel_scope.cancel()
    finally:
        root.close()
        await backend.close()


def run(make_backend: MakeBackend, test: Callable[[BaseStorageBackend, BackendDirectory], Awaitable[None]]) -> None:
    """Run one test on an open volume."""

    async def main() -> None:
        async with opened(make_backend) as (backend, root):
            await test(backend, root)

    trio.run(main)


async def put(backend: BaseStorageBackend, directory: BackendDirectory, name: bytes, content: bytes = b"") -> int:
    """Make a file and return its ino."""
    file, attributes = await backend.create_file(directory, name, 0o644, OWNER)
    if content:
        assert await file.write(0, content) == len(content)
    await file.close()
    return attributes.ino


async def get(backend: BaseStorageBackend, directory: BackendDirectory, name: bytes) -> bytes:
    """Return a file's content."""
    file, attributes = await backend.open_file(directory, name, 0, writable=False)
    content = await file.read(0, attributes.size + 1)
    await file.close()
    return content


async def make_directory(backend: BaseStorageBackend, parent: BackendDirectory, name: bytes) -> BackendDirectory:
    """Make a directory and open it."""
    attributes = await backend.create_node(parent, name, stat.S_IFDIR | 0o755, OWNER)
    return await backend.open_directory(parent, name, attributes.ino)


class BackendContract:
    """See the module."""

    illegal_names: frozenset[bytes] = frozenset()
    """Names that the storage cannot have; they are refused with IllegalName, and not found."""

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        """Return what makes a backend of the volume under test."""
        raise NotImplementedError

    def test_what_is_written_is_read_and_sizes_follow(self, make_backend: MakeBackend) -> None:
        """Guarantee 6."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            file, attributes = await backend.create_file(root, b"f", 0o640, OWNER)
            assert stat.S_ISREG(attributes.mode) and stat.S_IMODE(attributes.mode) == 0o640
            assert (attributes.size, attributes.nlink) == (0, 1)
            assert await file.write(0, b"hello") == 5
            assert await file.write(10, b"world") == 5
            assert await file.read(0, 100) == b"hello\0\0\0\0\0world"
            assert await file.read(3, 4) == b"lo\0\0"
            assert await file.read(15, 10) == b""
            assert await file.read(100, 10) == b""
            await file.truncate(3)
            await file.truncate(6)
            assert await file.read(0, 100) == b"hel\0\0\0"
            await file.sync(data_only=True)
            await file.sync(data_only=False)
            assert (await file.get_attributes()).size == 6
            assert (await backend.get_attributes(root, b"f")).size == 6
            await file.close()

        run(make_backend, test)

    def test_content_and_names_survive_a_reopen_of_the_volume(self, make_backend: MakeBackend) -> None:
        """What was closed is there for the next owner."""

        async def first(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            directory = await make_directory(backend, root, b"d")
            await put(backend, directory, b"f", b"content")

        async def second(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            directory = await backend.open_directory(root, b"d", 0)
            assert await get(backend, directory, b"f") == b"content"
            assert await backend.list_names(root) == [b"d"]

        run(make_backend, first)
        run(make_backend, second)

    @pytest.mark.parametrize("name", [b"a" * 255, b"\xff\xfe", b"new\nline", b" ", b"-rf", b"...", "ä".encode()])
    def test_a_name_may_be_any_bytes(self, make_backend: MakeBackend, name: bytes) -> None:
        """Guarantee 2."""
        if name in self.illegal_names:

            async def refused(backend: BaseStorageBackend, root: BackendDirectory) -> None:
                with pytest.raises(errors.IllegalName):
                    await backend.create_file(root, name, 0o644, OWNER)
                assert await backend.find_attributes(root, name) is None
                assert await backend.list_names(root) == []

            run(make_backend, refused)
            return

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            await put(backend, root, name, b"x")
            assert await backend.list_names(root) == [name]
            assert await get(backend, root, name) == b"x"
            await backend.remove(root, name, is_directory=False)
            assert await backend.list_names(root) == []

        run(make_backend, test)

    def test_ten_thousand_names_are_listed_once_each(self, make_backend: MakeBackend) -> None:
        """A listing is complete."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            names = [b"file-%05d" % number for number in range(10_000)]
            for name in names:
                await backend.create_node(root, name, stat.S_IFREG | 0o600, OWNER)
            assert sorted(await backend.list_names(root)) == names
            found = await backend.get_attributes_of(root, [names[0], b"missing", names[1]])
            assert [attributes is None for attributes in found] == [False, True, False]
            assert await backend.find_attributes(root, b"missing") is None
            assert await backend.find_attributes(root, names[0]) == found[0]

        run(make_backend, test)

    def test_a_second_close_of_a_file_closes_nothing_else(self, make_backend: MakeBackend) -> None:
        """Closing twice happens when a caller gives up; another file may have the number by then."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            file, _ = await backend.create_file(root, b"f", 0o600, OWNER)
            await file.close()
            other, _ = await backend.create_file(root, b"other", 0o600, OWNER)
            await file.close()
            assert await other.write(0, b"x") == 1
            await other.close()

        run(make_backend, test)

    def test_sizes_beyond_64_bits_and_wrong_types_are_refused(self, make_backend: MakeBackend) -> None:
        """Guarantee 1, for arguments that no file has and for nodes of another type."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            file, _ = await backend.create_file(root, b"f", 0o600, OWNER)
            for call in (file.truncate, lambda at: file.write(at, b"x")):
                with pytest.raises((errors.FileTooLarge, errors.InvalidArgument)):
                    await call(1 << 63)
            await file.close()
            if backend.capabilities.symlinks:
                with pytest.raises(errors.InvalidArgument):
                    await backend.read_link(root, b"f", 0)
            if backend.capabilities.special_files:
                for file_type in (stat.S_IFSOCK, stat.S_IFIFO):
                    await backend.create_node(root, b"special", file_type | 0o600, OWNER)
                    with pytest.raises(errors.InvalidArgument):
                        await backend.open_file(root, b"special", 0, writable=False)
                    await backend.remove(root, b"special", is_directory=False)

        run(make_backend, test)

    @pytest.mark.parametrize("key", [b"", b"f", b"n", b"?", b"f" + bytes(3), b"n" + bytes(9), b"f" * 400, b"n" * 400])
    def test_a_damaged_key_is_stale_or_measures_as_nothing(self, make_backend: MakeBackend, key: bytes) -> None:
        """Keys come back from a file that may be damaged."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            with contextlib.suppress(errors.Stale, errors.Unsupported):
                assert await backend.measure_key(key) == Usage(0, 0)

        run(make_backend, test)

    def test_errors_are_those_of_the_manual_pages(self, make_backend: MakeBackend) -> None:
        """Guarantee 1."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            await put(backend, root, b"f", b"x")
            directory = await make_directory(backend, root, b"d")
            await put(backend, directory, b"inner")
            await backend.create_node(root, b"e", stat.S_IFDIR | 0o755, OWNER)
            cases: list[tuple[type[errors.StorageException], Callable[[], Awaitable[Any]]]] = [
                (errors.NotFound, lambda: backend.get_attributes(root, b"missing")),
                (errors.NotFound, lambda: backend.open_file(root, b"missing", 0, writable=False)),
                (errors.NotFound, lambda: backend.open_directory(root, b"missing", 0)),
                (errors.NotFound, lambda: backend.remove(root, b"missing", is_directory=False)),
                (errors.NotFound, lambda: backend.rename(root, b"missing", root, b"x")),
                (errors.AlreadyExists, lambda: backend.create_file(root, b"f", 0o600, OWNER)),
                (errors.AlreadyExists, lambda: backend.create_node(root, b"d", stat.S_IFDIR | 0o700, OWNER)),
                (errors.NotADirectory, lambda: backend.open_directory(root, b"f", 0)),
                (errors.NotADirectory, lambda: backend.remove(root, b"f", is_directory=True)),
                (errors.NotADirectory, lambda: backend.rename(root, b"e", root, b"f")),
                (errors.IsADirectory, lambda: backend.open_file(root, b"d", 0, writable=False)),
                (errors.IsADirectory, lambda: backend.remove(root, b"d", is_directory=False)),
                (errors.IsADirectory, lambda: backend.rename(root, b"f", root, b"d")),
                (errors.DirectoryNotEmpty, lambda: backend.remove(root, b"d", is_directory=True)),
                (errors.DirectoryNotEmpty, lambda: backend.rename(root, b"e", root, b"d")),
            ]
            for expected, call in cases:
                with pytest.raises(expected):
                    await call()

        run(make_backend, test)

    def test_another_inode_under_the_name_is_stale_and_untouched(self, make_backend: MakeBackend) -> None:
        """Guarantee 3."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            ino = await put(backend, root, b"f", b"x")
            await put(backend, root, b"g", b"y")
            await backend.create_node(root, b"d", stat.S_IFDIR | 0o755, OWNER)
            for call in (
                lambda: backend.open_file(root, b"g", ino, writable=True),
                lambda: backend.set_attributes(root, b"g", ino, AttributeChanges(mode=0o777)),
                lambda: backend.open_directory(root, b"d", ino),
                lambda: backend.set_attributes(root, b"d", ino, AttributeChanges(mode=0o777)),
            ):
                with pytest.raises(errors.Stale):
                    await call()
            assert stat.S_IMODE((await backend.get_attributes(root, b"g")).mode) == 0o644

        run(make_backend, test)

    def test_an_open_file_survives_unlink_and_rename(self, make_backend: MakeBackend) -> None:
        """BackendFile's promise."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            file, _ = await backend.create_file(root, b"f", 0o644, OWNER)
            await file.write(0, b"one")
            await backend.rename(root, b"f", root, b"g")
            await file.write(3, b"two")
            assert await get(backend, root, b"g") == b"onetwo"
            await backend.remove(root, b"g", is_directory=False)
            await file.write(6, b"three")
            assert await file.read(0, 100) == b"onetwothree"
            attributes = await file.get_attributes()
            assert (attributes.nlink, attributes.size) == (0, 11)
            changed = await file.set_attributes(AttributeChanges(mode=0o600, mtime_ns=5))
            assert (stat.S_IMODE(changed.mode), changed.mtime_ns) == (0o600, 5)
            again = await file.reopen(writable=False)
            assert await again.read(0, 3) == b"one"
            await again.close()
            await file.close()

        run(make_backend, test)

    def test_rename_replaces_and_its_flags_hold(self, make_backend: MakeBackend) -> None:
        """Guarantee 5."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            await put(backend, root, b"a", b"A")
            await put(backend, root, b"b", b"B")
            directory = await make_directory(backend, root, b"d")
            await backend.rename(root, b"a", directory, b"a")
            assert not await exists(backend, root, b"a")
            await backend.rename(directory, b"a", root, b"b")
            assert await get(backend, root, b"b") == b"A"
            if not backend.capabilities.rename_flags:
                return
            await put(backend, root, b"c", b"C")
            with pytest.raises(errors.AlreadyExists):
                await backend.rename(root, b"c", root, b"b", RENAME_NOREPLACE)
            await backend.rename(root, b"c", root, b"b", RENAME_EXCHANGE)
            assert [await get(backend, root, b"b"), await get(backend, root, b"c")] == [b"C", b"A"]

        run(make_backend, test)

    def test_attributes_change_as_asked_and_nothing_else(self, make_backend: MakeBackend) -> None:
        """set_attributes."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            ino = await put(backend, root, b"f", b"x")
            set_ = backend.set_attributes
            now = await set_(root, b"f", ino, AttributeChanges(atime_ns=1_000_000_001, mtime_ns=2_000_000_002))
            assert (now.atime_ns, now.mtime_ns) == (1_000_000_001, 2_000_000_002)
            now = await set_(root, b"f", ino, AttributeChanges(mtime_ns=3))
            assert (now.atime_ns, now.mtime_ns) == (1_000_000_001, 3)
            now = await set_(root, b"f", ino, AttributeChanges(mode=0o4711))
            assert stat.S_IMODE(now.mode) == 0o4711
            if backend.capabilities.ownership:
                now = await set_(root, b"f", ino, AttributeChanges(uid=12, gid=34))
                assert (now.uid, now.gid, stat.S_IMODE(now.mode)) == (12, 34, 0o711)
            root_now = await backend.get_attributes(root, b"")
            assert stat.S_ISDIR(root_now.mode)

        run(make_backend, test)

    def test_a_new_node_belongs_to_its_owner_under_the_umask(self, make_backend: MakeBackend) -> None:
        """NodeOwner; setgid parents pass their group on."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            if not backend.capabilities.ownership:
                return
            owner = NodeOwner(12, 34, 0o027)
            file, attributes = await backend.create_file(root, b"f", 0o666, owner)
            await file.close()
            assert (attributes.uid, attributes.gid, stat.S_IMODE(attributes.mode)) == (12, 34, 0o640)
            made = await backend.create_node(root, b"d", stat.S_IFDIR | 0o777, owner)
            assert (made.uid, made.gid, stat.S_IMODE(made.mode)) == (12, 34, 0o750)
            await backend.set_attributes(root, b"d", made.ino, AttributeChanges(gid=99))
            await backend.set_attributes(root, b"d", made.ino, AttributeChanges(mode=0o2777))
            directory = await backend.open_directory(root, b"d", made.ino)
            file, attributes = await backend.create_file(directory, b"f", 0o666, owner)
            await file.close()
            assert (attributes.uid, attributes.gid) == (12, 99)
            inner = await backend.create_node(directory, b"d", stat.S_IFDIR | 0o777, owner)
            assert inner.gid == 99 and inner.mode & stat.S_ISGID

        run(make_backend, test)

    def test_links_symlinks_and_special_files(self, make_backend: MakeBackend) -> None:
        """Gated by capabilities."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            ino = await put(backend, root, b"f", b"x")
            if backend.capabilities.hard_links:
                linked = await backend.link(root, b"f", ino, root, b"g")
                assert (linked.ino, linked.nlink) == (ino, 2)
                with pytest.raises(errors.AlreadyExists):
                    await backend.link(root, b"f", ino, root, b"g")
            if backend.capabilities.symlinks:
                for name, target in ((b"s", b"/anywhere/\xff"), (b"long", b"x" * 4095)):
                    made = await backend.create_symlink(root, name, target, OWNER)
                    assert stat.S_ISLNK(made.mode) and made.size == len(target)
                    assert await backend.read_link(root, name, made.ino) == target
                with pytest.raises(errors.StorageException):
                    await backend.open_file(root, b"s", 0, writable=False)
                with pytest.raises(errors.StorageException):
                    await backend.open_directory(root, b"s", 0)
            if backend.capabilities.special_files:
                for name, kind in ((b"p", stat.S_IFIFO), (b"k", stat.S_IFSOCK)):
                    made = await backend.create_node(root, name, kind | 0o600, OWNER)
                    assert stat.S_IFMT(made.mode) == kind
                    with pytest.raises(errors.StorageException):
                        await backend.open_file(root, name, 0, writable=True)

        run(make_backend, test)

    def test_extended_attributes(self, make_backend: MakeBackend) -> None:
        """Gated by capabilities."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            ino = await put(backend, root, b"f")
            if not backend.capabilities.xattrs:
                with pytest.raises(errors.Unsupported):
                    await backend.get_xattr(root, b"f", ino, b"user.x")
                return
            with pytest.raises(errors.NoAttribute):
                await backend.get_xattr(root, b"f", ino, b"user.x")
            await backend.set_xattr(root, b"f", ino, b"user.x", b"\0value")
            assert await backend.get_xattr(root, b"f", ino, b"user.x") == b"\0value"
            assert b"user.x" in await backend.list_xattrs(root, b"f", ino)
            file, _ = await backend.open_file(root, b"f", ino, writable=False)
            await file.set_xattr(b"user.y", b"")
            assert await file.get_xattr(b"user.y") == b""
            await file.remove_xattr(b"user.x")
            assert b"user.x" not in await file.list_xattrs()
            await file.close()
            with pytest.raises(errors.NoAttribute):
                await backend.remove_xattr(root, b"f", ino, b"user.x")

        run(make_backend, test)

    def test_keys_find_what_they_mean_after_renames_and_nothing_once_it_is_gone(
        self, make_backend: MakeBackend
    ) -> None:
        """Gated by durable_keys."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            if not backend.capabilities.durable_keys:
                return
            future = backend.key_of_name(root, b"f", 0)
            assert future is not None
            assert await backend.measure_key(future) == Usage(0, 0)
            file, attributes = await backend.create_file(root, b"f", 0o644, OWNER)
            await file.write(0, b"12345")
            by_file, by_name = backend.key_of_file(file), backend.key_of_name(root, b"f", attributes.ino)
            assert by_file is not None and by_name is not None
            for key in (future, by_file, by_name):
                assert await backend.measure_key(key) == Usage(5, 1)
            await backend.rename(root, b"f", root, b"g")
            assert await backend.measure_key(by_file) == Usage(5, 1)
            assert await backend.measure_key(by_name) == Usage(0, 0)
            await put(backend, root, b"f", b"another")
            assert await backend.measure_key(by_name) == Usage(0, 0)
            await backend.remove(root, b"g", is_directory=False)
            assert await backend.measure_key(by_file) == Usage(0, 0)
            await file.close()
            assert await backend.measure_key(by_file) == Usage(0, 0)

        run(make_backend, test)

    def test_one_owner_and_the_gateways_own_files(self, make_backend: MakeBackend) -> None:
        """Reserved files are kept; a second owner is refused with the first one's line."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            assert await backend.load_reserved("identity.json") is None
            await backend.store_reserved("identity.json", b"one")
            await backend.store_reserved("identity.json", b"two")
            assert await backend.load_reserved("identity.json") == b"two"
            await backend.acquire_ownership(b'{"pid": 1, "host": "me"}\n')
            async with opened(make_backend) as (other, _):
                assert await other.load_reserved("identity.json") == b"two"
                with pytest.raises(errors.Busy, match="me"):
                    await other.acquire_ownership(b'{"pid": 2, "host": "you"}\n')
            for _ in range(2):
                await backend.remove_reserved("identity.json")
                assert await backend.load_reserved("identity.json") is None
            await backend.release_ownership()
            async with opened(make_backend) as (other, _):
                await other.acquire_ownership(b'{"pid": 2, "host": "you"}\n')

        run(make_backend, test)

    def test_space_is_sane(self, make_backend: MakeBackend) -> None:
        """get_space."""

        async def test(backend: BaseStorageBackend, root: BackendDirectory) -> None:
            space = await backend.get_space()
            assert 0 <= space.free_bytes <= space.total_bytes
            assert 0 <= space.free_inodes <= space.total_inodes
            assert space.max_name_bytes >= 255

        run(make_backend, test)
