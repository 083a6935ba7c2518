"""Every driver call of a workload fails once, before or after its work: usage still is what a walk finds."""

import math
import os
import stat

import pytest
import trio
from trio.testing import MockClock

from volgate.core.names import GATEWAY_NAME
from volgate.drivers.base import NodeOwner
from volgate.drivers.posix.backend import PosixBackend
from volgate.dto import AttributeChanges
from volgate.errors import InputOutput, NoSpace, StorageException
from volgate.testing.faults import Fault, FaultyBackend
from volgate.vfs.file_system import FileSystem
from volgate.volume.counting import count_usage
from volgate.volume.volume import open_volume

OWNER = NodeOwner(0, 0, 0o022)


async def workload(file_system, midway):
    """Do a bit of everything; a failing step is skipped, and one that hangs is given up, as programs do."""
    names, io, attributes = file_system.namespace, file_system.file_io, file_system.attributes
    root = file_system.tree.inodes.root
    handles = []

    async def attempt(call, *args, **kwargs):
        with trio.move_on_after(60):
            try:
                return await call(*args, **kwargs)
            except StorageException:
                return None

    async def create(name, size):
        made = await attempt(names.create_file, root, name, 0o644, OWNER)
        if made is None:
            return None
        inode, found, file = made
        file_system.tree.inodes.count_lookup(inode)
        fh = file_system.tree.register(inode, file, found, writable=True, privileged=True)
        handles.append(fh)
        await attempt(io.write, fh, 0, b"x" * size)
        await attempt(io.write, fh, size - 5, b"y" * 50)
        return inode

    one = await create(b"one", 1000)
    await create(b"two", 2000)
    await create(b"three", 500)
    if one is not None:
        await attempt(attributes.set, one, AttributeChanges(), size=300, fh=None, privileged=True)
        await attempt(attributes.set, one, AttributeChanges(mode=0o600), size=4000, fh=None, privileged=True)
        await attempt(names.link, one, root, b"one-again")
    await attempt(names.unlink, root, b"two")
    await attempt(names.create_node, root, b"dir", stat.S_IFDIR | 0o755, OWNER)
    await attempt(names.create_node, root, b"fifo", stat.S_IFIFO | 0o644, OWNER)
    await attempt(names.create_symlink, root, b"link", b"target", OWNER)
    await attempt(names.rename, root, b"three", root, b"one-again", 0)
    await attempt(names.rename, root, b"one", root, b"fifo", 0)
    await attempt(names.rmdir, root, b"dir")
    await attempt(names.unlink, root, b"link")
    for fh in handles:
        await attempt(file_system.tree.release, fh)
    await midway()
    await change_again(file_system, attempt)


async def change_again(file_system, attempt):
    """Lengthen every file that is left, cut it, and remove half of them: what failed before must not count twice."""
    names, io, attributes = file_system.namespace, file_system.file_io, file_system.attributes
    root = file_system.tree.inodes.root
    for number, name in enumerate((b"one", b"one-again", b"two", b"three", b"fifo", b"dir", b"link")):
        found = await attempt(names.lookup, root, name)
        if found is None:
            continue
        inode, status = found
        file_system.tree.inodes.count_lookup(inode)
        if stat.S_ISREG(status.mode):
            opened = await attempt(io.open, inode, os.O_RDWR, privileged=True)
            if opened is not None:
                await attempt(io.write, opened[0], status.size, b"z" * 70)
                await attempt(file_system.tree.release, opened[0])
            await attempt(attributes.set, inode, AttributeChanges(), size=status.size // 2, fh=None, privileged=True)
        if number % 2:
            await attempt(names.unlink, root, name)


async def run_with(fault, place, back_midway=True):
    """Run the workload with a fault; usage must be what a walk finds, at its end and at the next open.

    What hangs is done midway, or when the workload is over.
    """
    place.mkdir()
    places = {"mount_path": place / "mnt", "state_directory": place / "state", "runtime_directory": place / "run"}
    (place / "data").mkdir()
    volume = await open_volume(
        FaultyBackend(PosixBackend(place / "data"), fault), source=str(place / "data"), quota_bytes=5000, **places
    )
    file_system = FileSystem(volume, mount_point=place / "mnt", attr_timeout_s=0, entry_timeout_s=0)
    fault.armed = True
    await workload(file_system, fault.come_back if back_midway else trio.lowlevel.checkpoint)
    await fault.come_back()
    fault.armed = False
    await file_system.close()
    walked = await count_usage(volume.backend, volume.root)
    known = volume.gate.info()
    uncertain = volume.gate.uncertain
    await volume.close()
    again = await open_volume(PosixBackend(place / "data"), source=str(place / "data"), **places)
    found = again.gate.info()
    await again.close()
    assert (found.used_bytes, found.file_count) == (walked.bytes_, walked.inodes)
    if not uncertain:
        assert (known.used_bytes, known.file_count) == (walked.bytes_, walked.inodes)
    assert walked.bytes_ <= 5000
    assert os.fsdecode(GATEWAY_NAME) in os.listdir(place / "data")


@pytest.mark.parametrize("times", [1, 2, math.inf], ids=["once", "twice", "onwards"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [InputOutput("broken"), NoSpace("full")], ids=["EIO", "ENOSPC"])
def test_usage_survives_the_failure_of_every_single_call(tmp_path, error, after, times):
    number = 0
    while True:
        number += 1
        fault = Fault(at=number, error=error, after=after, times=times)
        trio.run(run_with, fault, tmp_path / str(number))
        if not fault.happened:
            break
    assert number > 30


@pytest.mark.parametrize("back_midway", [True, False], ids=["midway", "at the end"])
def test_usage_survives_what_hangs_and_is_done_after_it_was_given_up(tmp_path, back_midway):
    number = 0
    while True:
        number += 1
        fault = Fault(at=number, hang=True)
        clock = MockClock(autojump_threshold=0)
        trio.run(run_with, fault, tmp_path / str(number), back_midway, clock=clock)
        if not fault.happened:
            break
    assert number > 30


async def write_after_a_given_up_write(place):
    fault = Fault(at=1, hang=True, only=("write",))
    volume = await open_volume(
        FaultyBackend(PosixBackend(place), fault), source=str(place), mount_path=place / "mnt",
        state_directory=place.with_suffix(".state"), runtime_directory=place.with_suffix(".run"),
    )  # fmt: skip
    file_system = FileSystem(volume, mount_point=place / "mnt", attr_timeout_s=0, entry_timeout_s=0)
    io = file_system.file_io
    inode, _, file = await file_system.namespace.create_file(file_system.tree.inodes.root, b"f", 0o644, OWNER)
    fh = file_system.tree.register(inode, file, await file.get_attributes(), writable=True, privileged=True)
    fault.armed = True
    with trio.move_on_after(60):
        await io.write(fh, 0, b"late")
    with pytest.raises(InputOutput, match="given up"):
        await io.write(fh, 0, b"newer")
    with pytest.raises(InputOutput, match="given up"):
        await io.sync(fh, data_only=False)
    again, _ = await io.open(inode, os.O_RDWR, privileged=True)
    assert await io.write(again, 4, b" and more") == 9
    await fault.come_back()
    assert await io.read(again, 0, 100) == b"late and more"
    await file_system.close()
    await volume.close()


def test_a_handle_whose_write_was_given_up_takes_no_more_since_that_write_may_still_happen(tmp_path):
    (tmp_path / "data").mkdir()
    trio.run(write_after_a_given_up_write, tmp_path / "data", clock=MockClock(autojump_threshold=0))
