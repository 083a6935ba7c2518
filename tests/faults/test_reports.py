"""What is told of a failure: which operation, where, on which kind of backend, and the errno's name."""

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pyfuse3
import pytest
import trio

from volgate.drivers.posix.backend import PosixBackend
from volgate.dto import StorageLocation, StorageOperationError
from volgate.errors import InputOutput
from volgate.fuse.datapath import DataPath
from volgate.fuse.operations import Operations
from volgate.testing.faults import Fault, FaultyBackend
from volgate.vfs.file_system import FileSystem
from volgate.volume.volume import open_volume


def test_a_failure_is_reported_with_its_place(place):
    caller = SimpleNamespace(uid=0, gid=0, umask=0o022, pid=1)

    async def main():
        (place / "data").mkdir()
        fault = Fault(at=1, error=InputOutput("the disk is broken"), only=("read",))
        volume = await open_volume(
            FaultyBackend(PosixBackend(place / "data"), fault), source=str(place / "data"), mount_path=place / "mnt",
            state_directory=place / "state", runtime_directory=place / "run",
        )  # fmt: skip
        file_system = FileSystem(volume, mount_point=place / "mnt", attr_timeout_s=60, entry_timeout_s=60)
        operations = Operations(file_system, DataPath())
        directory = await operations.mkdir(pyfuse3.ROOT_INODE, b"d", stat.S_IFDIR | 0o755, caller)
        opened, entry = await operations.create(directory.st_ino, b"f", 0o644, os.O_RDWR, caller)
        fault.armed = True
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await operations.read(opened.fh, 0, 10)
        assert caught.value.errno == errno.EIO
        volume_id = volume.identity.volume_id
        assert file_system.tree.location(entry.st_ino) == StorageLocation(volume_id, place / "mnt", Path("d/f"))
        assert list(operations.desk.statistics().recent_errors) == [
            StorageOperationError("read", volume_id, "d/f", "faulty", "the disk is broken", "EIO")
        ]
        await file_system.close()
        await volume.close()

    trio.run(main)
