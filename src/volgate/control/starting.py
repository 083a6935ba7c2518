"""Starting and ending owners for others: by their systemd units where systemd runs, else by the command line.

Programs get lists of words, never a shell's line, nothing on standard input, and bounded time. What a client wrote
reaches them as the id of a volume that the catalog knows, and nothing else.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from volgate.control.problems import Refusal
from volgate.errors import Busy, TimedOut, TryAgain, Unsupported

_SYSTEMD: Final = Path("/run/systemd/system")
MOUNT_S: Final = 120.0
UNMOUNT_S: Final = 120.0
_CHECK_S: Final = 10.0
_SAID_BYTES: Final = 2000
_IDLE: Final = "10s"
"""How long an owner without a mount waits for the next question; its unit says the same."""
_AT_IT: Final = frozenset({"active", "activating", "reloading", "deactivating"})
_OURS: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})
"""What the service manager says to this process, and to no child."""


class Starter:
    """Starts and ends mount daemons.

    Args:
        command: the words that run this version's command line.
        by_systemd: whether units are started; by default, where systemd runs and this is root, since they are root's.
    """

    def __init__(self, command: Sequence[str], *, by_systemd: bool | None = None) -> None:
        self._command = tuple(command)
        self._by_systemd = os.geteuid() == 0 and _SYSTEMD.is_dir() if by_systemd is None else by_systemd

    async def mount(self, volume_id: str) -> None:
        """Mount a volume of the catalog; returns when it answers.

        Raises:
            TimedOut: it goes on, and is not ready yet. Refusal: it failed; says why.
        """
        if self._by_systemd:
            status, said = await _run(("systemctl", "start", "--", f"volgate@{volume_id}.service"), MOUNT_S)
            if status:
                raise Refusal("mount_failed", f"{said}; see 'journalctl -u volgate@{volume_id}'")
            return
        status, said = await _run((*self._command, "mount", "-d", volume_id), MOUNT_S)
        if status:
            raise Refusal("mount_failed", said)

    async def serve(self, volume_id: str) -> None:
        """Start an owner without a mount that ends when it is idle; returns when it answers.

        Raises:
            TryAgain: another has the volume, or is just giving it up. TimedOut: it goes on, and is not ready yet.
            Refusal: it failed; says why.
        """
        if self._by_systemd:
            unit = f"volgate-brief@{volume_id}.service"
            status, said = await _run(("systemctl", "start", "--", unit), MOUNT_S)
            if status:
                show = ("systemctl", "show", "--property=ExecMainStatus", "--value", "--", unit)
                _, number = await _run(show, _CHECK_S)
                status = int(number) if number.isdigit() else status
                said = f"{said}; see 'journalctl -u volgate-brief@{volume_id}'"
        else:
            words = (*self._command, "serve", "-d", "--existing", "--until-idle", _IDLE, volume_id)
            status, said = await _run(words, MOUNT_S)
        if status == os.EX_TEMPFAIL:
            raise TryAgain(said)
        if status:
            raise Refusal("serve_failed", said)

    async def unmount(self, volume_id: str, *, lazy: bool) -> None:
        """Unmount a volume; returns when its daemon has ended.

        Raises:
            Busy: somebody has files open, and it is not ``lazy``. TimedOut: it goes on. Refusal: it failed.
        """
        if await self.has_unit(volume_id):
            status, said = await _run(("systemctl", "stop", "--", f"volgate@{volume_id}.service"), UNMOUNT_S)
            if status:
                raise Refusal("unmount_failed", f"{said}; see 'journalctl -u volgate@{volume_id}'")
            return
        lazily = ("--lazy",) if lazy else ()
        status, said = await _run((*self._command, "umount", *lazily, volume_id), UNMOUNT_S)
        if status:
            raise Busy(said) if "busy" in said else Refusal("unmount_failed", said)

    async def has_unit(self, volume_id: str) -> bool:
        """Return whether the volume's unit is at it, or tries to be; else it is mounted by hand, or not at all."""
        if not self._by_systemd:
            return False
        words = ("systemctl", "show", "--property=ActiveState", "--value", "--", f"volgate@{volume_id}.service")
        _, said = await _run(words, _CHECK_S)
        return said in _AT_IT


async def _run(words: Sequence[str], limit_s: float) -> tuple[int, str]:
    """Return a program's exit status, and the last line it said. Raises TimedOut; Unsupported: it is missing."""
    try:
        with trio.fail_after(limit_s):
            done = await trio.run_process(
                words,
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env={name: value for name, value in os.environ.items() if name not in _OURS},
            )
    except trio.TooSlowError as error:
        raise TimedOut(f"'{' '.join(words)}' takes longer than {limit_s:g} s; look at the volume's status") from error
    except OSError as error:
        raise Unsupported(f"the program {words[0]} cannot be run: {error.strerror}") from error
    said = done.stderr.strip() or done.stdout.strip()
    lines = said[-_SAID_BYTES:].decode(errors="backslashreplace").splitlines()
    return done.returncode, lines[-1].removeprefix("volgate: ") if lines else f"{words[0]} ended with {done.returncode}"
