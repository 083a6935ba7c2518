"""The process that owns a volume: found, started where there is none, asked to give the volume up.

What changes a volume is done by its owner: the daemon of its mount, or one without a mount. A verb that needs one of a
volume that nobody serves starts it; it ends by itself when nothing was asked of it for a while.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import volgate
from volgate.cli import ending
from volgate.cli.mounts import describe_detached, find, find_all, is_headless
from volgate.cli.output import Progress
from volgate.control.client import ask
from volgate.errors import Busy, NotFound, Unavailable

if TYPE_CHECKING:
    from volgate.daemon.mountd import MountSettings

_IDLE: Final = "5s"
"""How long an owner that a verb started waits for the next verb."""
_OF_CALLERS_UNIT: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
"""Variables by which a service would tell systemd of itself: who is started here is no part of it."""
_TRIES: Final = 5
_RIVAL_S: Final = 5.0
"""How long to look for an owner that somebody else started at the same moment."""
_LOOK_S: Final = 0.1


def find_served(target: str) -> dict[str, Any]:
    """Return the status of the volume's owner, which can be asked for the next seconds at least; start it if need be.

    Raises:
        NotFound, Busy, Unavailable, click.ClickException: there is none, and none can be started; says why.
    """
    for _ in range(_TRIES):
        status = _find(target) or _start(target)
        if status is not None and not status.get("socket"):
            time.sleep(_LOOK_S)  # perhaps it begins just now, or ends
        elif status is not None and _stays(status):
            return status
    if status is not None and not status.get("socket"):
        raise Unavailable(f"nobody serves {target} whom this user may ask; see 'volgate status {target}'")
    raise Unavailable(f"whoever serves {target} ends again and again; see 'volgate status {target}'")


def _find(target: str) -> dict[str, Any] | None:
    try:
        return find(target, owner=True)
    except NotFound:
        return None


def _stays(status: dict[str, Any]) -> bool:
    """Return whether an owner stays for what it is asked; one that does not has ended then.

    Raises:
        Busy: it neither stays nor ends.
    """
    if "until_idle_s" not in status:  # it does not answer, or is of an older version
        return True
    try:
        ask(Path(status["socket"]), "POST", "/v1/hold")
    except (NotFound, Unavailable):
        _wait_for_end(status, release=False)
        return False
    return True


def _start(target: str) -> dict[str, Any] | None:
    """Start an owner that ends when it is idle, and return its status; None where it has to be looked for again.

    Raises:
        click.ClickException: it did not start; says what it said, and ends as it did.
    """
    words = ["--quiet", "serve", target, "--detach", "--existing", "--until-idle", _IDLE]
    environment = {name: value for name, value in os.environ.items() if name not in _OF_CALLERS_UNIT}
    with Progress() as progress:
        progress.update(f"nobody serves {target}; starting what does")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "volgate", *words],
            env={**environment, "PYTHONPATH": str(Path(volgate.__file__).parents[1])},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            encoding="utf-8", errors="surrogateescape", check=False,
        )  # fmt: skip
    deadline = time.monotonic() + (_RIVAL_S if done.returncode == os.EX_TEMPFAIL else 0.0)
    while done.returncode and time.monotonic() < deadline:
        found = _find(target)
        if found is not None:
            return found
        time.sleep(_LOOK_S)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"its owner ended at once (status {done.returncode})"]
        refusal = click.ClickException(lines[-1].removeprefix("volgate: "))
        refusal.exit_code = abs(done.returncode)  # type: ignore[misc] # click means it for subclasses, and asks each
        raise refusal
    return _find(target)


def end_headless(status: dict[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Have an owner without a mount give its volume up, and return what it did not store, once it has ended.

    What it has begun it ends, what it keeps back it stores; a restore is gone on with by the next owner.

    Raises:
        Busy: nothing moved for a minute; names it and what it does. It still ends when that is done.
    """
    return _wait_for_end(status, progress, release=True)


def _wait_for_end(status: dict[str, Any], progress: Progress | None = None, *, release: bool) -> dict[str, Any]:
    socket, pid, volume_id = Path(status["socket"]), status["pid"], status["volume_id"]
    doing = f"process {pid} gives {volume_id} up"
    with ending.watched_process(pid) as process:
        left = None
        with contextlib.suppress(NotFound, Unavailable):  # it has just ended, or is just about to
            left = ending.Left(socket)
            if release:
                ask(socket, "POST", "/v1/release")
        if process is None or ending.has_ended(process, ending.SILENT_S):
            return left.at_end() if left is not None else {}
        with Progress() as own:
            shown = progress or own
            shown.update(doing)
            if ending.wait_for_end(process, left, shown, doing, "waiting until what is under way is done"):
                return left.at_end() if left is not None else {}
        work = _describe_work(left)
        if left is not None:
            left.close()
    place = "without a mount" if is_headless(status) else f"on {status['mount_point']}"
    raise Busy(f"volume {volume_id} is served {place} by process {pid}, which {work}; it ends when that is done")


def _describe_work(left: ending.Left | None) -> str:
    status = left.now() if left is not None else None
    if status is None:
        return "does not answer"
    works = [f"is at work: {', '.join(status['under_way'])}"] if status["under_way"] else []
    if status["storage"] and status["storage"]["backlog_files"]:
        works.append(f"stores what is left: {ending.describe_backlog(status['storage'])}")
    return " and ".join(works) or f"is {status['state']}"


def inherit(settings: MountSettings, progress: Progress) -> bool:
    """Have the owner of a volume on this host give it up for another one; returns whether there was one that does.

    For a mount that is any owner without one; for an owner without a mount, which stays, one that would end by itself.

    Raises:
        Busy: its mount was detached, and it goes on for the files that are open; says what ends it.
    """
    for status in find_all():
        is_held = status["source"] is not None and not status["read_only"] and status["statistics"]["open_files"] > 0
        detached = describe_detached(status) if is_held else ""
        if not (detached or is_headless(status)) or not _is_of(settings, status):
            continue
        if detached:
            raise Busy(detached)
        is_brief = status["until_idle_s"] is not None
        if settings.mount_point is None and (settings.until_idle_s is not None or not is_brief):
            return False
        end_headless(status, progress)
        return True
    return False


def _is_of(settings: MountSettings, status: dict[str, Any]) -> bool:
    """Return whether an owner serves what these settings mean."""
    if settings.volume_uuid is not None:
        return bool(status["uuid"] == settings.volume_uuid)
    source = settings.source.text
    if "://" in source:
        return bool(status["source"].rstrip("/") == source.rstrip("/"))
    try:
        return os.path.samefile(status["source"], source)
    except OSError:
        return False
