"""Files that are opened, closed, cut, written, changed and removed at once, by a driver whose calls take a while."""

import contextlib
import os
import random
from collections import Counter
from functools import partial

import attrs
import pytest
import trio
import trio.testing
from worked import OWNER, Worked

from volgate.drivers.posix.backend import PosixBackend
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.errors import AlreadyExists, NotFound, Stale
from volgate.vfs.files import Files

NAMES = ["a", "b", "c"]
ROUNDS = 150


class Crowd:
    """Works on few files at once. As the kernel does, it has one task a time write or cut an inode, or change names.

    An open(2) with O_TRUNC comes beside that: fuse_open() of Linux's fs/fuse/file.c locks the inode for its writeback
    cache alone.

    What ``upload`` does is the gateway's own work, which comes beside the kernel's.
    """

    def __init__(self, worked, seed):
        self.worked, self.chance = worked, random.Random(seed)
        self.inodes = {name: trio.Lock() for name in NAMES}
        self.files = Files(worked.fs, lambda touched: trio.lowlevel.checkpoint())
        self.done = Counter()

    async def repeat(self, act):
        for _ in range(ROUNDS):
            name = self.chance.choice(NAMES)
            try:
                await act(name)
                self.done[act.__name__] += 1
            except (NotFound, AlreadyExists, Stale):
                continue  # it is another file by now, or none just now

    async def open_and_close(self, name):
        inode = await self.find(name)
        fh, _ = await self.worked.fs.file_io.open(inode, self.chance.choice([os.O_RDONLY, os.O_RDWR]), privileged=True)
        await self.worked.fs.tree.release(fh)

    async def cut(self, name):
        async with self.inodes[name]:
            await self.worked.set_attributes(name, size=self.chance.randrange(20_000))

    async def empty(self, name):
        inode = await self.find(name)
        fh, _ = await self.worked.fs.file_io.open(inode, os.O_RDWR | os.O_TRUNC, privileged=True)
        await self.worked.fs.tree.release(fh)

    async def write(self, name):
        inode = await self.find(name)
        fh, _ = await self.worked.fs.file_io.open(inode, os.O_RDWR, privileged=True)
        async with self.inodes[name]:
            await self.worked.fs.file_io.write(fh, self.chance.randrange(20_000), b"x" * 3000)
        await self.worked.fs.tree.release(fh)

    async def change(self, name):
        async with self.inodes[name]:
            await self.worked.set_attributes(name, mode=self.chance.choice([0o600, 0o644]))

    async def look(self, name):
        await self.worked.fs.attributes.get(await self.find(name))

    async def make_anew(self, name):
        async with self.inodes[name]:
            await self.worked.remove(name)
            await self.worked.write(name, b"anew")

    async def upload(self, name):
        size = self.chance.randrange(9000)
        await self.files.write(name.encode(), size, _content(size), overwrite=True)

    async def link(self, name):
        inode = await self.find(name)
        root, other = self.worked.fs.tree.inodes.root, b"link-of-" + name.encode()
        with contextlib.suppress(AlreadyExists):
            await self.worked.fs.namespace.link(inode, root, other)
        await self.worked.fs.namespace.unlink(root, other)

    async def find(self, name):
        inode = await self.worked.find(name)
        if inode is None:
            raise NotFound
        return inode


async def opened(tmp_path):
    """Open a volume on storage in threads, and its files for the gateway's own work."""
    worked = await Worked.open(tmp_path, ThreadedBackend(PosixBackend(tmp_path / "data")))
    return worked, Files(worked.fs, lambda touched: trio.lowlevel.checkpoint())


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_usage_is_exact_and_no_call_fails_whatever_is_closed_meanwhile(tmp_path, seed, others):
    async def work():
        worked = await Worked.open(tmp_path, ThreadedBackend(PosixBackend(tmp_path / "data")))
        for name in NAMES:
            await worked.write(name, b"content")
        crowd = Crowd(worked, seed)
        acts = [crowd.cut, crowd.empty, crowd.write, crowd.change, crowd.look, crowd.make_anew]
        if others:
            acts += [crowd.upload, crowd.upload, crowd.link]
        async with trio.open_nursery() as nursery:
            for act in [crowd.open_and_close, *acts, crowd.open_and_close]:
                nursery.start_soon(crowd.repeat, act)
        assert min(crowd.done[act.__name__] for act in acts) > ROUNDS // 4, crowd.done
        assert not worked.volume.gate.uncertain
        await worked.check_usage()
        await worked.close()

    trio.run(work)


