"""The lease: one host at a time is the writable owner of a volume in an object store.

An object beside the data names the owner, who renews it. ``core.lease_rules`` decides, and says why that is safe; here
are the clock, the requests and the waiting. The clock is CLOCK_BOOTTIME, which goes on while the process is stopped or
the host suspended (clock_gettime(2)). In a virtual machine that is paused it may stand still: such a host learns of its
loss by the next renewal only.

A commit that is under way when the lease is fenced or lost may still be done, so commits carry conditions of their own.

What may not live here: what a lost lease means for the data, the journal, the wording of refusals.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from volgate.core.lease_record import MAX_RECORD_BYTES, LeaseRecord, Seen, parse_holder
from volgate.core.lease_rules import (
    EXPIRE_S,
    FENCE_S,
    RENEW_S,
    Candidate,
    Holding,
    LeaseGrant,
    LeaseState,
    Verdict,
)
from volgate.errors import AlreadyExists, Busy, NotFound, Stale, StorageException, Unavailable, Unsupported

if TYPE_CHECKING:
    from volgate.drivers.object_store import ObjectStore
    from volgate.dto import Usage

__all__ = ["EXPIRE_S", "FENCE_S", "RENEW_S", "Lease", "LeaseGrant"]

_LOOK_S: Final = 5.0
"""How often one who waits for a lease looks at it."""
_RETRY_S: Final = 2.0
"""How soon a renewal that failed is tried again."""
_SETTLE_S: Final = 5.0
"""Where the store heeds no condition: how long after taking the lease to look whether a rival wrote as well."""

_log = logging.getLogger(__name__)


def _boot_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """See the module. ``acquire``, then ``run`` in a task of its own; end that, then ``release``.

    A store without ``conditional_put`` gives less: who looks before it writes, but writes late, replaces another's
    lease; both then own the volume until the other's next renewal, up to RENEW_S later.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: str = ".volgate/lease",
        *,
        take_over: bool = False,
        clock: Callable[[], float] = _boot_clock,
    ) -> None:
        """Ask nothing yet.

        Args:
            take_over: take a lease that has no owner any more also where its backlog is lost by it.
            clock: seconds, of a clock that is never set and never stops.
        """
        self._store = store
        self._key = key
        self._take_over = take_over
        self._clock = clock
        self._holding: Holding | None = None
        self._backlog = (0, 0)
        self._hurry = trio.Event()
        self._problem = ""

    @property
    def state(self) -> LeaseState:
        """How far the lease can be relied on.

        "held"; "fenced": not renewed for FENCE_S, may come back; "lost": another has it; "none": given up.
        """
        return "none" if self._holding is None else self._holding.state(self._clock())

    @property
    def lost_to(self) -> str:
        """Who has it now, as its line of JSON; "" while it is not lost."""
        if self._holding is None or self._holding.lost_to is None:
            return ""
        return self._holding.lost_to.describe()

    async def acquire(self, holder: bytes) -> LeaseGrant:
        """Become the owner.

        Args:
            holder: a line of JSON that names this process for people; ``token`` and ``cache`` as in ``Candidate``.

        Raises:
            Busy: another is; the message is its line of JSON, with its backlog. ``"expired": true`` in it: it is no
                more, but its host keeps a backlog, or ``"unreadable": true``; only ``take_over`` gets it.
            Unsupported: a later version of volgate wrote the lease.
            Unavailable: the store does not answer. A lease that was granted unheard is got by calling again.
        Blocks: up to a renewal for an owner that renews, EXPIRE_S for one that does not; that is logged.
        """
        candidate = Candidate(parse_holder(holder), self._take_over)
        is_waiting = False
        while True:
            seen = await self._read()
            verdict = self._judge(candidate, seen)
            if verdict is Verdict.TAKE:
                record, granted = candidate.take(seen, uuid.uuid4().hex, int(time.time()))
                if await self._take(record, seen.etag):
                    _log.info("the volume is owned", extra={"key": self._key, "epoch": granted.epoch})
                    return granted
            elif not is_waiting:
                is_waiting = True
                facts = {"key": self._key, "holder": seen.describe(), "up_to_s": EXPIRE_S}
                _log.info("waiting for the volume's owner to renew its lease, or not", extra=facts)
            await trio.sleep(_LOOK_S)

    def _judge(self, candidate: Candidate, seen: Seen) -> Verdict:
        if seen.is_newer:
            raise Unsupported(f"a later version of volgate wrote {self._key}")
        verdict = candidate.judge(seen, self._clock())
        if verdict in (Verdict.BUSY, Verdict.ABANDONED):
            raise Busy(seen.describe(expired=verdict is Verdict.ABANDONED))
        return verdict

    async def _take(self, record: LeaseRecord, etag: str) -> bool:
        sent_at = self._clock()
        try:
            etag = await self._replace(record, etag)
            if not self._store.capabilities.conditional_put:
                await trio.sleep(_SETTLE_S)
                if (await self._read()).etag != etag:
                    return False
        except (Stale, AlreadyExists):
            return False
        self._holding = Holding(record, etag, sent_at)
        self._backlog = record.backlog_bytes, record.backlog_files
        return True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Renew every RENEW_S until cancelled, or it is lost or given up. A store that fails changes ``state``."""
        task_status.started()
        retry = False
        while (holding := self._holding) is not None and holding.lost_to is None:
            pause_s = _RETRY_S if retry else max(0.0, holding.renewed_at + RENEW_S - self._clock())
            with trio.move_on_after(pause_s):
                await self._hurry.wait()
            self._hurry = trio.Event()
            was_fenced = holding.state(self._clock()) == "fenced"
            retry = not await self._write(holding)
            if holding.lost_to is not None:
                facts = {"event": "volume.taken_over", "key": self._key, "holder": self.lost_to}
                _log.error("the volume was taken over", extra=facts)
            elif was_fenced and not retry:
                _log.info("the lease is renewed again", extra={"key": self._key})

    def check(self) -> None:
        """Return if this host owns the volume now. To be called before every commit, with no ``await`` between.

        Raises:
            Unavailable: not renewed for FENCE_S; it may come back.
            Stale: another owns it, or it was given up; for good.
        """
        state = self.state
        if state == "held":
            return
        if state == "lost":
            raise Stale(f"another host owns the volume: {self.lost_to}")
        if self._holding is None:
            raise Stale("the lease is not held")
        since_s = self._clock() - self._holding.renewed_at
        why = f": {self._problem}" if self._problem else ""
        raise Unavailable(f"the lease was not renewed for {since_s:.0f} s{why}")

    def set_backlog(self, bytes_: int, files: int) -> None:
        """Tell what is acknowledged and not yet in the bucket: written at the next renewal, the first of it at once."""
        if any((bytes_, files)) and not any(self._backlog):
            self._hurry.set()
        self._backlog = bytes_, files

    async def release(self, usage: Usage | None) -> None:
        """Give the lease up; ``check`` fails from here on. To be called when ``run`` has ended.

        Where the store does not answer it is left to expire; that is logged. Blocks: up to RENEW_S.

        Args:
            usage: how full the volume is, for the next owner; None = unknown.
        """
        holding = self._holding
        if holding is None or holding.lost_to is not None:
            return
        self._holding = None
        if await self._write(holding, released=True, usage=usage):
            _log.info("the volume is released", extra={"key": self._key, "epoch": holding.record.epoch})

    async def _write(self, holding: Holding, *, released: bool = False, usage: Usage | None = None) -> bool:
        """Renew, or release; return whether it is done. Raises nothing: what hinders it is logged."""
        problem = ""
        try:
            with trio.move_on_after(RENEW_S) as waited:
                await self._write_once_ours(holding, released=released, usage=usage)
            if waited.cancelled_caught:
                problem = f"no answer within {RENEW_S:.0f} s"
        except StorageException as error:
            problem = str(error)
        self._problem = problem
        if problem:
            _log.warning(
                "the lease could not be written",
                extra={"key": self._key, "error": problem, "since_s": round(self._clock() - holding.renewed_at)},
            )
        return not problem and holding.lost_to is None

    async def _write_once_ours(self, holding: Holding, *, released: bool, usage: Usage | None) -> None:
        while True:
            holding.begin_write(self._backlog, released=released, usage=usage)
            sent_at = self._clock()
            try:
                etag = await self._replace(holding.record, holding.etag)
            except (Stale, AlreadyExists):
                if not holding.meet(await self._read()):
                    return
            else:
                holding.end_write(etag, sent_at)
                return

    async def _read(self) -> Seen:
        while True:
            try:
                etag = (await self._store.head(self._key)).etag
                body = await self._store.get_range(self._key, 0, MAX_RECORD_BYTES, etag=etag)
            except NotFound:
                return Seen("")
            except Stale:  # replaced between the two
                continue
            return Seen.from_bytes(etag, body)

    async def _replace(self, record: LeaseRecord, etag: str) -> str:
        """Write the object if it is the version that was seen ("" = none) and return its new etag.

        Raises:
            Stale, AlreadyExists: it is another.
        """
        body = record.to_bytes()
        if self._store.capabilities.conditional_put:
            return await self._store.put(self._key, body, if_absent=not etag, if_match=etag or None)
        if (await self._read()).etag != etag:
            raise Stale(f"{self._key} was changed")
        return await self._store.put(self._key, body)
