"""One mounted volume: mount, serve, unmount. pyfuse3 keeps one session a process, so a process has one of these."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import pyfuse3
import trio

from volgate.dto import StorageOperationError
from volgate.errors import Busy, StorageException
from volgate.fuse import mounting
from volgate.fuse.channel import KernelChannel, install
from volgate.fuse.datapath import DataPath
from volgate.fuse.door import DEADLINE_S, Latency
from volgate.fuse.guard import Guard
from volgate.fuse.operations import Operations
from volgate.mount_table import FILE_SYSTEM_TYPE, list_mounts

if TYPE_CHECKING:
    from volgate.vfs.file_system import FileSystem

log = logging.getLogger(__name__)

MAX_TASKS: Final = 1024
"""Requests that may wait at once; were they all to hang, nobody would read the device any more."""


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return False for a reply that nobody waits for: its request ended with the mount, or was interrupted (ENOENT)."""
    return not (record.msg.endswith("fuse_reply_* failed with %s") and record.args == (os.strerror(errno.ENOENT),))


logging.getLogger("pyfuse3").addFilter(_is_worth_a_line)


@attrs.frozen
class SessionStatistics:
    """What passed through a mount, and what it holds.

    Attributes:
        requests: what was answered of each operation, with how long it took.
        errors: how often each errno was answered.
        in_flight: requests under way that can wait. oldest_request_s: age of the oldest of them, seconds.
        waiting: requests that the kernel holds, read or not.
        read_bytes, written_bytes: content that passed; what the kernel answered from its pages did not.
        lookups: references ever given to the kernel. forgets: those it gave back.
        inodes: inodes in use, the root included. open_files: open regular files.
        recent_errors: the last failures worth a look, oldest first.
    """

    requests: dict[str, Latency]
    errors: dict[str, int]
    in_flight: int
    waiting: int
    oldest_request_s: float
    read_bytes: int
    written_bytes: int
    lookups: int
    forgets: int
    inodes: int
    open_files: int
    recent_errors: tuple[StorageOperationError, ...]

    @property
    def answered(self) -> int:
        """Requests answered so far."""
        return sum(latency.count for latency in self.requests.values())

    @property
    def unread(self) -> int:
        """Requests that wait to be read; 0 while some are under way, since ``waiting`` cannot tell them apart."""
        return 0 if self.in_flight else self.waiting


