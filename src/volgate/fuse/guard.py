"""Ends the kernel's connection of a daemon that was killed and cannot die.

A thread that has the kernel forget a name waits there, out of reach of any signal, for who works in that directory, and
who works there waits for the daemon. Killed just then, the daemon stays with this one thread: /dev/fuse stays open, and
whoever uses the mount hangs for ever (seen: 2 of 3 times under load). So a small process of its own waits for the
daemon's main thread to end (PR_SET_PDEATHSIG, prctl(2)) and then aborts the connection (fuse(4), "abort").
"""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_SCRIPT: Final = "# volgate: ends the mount of a daemon that was killed\ntrap 'echo 1; exit' USR1; read -r _"
"""Its standard output is the connection's ``abort``. Its standard input ends with the daemon's last thread: nothing is
left to abort then."""


class Guard:
    """Watches over this process for one connection; call in the main thread, since that thread's end is the sign.

    Nothing watches where fusectl is not mounted, or setpriv(1) is missing: then a log line says so.
    """

    def __init__(self, device_minor: int) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        try:
            # Open from now on: the number may be another connection's by the time.
            abort = os.open(Path(f"/sys/fs/fuse/connections/{device_minor}/abort"), os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            log.info("no guard of the mount", extra={"error": f"fusectl: {error.strerror}"})
            return
        try:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "USR1", "sh", "-c", _SCRIPT],
                stdin=subprocess.PIPE, stdout=abort, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            log.info("no guard of the mount", extra={"error": f"setpriv: {error.strerror}"})
        finally:
            os.close(abort)

    def end(self) -> None:
        """Let the connection alone."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
