"""Who may own a volume: the rules of its lease, without clock and store.

Why no two own it at the same time: an owner counts from *before* it sent the renewal that was done last, and stops
FENCE_S later. Whoever wants the lease counts from *after* the answer that first showed this version of it, so from
later, and replaces it EXPIRE_S later, on condition that it is still this version. What the owner has under way then
fails on the same condition. Clocks are never compared; they may differ in all but their rate, and in that by less than
EXPIRE_S / FENCE_S, and must go on while a process or its host is stopped.

A lease object that is deleted by hand is a lease given away.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from volgate.core.lease_record import LeaseRecord, Seen
from volgate.dto import Usage

RENEW_S: Final = 10.0
"""How often the owner renews."""
FENCE_S: Final = 30.0
"""Without renewal for so long, the owner stops committing."""
EXPIRE_S: Final = 60.0
"""A lease that did not change for so long has no owner any more."""

LeaseState = Literal["held", "fenced", "lost", "none"]


class Verdict(enum.Enum):
    """What to do about the lease."""

    TAKE = "replace it, on condition that it is still the version seen"
    WAIT = "look again soon"
    BUSY = "it is another's"
    ABANDONED = "it is nobody's, but what its last owner acknowledged would be lost"


@attrs.frozen
class LeaseGrant:
    """An ownership.

    Attributes:
        epoch: its number; no other ownership of this volume has it.
        previous_epoch: of the owner before; 0 = there was none, or none that can be read.
        clean: the owner before gave it up, and left nothing that is out of our reach.
        usage: what it recorded then; None = unknown.
    """

    epoch: int
    previous_epoch: int
    clean: bool
    usage: Usage | None


@attrs.define
class Candidate:
    """One who wants to own the volume, and what it has seen of the lease so far.

    Attributes:
        holder: its own line. ``token`` in it names its cache directory and this boot of its host: a lease of the same
            token is left by our own crash, since the directory's lock lets one process live. ``cache`` names the
            directory alone: a backlog left there is our own, after a reboot too. It is named by an id that no other
            directory has: a path is the same on many hosts, and in many containers of one boot.
        take_over: take it, when it has no owner, also where that may lose a backlog.
    """

    holder: Mapping[str, Any]
    take_over: bool
    _etag: str | None = attrs.field(default=None, init=False)
    _since: float = attrs.field(default=0.0, init=False)

    def judge(self, seen: Seen, now: float) -> Verdict:
        """Say what to do about what a read showed.

        Args:
            now: own clock in seconds, read after the answer had come.
        """
        etag, self._etag = self._etag, seen.etag
        if not seen.etag or self._is_alike(seen, "token"):
            return Verdict.TAKE
        if seen.record is None or not seen.record.released:
            if etag is None:
                self._since = now
            elif etag != seen.etag:
                return Verdict.BUSY
            if now - self._since < EXPIRE_S:
                return Verdict.WAIT
        return Verdict.TAKE if self.take_over or not self._would_lose(seen) else Verdict.ABANDONED

    def take(self, seen: Seen, grant: str, first_epoch: int) -> tuple[LeaseRecord, LeaseGrant]:
        """Return what to store in place of what was seen, and what it grants.

        Args:
            grant: a name that no other grant has.
            first_epoch: where no earlier one can be read; greater than any, so that none comes again.
        """
        before = seen.record
        if before is None:
            return LeaseRecord(first_epoch, grant, 0, self.holder), LeaseGrant(first_epoch, 0, False, None)
        clean = before.released and not self._would_lose(seen)
        granted = LeaseGrant(before.epoch + 1, before.epoch, clean, before.usage if clean else None)
        record = LeaseRecord(granted.epoch, grant, 0, self.holder)
        if self._is_ours(seen):  # until the journal was read: a second crash must not hide it
            record = attrs.evolve(record, backlog_bytes=before.backlog_bytes, backlog_files=before.backlog_files)
        return record, granted

    def _would_lose(self, seen: Seen) -> bool:
        return seen.record is None or (seen.record.has_backlog and not self._is_ours(seen))

    def _is_ours(self, seen: Seen) -> bool:
        return self._is_alike(seen, "token") or self._is_alike(seen, "cache")

    def _is_alike(self, seen: Seen, name: str) -> bool:
        own = self.holder.get(name)
        return bool(own) and seen.record is not None and seen.record.holder.get(name) == own


@attrs.define
class Holding:
    """A lease that was granted, as its holder knows it.

    Attributes:
        record: the last that was written, or tried. etag: of the version that stands in the store, as far as known.
        renewed_at: own clock in seconds, read before the request was sent that wrote the last renewal known to be done.
        lost_to: what stands in place of it; None = it is not lost.
    """

    record: LeaseRecord
    etag: str
    renewed_at: float
    lost_to: Seen | None = None

    def state(self, now: float) -> LeaseState:
        """Return how far the lease can be relied on."""
        if self.lost_to is not None:
            return "lost"
        return "held" if now - self.renewed_at < FENCE_S else "fenced"

    def begin_write(self, backlog: tuple[int, int], *, released: bool = False, usage: Usage | None = None) -> None:
        """Set ``record`` to what to write next; it differs from all written before, also by tries that failed."""
        self.record = attrs.evolve(
            self.record,
            renewals=self.record.renewals + 1,
            backlog_bytes=backlog[0],
            backlog_files=backlog[1],
            released=released,
            usage=usage,
        )

    def end_write(self, etag: str, sent_at: float) -> None:
        """Take note of a write that is done. ``sent_at``: own clock before it was sent."""
        self.etag, self.renewed_at = etag, sent_at

    def meet(self, seen: Seen) -> bool:
        """Take note of what stands there where a write was refused; return whether to write again.

        It is ours still when an earlier write of ours was done after all, its reply lost; or when it was deleted.
        """
        if not seen.etag or self._is_ours(seen):
            self.etag = seen.etag
            return True
        self.lost_to = seen
        return False

    def _is_ours(self, seen: Seen) -> bool:
        return seen.record is not None and seen.record.grant == self.record.grant and not seen.record.released
