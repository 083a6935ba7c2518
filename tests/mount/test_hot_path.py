"""What a request on a local directory may not do: wait. Counted, never timed."""

import errno
import logging
import os
import stat
from types import SimpleNamespace

import pyfuse3
import pytest
import trio

from volgate.drivers.posix.backend import PosixBackend
from volgate.fuse.datapath import DataPath
from volgate.fuse.operations import Operations
from volgate.fuse.session import FuseSession
from volgate.vfs.file_system import FileSystem
from volgate.volume.volume import open_volume

CALLER = SimpleNamespace(uid=1234, gid=1234, umask=0o022, pid=1)
NOTHING = SimpleNamespace(**dict.fromkeys(("update_mode", "update_uid", "update_gid", "update_atime"), False))


def at_once(coroutine):
    """Run a coroutine in one step: a thread hop, a nursery or a mere checkpoint in it would have to yield."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    except StopAsyncIteration:
        return None
    coroutine.close()
    raise AssertionError("it waited")


def with_file_system(place, test):
    """Run a function on the vfs of a volume with limits in a local directory."""

    async def main():
        (place / "data").mkdir()
        volume = await open_volume(
            PosixBackend(place / "data"), source=str(place / "data"), quota_bytes=1 << 20, quota_inodes=100,
            mount_path=place / "mnt", state_directory=place / "state", runtime_directory=place / "run",
        )  # fmt: skip
        file_system = FileSystem(volume, mount_point=place / "mnt", attr_timeout_s=60, entry_timeout_s=60)
        test(file_system)
        await file_system.close()
        await volume.close()

    trio.run(main)


def every_request(operations):
    """Make each request once but fsync and fsyncdir, which wait for the disk in a thread."""
    directory = at_once(operations.mkdir(pyfuse3.ROOT_INODE, b"d", stat.S_IFDIR | 0o755, CALLER)).st_ino
    assert at_once(operations.lookup(directory, b"f", CALLER)).st_ino == 0
    opened, entry = at_once(operations.create(directory, b"f", 0o644, os.O_RDWR, CALLER))
    file = entry.st_ino
    assert at_once(operations.write(opened.fh, 0, b"content")) == 7
    assert at_once(operations.write(opened.fh, 0, b"C")) == 1
    with pytest.raises(pyfuse3.FUSEError) as refused:
        at_once(operations.write(opened.fh, 1 << 20, b"beyond the limit"))
    assert refused.value.errno == errno.EDQUOT
    assert at_once(operations.read(opened.fh, 0, 100)) == b"Content"
    with pytest.raises(pyfuse3.FUSEError):
        at_once(operations.flush(opened.fh))
    changes = pyfuse3.EntryAttributes()
    changes.st_size, changes.st_mtime_ns = 3, 5
    fields = SimpleNamespace(**vars(NOTHING), update_size=True, update_mtime=True)
    assert at_once(operations.setattr(file, changes, fields, opened.fh, CALLER)).st_size == 3
    at_once(operations.release(opened.fh))
    assert at_once(operations.setattr(file, changes, fields, None, CALLER)).st_size == 3
    assert at_once(operations.getattr(file, CALLER)).st_size == 3
    with pytest.raises(pyfuse3.FUSEError):
        at_once(operations.getxattr(file, b"security.capability", CALLER))
    at_once(operations.setxattr(file, b"user.a", b"1", CALLER))
    assert at_once(operations.getxattr(file, b"user.a", CALLER)) == b"1"
    assert at_once(operations.listxattr(file, CALLER)) == [b"user.a"]
    at_once(operations.removexattr(file, b"user.a", CALLER))
    for name, kind in ((b"p", stat.S_IFIFO), (b"k", stat.S_IFSOCK), (b"n", stat.S_IFREG)):
        at_once(operations.mknod(directory, name, kind | 0o644, 0, CALLER))
    link = at_once(operations.symlink(directory, b"s", b"f", CALLER)).st_ino
    assert at_once(operations.readlink(link, CALLER)) == b"f"
    at_once(operations.link(file, directory, b"g", CALLER))
    at_once(operations.rename(directory, b"g", directory, b"h", 0, CALLER))
    at_once(operations.rename(directory, b"f", directory, b"h", 2, CALLER))
    listing = at_once(operations.opendir(directory, CALLER))
    directories = operations.file_system.directories
    entries = directories.entries(directories.get(listing), 0)
    names = [found[0] for found in iter(lambda: at_once(entries.__anext__()), None)]
    assert sorted(names) == [b"f", b"h", b"k", b"n", b"p", b"s"]
    at_once(operations.releasedir(listing))
    assert at_once(operations.statfs(CALLER)).f_files == 100
    opened = at_once(operations.open(file, os.O_RDONLY, CALLER))
    for name in names:
        at_once(operations.unlink(directory, name, CALLER))
    at_once(operations.release(opened.fh))
    at_once(operations.rmdir(pyfuse3.ROOT_INODE, b"d", CALLER))


def test_no_request_on_a_local_directory_waits_hops_to_a_thread_or_opens_a_nursery(tmp_path):
    def test(file_system):
        operations = Operations(file_system, DataPath())
        every_request(operations)
        handlers = {name for name in vars(Operations) if callable(getattr(pyfuse3.Operations, name, None))}
        made = set(operations.desk.requests) | {"readdir", "fsync", "fsyncdir", "forget", "__init__"}
        assert handlers == made  # readdir itself needs a request of the kernel's

    with_file_system(tmp_path, test)


def test_a_number_of_an_open_file_is_never_used_again(tmp_path):
    def test(file_system):
        operations = Operations(file_system, DataPath())
        numbers = []
        for _ in range(3):
            opened, entry = at_once(operations.create(pyfuse3.ROOT_INODE, b"f", 0o644, os.O_RDWR, CALLER))
            at_once(operations.release(opened.fh))
            again = at_once(operations.open(entry.st_ino, os.O_RDONLY, CALLER))
            at_once(operations.release(again.fh))
            at_once(operations.unlink(pyfuse3.ROOT_INODE, b"f", CALLER))
            numbers += [opened.fh, again.fh]
        assert numbers == sorted(set(numbers))
        with pytest.raises(pyfuse3.FUSEError) as refused:
            at_once(operations.read(numbers[0], 0, 1))
        assert refused.value.errno == errno.ESTALE

    with_file_system(tmp_path, test)


def errno_of(coroutine):
    """Run a request and return the errno that it answers, 0 for none."""
    try:
        at_once(coroutine)
    except pyfuse3.FUSEError as error:
        return error.errno
    return 0


def test_a_request_that_comes_a_second_time_is_answered_and_charged_once(tmp_path):
    """As it does when a kernel sends again what a daemon that died had not answered (FUSE_NOTIFY_RESEND)."""

    def test(file_system):
        operations, root = Operations(file_system, DataPath()), pyfuse3.ROOT_INODE
        opened, entry = at_once(operations.create(root, b"f", 0o644, os.O_RDWR, CALLER))
        twice = [
            (lambda: operations.create(root, b"f", 0o644, os.O_RDWR, CALLER), errno.EEXIST),
            (lambda: operations.mkdir(root, b"d", stat.S_IFDIR | 0o755, CALLER), errno.EEXIST),
            (lambda: operations.write(opened.fh, 0, b"content"), 0),
            (lambda: operations.link(entry.st_ino, root, b"g", CALLER), errno.EEXIST),
            (lambda: operations.rename(root, b"g", root, b"h", 0, CALLER), errno.ENOENT),
            (lambda: operations.rmdir(root, b"d", CALLER), errno.ENOENT),
            (lambda: operations.unlink(root, b"h", CALLER), errno.ENOENT),
            (lambda: operations.release(opened.fh), 0),
            (lambda: operations.forget([(entry.st_ino, 2)]), 0),
        ]
        for make, again in twice:
            errno_of(make())
            assert errno_of(make()) == again
        quota = file_system.volume.gate.info()
        assert (quota.used_bytes, quota.file_count) == (7, 1)

    with_file_system(tmp_path, test)


@pytest.mark.parametrize("forgotten", [1, 0])
def test_references_that_do_not_add_up_at_the_end_are_an_alarm(tmp_path, caplog, forgotten):
    def test(file_system):
        operations = Operations(file_system, DataPath())
        entry = at_once(operations.mkdir(pyfuse3.ROOT_INODE, b"d", stat.S_IFDIR | 0o755, CALLER))
        at_once(operations.forget([(entry.st_ino, 1)]))
        file_system.tree.inodes.forgets -= 1 - forgotten  # as a forget that was lost would
        session = FuseSession(file_system, tmp_path / "mnt", volume_id="v", read_only=False, allow_other=False)
        session._check_balance()

    with caplog.at_level(logging.ERROR):
        with_file_system(tmp_path, test)
    assert bool(caplog.records) != bool(forgotten)
