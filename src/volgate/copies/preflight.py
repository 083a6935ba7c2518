"""What is asked before anything is written: what the target would lose, and whether all of it fits."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from volgate.copies.survey import Surveyor, find_losses, usage_of
from volgate.core.sizes import format_size
from volgate.drivers.base import BackendDirectory
from volgate.dto import FileAttributes, Usage
from volgate.errors import InvalidArgument, NoSpace, QuotaExceeded
from volgate.volume.snapshots.base import Place
from volgate.volume.snapshots.comparing import TreeChange, open_directory

if TYPE_CHECKING:
    from volgate.copies.pacing import Progress
    from volgate.copies.request import CopyRequest
    from volgate.volume.volume import Volume

Differences = Callable[[], AsyncGenerator[TreeChange, None]]
"""Looks for what a sync changes."""


class Preflight:
    """The checks of one copy.

    Args:
        volume: the target. source: the tree that the source lies in. progress: is told how much there is.

    Attributes:
        losses: what the target cannot keep; a line each, for people.
    """

    def __init__(self, volume: Volume, source: Place, request: CopyRequest, progress: Progress) -> None:
        self._volume = volume
        self._target = volume.backend.capabilities
        self._source = source
        self._request = request
        self._progress = progress
        self._usage = Usage(0, 0)
        self._stored_bytes = 0
        self.losses: tuple[str, ...] = ()

    async def survey(self, directory: BackendDirectory, name: bytes, top: FileAttributes) -> None:
        """Look at all of the source. Raises InvalidArgument: something would be lost, and that was not accepted."""
        surveyor = Surveyor(self._source, self._target)
        await surveyor.look(directory, name, top)
        found = surveyor.found
        self._progress.total_bytes, self._progress.total_files = found.bytes_, found.files
        self.losses = tuple(find_losses(found, self._source.backend.capabilities, self._target))
        if self.losses and not self._request.accept_losses:
            raise InvalidArgument(
                f"the target cannot keep all of it: {'; '.join(self.losses)}; accept the losses (--accept-losses), or "
                "copy elsewhere"
            )
        self._usage = usage_of(found)
        self._stored_bytes = found.stored_bytes
        if self._request.delete and found.mounted:
            raise InvalidArgument(
                "file systems are mounted within the source: --delete would remove their directories here"
            )
        is_empty = stat.S_ISDIR(top.mode) and found.inodes == 1
        if self._request.delete and is_empty and not self._request.accept_losses:
            raise InvalidArgument(
                "the source is empty, and --delete would remove all that is here: is it mounted? --accept-losses does"
            )

    async def check_room(self, there: Usage) -> None:
        """Raise QuotaExceeded or NoSpace where what is missing does not fit; ``there``: what the target has of it."""
        self._check_limit(Usage(max(0, self._usage.bytes_ - there.bytes_), max(0, self._usage.inodes - there.inodes)))
        space = await self._volume.backend.get_space()
        stored = max(0, self._stored_bytes - there.bytes_)  # without holes
        if space.total_bytes and stored > space.free_bytes:
            missing = format_size(stored - space.free_bytes)
            raise NoSpace(f"it takes {format_size(stored)}, and the storage has {missing} less than that free")

    async def check_growth(self, live: Place | None, differences: Differences) -> None:
        """Raise QuotaExceeded where what a sync adds is more than is free; what it removes is counted, too.

        Args:
            live: what is there; None = nothing.
        """
        info = self._volume.gate.info()
        if (info.free_bytes is None or self._usage.bytes_ <= info.free_bytes) and (
            info.free_inodes is None or self._usage.inodes <= info.free_inodes
        ):
            return
        made, gone = Surveyor(self._source, self._target), Surveyor(live or self._source, self._target)
        async with contextlib.aclosing(differences()) as changes:
            async for change in changes:
                was, is_ = change.before, change.after
                if was is not None and (change.kind == "removed" or "content" in change.what):
                    made.add_usage(was)
                if live is None or is_ is None:
                    continue  # nothing goes
                if "content" in change.what:
                    gone.add_usage(is_)
                elif change.kind == "added" and self._request.delete:
                    above, _, name = change.path.rpartition(b"/")
                    await gone.look(await open_directory(live, above), name, is_)
        more, less = usage_of(made.found), usage_of(gone.found)
        self._check_limit(Usage(max(0, more.bytes_ - less.bytes_), max(0, more.inodes - less.inodes)))

    def _check_limit(self, needed: Usage) -> None:
        info = self._volume.gate.info()
        if info.free_bytes is not None and needed.bytes_ > info.free_bytes:
            missing = format_size(needed.bytes_ - info.free_bytes)
            raise QuotaExceeded(
                f"it is {format_size(needed.bytes_)}, and {format_size(info.free_bytes)} are free under the limit: "
                f"{missing} ({needed.bytes_ - info.free_bytes} bytes) are missing"
            )
        if info.free_inodes is not None and needed.inodes > info.free_inodes:
            missing = f"{needed.inodes - info.free_inodes} are missing"
            raise QuotaExceeded(
                f"it is {needed.inodes} inodes, and {info.free_inodes} are free under the limit: {missing}"
            )
