"""``volgate mount``: in the foreground, or detached with -d once the mount answers."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volgate import paths
from volgate.cli.arguments import Count, Seconds, Size
from volgate.cli.mount_options import HELP, parse_options, take_id_map
from volgate.cli.output import Progress, confirm
from volgate.core.sizes import format_size
from volgate.errors import NotFound
from volgate.errors.errno_map import from_oserror_at

if TYPE_CHECKING:
    from volgate.config.loading import Configuration
    from volgate.daemon.mountd import MountSettings
    from volgate.dto import Usage

log = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]
"""Tells the waiting parent that the mount is ready ({"line"}), or why not ({"error", "status"}). Called once."""


@click.command()
@click.argument("source")
@click.argument("mountpoint", required=False)
@click.option("-d", "--detach", is_flag=True, help="Go to the background when the mount is ready.")
@click.option("--quota", type=Size(), help="Limit in bytes: 10G, 10GiB, none. Kept at the next mount without it.")
@click.option("--inodes", type=Count(), help="Limit of files, directories and links together: 100000, none.")
@click.option("--read-only", is_flag=True, help="Mount read-only; takes no ownership.")
@click.option("--attr-timeout", type=Seconds(), help="How long until changes made behind the mount are seen [60s].")
@click.option("--endpoint-url", metavar="URL", help="The S3 server of SOURCE, unless it is Amazon's.")
@click.option("--take-over", is_flag=True, help="Take a bucket from a host that is gone and left changes behind.")
@click.option("-o", "options", multiple=True, help=HELP)
@click.option("--debug", is_flag=True, help="Log everything.")
def mount(
    source: str,
    mountpoint: str | None,
    detach: bool,
    quota: tuple[int | None] | None,
    inodes: tuple[int | None] | None,
    read_only: bool,
    attr_timeout: float | None,
    endpoint_url: str | None,
    take_over: bool,
    options: tuple[str, ...],
    debug: bool,
) -> int:
    """Mount a directory, a bucket or a volume.

    SOURCE is a directory (with a '/' in it), s3://BUCKET[/PREFIX], or the name of a volume, which may know its
    MOUNTPOINT.

    SOURCE's files appear under MOUNTPOINT; a limit holds from the next write on. A directory with files in it is
    counted first. Without -d it stays in the foreground until it is unmounted, or ended by ^C.

    \b
    volgate mount /srv/data /mnt/data --quota 10GiB
    volgate mount s3://bucket/prefix /mnt/data --endpoint-url https://s3.example.org
    volgate mount projects -d
    """
    wanted = parse_options(",".join(options))
    if quota is not None:
        wanted["quota_bytes"] = quota[0]
    if inodes is not None:
        wanted["quota_inodes"] = inodes[0]
    if attr_timeout is not None:
        wanted["attr_timeout_s"] = attr_timeout
    if read_only:
        wanted["read_only"] = True
    if endpoint_url is not None:
        wanted.setdefault("storage", {})["endpoint_url"] = endpoint_url
    if take_over:
        wanted.setdefault("storage", {})["take_over"] = "yes"
    return mount_source(source, mountpoint, wanted, detach=detach, debug=debug)


def mount_source(source: str, mountpoint: str | None, wanted: dict[str, Any], *, detach: bool, debug: bool) -> int:
    """Mount; returns the exit status. Raises StorageException, click.ClickException: one line that says why not.

    Args:
        wanted: from the options, by the names of ``MountSettings``.
    """
    from volgate.config.loading import load

    configuration = load(paths.config_directory(), os.environ)
    settings = _settings(source, mountpoint, wanted, configuration)
    if detach:
        log_file = _log_file(settings.mount_point)
        return _detached(lambda report: _run(settings, configuration, report, log_file, debug=debug), log_file)
    return _run(settings, configuration, None, None, debug=debug)


def _settings(
    source: str, mountpoint: str | None, wanted: dict[str, Any], configuration: Configuration
) -> MountSettings:
    """Return what is to be mounted: flags over the catalog's options over environment over files."""
    from volgate.cli.sources import resolve, with_options
    from volgate.daemon.checks import resolve_mount_point
    from volgate.daemon.mountd import MountSettings

    try:
        where, entry = resolve(source)
    except NotFound as error:  # nothing that waiting or trying again could mend
        raise click.UsageError(str(error)) from error
    if entry is not None:
        known = parse_options(entry.options)
        storage = {**known.get("storage", {}), **wanted.get("storage", {})}
        wanted = {**known, **wanted, "storage": storage}
        mountpoint = mountpoint or entry.mount_point
    if not mountpoint:
        raise click.UsageError(f"say where to mount {source}: 'volgate mount {source} MOUNTPOINT'")
    defaults: dict[str, Any] = {
        "allow_other": os.geteuid() == 0,
        "attr_timeout_s": configuration["mount.attr_timeout"],
        "stop_deadline_s": configuration["mount.stop_deadline"],
        "request_deadline_s": configuration["mount.request_deadline"],
        "metrics_address": configuration["metrics.listen"],
        "worker_user": configuration["mount.worker"],
    }
    id_map = take_id_map(wanted)
    storage = wanted.pop("storage", {})
    settings = {**defaults, **wanted}
    if "://" in where.text and where.backend_type != "hammerspace":
        # The kernel and the cache each trust for half the time, so both together keep it.
        settings["attr_timeout_s"] /= 2
        storage = {**storage, "attr_timeout": f"{settings['attr_timeout_s']}s"}
    return MountSettings(
        source=with_options(where, storage, configuration),
        mount_point=resolve_mount_point(mountpoint),
        state_directory=paths.state_directory(),
        runtime_directory=paths.runtime_directory(),
        id_map=id_map,
        volume_uuid=None if entry is None else entry.uuid,
        **settings,
    )


