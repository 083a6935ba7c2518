"""``volgate copy`` and ``sync``: from any volume or directory into a volume."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from volgate.cli.arguments import ENDPOINT, Size
from volgate.cli.output import change_line, confirm
from volgate.cli.places import to_request
from volgate.cli.storage import ask_patiently
from volgate.cli.task import follow
from volgate.core.sizes import format_count, format_size

_KINDS: Final = {"added": "created", "changed": "changed", "removed": "removed"}
"""What a dry run calls the changes that it found."""
_Command = Callable[..., int]


def _common(command: _Command) -> _Command:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="The task, as 'task show --json' has it."),
        click.option("-d", "--detach", is_flag=True, help="Do not wait: 'volgate task' says how far it is."),
        click.option("--accept-losses", is_flag=True, help="Copy also what the target cannot keep all of."),
        click.option("--limit", type=Size(), default=(None,), help="Not faster than SIZE a second."),
        ENDPOINT,
        click.argument("target"),
        click.argument("source"),
    ):
        command = option(command)
    return command


@click.command()
@_common
def copy(source: str, target: str, limit: tuple[int | None], accept_losses: bool, detach: bool, as_json: bool) -> int:
    """Copy a file or a tree into a volume.

    It appears when it is whole.

    SOURCE is a path in a mount (also below .snapshots/ID), VOLUME:PATH, a URL, or any directory or file. TARGET is
    a path in a mount, or VOLUME:PATH; with a slash at its end, SOURCE gets into it under its own name.

    The volume's daemon copies: it goes on when this command is interrupted, and after a crash. Every file is read back.

    \b
    volgate copy /mnt/data/projects /mnt/archive/projects-2026
    volgate copy /srv/photos archive:photos --limit 50MiB
    volgate copy s3://bucket/results /mnt/data/ --detach
    """
    request, socket = to_request("copy", source, target, accept_losses=accept_losses, bytes_per_s=limit[0])
    return _run(socket, request, detach=detach, as_json=as_json)


@click.command()
@_common
@click.option("--delete", is_flag=True, help="Remove what the source does not have.")
@click.option("--dry-run", is_flag=True, help="Only say what would be changed.")
def sync(
    source: str, target: str, limit: tuple[int | None], accept_losses: bool, detach: bool, as_json: bool, delete: bool,
    dry_run: bool,
) -> int:  # fmt: skip
    """Make a directory of a volume like another one.

    Only what differs is copied, each file whole. SOURCE and TARGET are as for 'copy'. What has the same size and time
    is the same, as rsync has it.

    \b
    volgate sync /srv/photos /mnt/archive/photos
    volgate sync data:projects archive:projects --delete --dry-run
    """
    request, socket = to_request(
        "sync", source, target, accept_losses=accept_losses, bytes_per_s=limit[0], delete=delete
    )
    if not dry_run:
        return _run(socket, request, detach=detach, as_json=as_json)
    found = ask_patiently(socket, "/v1/copies/plan", request, lambda: None)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return 0
    for change in found:
        click.echo(change_line(change))
    counts = Counter(_KINDS[change["change"]] for change in found)
    done = ", ".join(f"{counts[name]} {name}" for name in _KINDS.values() if counts[name])
    confirm(f"{target} would be like {source}: {done or 'nothing differs'}", err=True)
    return 0


def _run(socket: Path, request: dict[str, Any], *, detach: bool, as_json: bool) -> int:
    task = ask_patiently(socket, "/v1/copies", request, lambda: None)
    if not detach:
        task = follow(socket, task["operation_id"])
    if as_json:
        click.echo(json.dumps(task, indent=1))
    elif detach:
        see = f"see 'volgate task list {socket.stem}'"
        confirm(f"task {task['operation_id']}: {task['source']} to {task['target']}; {see}")
    if task["state"] == "done" and not as_json:
        _tell(task)
    if task["state"] in ("failed", "cancelled"):
        why = task["error"] or "it was cancelled"
        what = "was not copied" if task["request"]["kind"] == "copy" else "was not synced to the end"
        click.echo(f"volgate: {task['source']} {what}: {why}", err=True)
        return os.EX_CANTCREAT
    return 0


def _tell(task: dict[str, Any]) -> None:
    report = task["report"]
    for loss in report["losses"]:
        click.echo(f"volgate: lost: {loss}", err=True)
    if report["changed"]:
        click.echo(f"volgate: {report['changed']}", err=True)
    if task["request"]["kind"] == "copy":
        files = format_count(task["total_files"], "file")
        confirm(f"copied {task['source']} to {task['target']}: {files}, {format_size(task['total_bytes'])}")
        return
    done = ", ".join(
        f"{report[name]} {name}" for name in ("created", "replaced", "adjusted", "removed") if report[name]
    )
    confirm(f"{task['target']} is like {task['source']}: {done or 'nothing differed'}")