class FuseSession:
    """The connection between a file system and the kernel.

    Args:
        file_system: what is served; to be closed after ``serve``, which leaves open what the kernel left open.
        mount_point: absolute, resolved.
        volume_id: named in mountinfo as ``volgate:ID``.
        read_only: mount read-only.
        allow_other: other users may enter; permissions are always checked by the kernel.
        deadline_s: how long a request to a driver that can hang may stand still, seconds.
        mounter: who mounts and unmounts; by default this process.

    Attributes:
        mount_point: where users see the volume.
    """

    def __init__(
        self,
        file_system: FileSystem,
        mount_point: Path,
        *,
        volume_id: str,
        read_only: bool,
        allow_other: bool,
        deadline_s: float = DEADLINE_S,
        mounter: mounting.Mounter | None = None,
    ) -> None:
        self._mounter = mounter or mounting.Mounter()
        self._file_system = file_system
        self.mount_point = mount_point
        self._source = f"volgate:{volume_id}"
        self._read_only = read_only
        self._allow_other = allow_other
        self._operations = Operations(file_system, DataPath(), deadline_s=deadline_s)
        self._channel: KernelChannel | None = None
        self._guard: Guard | None = None
        self._device_minor = -1
        self._serving = trio.CancelScope()

    def mount(self) -> None:
        """Make the mount; it answers once ``serve`` runs.

        Raises:
            StorageException: one line that says what is missing.
        """
        device = self._mounter.mount(
            self.mount_point, source=self._source, read_only=self._read_only, allow_other=self._allow_other
        )
        self._channel = KernelChannel(device)
        install(pyfuse3, self._channel)
        pyfuse3.init(self._operations, f"/dev/fd/{self._channel.fd}", set())
        self._channel.begin()
        entry = mounting.find_mount(self.mount_point)
        self._device_minor = entry.device_minor if entry is not None else -1
        self._guard = Guard(self._device_minor)

    async def serve(self) -> None:
        """Answer the kernel until the connection is gone: unmounted, or aborted."""
        try:
            async with trio.open_nursery() as nursery:
                self._serving = nursery.cancel_scope
                nursery.start_soon(self._operations.invalidate_changed)
                nursery.start_soon(self._widen_read_ahead)
                try:
                    await pyfuse3.main(1, MAX_TASKS)
                except* ConnectionAbortedError:  # the kernel ended it just while it was read
                    log.info("the connection was aborted")
                nursery.cancel_scope.cancel()
        finally:
            pyfuse3.close(unmount=False)
            if self._channel is not None:
                self._channel.close()
            if self._guard is not None:
                self._guard.end()
            self._check_balance()

    async def _widen_read_ahead(self) -> None:
        """Have the kernel read ahead as much as one request holds, where each may wait for a network."""
        await self.wait_until_served()  # INIT's answer sets it anew
        capabilities = self._file_system.volume.backend.capabilities
        if not capabilities.inline_io:
            mounting.set_read_ahead(self._device_minor, capabilities.max_read_bytes)

    async def wait_until_served(self) -> None:
        """Return once the kernel's requests are answered. After ``mount``, while ``serve`` runs."""
        assert self._channel is not None
        await self._channel.answered.wait()

    def _check_balance(self) -> None:
        """Say so when references given and taken back do not add up: the inode table would leak."""
        table = self._file_system.tree.inodes.statistics()
        if table.lookups - table.forgets != table.held:
            log.error(
                "the kernel's references do not add up",
                extra={"lookups": table.lookups, "forgets": table.forgets, "held": table.held},
            )

    def refuse_new_opens(self) -> None:
        """Answer new opens and creates with an error from now on; what is open goes on working."""
        self._operations.stopping = True

    def is_mounted(self) -> bool:
        """Return whether this mount stands in mountinfo; never touches the mount."""
        return any(
            entry.device_minor == self._device_minor and entry.mount_point == str(self.mount_point)
            for entry in list_mounts()
            if entry.file_system_type == FILE_SYSTEM_TYPE
        )

    async def unmount(self, *, lazy: bool) -> bool:
        """Unmount, while ``serve`` goes on answering; returns False where files are still open on it.

        Raises:
            StorageException: it cannot be unmounted for another reason.
        """
        if not self.is_mounted():
            return True
        try:
            await trio.to_thread.run_sync(lambda: self._mounter.unmount(self.mount_point, lazy=lazy))
        except Busy:
            return False
        except StorageException:
            if self.is_mounted():
                raise
        return True

    def forget_attributes(self, backing_ino: int) -> None:
        """Have the kernel ask anew for an inode of the backend, by its number there."""
        self._operations.forget_attributes(backing_ino)

    async def drop_caches(self, changed: Collection[tuple[int, bytes]] = ()) -> None:
        """Have the kernel ask anew for what it remembers, as far as it can be told to; for these names, too."""
        await self._operations.drop_caches(changed)

    def abort(self) -> None:
        """End the kernel's connection, whoever holds the mount: its users get ENOTCONN, and ``serve`` returns."""
        mounting.abort(self._device_minor)
        self._serving.cancel()  # where fusectl is not mounted, closing the device has the same effect

    def statistics(self) -> SessionStatistics:
        """Return what passed through, and what is held."""
        desk = self._operations.desk.statistics()
        used = self._file_system.statistics()
        return SessionStatistics(
            desk.requests,
            desk.errors,
            desk.in_flight,
            mounting.count_waiting(self._device_minor),
            desk.oldest_request_s,
            desk.read_bytes,
            desk.written_bytes,
            used.lookups,
            used.forgets,
            used.inodes,
            used.open_files,
            desk.recent_errors,
        )