def test_uploads_to_one_path_at_once_replace_each_other(tmp_path):
    async def main():
        worked, files = await opened(tmp_path)
        async with trio.open_nursery() as nursery:
            for number in range(40):
                size = 100 * number
                nursery.start_soon(partial(files.write, b"p", size, _content(size), overwrite=True))
        await worked.check_usage()
        assert worked.volume.gate.used_inodes == 1
        assert len(worked.fs.tree.inodes) <= 2
        await worked.close()

    trio.run(main)


def test_a_file_that_is_replaced_while_it_is_looked_at_is_found(tmp_path):
    async def main():
        worked, files = await opened(tmp_path)
        await files.write(b"p", 5, _content(5), overwrite=True)

        async def replace():
            for _ in range(50):
                await files.write(b"p", 5, _content(5), overwrite=True)
            nursery.cancel_scope.cancel()

        async def look():
            while True:
                assert (await files.stat(b"p")).attributes.size == 5
                async with files.reading(b"p") as (_, read):
                    assert await read(0, 9) == b"x" * 5

        async with trio.open_nursery() as nursery:
            for act in [replace, look, look]:
                nursery.start_soon(act)
        await worked.close()

    trio.run(main)


def test_links_that_are_made_while_uploads_replace_the_file_keep_it_charged(tmp_path):
    async def main():
        worked, files = await opened(tmp_path)
        await worked.mkdir("one")
        await worked.mkdir("two")
        await worked.write("one/x", b"x")

        async def replace():
            for number in range(300):
                await files.write(b"one/x", number, _content(number), overwrite=True)

        async def link(kind):
            for number in range(300):
                with contextlib.suppress(NotFound, Stale):
                    await worked.link("one/x", f"two/{kind}{number}")

        async with trio.open_nursery() as nursery:
            for act in [replace, partial(link, "a"), partial(link, "b")]:
                nursery.start_soon(act)
        await worked.check_usage()
        await worked.close()

    trio.run(main)


@pytest.mark.parametrize("makes_one", [False, True])
def test_the_last_of_two_links_that_go_at_once_frees_the_file(tmp_path, makes_one):
    async def main():
        worked, files = await opened(tmp_path)
        await worked.mkdir("one")
        await worked.mkdir("two")
        for number in range(150):
            await worked.write(f"one/{number}", b"x" * 100)
            await worked.link(f"one/{number}", f"two/{number}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(files.remove, b"one/%d" % number, recursive=False))
                if makes_one:
                    nursery.start_soon(partial(files.write, b"two/%d" % number, 7, _content(7), overwrite=True))
                else:
                    nursery.start_soon(worked.remove, f"two/{number}")
        await worked.check_usage()
        assert worked.volume.gate.used_inodes == 2 + 150 * makes_one
        await worked.close()

    trio.run(main)


@pytest.mark.parametrize("threads", [False, True])
def test_an_upload_that_is_to_replace_nothing_leaves_what_was_made_meanwhile(tmp_path, threads):
    async def main():
        backend = PosixBackend(tmp_path / "data")
        worked = await Worked.open(tmp_path, ThreadedBackend(backend) if threads else backend)
        files = Files(worked.fs, lambda touched: trio.lowlevel.checkpoint())

        async def content():
            yield b"u" * 5
            await worked.write("x", b"precious")
            yield b"u" * 5

        with pytest.raises(AlreadyExists):
            await files.write(b"x", 10, content(), overwrite=False)
        await worked.write("y", b"moved")
        with pytest.raises(AlreadyExists):
            await files.move(b"y", b"x")
        assert (tmp_path / "data/x").read_bytes() == b"precious"
        await worked.check_usage()
        await worked.close()

    trio.run(main)


class _LateAttributes(PosixBackend):
    """Attributes are told later than they were so, as from a thread. Attributes: told: once they are, if not None."""

    told: trio.Event | None = None

    @property
    def capabilities(self):
        return attrs.evolve(super().capabilities, inline_io=False)

    async def get_attributes(self, directory, name):
        attributes, told, self.told = await super().get_attributes(directory, name), self.told, None
        if told is not None:
            await told.wait()
        return attributes


def test_a_file_that_is_cut_while_it_is_removed_frees_what_it_has(tmp_path):
    async def main():
        worked = await Worked.open(tmp_path, _LateAttributes(tmp_path / "data"))
        await worked.write("f", b"x" * 4000)
        inode = await worked.find("f")
        worked.fs.tree.inodes.count_lookup(inode)  # as the kernel does, before it cuts it
        told = worked.backend.told = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worked.fs.namespace.unlink, worked.fs.tree.inodes.root, b"f")
            await trio.testing.wait_all_tasks_blocked()
            await worked.set_attributes("f", size=10)
            told.set()
        assert worked.volume.gate.used_bytes == 0
        await worked.close()

    trio.run(main)


