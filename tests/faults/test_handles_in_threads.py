"""Files that are opened, closed, cut, written, changed and removed at once, by a driver whose calls take a while."""

import os
import random
from collections import Counter

import pytest
import trio
from worked import Worked

from volgate.drivers.posix.backend import PosixBackend
from volgate.drivers.wrap.threaded import ThreadedBackend
from volgate.errors import NotFound, Stale

NAMES = ["a", "b", "c"]
ROUNDS = 150


class Crowd:
    """Works on few files at once. As the kernel does, it has one task a time change an inode's size, or its names."""

    def __init__(self, worked, seed):
        self.worked, self.chance = worked, random.Random(seed)
        self.inodes = {name: trio.Lock() for name in NAMES}
        self.done = Counter()

    async def repeat(self, act):
        for _ in range(ROUNDS):
            name = self.chance.choice(NAMES)
            try:
                await act(name)
                self.done[act.__name__] += 1
            except (NotFound, Stale):
                continue  # it is another file by now, or none just now

    async def open_and_close(self, name):
        inode = await self.find(name)
        fh, _ = await self.worked.fs.file_io.open(inode, self.chance.choice([os.O_RDONLY, os.O_RDWR]), privileged=True)
        await self.worked.fs.tree.release(fh)

    async def cut(self, name):
        async with self.inodes[name]:
            await self.worked.set_attributes(name, size=self.chance.randrange(20_000))

    async def empty(self, name):
        async with self.inodes[name]:
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

    async def find(self, name):
        inode = await self.worked.find(name)
        if inode is None:
            raise NotFound
        return inode


@pytest.mark.parametrize("seed", range(4))
def test_usage_is_exact_and_no_call_fails_whatever_is_closed_meanwhile(tmp_path, seed):
    async def work():
        worked = await Worked.open(tmp_path, ThreadedBackend(PosixBackend(tmp_path / "data")))
        for name in NAMES:
            await worked.write(name, b"content")
        crowd = Crowd(worked, seed)
        acts = [crowd.cut, crowd.empty, crowd.write, crowd.change, crowd.look, crowd.make_anew]
        async with trio.open_nursery() as nursery:
            for act in [crowd.open_and_close, *acts, crowd.open_and_close]:
                nursery.start_soon(crowd.repeat, act)
        assert min(crowd.done[act.__name__] for act in acts) > ROUNDS // 4, crowd.done
        assert not worked.volume.gate.uncertain
        await worked.check_usage()
        await worked.close()

    trio.run(work)
