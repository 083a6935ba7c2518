"""The sign of life that systemd wants (WatchdogSec=), sent on evidence and not by a timer alone.

Evidence: the event loop runs, somebody reads the kernel's requests, and no request is stuck beyond its deadline. A
driver that blocks the event loop, or one whose calls cannot be given up, so leads to a restart; storage that hangs in
threads does not, since its requests are answered with ETIMEDOUT and it heals by itself.
"""

from __future__ import annotations

import trio

from volgate.daemon import service_manager
from volgate.daemon.session import Session


class Watchdog:
    """Feeds systemd's watchdog for one volume.

    Args:
        session: whose requests are the evidence.
        deadline_s: when a request is answered at the latest.
    """

    def __init__(self, session: Session, deadline_s: float) -> None:
        self._session = session
        self._deadline_s = deadline_s
        self._answered = 0

    async def run(self) -> None:
        """Feed until cancelled; returns at once where systemd wants no sign."""
        interval_s = service_manager.watchdog_interval_s()
        if interval_s is None:
            return
        while True:
            if self._moves():
                service_manager.notify(WATCHDOG=1)
            await trio.sleep(interval_s)

    def _moves(self) -> bool:
        statistics = self._session.statistics()
        before, self._answered = self._answered, statistics.answered
        if statistics.oldest_request_s > 2 * self._deadline_s:
            return False
        return statistics.unread == 0 or statistics.answered != before
