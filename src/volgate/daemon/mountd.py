"""The mount daemon: one process, one volume, one mount.

Stop, on SIGTERM or SIGINT: refuse new opens, unmount (the kernel writes back), wait while files are open until the
deadline, then detach and name who holds them; close the volume; exit 0. An umount(8) by somebody is a clean stop too.
A connection that ends while the mount still stands was aborted: detach it, exit 1.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from volgate.control.server import ControlServer, Reply, Route, json_reply
from volgate.daemon import checks, metrics
from volgate.drivers.registry import Source, make_backend
from volgate.dto import Usage
from volgate.errors import InvalidArgument, StorageException
from volgate.fuse.session import FuseSession
from volgate.vfs.file_system import FileSystem
from volgate.volume.volume import Limit, Volume, open_volume

log = logging.getLogger(__name__)

STOP_DEADLINE_S: Final = 30.0
_BUSY_RETRY_S: Final = 0.2


@attrs.frozen
class MountSettings:
    """What one mount is to be.

    Attributes:
        source: where the data lies. mount_point: absolute.
        state_directory, runtime_directory: see ``paths``.
        quota_bytes, quota_inodes: a limit, None = unlimited, UNCHANGED = as it was.
        read_only: mount read-only. nonempty: mount over a directory with entries. allow_other: let other users in.
        attr_timeout_s: how long the kernel may trust attributes and names, seconds.
        stop_deadline_s: how long a stop waits for open files, seconds.
    """

    source: Source
    mount_point: Path
    state_directory: Path
    runtime_directory: Path
    quota_bytes: Limit
    quota_inodes: Limit
    read_only: bool
    nonempty: bool
    allow_other: bool
    attr_timeout_s: float
    stop_deadline_s: float = STOP_DEADLINE_S


class MountDaemon:
    """Opens, mounts, serves, stops.

    Args:
        settings: what to mount.
        on_ready: called once the mount answers, with the open volume.
        on_progress: called while the volume is counted.
    """

    def __init__(
        self,
        settings: MountSettings,
        *,
        on_ready: Callable[[Volume], None],
        on_progress: Callable[[Usage], None] | None,
    ) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._on_progress = on_progress
        self._stop_asked = False
        self._state = "starting"

    async def run(self) -> int:
        """Run until unmounted; returns the exit status: 0, or 1 when the connection was lost.

        Raises:
            StorageException: nothing was mounted; one line that says why.
        """
        settings = self._settings
        _raise_descriptor_limit()
        if checks.detach_dead_mount(settings.mount_point):
            log.warning("detached a dead mount", extra={"mount_point": settings.mount_point})
        checks.check_mount_point(settings.mount_point, Path(settings.source.text), nonempty=settings.nonempty)
        volume = await open_volume(
            make_backend(settings.source),
            source=settings.source.text,
            mount_path=settings.mount_point,
            state_directory=settings.state_directory,
            runtime_directory=settings.runtime_directory,
            quota_bytes=settings.quota_bytes,
            quota_inodes=settings.quota_inodes,
            read_only=settings.read_only,
            on_progress=self._on_progress,
        )
        try:
            return await self._serve(volume)
        finally:
            with trio.CancelScope(shield=True):
                await volume.close()

    async def _serve(self, volume: Volume) -> int:
        settings = self._settings
        file_system = FileSystem(
            volume,
            mount_point=settings.mount_point,
            attr_timeout_s=settings.attr_timeout_s,
            entry_timeout_s=settings.attr_timeout_s,
        )
        session = FuseSession(
            file_system,
            settings.mount_point,
            volume_id=volume.identity.volume_id,
            read_only=settings.read_only,
            allow_other=settings.allow_other,
        )
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                suffix = f".ro-{os.getpid()}" if settings.read_only else ""
                path = settings.runtime_directory / f"{volume.identity.volume_id}{suffix}.sock"
                await nursery.start(ControlServer(path, self._routes(volume, session)).run)
                session.mount()
                nursery.start_soon(self._stop_on_signal, signals, session)
                nursery.start_soon(self._announce, volume)
                await session.serve()
                nursery.cancel_scope.cancel()
        return await self._end(session)

    async def _announce(self, volume: Volume) -> None:
        """Say that the mount answers, which a stat of it proves; in a thread, since this process answers it."""
        await trio.to_thread.run_sync(os.stat, self._settings.mount_point)
        self._state = "ready"
        log.info(
            "mounted",
            extra={
                "volume": volume.identity.volume_id,
                "mount_point": self._settings.mount_point,
                "usage": volume.counted,
            },
        )
        self._on_ready(volume)

    async def _stop_on_signal(self, signals: Any, session: FuseSession) -> None:
        async for _ in signals:
            break
        self._stop_asked = True
        self._state = "draining"
        session.refuse_new_opens()
        deadline = trio.current_time() + self._settings.stop_deadline_s
        while not await session.unmount(lazy=False):
            if trio.current_time() > deadline:
                holders = await trio.to_thread.run_sync(checks.holders_of, self._settings.mount_point)
                log.warning("detached while files are open", extra={"holders": ", ".join(holders) or "unknown"})
                await session.unmount(lazy=True)
                return
            await trio.sleep(_BUSY_RETRY_S)

    async def _end(self, session: FuseSession) -> int:
        self._state = "dead"
        if not session.is_mounted():
            log.info("unmounted", extra={"mount_point": self._settings.mount_point})
            return 0
        if not self._stop_asked:
            log.error("the kernel connection was aborted", extra={"mount_point": self._settings.mount_point})
        await session.unmount(lazy=True)
        return 0 if self._stop_asked else 1

    # -- the socket ---------------------------------------------------------------------------------------------

    def _routes(self, volume: Volume, session: FuseSession) -> dict[tuple[str, str], Route]:
        async def status(_body: bytes) -> Reply:
            return json_reply(self._status(volume, session))

        async def ops(_body: bytes) -> Reply:
            return json_reply(attrs.asdict(session.statistics()))

        async def scrape(_body: bytes) -> Reply:
            return 200, "text/plain; version=0.0.4", metrics.render(volume, session)

        async def set_quota(body: bytes) -> Reply:
            quota_bytes, quota_inodes = parse_limits(body, volume)
            await volume.set_quota(quota_bytes, quota_inodes)
            log.info("limits changed", extra={"quota_bytes": quota_bytes, "quota_inodes": quota_inodes})
            return json_reply(self._status(volume, session))

        return {
            ("GET", "/v1/status"): status,
            ("GET", "/v1/ops"): ops,
            ("GET", "/metrics"): scrape,
            ("PUT", "/v1/quota"): set_quota,
        }

    def _status(self, volume: Volume, session: FuseSession) -> dict[str, Any]:
        quota = volume.gate.info()
        statistics = session.statistics()
        return {
            "volume_id": volume.identity.volume_id,
            "uuid": volume.identity.uuid,
            "mount_point": _printable(str(self._settings.mount_point)),
            "pid": os.getpid(),
            "backend_type": quota.backend_type,
            "source": _printable(self._settings.source.text),
            "state": self._state,
            "used_bytes": quota.used_bytes,
            "quota_bytes": quota.quota_bytes,
            "file_count": quota.file_count,
            "quota_inodes": quota.quota_inodes,
            "read_only": volume.read_only,
            "usage_found": volume.counted,
            "statistics": attrs.asdict(statistics),
        }


def parse_limits(body: bytes, volume: Volume) -> tuple[int | None, int | None]:
    """Return the limits of a PUT /v1/quota; a missing key keeps what is. Raises InvalidArgument."""
    try:
        wanted = json.loads(body)
        known = {"quota_bytes", "quota_inodes"}
        if not isinstance(wanted, dict) or not set(wanted) <= known:
            raise InvalidArgument("the body is an object of quota_bytes and quota_inodes")
    except ValueError as error:
        raise InvalidArgument(f"the body is no JSON: {error}") from error
    limits = []
    for key, current in (("quota_bytes", volume.identity.quota_bytes), ("quota_inodes", volume.identity.quota_inodes)):
        value = wanted.get(key, current)
        if value is not None and (type(value) is not int or value < 0):
            raise InvalidArgument(f"{key}: {value!r} is no number >= 0 and not null")
        limits.append(value)
    return limits[0], limits[1]


def _printable(text: str) -> str:
    """Return text for JSON, with bytes that are not UTF-8 escaped as hexadecimal."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(
    settings: MountSettings,
    *,
    on_ready: Callable[[Volume], None],
    on_progress: Callable[[Usage], None] | None,
) -> int:
    """Run a mount daemon in this process until it is unmounted; returns the exit status.

    Raises:
        StorageException: nothing was mounted; one line that says why.
    """
    try:
        return trio.run(MountDaemon(settings, on_ready=on_ready, on_progress=on_progress).run)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        storage = [inner for inner in found.exceptions if isinstance(inner, StorageException)]
        found = storage[0] if storage else found.exceptions[0]
    return found
