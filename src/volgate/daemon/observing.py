"""What becomes of a volume by itself, told as it happens: problems that begin and end, and how full it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from volgate.daemon.health import Problem
from volgate.dto import StorageQuotaInfo

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
THRESHOLDS: Final = (80, 90, 95, 100)
"""Percent of a limit whose passing is told."""
_BACK: Final = 5
"""Percent by which usage has to fall below one before that is told: not all the time of a volume on the edge."""


class Observer:
    """Looks at one volume.

    Args:
        problems: what is wrong now. quota: limits and usage now.
    """

    def __init__(self, problems: Callable[[], list[Problem]], quota: Callable[[], StorageQuotaInfo]) -> None:
        self._problems = problems
        self._quota = quota
        self._known: dict[str, str] = {}
        self._levels = {"bytes": 0, "inodes": 0}

    async def run(self) -> None:
        """Look every second until cancelled."""
        while True:
            self.look()
            await trio.sleep(_LOOK_S)

    def look(self) -> None:
        """Tell what changed since the last look."""
        found = {problem.code: problem for problem in self._problems()}
        for code, problem in found.items():
            if code not in self._known:
                facts = {"code": code, "degrades": problem.degrades}
                log.info(problem.message, extra={"event": "problem.began", **facts})
        for code in self._known.keys() - found.keys():
            log.info("it is over: %s", self._known[code], extra={"event": "problem.ended", "code": code})
        self._known = {code: problem.message for code, problem in found.items()}
        quota = self._quota()
        self._look_at("bytes", quota.used_bytes, quota.quota_bytes)
        self._look_at("inodes", quota.file_count, quota.quota_inodes)

    def _look_at(self, what: str, used: int, limit: int | None) -> None:
        level = find_level(self._levels[what], used, limit)
        if level != self._levels[what]:
            percent = 100 * used // limit if limit else None
            facts = {"what": what, "threshold": level, "percent": percent, "used": used, "limit": limit}
            is_above = level > self._levels[what]
            message = f"{level} % of the limit of {what} are in use" if is_above else f"usage of {what} fell again"
            log.info(message, extra={"event": "quota.threshold", **facts})
            self._levels[what] = level


def find_level(known: int, used: int, limit: int | None) -> int:
    """Return the highest threshold that is passed, 0 = none; one that is known ends ``_BACK`` percent below it."""
    if not limit:
        return 0 if limit is None or not used else THRESHOLDS[-1]
    percent = 100 * used / limit
    return max(
        (level for level in THRESHOLDS if percent >= level or (level <= known and percent > level - _BACK)), default=0
    )
