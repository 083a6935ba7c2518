"""What is wrong with a mount, in words and with the remedy; pure decisions over its figures."""

from __future__ import annotations

from typing import Final

import attrs

from volgate.core.sizes import format_size
from volgate.dto import StorageQuotaInfo

STUCK_S: Final = 10.0
"""A request under way for so long means that the storage hangs."""


@attrs.frozen
class Problem:
    """One thing that is wrong.

    Attributes:
        code: stable, for programs: storage_hangs, nobody_reads, above_limit, unsettled.
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
    oldest_request_s: float,
    in_flight: int,
    waiting: int,
    standstill_s: float,
    unsettled: bool,
) -> list[Problem]:
    """Return what is wrong, the worst first.

    Args:
        quota: limit and usage.
        oldest_request_s: age of the oldest request under way. in_flight: requests under way.
        waiting: requests that the kernel holds, answered or not read yet.
        standstill_s: for how long they have waited while none was answered.
        unsettled: a change could not be settled in the ledger.
    """
    problems = []
    if oldest_request_s > STUCK_S:
        problems.append(
            Problem(
                "storage_hangs",
                f"{in_flight} requests are under way, one for {oldest_request_s:.0f} s: the storage below hangs; "
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
    return problems
