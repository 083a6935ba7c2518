"""The kernel's INIT handshake and the wait for requests.

libfuse 3.14, which pyfuse3 stands on, does not know all INIT flags that a gateway needs. So pyfuse3 is given one end of
a socket pair instead of /dev/fuse for its first request: libfuse answers INIT there, the answer's flags are amended
and sent to the kernel, and then /dev/fuse takes the socket's place under the same number (dup2). From then on nothing
stands between.

Flags (fuse(4), include/uapi/linux/fuse.h), each only where the kernel offers it:
    HANDLE_KILLPRIV_V2: suid and sgid are cleared by us; the kernel need not ask for security.capability a write.
    DONT_MASK: the umask is applied below, where default ACLs are known.
    PARALLEL_DIROPS: lookups in one directory do not wait for each other.
    CACHE_SYMLINKS: targets are asked for once; they never change while the inode lives.
    AUTO_INVAL_DATA off: pages written through the mount stay cached; what changes behind it is noticed by
    ``vfs.file_io.open`` and ``fuse.operations`` and dropped by an explicit invalidation.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
import types
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

_DONT_MASK: Final = 1 << 6
_AUTO_INVAL_DATA: Final = 1 << 12
_PARALLEL_DIROPS: Final = 1 << 18
_CACHE_SYMLINKS: Final = 1 << 23
_HANDLE_KILLPRIV_V2: Final = 1 << 28
_ADDED: Final = _DONT_MASK | _PARALLEL_DIROPS | _CACHE_SYMLINKS | _HANDLE_KILLPRIV_V2
_REMOVED: Final = _AUTO_INVAL_DATA

_REQUEST_BYTES: Final = 1 << 17
_HEADER_IN: Final = 40
_HEADER_OUT: Final = 16
_FLAGS_AT: Final = 12
"""Offset of ``flags`` in fuse_init_in and in fuse_init_out."""

_BURST: Final = 64
_SPIN_S: Final = 50e-6
_SPIN_MISSES: Final = 6


class KernelChannel:
    """The descriptor that pyfuse3 reads: first a socket for the handshake, then /dev/fuse.

    ``wait_readable`` replaces trio's in pyfuse3's namespace. It polls before it sleeps: when requests come in a row
    that saves trio's scheduler two switches each (36 -> 21 us of CPU a request, measured). A burst is capped so that
    other tasks run. When polling finds nothing, it spins shortly as long as spinning has paid lately: waking a halted
    processor costs more.

    Attributes:
        answered: set once the handshake is over: from then on requests are served.

    Args:
        device: descriptor of /dev/fuse, mounted; closed by ``close``.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.fd = theirs.detach()
        self.answered = trio.Event()
        self._waits = 0
        self._offered = 0
        self._poll = select.poll()
        self._burst = 0
        self._misses = 0

    def begin(self) -> None:
        """Read the kernel's INIT and pass it on. The kernel sends it as soon as the mount is made."""
        request = os.read(self._device, _REQUEST_BYTES)
        (self._offered,) = struct.unpack_from("=I", request, _HEADER_IN + _FLAGS_AT)
        self._ours.send(request)

    async def wait_readable(self, fd: int, real: Callable[[int], Awaitable[None]]) -> None:
        """Return when pyfuse3's descriptor has a request."""
        if self._waits < 2:
            self._waits += 1
            if self._waits == 1:
                return  # INIT is there
            self._finish()
        if self._burst < _BURST and (self._poll.poll(0) or self._spin()):
            self._burst += 1
            return
        self._burst = 0
        await real(fd)

    def _spin(self) -> bool:
        if self._misses >= _SPIN_MISSES:
            self._misses += 1
            if self._misses < 4 * _SPIN_MISSES:
                return False
            self._misses = _SPIN_MISSES - 1  # try again now and then
        poll = self._poll.poll
        end = time.perf_counter() + _SPIN_S
        while time.perf_counter() < end:
            if poll(0):
                self._misses = 0
                return True
        self._misses += 1
        return False

    def _finish(self) -> None:
        """Amend libfuse's answer, send it, and put /dev/fuse in the socket's place."""
        answer = bytearray(self._ours.recv(_REQUEST_BYTES))
        (flags,) = struct.unpack_from("=I", answer, _HEADER_OUT + _FLAGS_AT)
        flags = (flags | (_ADDED & self._offered)) & ~_REMOVED
        struct.pack_into("=I", answer, _HEADER_OUT + _FLAGS_AT, flags)
        os.write(self._device, answer)
        os.dup2(self._device, self.fd, inheritable=False)
        self._ours.close()
        self._poll.register(self.fd, select.POLLIN)
        self.answered.set()

    def close(self) -> None:
        """Give the device back; the kernel ends the connection when pyfuse3 has closed its own."""
        os.close(self._device)
        self._ours.close()


class ReadLock:
    """Whose turn it is to read a request, in place of the trio.Lock that pyfuse3 makes.

    trio's lock runs the scheduler at every request. This one lets the task that has just answered read on, as long as
    another stands by; that one is woken all the same, so it reads as soon as the first has to wait for its backend.
    Without one standing by the scheduler runs once, since pyfuse3 has then just started one.
    """

    def __init__(self) -> None:
        self._held = False
        self._standing_by = trio.lowlevel.ParkingLot()
        self._woken = False

    async def __aenter__(self) -> None:
        if not self._held and not self._woken and not self._standing_by:
            await trio.lowlevel.checkpoint()
        while self._held:
            try:
                await self._standing_by.park()
            finally:
                self._woken = False
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False
        if not self._woken and self._standing_by:
            self._woken = True
            self._standing_by.unpark()


def install(pyfuse3_module: types.ModuleType, channel: KernelChannel) -> None:
    """Give pyfuse3 a ``trio`` of our own, before its ``init`` (pyfuse3.asyncio does the same)."""
    real = trio.lowlevel.wait_readable

    async def wait_readable(fd: int) -> None:
        await channel.wait_readable(fd, real)

    lowlevel = _namespace(trio.lowlevel, wait_readable=wait_readable)
    namespace = _namespace(trio, lowlevel=lowlevel, Lock=ReadLock)
    for module in (pyfuse3_module, sys.modules.get("pyfuse3.__init__")):
        if module is not None and hasattr(module, "trio"):
            module.trio = namespace  # type: ignore[attr-defined]


def _namespace(module: Any, **replaced: Any) -> types.SimpleNamespace:
    names = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    return types.SimpleNamespace(**{**names, **replaced})
