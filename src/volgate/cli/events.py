"""``volgate events``: what happened to the volumes of this host."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from typing import Any, Final

import click

from volgate.cli.arguments import Target
from volgate.errors import NotFound
from volgate.events import Event, EventLog
from volgate.logs import quoted

_LOOK_S: Final = 0.5
_FIRST: Final = 10
"""How many of those that were before are told to who follows, as tail(1) does."""
_LIMITS: Final = frozenset({"quota_bytes", "quota_inodes", "limit_bytes"})
"""Facts that are limits: null says that there is none."""


@click.command()
@click.argument("target", type=Target(), required=False)
@click.option("-f", "--follow", is_flag=True, help="The last ten, or those of --since, and then those that come.")
@click.option("--since", metavar="CURSOR", help="Only those behind one: its 'cursor' of --json.")
@click.option("--json", "as_json", is_flag=True, help="An object a line: {cursor, at, kind, message, facts}.")
def events(target: str | None, follow: bool, since: str | None, as_json: bool) -> int:
    """Say what happened to the volumes of this host, the oldest first.

    Volumes that began or ended to be served, limits that were changed or are nearly reached, snapshots, copies,
    problems that began and ended, and files that others replaced. The last 24 MiB at least are kept.

    \b
    volgate events
    volgate events projects --follow --json
    """
    from volgate import paths

    log, cursor = EventLog(paths.state_directory() / "events"), since
    volume_id = None if target is None else _volume_of(target, log)
    is_told = False
    first: deque[Event] | None = deque(maxlen=_FIRST) if follow and since is None else None
    while True:
        try:
            found = log.read(cursor)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        wanted = [event for event in found if volume_id in (None, event.facts.get("volume_id"))]
        if found:
            cursor = found[-1].cursor
        if first is not None:
            first.extend(wanted)
            wanted = [] if found else list(first)
            first = first if found else None
        for event in wanted:
            is_told = True
            click.echo(_to_json(event) if as_json else _to_line(event))
        if found:
            continue
        if not follow:
            if not is_told:
                click.echo(f"nothing is known of {target or 'this host'}", err=True)
            return os.EX_OK
        time.sleep(_LOOK_S)


def _volume_of(target: str, log: EventLog) -> str:
    """Return the volume's id that a target means: a volume that is or was served here, or lies there.

    Raises:
        NotFound: it is none that is known here, or was when something happened to it.
    """
    from volgate.cli.mounts import find, is_known

    try:
        return str(find(target, owner=True)["volume_id"])
    except NotFound:
        if is_known(target):
            return target
    if last := _find_last(log, target):
        return last
    import trio

    from volgate.cli.quota import read_stored

    return str(trio.run(read_stored, target)["volume_id"])


def _find_last(log: EventLog, target: str) -> str | None:
    """Return the volume that had an id, or was mounted on a place, as the last one."""
    from volgate.daemon.checks import resolve_mount_point

    cursor, last, place = None, None, str(resolve_mount_point(target))
    while found := log.read(cursor):
        cursor = found[-1].cursor
        for event in found:
            if event.facts.get("volume_id") == target or event.facts.get("mount_point") == place:
                last = event.facts.get("volume_id")
    return last


def _to_json(event: Event) -> str:
    import attrs

    return json.dumps(attrs.asdict(event))


def _to_line(event: Event) -> str:
    facts: dict[str, Any] = dict(event.facts)
    volume_id = facts.pop("volume_id", "-")
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    facts |= {key: "unlimited" for key in _LIMITS & facts.keys() if facts[key] is None}
    rest = " ".join(f"{key}={_to_word(value)}" for key, value in facts.items() if value not in ("", None))
    line = f"{moment}  {volume_id}  {event.kind}  {event.message}  {rest}".rstrip()
    return line.encode("utf-8", "backslashreplace").decode()


def _to_word(value: Any) -> str:
    return quoted(round(value, 3) if isinstance(value, float) else value)