async def _content(size):
    yield b"x" * size


class _Keeping(PosixBackend):
    """Keeps what is removed under a name of its own, as NFS does with what is open."""

    async def remove(self, directory, name, *, is_directory):
        await super().rename(directory, name, directory, b".kept", 0)


def test_what_storage_keeps_until_the_last_close_can_be_given_a_name_again(tmp_path):
    async def main():
        worked = await Worked.open(tmp_path, ThreadedBackend(_Keeping(tmp_path / "data")))
        fh = await worked.open_file("f")
        await worked.fs.file_io.write(fh, 0, b"x" * 600)
        await worked.remove("f")
        await worked.link(".kept", "again")
        await worked.fs.tree.release(fh)
        (tmp_path / "data/.kept").unlink()
        await worked.check_usage()
        assert worked.volume.gate.used_bytes == 600
        await worked.close()

    trio.run(main)


class _Late(PosixBackend):
    """What removes a name is told later than it happened, as from a thread. Attributes: told: once it is."""

    told: trio.Event | None = None

    async def remove(self, directory, name, *, is_directory):
        await super().remove(directory, name, is_directory=is_directory)
        if self.told is not None:
            await self.told.wait()

    async def rename(self, *names):
        await super().rename(*names)
        if self.told is not None:
            await self.told.wait()


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("how", ["unlink", "rename"])
def test_a_number_that_is_given_away_before_its_removal_is_told_is_another_files(place, how, is_known):
    async def main():
        worked = await Worked.open(place, _Late(place / "data"))
        fs, root = worked.fs, worked.fs.tree.inodes.root
        await worked.write("old", b"o" * 600)
        await worked.write("new", b"n" * 50)
        old = os.stat(place / "data/old").st_ino
        if is_known:
            fs.tree.inodes.count_lookup(await worked.find("old"))
        worked.backend.told = trio.Event()
        made = []
        async with trio.open_nursery() as nursery:
            if how == "unlink":
                nursery.start_soon(fs.namespace.unlink, root, b"old")
            else:
                nursery.start_soon(fs.namespace.rename, root, b"new", root, b"old", 0)
            await trio.testing.wait_all_tasks_blocked()
            given = 0
            while given != old:
                inode, attributes, file = await fs.namespace.create_file(root, b"%d" % len(made), 0o600, OWNER)
                made.append(fs.tree.register(inode, file, attributes, writable=True, privileged=True))
                given = attributes.ino
                assert len(made) < 1000, "this file system does not give numbers away again"
            await fs.file_io.write(made[-1], 0, b"x" * 7)
            worked.backend.told.set()
        worked.backend.told = None
        for fh in made:
            await fs.tree.release(fh)
        await worked.check_usage()
        await worked.close()

    trio.run(main)
