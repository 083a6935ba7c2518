"""Snapshots by a schedule, which lies beside the data: taken when a period begins, let go when no rule keeps them.

Only those that the schedule took are let go; what people took stays until they delete it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from volgate.core.retention import RetentionPolicy, find_expired, is_due, parse_policy
from volgate.drivers.allowance import NeededBy
from volgate.dto import SnapshotInfo
from volgate.errors import Busy, InvalidArgument, NotFound, StorageException
from volgate.volume.snapshots.base import NoSnapshots
from volgate.volume.storage import load_patiently
from volgate.volume.volume import Volume

log = logging.getLogger(__name__)

_FILE: Final = "snapshot-schedule.json"
_LOOK_S: Final = 5.0
MARK: Final = {"taken-by": "schedule"}
"""Metadata of a snapshot that the schedule may let go."""


class Schedule:
    """The schedule of one volume.

    Args:
        take: takes a snapshot that is named by the moment, with this metadata. delete: deletes one.

    Attributes:
        policy: None = no schedule.
    """

    def __init__(
        self,
        volume: Volume,
        take: Callable[[dict[str, str]], Awaitable[SnapshotInfo]],
        delete: Callable[[str], Awaitable[None]],
    ) -> None:
        self._volume = volume
        self._take = take
        self._delete = delete
        self._failed_at: float | None = None
        self.policy: RetentionPolicy | None = None

    async def set_policy(self, text: str | None) -> None:
        """Change the schedule, durably; None ends it, and its snapshots stay. Raises InvalidArgument."""
        try:
            policy = None if text is None else parse_policy(text)
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        await self._volume.backend.store_reserved(_FILE, json.dumps({"policy": text}).encode())
        self.policy = policy
        self._failed_at, self._volume.unscheduled = None, ""

    async def run(self) -> None:
        """Take and let go until cancelled. Returns at once where the volume cannot have snapshots."""
        if isinstance(self._volume.snapshots, NoSnapshots):
            return
        await self._load()
        while True:
            if self.policy is not None:
                try:
                    await self._look(self.policy, time.time())
                except StorageException as error:
                    log.warning("the schedule could not take or delete a snapshot", extra={"error": str(error)})
                    self._failed_at, self._volume.unscheduled = time.time(), str(error)
            await trio.sleep(_LOOK_S)

    async def let_one_go(self, size: int, is_needed_by: NeededBy) -> bool:
        """Delete the oldest snapshot that the schedule took, to make room; returns whether there was one.

        None goes where people's snapshots alone would keep too much, with so many bytes more if they need those.
        """
        snapshots = self._volume.snapshots
        found = await snapshots.list_all()
        peoples = {info.snapshot_id for info in found if not MARK.items() <= info.metadata.items()}
        allowance = snapshots.allowance
        assert allowance is not None
        needed = size if is_needed_by(peoples) else 0
        if allowance.limit_bytes is not None and await snapshots.measure_kept(peoples) + needed > allowance.limit_bytes:
            return False
        for info in found:
            if MARK.items() <= info.metadata.items():
                with contextlib.suppress(Busy):
                    with contextlib.suppress(NotFound):  # somebody was faster
                        await self._delete(info.snapshot_id)
                    log.warning(
                        "a snapshot had to go: snapshots keep too much",
                        extra={"event": "snapshot.deleted", "snapshot": info.snapshot_id},
                    )
                    return True
        return False

    async def _load(self) -> None:
        try:
            content = await load_patiently(self._volume.backend, _FILE)
            text = json.loads(content)["policy"] if content is not None else None
            self.policy = None if text is None else parse_policy(text)
        except (StorageException, ValueError, KeyError, TypeError) as error:
            log.error("the schedule of snapshots cannot be read; set it again", extra={"error": str(error)})  # noqa: TRY400

    async def _look(self, policy: RetentionPolicy, now: float) -> None:
        taken = [info for info in await self._volume.snapshots.list_all() if MARK.items() <= info.metadata.items()]
        tried_at = [info.created_at for info in taken] + ([self._failed_at] if self._failed_at else [])
        if not is_due(policy, tried_at, now):
            return
        taken.append(await self._take(MARK))
        self._volume.unscheduled = ""
        for snapshot_id in find_expired(policy, [(info.snapshot_id, info.created_at) for info in taken], now):
            await self._delete(snapshot_id)
            log.info("the schedule let a snapshot go", extra={"event": "snapshot.deleted", "snapshot": snapshot_id})
