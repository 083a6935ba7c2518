"""A driver for tests of units: posix, but its server may be down (/host/down) and it may hang for ever (/host/hang).

It hangs on the event loop, as a driver does that calls a library which blocks.
"""

import os
import time
from pathlib import Path

from volgate.drivers.posix.backend import PosixBackend
from volgate.errors import Unavailable


class MoodyBackend(PosixBackend):
    backend_type = "moody"

    @classmethod
    def from_source(cls, source, options):
        return cls(Path(source.removeprefix("moody://")))

    async def open_volume(self, context):
        if os.path.exists("/host/down"):
            raise Unavailable("its server does not answer")
        return await super().open_volume(context)

    async def get_attributes(self, directory, name):
        while os.path.exists("/host/hang"):
            time.sleep(0.1)
        return await super().get_attributes(directory, name)

    async def find_attributes(self, directory, name):
        return await self.get_attributes(directory, name) if await super().find_attributes(directory, name) else None
