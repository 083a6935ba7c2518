"""``volgate events``: what happened to the volumes of this host."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Final

import click

from volgate.events import Event, EventLog

_LOOK_S: Final = 0.5


@click.command()
@click.argument("volume_id", metavar="[VOLUME]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come.")
@click.option("--since", metavar="CURSOR", help="Only those behind one: its 'cursor' of --json.")
@click.option("--json", "as_json", is_flag=True, help="An object a line: {cursor, at, kind, message, facts}.")
def events(volume_id: str | None, follow: bool, since: str | None, as_json: bool) -> int:
    """Say what happened to the volumes of this host, the oldest first.

    Volumes that began or ended to be served, limits that were changed or are nearly reached, snapshots, copies,
    problems that began and ended, and files that others replaced. The last 24 MiB at least are kept.

    \b
    volgate events
    volgate events projects --follow --json
    """
    from volgate import paths

    log, cursor = EventLog(paths.state_directory() / "events"), since
    while True:
        try:
            found = log.read(cursor)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        for event in found:
            cursor = event.cursor
            if volume_id in (None, event.facts.get("volume_id")):
                click.echo(_to_json(event) if as_json else _to_line(event))
        if found:
            continue
        if not follow:
            return os.EX_OK
        time.sleep(_LOOK_S)


def _to_json(event: Event) -> str:
    import attrs

    return json.dumps(attrs.asdict(event))


def _to_line(event: Event) -> str:
    facts: dict[str, Any] = dict(event.facts)
    volume_id = facts.pop("volume_id", "-")
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    rest = " ".join(f"{key}={value}" for key, value in facts.items() if value not in ("", None))
    return f"{moment}  {volume_id}  {event.kind}  {event.message}  {rest}".rstrip()
