"""Running an owner, with a mount or without: in the foreground, or detached with -d once it is ready."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from volgate import paths
from volgate.cli.output import Progress, confirm
from volgate.core.sizes import format_size
from volgate.errors import StorageException, VolumeInUse
from volgate.errors.errno_map import from_oserror_at

if TYPE_CHECKING:
    from volgate.config.loading import Configuration
    from volgate.daemon.mountd import MountSettings
    from volgate.dto import Usage

log = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]
"""Tells the waiting parent that the owner is ready ({"line"}), or why not ({"error", "status"}). Called once."""

_HAND_OVERS: Final = 3
"""How often an owner without a mount is asked for its volume: another may begin just when that one has ended."""


def run_owner(
    settings: MountSettings,
    configuration: Configuration,
    *,
    detach: bool,
    debug: bool,
    status_of: Callable[[StorageException], int],
) -> int:
    """Run an owner; returns the exit status, detached that of its start.

    Args:
        status_of: the exit status of a detached start that failed.

    Raises:
        StorageException: it does not start; one line that says why.
    """
    if not detach:
        return _run(settings, configuration, None, None, debug=debug)
    log_file = _log_file(settings)
    return _detached(lambda report: _run(settings, configuration, report, log_file, debug=debug), log_file, status_of)


def _log_file(settings: MountSettings) -> str:
    folder = paths.state_directory() / "log"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise from_oserror_at(error) from error
    place = f"serve/{settings.source.text}" if settings.mount_point is None else str(settings.mount_point)
    return str(folder / (place.strip("/").replace("/", "-")[:200] + ".log"))


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

    def set_up_logs(configuration: Configuration) -> None:
        level = "debug" if debug else configuration["log.level"]
        logs.set_up(level=level, as_json=configuration["log.format"] == "json", file=log_file)

    def on_reload() -> None:
        set_up_logs(load(paths.config_directory(), os.environ))

    try:
        set_up_logs(configuration)
    except OSError as error:
        raise from_oserror_at(error) from error

    def on_progress(usage: Usage) -> None:
        progress.update(f"counting: {usage.inodes:,} files, {format_size(usage.bytes_)}")

    def on_ready(line: str) -> None:
        progress.stop()
        if report is None:
            confirm(line, err=True)
        else:
            report({"line": line})

    with Progress() as progress:
        return _run_or_inherit(settings, progress, on_ready=on_ready, on_progress=on_progress, on_reload=on_reload)


def _run_or_inherit(settings: MountSettings, progress: Progress, **callbacks: Any) -> int:
    """Run the daemon; where the volume has an owner here that gives it up, once that has ended."""
    from volgate.cli.owners import inherit
    from volgate.daemon import mountd

    for _ in range(_HAND_OVERS):
        try:
            return mountd.run(settings, **callbacks)
        except VolumeInUse:
            if not inherit(settings, progress):
                raise
    return mountd.run(settings, **callbacks)


def _detached(run: Callable[[Report], int], log_file: str, status_of: Callable[[StorageException], int]) -> int:
    """Run a daemon in a process of its own; returns when it is ready, or says why it is not."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return _wait_until_ready(ours, pid)
    os.close(ours)
    status = 2
    try:
        status = _be_daemon(run, theirs, log_file, status_of)
    finally:
        os._exit(status)


def _be_daemon(
    run: Callable[[Report], int], pipe: int | None, log_file: str, status_of: Callable[[StorageException], int]
) -> int:
    """Be the detached process: report over the pipe, and own no terminal.

    It leaves the caller's process group only when the mount is made: systemd's automount lets nobody but that group
    come to the mount point before (autofs(5), "pgrp").
    """
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)

    def report(answer: dict[str, Any]) -> None:
        nonlocal pipe
        if pipe is None:  # it was ready long ago, and nobody waits any more
            log.error("the owner ended", extra={"error": answer["error"]})
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
        report({"error": str(error), "status": status_of(error)})
        with contextlib.suppress(OSError):
            if os.path.getsize(log_file) == 0:
                os.unlink(log_file)
        return status_of(error)
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
    raise click.ClickException(f"the daemon ended before it was ready (status {os.waitstatus_to_exitcode(status)})")
