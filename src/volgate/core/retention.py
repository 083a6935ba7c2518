"""Which snapshots a schedule takes and which it lets go; times are UNIX seconds, periods those of UTC."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

_PERIODS: Final[dict[str, Callable[[time.struct_time], tuple[int, ...]]]] = {
    "hourly": lambda at: (at.tm_year, at.tm_yday, at.tm_hour),
    "daily": lambda at: (at.tm_year, at.tm_yday),
    "weekly": lambda at: _week_of(at),
    "monthly": lambda at: (at.tm_year, at.tm_mon),
}
"""From the shortest to the longest."""
CLOCKS_S: Final = 60
"""How far a clock that is kept right may be set back."""


@attrs.frozen
class RetentionPolicy:
    """How many snapshots are kept, the newest of so many periods of each kind.

    Attributes:
        counts: (kind, number >= 1), the shortest period first; at least one.
    """

    counts: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return ",".join(f"{kind}={count}" for kind, count in self.counts)


def parse_policy(text: str) -> RetentionPolicy:
    """Return what ``hourly=24,daily=7`` means.

    Raises:
        ValueError: says what is wrong with it.
    """
    counts: dict[str, int] = {}
    for part in text.split(","):
        kind, _, number = part.strip().partition("=")
        if kind not in _PERIODS:
            raise ValueError(f"{kind!r} is none of {', '.join(_PERIODS)}; a schedule is like hourly=24,daily=7")
        if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= 10_000:
            raise ValueError(f"{part.strip()!r}: how many are kept is a number from 1 to 10000")
        counts[kind] = int(number)
    return RetentionPolicy(tuple((kind, counts[kind]) for kind in _PERIODS if kind in counts))


def is_due(policy: RetentionPolicy, taken_at: Iterable[float], now: float) -> bool:
    """Return whether a snapshot is to be taken: none was in the shortest period that now lies in.

    Args:
        taken_at: when the schedule's snapshots were taken, in any order. Those of the future do not count.
    """
    last_at = max((at for at in taken_at if not _is_of_future(at, now)), default=None)
    if last_at is None:
        return True
    period = _PERIODS[policy.counts[0][0]]
    return period(time.gmtime(last_at)) != period(time.gmtime(now)) and now > last_at


def find_expired(policy: RetentionPolicy, taken: Sequence[tuple[str, float]], now: float) -> list[str]:
    """Return the ids of the snapshots that no kind keeps; each keeps the newest of every one of its last periods.

    Args:
        taken: (id, time) of the schedule's snapshots, in any order. Those of the future stay, and keep no other away.
    """
    newest_first = sorted(
        (snapshot for snapshot in taken if not _is_of_future(snapshot[1], now)),
        key=lambda snapshot: snapshot[1],
        reverse=True,
    )
    kept: set[str] = set()
    for kind, count in policy.counts:
        seen: set[tuple[int, ...]] = set()
        for snapshot_id, at in newest_first:
            period = _PERIODS[kind](time.gmtime(at))
            if period not in seen and len(seen) < count:
                seen.add(period)
                kept.add(snapshot_id)
    return [snapshot_id for snapshot_id, _ in newest_first if snapshot_id not in kept]


def _is_of_future(at: float, now: float) -> bool:
    """Return whether a snapshot was taken while the clock was ahead by more than a correction of it."""
    return at > now + CLOCKS_S


def _week_of(at: time.struct_time) -> tuple[int, ...]:
    """Return the year and week of ISO 8601, which begins on Monday."""
    return int(time.strftime("%G", at)), int(time.strftime("%V", at))
