"""``volgate task list|show|wait|pause|resume|cancel``: what a volume's daemon copies."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

import click

from volgate.cli.arguments import Target
from volgate.cli.output import Progress, confirm
from volgate.cli.owners import find_served
from volgate.cli.storage import ask_patiently
from volgate.control.client import ask
from volgate.core.sizes import format_size
from volgate.errors import NotFound, Unavailable

_INTERRUPTED: Final = 130


@click.group()
def task() -> None:
    """See and steer the copies and syncs of a volume.

    They lie beside the volume's data: they go on after a crash, on whichever host the volume is mounted.
    """


@task.command("list")
@click.argument("target", type=Target())
@click.option("--json", "as_json", is_flag=True, help="An array of what 'show --json' has.")
def list_(target: str, as_json: bool) -> None:
    """List the tasks of a volume, the oldest first; of those that have ended, the last hundred.

    \b
    volgate task list /mnt/data
    """
    from volgate.cli.listing import print_table

    found = ask(Path(find_served(target)["socket"]), "GET", "/v1/tasks")
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    rows = [("ID", "KIND", "STATE", "DONE", "SOURCE", "TARGET", "ERROR")]
    rows += [
        (t["operation_id"], t["request"]["kind"], t["state"], _share(t), t["source"], t["target"], t["error"] or "-")
        for t in found
    ]
    if found:
        print_table(rows)
    else:
        click.echo(f"{target} has no tasks", err=True)


def _share(found: dict[str, Any]) -> str:
    total = found["total_bytes"]
    if found["state"] == "done":
        return format_size(total)
    return f"{100 * found['done_bytes'] // total}% of {format_size(total)}" if total else "-"


@task.command()
@click.argument("target", type=Target())
@click.argument("task_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="An object of {operation_id, state, request, done_bytes, ...}.")
def show(target: str, task_id: str, as_json: bool) -> None:
    """Say how a task stands.

    \b
    volgate task show /mnt/data 3f2a9c0d11e84b7a
    """
    socket = Path(find_served(target)["socket"])
    found = _find(socket, task_id)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(f"{found['operation_id']}: {found['request']['kind']}, {found['state']}")
    click.echo(f"  source  {found['source']}")
    click.echo(f"  target  {found['target']}")
    click.echo(f"  begun   {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(found['created_at']))}")
    click.echo(f"  done    {describe_progress(found)}")
    if found["error"]:
        click.echo(f"  error   {found['error']}")
    for loss in found["report"]["losses"]:
        click.echo(f"  lost    {loss}")


def _find(socket: Path, task_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [t for t in ask(socket, "GET", "/v1/tasks") if t["operation_id"] == task_id]
    if not found:
        raise NotFound(f"the volume has no task {task_id}")
    return found[0]


def describe_progress(found: dict[str, Any]) -> str:
    """Return how far a task is, in one line."""
    done = f"{format_size(found['done_bytes'])} of {format_size(found['total_bytes'])}"
    done += f", {found['done_files']} of {found['total_files']} files"
    if found["bytes_per_s"]:
        done += f", {format_size(int(found['bytes_per_s']))}/s"
    if found["remaining_s"] is not None and found["state"] == "running":
        done += f", {found['remaining_s']:.0f} s left"
    return done


def follow(socket: Path, task_id: str) -> dict[str, Any]:
    """Show how far a task is until it has ended, and return it; interrupted, it goes on without us."""
    found: dict[str, Any] = {}
    told = ""
    try:
        with Progress() as progress:

            def look() -> None:
                nonlocal told
                now = _find(socket, task_id)
                text = f"{now['state']}: {now['error']}" if now["error"] else describe_progress(now)
                progress.update(text, done=now["done_bytes"], total=now["total_bytes"] or None)
                if now["error"] and now["error"] != told and not progress.is_shown:
                    told = now["error"]
                    click.echo(f"volgate: it waits, and tries again: {told}", err=True)

            found = ask_patiently(socket, "/v1/tasks/wait", {"operation_id": task_id}, look)
    except KeyboardInterrupt:
        click.echo(f"\nvolgate: it goes on; 'volgate task cancel {socket.stem} {task_id}' ends it", err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from None
    except Unavailable as error:
        raise Unavailable(f"{error}; the task goes on when the volume is mounted, or served, again") from error
    return found


def _steer(verb: str, effect: str, done: str) -> click.Command:
    @click.argument("target", type=Target())
    @click.argument("task_id", metavar="ID")
    @click.option("--json", "as_json", is_flag=True, help="The task, as 'show --json' has it.")
    def command(target: str, task_id: str, as_json: bool) -> None:
        socket, body = Path(find_served(target)["socket"]), {"operation_id": task_id}
        found = ask_patiently(socket, f"/v1/tasks/{verb}", body, lambda: None)
        if as_json:
            click.echo(json.dumps(found, indent=1))
        else:
            confirm(f"task {task_id} {done}")

    command.__doc__ = f"{effect}\n\n\b\nvolgate task {verb} /mnt/data 3f2a9c0d11e84b7a\n"
    return task.command(verb)(command)


pause = _steer("pause", "Hold a task until 'resume', also over restarts.", "is paused")
resume = _steer("resume", "Let a task go on that was paused.", "goes on")
cancel = _steer("cancel", "End a task; nothing is left of a copy, and a sync leaves what it did.", "is cancelled")


@task.command()
@click.argument("target", type=Target())
@click.argument("task_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="The task, as 'show --json' has it.")
def wait(target: str, task_id: str, as_json: bool) -> int:
    """Wait until a task has ended; exit status 73 where it failed.

    \b
    volgate task wait /mnt/data 3f2a9c0d11e84b7a && echo copied
    """
    found = follow(Path(find_served(target)["socket"]), task_id)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    if found["state"] == "done":
        if not as_json:
            confirm(f"task {task_id} is done: {format_size(found['total_bytes'])} in {found['total_files']} files")
        return 0
    if not as_json:
        click.echo(f"volgate: {found['state']}: {found['error'] or 'as was asked for'}", err=True)
    return os.EX_CANTCREAT
