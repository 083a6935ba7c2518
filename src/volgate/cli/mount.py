"""``volgate mount``: in the foreground, or detached with -d once the mount answers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from volgate import paths
from volgate.cli.arguments import Count, Size
from volgate.core.sizes import format_size

_IGNORED_OPTIONS: Final = frozenset(
    {
        "rw",
        "defaults",
        "_netdev",
        "nofail",
        "auto",
        "noauto",
        "user",
        "users",
        "nosuid",
        "nodev",
        "exec",
        "default_permissions",
    }
)
_SECONDS: Final = click.FloatRange(0, 86400)
Report = Callable[[dict[str, Any]], None]
"""Tells the waiting parent that the mount is ready ({"line"}), or why not ({"error", "status"}). Called once."""
_HELP_OPTIONS: Final = (
    "Mount options, comma-separated: ro, nonempty, allow_other, private, quota=SIZE, inodes=N, attr_timeout=S."
)


@click.command()
@click.argument("source")
@click.argument("mountpoint")
@click.option("-d", "--detach", is_flag=True, help="Go to the background when the mount is ready.")
@click.option("--quota", type=Size(), help="Limit in bytes: 10G, 10GiB, none. Kept at the next mount without it.")
@click.option("--inodes", type=Count(), help="Limit of files, directories and links together: 100000, none.")
@click.option("--read-only", is_flag=True, help="Mount read-only; takes no ownership.")
@click.option(
    "--attr-timeout",
    type=_SECONDS,
    default=60.0,
    show_default=True,
    help="Seconds until changes made behind the mount are seen.",
)
@click.option("-o", "options", multiple=True, help=_HELP_OPTIONS)
@click.option("--debug", is_flag=True, help="Log everything.")
def mount(
    source: str,
    mountpoint: str,
    detach: bool,
    quota: tuple[int | None] | None,
    inodes: tuple[int | None] | None,
    read_only: bool,
    attr_timeout: float,
    options: tuple[str, ...],
    debug: bool,
) -> int:
    r"""Mount SOURCE, a directory, on MOUNTPOINT.

    SOURCE's files appear under MOUNTPOINT; a limit holds from the next write on. A directory with files in it is
    counted first.

    \b
    volgate mount /srv/data /mnt/data --quota 10GiB
    volgate mount /srv/data /mnt/data -d
    """
    wanted: dict[str, Any] = {
        "quota": quota, "inodes": inodes, "read_only": read_only, "attr_timeout": attr_timeout,
        "nonempty": False, "allow_other": os.geteuid() == 0,
    }  # fmt: skip
    for option in ",".join(options).split(","):
        _apply_option(option.strip(), wanted)
    log_file = _log_file(mountpoint) if detach else None
    if detach:
        return _detached(lambda report: _run(source, mountpoint, wanted, report, log_file, debug=debug))
    return _run(source, mountpoint, wanted, None, None, debug=debug)


def _apply_option(option: str, wanted: dict[str, Any]) -> None:
    name, _, value = option.partition("=")
    if not name or name in _IGNORED_OPTIONS or name.startswith("x-"):
        return
    if name in ("ro", "nonempty", "allow_other", "private") and not value:
        wanted.update({"ro": {"read_only": True}, "private": {"allow_other": False}}.get(name, {name: True}))
    elif name == "quota":
        wanted["quota"] = Size().convert(value, None, None)
    elif name == "inodes":
        wanted["inodes"] = Count().convert(value, None, None)
    elif name == "attr_timeout":
        wanted["attr_timeout"] = _SECONDS(value)
    else:
        raise click.UsageError(f"unknown mount option '{option}'")


def _log_file(mountpoint: str) -> str:
    folder = paths.state_directory() / "log"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be made: {error.strerror}") from error
    return str(folder / (os.path.abspath(mountpoint).strip("/").replace("/", "-")[:200] + ".log"))


def _run(
    source: str, mountpoint: str, wanted: dict[str, Any], report: Report | None, log_file: str | None, *, debug: bool
) -> int:
    """Run the daemon in this process."""
    from volgate import logs
    from volgate.daemon import mountd
    from volgate.daemon.checks import resolve_mount_point
    from volgate.drivers.registry import Source, split_source
    from volgate.errors import InvalidArgument
    from volgate.volume.volume import UNCHANGED

    where = split_source(source)
    if where is None:
        raise InvalidArgument(f"'{source}' is no volume known here; for a directory write './{source}'")
    if where.backend_type == "posix":
        where = Source("posix", os.path.abspath(source))
    logs.set_up(debug=debug, file=log_file)
    settings = mountd.MountSettings(
        source=where,
        mount_point=resolve_mount_point(mountpoint),
        state_directory=paths.state_directory(),
        runtime_directory=paths.runtime_directory(),
        quota_bytes=UNCHANGED if wanted["quota"] is None else wanted["quota"][0],
        quota_inodes=UNCHANGED if wanted["inodes"] is None else wanted["inodes"][0],
        read_only=wanted["read_only"],
        nonempty=wanted["nonempty"],
        allow_other=wanted["allow_other"],
        attr_timeout_s=wanted["attr_timeout"],
    )
    progress = _Progress()

    def on_ready(volume: Any) -> None:
        progress.stop()
        line = _ready_line(volume, settings.mount_point)
        if report is None:
            click.echo(line, err=True)
        else:
            report({"line": line})

    try:
        return mountd.run(settings, on_ready=on_ready, on_progress=progress.update)
    finally:
        progress.stop()


def _ready_line(volume: Any, mount_point: Path) -> str:
    quota = volume.gate.info()
    limits = f"{format_size(quota.used_bytes)} of {format_size(quota.quota_bytes)} used"
    inodes = "" if quota.quota_inodes is None else f", {quota.file_count} of {quota.quota_inodes} inodes"
    read_only = ", read-only" if volume.read_only else ""
    return f"mounted {quota.volume_id} on {mount_point}: {limits}{inodes}{read_only}"


class _Progress:
    """Shows how far the count is, on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._status: Any = None

    def update(self, usage: Any) -> None:
        """Show what was counted so far."""
        if not sys.stderr.isatty():
            return
        text = f"counting: {usage.inodes:,} files, {format_size(usage.bytes_)}"
        if self._status is None:
            from rich.console import Console
            from rich.status import Status

            self._status = Status(text, console=Console(stderr=True))
            self._status.start()
        self._status.update(text)

    def stop(self) -> None:
        """Take the display away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def _detached(run: Callable[[Report], int]) -> int:
    """Run a daemon in a process of its own; returns when it is ready, or says why it is not."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return _wait_until_ready(ours, pid)
    os.close(ours)
    status = 2
    try:
        status = _be_daemon(run, theirs)
    finally:
        os._exit(status)


def _be_daemon(run: Callable[[Report], int], pipe: int) -> int:
    """Be the detached process: report over the pipe, and own no terminal."""
    from volgate.errors import StorageException

    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)

    def report(answer: dict[str, Any]) -> None:
        os.write(pipe, json.dumps(answer).encode() + b"\n")
        os.close(pipe)
        os.dup2(null, 2)
        os.chdir("/")

    try:
        return run(report)
    except StorageException as error:
        report({"error": str(error), "status": 32})
        return 32
    except click.ClickException as error:
        report({"error": error.format_message(), "status": 1})
        return 1


def _wait_until_ready(pipe: int, pid: int) -> int:
    with open(pipe, encoding="utf-8", errors="surrogateescape") as lines:
        for text in lines:
            answer = json.loads(text)
            if "line" in answer:
                click.echo(answer["line"])
                return 0
            click.echo(f"volgate: {answer['error']}", err=True)
            return int(answer["status"])
    _, status = os.waitpid(pid, 0)
    raise click.ClickException(
        f"the mount daemon ended before it was ready (status {os.waitstatus_to_exitcode(status)})"
    )
