"""A mount daemon whose driver fails on command: PROGRAM SOURCE MOUNTPOINT KIND CALL INLINE DEADLINE.

The fault is armed as long as the file SOURCE.armed exists.
"""

import os
import sys
from pathlib import Path

import trio

from volgate import logs
from volgate.drivers.posix.backend import PosixBackend
from volgate.errors import InputOutput
from volgate.fuse.session import FuseSession
from volgate.testing.faults import Fault, FaultyBackend
from volgate.vfs.file_system import FileSystem
from volgate.volume.volume import open_volume


class LiveFault(Fault):
    def strikes(self, name):
        self.armed = os.path.exists(sys.argv[1] + ".armed")
        return super().strikes(name)


KINDS = {
    "raise": {"error": ValueError("a bug in a driver")},
    "oserror": {"error": OSError(5000, "an errno that nobody knows")},
    "fail": {"error": InputOutput("the disk is broken")},
    "hang": {"hang": True},
    "lie": {"lie": object()},
    "none": {"lie": None},
    "long": {"lie": b"x" * 3_000_000},
    "group": {"error": ExceptionGroup("from a nursery", [ValueError("inner")])},
}


async def main(source, mount_point, kind, call, inline, deadline):
    fault = LiveFault(**KINDS[kind], only=(call,))
    backend = FaultyBackend(PosixBackend(Path(source)), fault, inline == "inline")
    volume = await open_volume(
        backend,
        source=source,
        mount_path=Path(mount_point),
        state_directory=Path(source + ".state"),
        runtime_directory=Path(source + ".run"),
    )
    file_system = FileSystem(volume, mount_point=Path(mount_point), attr_timeout_s=0, entry_timeout_s=0)
    session = FuseSession(
        file_system,
        Path(mount_point),
        volume_id="faulty",
        read_only=False,
        allow_other=True,
        deadline_s=float(deadline),
    )
    session.mount()
    await session.serve()
    await file_system.close()
    await volume.close()


logs.set_up()
trio.run(main, *sys.argv[1:])
