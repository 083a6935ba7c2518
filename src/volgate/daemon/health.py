"""What is wrong with a mount, in words and with the remedy; pure decisions over its figures."""

from __future__ import annotations

from typing import Final

import attrs

from volgate.core.sizes import format_backlog, format_count, format_size
from volgate.drivers.allowance import Allowance
from volgate.drivers.report import BackendReport
from volgate.dto import StorageQuotaInfo
from volgate.volume.ownership import describe_holder

STUCK_S: Final = 10.0
"""A request under way for so long means that the storage hangs."""
LATE_S: Final = 60.0
"""A change that is not stored for so long, with an error, means that the storage takes none."""
VERY_LATE_S: Final = 900.0
"""Likewise without an error: more is written than the storage takes."""
PROMISES: Final = {
    "conditional_put": "an object that somebody else made or changed meanwhile may be overwritten unnoticed",
    "conditional_complete": "a large object that somebody else made meanwhile may be overwritten unnoticed",
    "conditional_delete": "an object that somebody else changed meanwhile may be deleted",
    "conditional_copy": "a copy may be of another version than meant",
    "checksums": "content that is damaged on its way is stored unnoticed, unless TLS notices",
}
"""What is lost where a server does not keep one of ``StoreCapabilities``."""


@attrs.frozen
class Problem:
    """One thing that is wrong.

    Attributes:
        code: stable, for programs: storage_hangs, nobody_reads, above_limit, unsettled, snapshots_full,
            unscheduled, unfenced, cache_full, lease_lost, lease_fenced, not_stored, volume_within, refused.
        message: for people, with what to do.
        degrades: the mount does not serve as it should; it is not merely worth knowing.
    """

    code: str
    message: str
    degrades: bool


class Standstill:
    """How long requests have been waiting while none was answered; looked at now and then, by whoever asks."""

    def __init__(self) -> None:
        self._answered = -1
        self._since: float | None = None

    def look(self, now: float, *, answered: int, waiting: int) -> float:
        """Return for how long, by all looks so far, seconds; 0.0 as soon as one was answered or none waits.

        Args:
            now: monotonic seconds. answered: requests answered so far. waiting: requests that nobody has read.
        """
        if answered != self._answered or waiting == 0:
            self._since = None
        elif self._since is None:
            self._since = now
        self._answered = answered
        return 0.0 if self._since is None else now - self._since


def find_problems(
    quota: StorageQuotaInfo,
    *,
    oldest_s: float,
    in_flight: int,
    waiting: int,
    standstill_s: float,
    unsettled: bool,
    unfenced: str,
    unscheduled: str,
    allowance: Allowance | None,
    caches: bool,
) -> list[Problem]:
    """Return what is wrong, the worst first.

    Args:
        quota: limit and usage.
        oldest_s: age of the oldest request under way, or call to the storage that was given up. in_flight: requests
            under way.
        waiting: requests that the kernel holds, answered or not read yet.
        standstill_s: for how long they have waited while none was answered.
        unsettled: a change could not be settled in the ledger.
        unfenced: why the storage's own limit does not stand behind the volume's, "" where it does.
        unscheduled: why the schedule could not take its last snapshot, "" where it could.
        allowance: of snapshots, None where there is none.
        caches: changes are kept on this host first, and stored later.
    """
    problems = []
    if oldest_s > STUCK_S:
        problems.append(
            Problem(
                "storage_hangs",
                f"the storage below has not answered for {oldest_s:.0f} s, and {in_flight} requests wait for it; "
                "look at it (network, server, disk); requests fail with ETIMEDOUT until it answers again",
                degrades=True,
            )
        )
    if standstill_s > STUCK_S:
        problems.append(
            Problem("nobody_reads", f"the kernel holds {waiting} requests that nobody reads: restart it", degrades=True)
        )
    if quota.is_above_limit:
        problems.append(
            Problem(
                "above_limit",
                f"{format_size(quota.used_bytes)} are in use, more than the limit: only growth is refused; delete "
                "files, or raise it with 'volgate quota set'",
                degrades=False,
            )
        )
    if unsettled:
        problems.append(
            Problem(
                "unsettled",
                "the storage failed in the middle of a change; usage may be off by it until the next mount counts anew",
                degrades=False,
            )
        )
    if allowance is not None and allowance.is_full and allowance.limit_bytes is not None:
        effect = "wait to be uploaded, and no snapshot is taken" if caches else "are refused (ENOSPC)"
        problems.append(
            Problem(
                "snapshots_full",
                f"{allowance.describe()}: changes of what they hold {effect}; delete some, or raise 'volgate snapshot "
                "limit'",
                degrades=True,
            )
        )
    if unscheduled:
        message = f"the schedule could not take its last snapshot, and tries again when the next is due: {unscheduled}"
        problems.append(Problem("unscheduled", message, degrades=False))
    if unfenced:
        message = f"who writes beside the gateway is not held to the limit: {unfenced}"
        problems.append(Problem("unfenced", message, degrades=False))
    return problems


def find_storage_problems(report: BackendReport | None, mount_point: str) -> list[Problem]:
    """Return what is wrong between a backend that keeps changes back and its storage, the worst first."""
    if report is None:
        return []
    problems = []
    if report.lease == "lost":
        what = "nothing can be changed here any more"
        if report.backlog_files:
            left = format_backlog(report.backlog_files, report.backlog_bytes)
            what += f", and what was written here will not be stored ({left}): copy it"
        message = f"another owner has the volume, {describe_holder(report.lease_holder)}; {what}; then unmount"
        problems.append(Problem("lease_lost", message, degrades=True))
    elif report.lease == "fenced":
        message = "the volume's lease cannot be renewed, so nothing is stored until the server answers again"
        problems.append(Problem("lease_fenced", message, degrades=True))
    elif (report.last_error and report.oldest_s > LATE_S) or report.oldest_s > VERY_LATE_S:
        message = (
            f"not stored: {format_count(report.backlog_files - report.refused, 'file')}, '{report.oldest_key}' for "
            f"{report.oldest_s:.0f} s: {report.last_error or 'more is written than the storage takes'}"
        )
        problems.append(Problem("not_stored", message, degrades=bool(report.last_error)))
    if report.cache_lacking_bytes:
        message = (
            "the disk of the cache is too full: writes are refused (ENOSPC) until "
            f"{format_size(report.cache_lacking_bytes)} more are free on it; free them, or mount with a smaller "
            "cache_free="
        )
        problems.append(Problem("cache_full", message, degrades=True))
    if report.volumes_within:
        message = (
            f"{report.volumes_within[0]} is a volume of its own: its files count here too, and it passes this limit; "
            "move it to a prefix beside this one; or, where this volume is not wanted, unmount it and delete what lies "
            "in its .volgate/"
        )
        problems.append(Problem("volume_within", message, degrades=False))
    if report.refused:
        message = f"the storage refuses {format_count(report.refused, 'file')}: volgate quarantine list {mount_point}"
        problems.append(Problem("refused", message, degrades=False))
    return problems
