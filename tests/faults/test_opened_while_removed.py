"""A file that is opened while its last name goes, by a driver that takes its time: counted once, whoever is first."""

import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from worked import Worked

from volgate.drivers.posix.backend import PosixBackend
from volgate.errors import Stale


class SlowBackend(PosixBackend):
    """One kind of its calls waits until it is let: an open when it is done, a change before it is."""

    slow = ""
    let = None

    async def wait_for(self, name):
        if self.slow == name:
            await self.let.wait()

    async def open_file(self, *args, **kwargs):
        result = await super().open_file(*args, **kwargs)
        await self.wait_for("open_file")
        return result

    async def remove(self, *args, **kwargs):
        await self.wait_for("remove")
        await super().remove(*args, **kwargs)

    async def rename(self, *args, **kwargs):
        await self.wait_for("rename")
        await super().rename(*args, **kwargs)


async def open_and_take_away(place, slow, how, flags):
    backend = SlowBackend(place / "data")
    worked = await Worked.open(place, backend)
    io = worked.fs.file_io
    await worked.write("f", b"content")
    await worked.write("other", b"12345")
    inode = await worked.find("f")
    backend.let = trio.Event()
    opened = []

    async def take_away():
        await (worked.remove("f") if how == "remove" else worked.rename("other", "f"))

    async def open_it():
        try:
            opened.append((await io.open(inode, flags, privileged=True))[0])
        except Stale:
            opened.append(None)

    first, second = (open_it, take_away) if slow == "open_file" else (take_away, open_it)
    async with trio.open_nursery() as nursery:
        backend.slow = slow
        nursery.start_soon(first)
        await wait_all_tasks_blocked()
        await second()
        backend.let.set()
    (fh,) = opened
    if fh is not None:  # an open file without a name is charged until its last close
        content = 0 if flags & os.O_TRUNC else 7
        assert worked.volume.gate.info().used_bytes == content + 5
        await worked.fs.tree.release(fh)
    assert worked.volume.gate.info().used_bytes == 5
    await worked.check_usage()
    await worked.close()


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC], ids=["read", "write", "truncate"])
@pytest.mark.parametrize("how", ["remove", "rename"])
@pytest.mark.parametrize("slow", ["open", "change"])
def test_a_file_opened_while_its_name_goes_is_counted_once(tmp_path, slow, how, flags):
    trio.run(open_and_take_away, tmp_path, "open_file" if slow == "open" else how, how, flags)
