"""``volgate quarantine list|retry|export|drop``: changes that a bucket refuses."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click

from volgate.cli.arguments import ENDPOINT, Target
from volgate.cli.output import confirm
from volgate.cli.owners import find_served
from volgate.cli.storage import ask_patiently
from volgate.control.client import ask
from volgate.core.sizes import format_count, format_size
from volgate.errors import AlreadyExists


@click.group()
def quarantine() -> None:
    """See and settle the changes that a bucket refuses.

    They are kept on local disk, shown and charged until then. TARGET is a mount point, or a volume's id or URL. KEY is
    as 'list' shows it.
    """


@quarantine.command("list")
@click.argument("target", type=Target())
@ENDPOINT
@click.option("--json", "as_json", is_flag=True, help="An array of {name, size, since, reason, is_orphan}.")
def list_(target: str, as_json: bool) -> None:
    """List what is in quarantine: key, size, since when, and why.

    Names that begin with 'orphan-' are contents whose writer was neither closed nor synced before a crash.

    \b
    volgate quarantine list /mnt/data
    """
    from volgate.cli.listing import print_table

    found = ask(Path(find_served(target)["socket"]), "GET", "/v1/quarantine")
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    rows = [("KEY", "SIZE", "SINCE", "REASON")]
    for change in found:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(change["since"]))
        size = "deletion" if change["size"] is None else format_size(change["size"])
        rows.append((change["name"], size, since, change["reason"]))
    if found:
        print_table(rows)
    else:
        click.echo("nothing is in quarantine", err=True)


@quarantine.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("keys", metavar="[KEY]...", nargs=-1)
def retry(target: str, keys: tuple[str, ...]) -> None:
    """Store files over what the bucket has; all without KEY.

    The condition is that the bucket still has what stands under the key now.

    \b
    volgate quarantine retry /mnt/data reports/2026.csv
    """
    socket = Path(find_served(target)["socket"])
    if not keys:
        keys = tuple(change["name"] for change in ask(socket, "GET", "/v1/quarantine") if not change["is_orphan"])
    for key in keys:
        _post(socket, "retry", {"name": key})
    confirm(f"{target}: {format_count(len(keys), 'change')} tried again; 'volgate flush {target}' waits for that")


@quarantine.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("key")
@click.argument("file", type=click.Path(path_type=Path))
def export(target: str, key: str, file: Path) -> None:
    """Write a content into a new local FILE; it stays in quarantine.

    \b
    volgate quarantine export /mnt/data reports/2026.csv /root/2026.csv
    """
    if file.exists():
        raise AlreadyExists(f"{file} exists; name a file that does not")
    _post(Path(find_served(target)["socket"]), "export", {"name": key, "path": os.path.abspath(file)})
    confirm(f"{file}: written")


@quarantine.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
def drop(target: str, keys: tuple[str, ...]) -> None:
    """Give contents up for good; the bucket's state counts.

    \b
    volgate quarantine drop /mnt/data reports/2026.csv
    """
    socket = Path(find_served(target)["socket"])
    for key in keys:
        _post(socket, "drop", {"name": key})
    confirm(f"{target}: {format_count(len(keys), 'change')} given up")


def _post(socket: Path, verb: str, body: dict[str, Any]) -> None:
    ask_patiently(socket, f"/v1/quarantine/{verb}", body, lambda: None)