def _log_file(mount_point: Path) -> str:
    folder = paths.state_directory() / "log"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise from_oserror_at(error) from error
    return str(folder / (str(mount_point).strip("/").replace("/", "-")[:200] + ".log"))


def _run(
    settings: MountSettings,
    configuration: Configuration,
    report: Report | None,
    log_file: str | None,
    *,
    debug: bool,
) -> int:
    """Run the daemon in this process."""
    from volgate import logs
    from volgate.config.loading import load
    from volgate.daemon import mountd

    def set_up_logs(configuration: Configuration) -> None:
        level = "debug" if debug else configuration["log.level"]
        logs.set_up(level=level, as_json=configuration["log.format"] == "json", file=log_file)

    def on_reload() -> None:
        set_up_logs(load(paths.config_directory(), os.environ))

    set_up_logs(configuration)

    def on_progress(usage: Usage) -> None:
        progress.update(f"counting: {usage.inodes:,} files, {format_size(usage.bytes_)}")

    def on_ready(line: str) -> None:
        progress.stop()
        if report is None:
            confirm(line, err=True)
        else:
            report({"line": line})

    with Progress() as progress:
        return mountd.run(settings, on_ready=on_ready, on_progress=on_progress, on_reload=on_reload)


def _detached(run: Callable[[Report], int], log_file: str) -> int:
    """Run a daemon in a process of its own; returns when it is ready, or says why it is not."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return _wait_until_ready(ours, pid)
    os.close(ours)
    status = 2
    try:
        status = _be_daemon(run, theirs, log_file)
    finally:
        os._exit(status)


def _be_daemon(run: Callable[[Report], int], pipe: int | None, log_file: str) -> int:
    """Be the detached process: report over the pipe, and own no terminal.

    It leaves the caller's process group only when the mount is made: systemd's automount lets nobody but that group
    come to the mount point before (autofs(5), "pgrp").
    """
    from volgate.errors import StorageException

    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)

    def report(answer: dict[str, Any]) -> None:
        nonlocal pipe
        if pipe is None:  # it was ready long ago, and nobody waits any more
            log.error("the mount ended", extra={"error": answer["error"]})
            return
        os.write(pipe, json.dumps(answer).encode() + b"\n")
        os.close(pipe)
        pipe = None
        os.dup2(null, 2)
        os.setsid()
        os.chdir("/")

    try:
        return run(report)
    except StorageException as error:
        report({"error": str(error), "status": 32})
        with contextlib.suppress(OSError):
            if os.path.getsize(log_file) == 0:
                os.unlink(log_file)
        return 32
    except click.ClickException as error:
        report({"error": error.format_message(), "status": 1})
        return 1
    except Exception as error:  # the daemon's last door: the traceback goes to the log, people get one line
        log.exception("the daemon failed in a way nobody foresaw")
        report({"error": f"a bug: {type(error).__name__}: {error}; see {log_file}, and report it", "status": 2})
        return 2


def _wait_until_ready(pipe: int, pid: int) -> int:
    with open(pipe, encoding="utf-8", errors="surrogateescape") as lines:
        for text in lines:
            answer = json.loads(text)
            if "line" in answer:
                confirm(answer["line"])
                return 0
            click.echo(f"volgate: {answer['error']}", err=True)
            return int(answer["status"])
    _, status = os.waitpid(pid, 0)
    raise click.ClickException(
        f"the mount daemon ended before it was ready (status {os.waitstatus_to_exitcode(status)})"
    )
