"""``volgate flush``, ``refresh`` and ``gc``: what a volume in a bucket needs now and then."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from volgate.cli.arguments import ENDPOINT, Seconds, Target
from volgate.cli.ending import describe_backlog
from volgate.cli.mounts import find
from volgate.cli.output import Progress, confirm
from volgate.cli.owners import find_served
from volgate.control.client import ask
from volgate.errors import StorageException, Unavailable

_LOOK_S: Final = 0.5


def ask_patiently(socket: Path, target: str, body: Any, look: Callable[[], None]) -> Any:
    """Return the answer to a POST that may take long; ``look`` is called twice a second meanwhile."""
    answers: list[Any] = []

    def wait() -> None:
        try:
            answers.append(ask(socket, "POST", target, body, timeout_s=None))
        except StorageException as error:
            answers.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_S)
        if thread.is_alive():
            look()
    if isinstance(answers[0], StorageException):
        raise answers[0]
    return answers[0]


@click.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.option("--json", "as_json", is_flag=True, help="What is left, as the object 'storage' of status.")
def flush(target: str, as_json: bool) -> int:
    """Wait until the storage has everything that was written.

    Exit status 75 where it does not take all of it; says what is left and why. A directory's volume keeps nothing
    back.

    \b
    volgate flush /mnt/data
    volgate flush projects && echo "all is in the bucket"
    """
    socket = Path(find_served(target)["socket"])
    with Progress() as progress:

        def look() -> None:
            storage = ask(socket, "GET", "/v1/status")["storage"]
            if storage:
                progress.update(f"storing what is left: {describe_backlog(storage)}")

        left = ask_patiently(socket, "/v1/flush", None, look)
    if as_json:
        click.echo(json.dumps(left, indent=1))
    if not left.get("backlog_files"):
        if not as_json:
            confirm(f"{target}: all is stored")
        return 0
    click.echo(f"volgate: {describe_left(target, left)}", err=True)
    return os.EX_TEMPFAIL


def describe_left(target: str, left: dict[str, Any]) -> str:
    """Return what is not stored, and why, in one line."""
    why = f"; oldest: {left['oldest_key']}" if left["oldest_key"] else ""
    why += f": {left['last_error']}" if left["last_error"] else ""
    if left["refused"]:
        why += f"; {left['refused']} of them refused, see 'volgate quarantine list {target}'"
    return f"not stored: {describe_backlog(left)}{why}"


@click.command()
@click.argument("target", type=Target())
def refresh(target: str) -> None:
    """Show at once what others changed behind the mount.

    Without it, what is remembered is believed for --attr-timeout.

    \b
    volgate refresh /mnt/data
    """
    socket = find(target).get("socket")
    if not socket:
        raise Unavailable(f"nobody serves {target} whom this user may ask; see 'volgate status {target}'")
    ask_patiently(Path(socket), "/v1/refresh", None, lambda: None)
    confirm(f"{target}: nothing is remembered of the storage any more")


@click.command()
@click.argument("target", type=Target())
@ENDPOINT
@click.option("--older-than", type=Seconds(), default="1d", help="Leave what is younger; 1d by default, and at most.")
@click.option("--json", "as_json", is_flag=True, help="An object of {uploads, objects}.")
def gc(target: str, older_than: float, as_json: bool) -> None:
    """Remove from a bucket what earlier processes left unfinished.

    Uploads in parts that nobody goes on with (S3 charges for them and shows them nowhere), and objects of volgate's
    own below .volgate/. TARGET may also be a volume that is not mounted; then no other host may own it.

    \b
    volgate gc /mnt/data
    volgate gc s3://bucket/prefix
    """
    socket = Path(find_served(target)["socket"])
    removed = ask_patiently(socket, "/v1/gc", {"older_than_s": older_than}, lambda: None)
    if as_json:
        click.echo(json.dumps(removed))
    else:
        confirm(f"{target}: removed {removed['uploads']} abandoned uploads, {removed['objects']} objects left behind")
