"""The owner of a volume: one process, one volume, and one mount, or none (headless).

Stop, on SIGTERM or SIGINT: refuse new opens, unmount (the kernel writes back), wait while files are open until the
deadline, then detach and name who holds them; break off what can be done again; store what a cache keeps back, for as
long as that gets on or until a second signal; close the volume; exit 0. An umount(8) by somebody is a clean stop too.
A connection that ends while the mount still stands was aborted: detach it, exit 1.
Headless the same, but that requests under way stand in place of open files; it ends also when it is asked to give the
volume up (for a mount; those requests have all the time then), or when it was idle for long enough.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from volgate.control.server import ControlServer, Reply, Route, TcpServer, json_reply
from volgate.copies.tasks import Tasks
from volgate.core.id_map import IdMap
from volgate.core.sizes import format_count, format_size
from volgate.daemon import checks, files, metrics, operating, service_manager, snapshots, split, tasks
from volgate.daemon.activity import Activity
from volgate.daemon.draining import drain
from volgate.daemon.headless import HeadlessSession
from volgate.daemon.health import Problem, Standstill, find_problems, find_storage_problems
from volgate.daemon.observing import Observer
from volgate.daemon.session import MountedSession, Session
from volgate.daemon.signals import received_signals
from volgate.daemon.watchdog import Watchdog
from volgate.drivers.registry import Source
from volgate.dto import Usage
from volgate.errors import Busy, InvalidArgument, StorageException, Unavailable
from volgate.events import EventLog, Recorder
from volgate.fuse.mounting import Mounter
from volgate.fuse.session import SessionStatistics
from volgate.vfs.file_system import FileSystem
from volgate.vfs.files import Files
from volgate.volume.storage import make_backend
from volgate.volume.volume import UNCHANGED, Limit, Volume, open_volume

log = logging.getLogger(__name__)

_BUSY_RETRY_S: Final = 0.2
_START_EXTENSION_US: Final = 30_000_000
"""Counting shows progress more often than that, so systemd's start timeout does not end a long count."""
_PATIENCE_S: Final = 60.0
"""How long a start waits for storage that is not there; then it fails, and systemd tries again."""
_FIRST_DELAY_S: Final = 0.5
_LAST_DELAY_S: Final = 8.0
_IDLE_LOOK_S: Final = 1.0
_BREAK_OFF_S: Final = 10.0
"""How long requests under way have at the end of a mount; a stop by systemd has to fit its time."""
_UNWATCHED: Final = frozenset(
    {("GET", "/v1/status"), ("GET", "/v1/ops"), ("GET", "/metrics"), ("GET", "/v1/drained")}
    | {("POST", f"/v1/{verb}") for verb in ("release", "hold")}
)
"""Routes that keep no owner from its end."""


@attrs.frozen
class MountSettings:
    """What one owner is to be.

    Attributes:
        source: where the data lies. mount_point: absolute; None = headless.
        state_directory, runtime_directory: see ``paths``.
        quota_bytes, quota_inodes: a limit, None = unlimited, UNCHANGED = as it was.
        read_only: mount read-only. nonempty: mount over a directory with entries. allow_other: let other users in.
        attr_timeout_s: how long the kernel may trust attributes and names, seconds.
        stop_deadline_s: how long a stop waits for open files, seconds.
        request_deadline_s: when a request to storage that hangs is given up, seconds.
        id_map: whose files are shown and made; None = everybody as stored.
        metrics_address: (host, port) that serves /metrics over TCP as well.
        worker_user: whom a worker runs as that serves without root's rights; None = this process serves.
        volume_uuid: the volume that must lie there, since the catalog names it; None = whatever does, or a new one.
        existing: serve nothing that is no volume yet.
        until_idle_s: end when nothing was asked for and nothing under way for so long, seconds; None = never.
    """

    source: Source
    mount_point: Path | None
    state_directory: Path
    runtime_directory: Path
    allow_other: bool
    attr_timeout_s: float
    stop_deadline_s: float
    request_deadline_s: float
    quota_bytes: Limit = UNCHANGED
    quota_inodes: Limit = UNCHANGED
    read_only: bool = False
    nonempty: bool = False
    id_map: IdMap | None = None
    metrics_address: tuple[str, int] | None = None
    worker_user: str | None = None
    volume_uuid: str | None = None
    existing: bool = False
    until_idle_s: float | None = None

    @property
    def place(self) -> str:
        """Where the volume is seen, for people."""
        return "without a mount" if self.mount_point is None else str(self.mount_point)


class MountDaemon:
    """Opens, mounts, serves, stops.

    Args:
        settings: what to serve.
        on_ready: called once it answers, with one line for people.
        on_progress: called while the volume is counted.
        on_reload: called at SIGHUP; what it raises is logged and changes nothing.
        mounter: who mounts and unmounts; by default this process.
    """

    def __init__(
        self,
        settings: MountSettings,
        *,
        on_ready: Callable[[str], None],
        on_progress: Callable[[Usage], None] | None,
        on_reload: Callable[[], None],
        mounter: Mounter | None = None,
    ) -> None:
        self._mounter = mounter
        self._settings = settings
        self._on_ready = on_ready
        self._on_progress = on_progress
        self._on_reload = on_reload
        self._stop_asked = self._is_signalled = False
        self._state = "starting"
        self._standstill = Standstill()
        self._activity = Activity()
        self._released = trio.Event()

    async def run(self) -> int:
        """Run until unmounted; returns the exit status: 0, or 1 when the connection was lost.

        Raises:
            StorageException: nothing was mounted; one line that says why.
        """
        volume = await self._open_in_time()
        events = EventLog(self._settings.state_directory / "events")
        with Recorder(events, {"volume_id": volume.identity.volume_id}):
            try:
                return await self._serve(volume)
            finally:
                with trio.CancelScope(shield=True):
                    await volume.close()

    async def _open_in_time(self) -> Volume:
        """Open the volume; at boot its storage may come later, so under systemd wait for it for a while.

        Raises:
            StorageException: it cannot be opened, or its storage has not come.
        """
        patience_s = _PATIENCE_S if service_manager.is_waiting() else 0.0
        deadline, delay_s = trio.current_time() + patience_s, _FIRST_DELAY_S
        while True:
            try:
                return await self._open()
            except Unavailable as error:
                if trio.current_time() + delay_s > deadline:
                    raise
                log.warning("waiting for the storage", extra={"error": str(error)})
                service_manager.notify(
                    STATUS=f"waiting for the storage: {error}", EXTEND_TIMEOUT_USEC=_START_EXTENSION_US
                )
            await trio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LAST_DELAY_S)

    async def _open(self) -> Volume:
        settings = self._settings
        return await open_volume(
            make_backend(settings.source),
            source=settings.source.text,
            mount_path=settings.mount_point,
            state_directory=settings.state_directory,
            runtime_directory=settings.runtime_directory,
            quota_bytes=settings.quota_bytes,
            quota_inodes=settings.quota_inodes,
            read_only=settings.read_only,
            volume_uuid=settings.volume_uuid,
            adopts=not settings.existing,
            on_progress=self._count,
        )

    def _count(self, usage: Usage) -> None:
        if self._state != "ready":  # else it is counted while it serves
            self._state = "counting"
            text = f"counting: {format_count(usage.inodes, 'file')} so far"
            service_manager.notify(STATUS=text, EXTEND_TIMEOUT_USEC=_START_EXTENSION_US)
        if self._on_progress is not None:
            self._on_progress(usage)

    async def _serve(self, volume: Volume) -> int:
        settings = self._settings
        file_system = FileSystem(
            volume,
            mount_point=settings.mount_point or Path("/"),
            attr_timeout_s=settings.attr_timeout_s,
            entry_timeout_s=settings.attr_timeout_s,
            id_map=settings.id_map,
        )
        try:
            return await self._serve_files(file_system)
        finally:
            with trio.CancelScope(shield=True):
                await file_system.close()

    async def _serve_files(self, file_system: FileSystem) -> int:
        settings, volume = self._settings, file_system.volume
        session = self._make_session(file_system)
        volume.backend.watch_inodes(session.forget_attributes)
        with received_signals(signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                suffix = f".ro-{os.getpid()}" if settings.read_only else ""
                path = settings.runtime_directory / f"{volume.identity.volume_id}{suffix}.sock"
                of_snapshots, keep_snapshots = snapshots.routes(file_system, session, self._activity)
                of_tasks = await self._open_tasks(file_system, session)
                of_files = Files(file_system, session.drop_caches)
                await of_files.load()
                routes = self._activity.watch(
                    {
                        **self._routes(volume, session),
                        **operating.routes(volume, session),
                        **of_snapshots,
                        **tasks.routes(of_tasks, settings.source),
                        **files.routes(of_files),
                    },
                    unwatched=_UNWATCHED,
                    broken_off=operating.BROKEN_OFF | snapshots.BROKEN_OFF | tasks.BROKEN_OFF,
                    drained=operating.DRAINED,
                )
                patient = operating.PATIENT | snapshots.PATIENT | tasks.PATIENT | files.PATIENT
                server = ControlServer(path, routes, patient, files.streams(of_files, self._activity.under_way))
                await nursery.start(server.run)
                if settings.metrics_address is not None:
                    scrape = {("GET", "/metrics"): routes["GET", "/metrics"]}
                    await nursery.start(TcpServer(*settings.metrics_address, scrape).run)
                session.begin()
                nursery.start_soon(volume.run)
                nursery.start_soon(self._activity.in_background, keep_snapshots)
                nursery.start_soon(self._activity.in_background, of_tasks.run)
                nursery.start_soon(self._activity.in_background, of_files.tidy)
                nursery.start_soon(self._observe, volume, session)
                nursery.start_soon(Watchdog(session, settings.request_deadline_s).run)
                nursery.start_soon(self._announce, volume, session)
                async with trio.open_nursery() as serving:
                    serving.start_soon(self._obey_signals, signals, session)
                    serving.start_soon(self._obey_release, session)
                    serving.start_soon(self._end_when_idle, volume, session)
                    await session.serve()
                    serving.cancel_scope.cancel()
                status = await self._end(session)
                await self._drain(file_system, signals)
                await server.settle()
                nursery.cancel_scope.cancel()
        return status

    def _make_session(self, file_system: FileSystem) -> Session:
        settings = self._settings
        if settings.mount_point is None:
            return HeadlessSession(file_system, self._activity)
        return MountedSession(
            file_system,
            settings.mount_point,
            volume_id=file_system.volume.identity.volume_id,
            read_only=settings.read_only,
            allow_other=settings.allow_other,
            deadline_s=settings.request_deadline_s,
            mounter=self._mounter,
        )

    async def _open_tasks(self, file_system: FileSystem, session: Session) -> Tasks:
        """Return the volume's tasks; what is there of copies that were cut off is hidden then."""
        of_tasks = Tasks(
            file_system,
            session.drop_caches,
            partial(tasks.flush_owner, self._settings.runtime_directory),
            lambda name: self._activity.under_way(name, "broken off"),
            self._settings.source.text,
        )
        await of_tasks.load()
        return of_tasks

    async def _observe(self, volume: Volume, session: Session) -> None:
        """Tell what becomes of the volume by itself, once it is served."""
        await session.wait_until_served()
        await Observer(lambda: self._problems(volume, session.statistics()), volume.gate.info).run()

    async def _announce(self, volume: Volume, session: Session) -> None:
        """Say that it answers: the kernel's handshake is over, and the storage gives an answer.

        The mount itself is not looked at: systemd's automount lets nobody in before the mount is announced.
        """
        await session.wait_until_served()
        await volume.backend.get_space()
        if not self._stop_asked:
            self._state = "ready"
        facts = {"volume": volume.identity.volume_id, **_place_of(session), "usage": volume.counted}
        log.info(session.words.begun, extra={"event": "volume.served", **facts})
        service_manager.notify(READY=1, STATUS=f"serving {self._settings.place}")
        self._activity.note()
        self._on_ready(_ready_line(volume, session))

    async def _obey_signals(self, signals: AsyncIterator[int], session: Session) -> None:
        async for number in signals:
            if number != signal.SIGHUP:
                break
            self._reload()
        self._is_signalled = True
        await self._stop(session, self._settings.stop_deadline_s)

    async def _obey_release(self, session: Session) -> None:
        """Stop when somebody asks for the volume; who does not mean to wait may send a signal still."""
        await self._released.wait()
        log.info("asked to give the volume up")
        await self._stop(session, math.inf)

    async def _end_when_idle(self, volume: Volume, session: Session) -> None:
        """Stop when nothing was asked for and nothing under way for as long as it was told."""
        limit_s = self._settings.until_idle_s
        if limit_s is None:
            return
        await self._activity.wait_until_idle(limit_s)
        while self._state != "ready" or volume.gate.is_counting:
            await trio.sleep(_IDLE_LOOK_S)
            await self._activity.wait_until_idle(limit_s)
        await self._stop(session, math.inf)

    async def _stop(self, session: Session, patience_s: float) -> None:
        """End the session, for ``patience_s`` not against its users; cancelled as soon as it has ended."""
        self._stop_asked = True
        self._state = "draining"
        service_manager.notify(STOPPING=1, STATUS=f"waiting {session.words.waiting}")
        session.refuse_new_opens()
        deadline = trio.current_time() + patience_s
        while not await session.stop(lazy=False):
            if trio.current_time() > deadline:
                holders = await trio.to_thread.run_sync(session.holders)
                log.warning(session.words.forced, extra={"holders": ", ".join(holders) or "unknown"})
                await session.stop(lazy=True)
                return
            await trio.sleep(_BUSY_RETRY_S)
        # Another mount namespace (a container begun meanwhile) may have a copy of the mount, which nobody here can see.
        await trio.sleep_until(deadline)
        log.warning("ended although another mount namespace still has the mount")
        session.abort()

    def _reload(self) -> None:
        try:
            self._on_reload()
        except StorageException as error:
            log.error("the configuration is wrong; the old one stays", extra={"error": str(error)})  # noqa: TRY400
        else:
            log.info("the configuration was read again")

    async def _drain(self, file_system: FileSystem, signals: AsyncIterator[int]) -> None:
        """Store what is left, until nothing moves, or whoever asked to stop asks again.

        What is at work still is broken off before: what it changes later would not be stored, and it has files open.
        """
        self._state = "draining"

        async def hurry() -> None:
            async for number in signals:
                if number == signal.SIGHUP:
                    continue
                if self._is_signalled:
                    break
                self._stop_asked = self._is_signalled = True
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hurry)
            with trio.move_on_after(min(_BREAK_OFF_S, self._settings.stop_deadline_s)):
                await self._activity.break_off()
            await file_system.close()
            await drain(file_system.volume.backend, self._settings.stop_deadline_s)
            nursery.cancel_scope.cancel()
        file_system.volume.drained.set()

    async def _end(self, session: Session) -> int:
        self._state = "dead"
        if not session.is_serving():
            log.info(session.words.ended, extra={"event": "volume.ended", **_place_of(session)})
            return 0
        if not self._stop_asked:
            log.error("the kernel connection was aborted", extra={"event": "volume.aborted", **_place_of(session)})
        await session.stop(lazy=True)
        return 0 if self._stop_asked else 1

    # -- the socket ---------------------------------------------------------------------------------------------

    def _routes(self, volume: Volume, session: Session) -> dict[tuple[str, str], Route]:
        async def status(_body: bytes) -> Reply:
            return json_reply(self._status(volume, session))

        async def ops(_body: bytes) -> Reply:
            return json_reply(_described(session.statistics()))

        async def scrape(_body: bytes) -> Reply:
            statistics = session.statistics()
            degraded = any(problem.degrades for problem in self._problems(volume, statistics))
            return 200, "text/plain; version=0.0.4", metrics.render(volume, statistics, ready=not degraded)

        async def set_quota(body: bytes) -> Reply:
            quota_bytes, quota_inodes = parse_limits(body, volume)
            await volume.set_quota(quota_bytes, quota_inodes)
            facts = {"quota_bytes": quota_bytes, "quota_inodes": quota_inodes}
            log.info("limits changed", extra={"event": "quota.changed", **facts})
            return json_reply(self._status(volume, session))

        async def hold(_body: bytes) -> Reply:
            self._activity.hold()
            return json_reply({})

        async def release(_body: bytes) -> Reply:
            if session.mount_point is not None:
                raise Busy(f"{volume.identity.volume_id} is mounted on {session.mount_point}; unmount it")
            self._released.set()
            return json_reply({"under_way": self._activity.names})

        return {
            ("GET", "/v1/status"): status,
            ("GET", "/v1/ops"): ops,
            ("GET", "/metrics"): scrape,
            ("PUT", "/v1/quota"): set_quota,
            ("POST", "/v1/hold"): hold,
            ("POST", "/v1/release"): release,
        }

    def _problems(self, volume: Volume, statistics: SessionStatistics) -> list[Problem]:
        standstill_s = self._standstill.look(
            trio.current_time(), answered=statistics.answered, waiting=statistics.unread
        )
        report = volume.backend.report()
        return find_problems(
            volume.gate.info(),
            oldest_s=max(statistics.oldest_request_s, volume.backend.oldest_call_s),
            in_flight=statistics.in_flight,
            waiting=statistics.waiting,
            standstill_s=standstill_s,
            unsettled=volume.gate.uncertain,
            unfenced=volume.unfenced,
            unscheduled=volume.unscheduled,
            allowance=volume.snapshots.allowance,
            caches=report is not None,
        ) + find_storage_problems(report, str(self._settings.mount_point or volume.identity.volume_id))

    def _status(self, volume: Volume, session: Session) -> dict[str, Any]:
        quota = volume.gate.info()
        statistics = session.statistics()
        problems = self._problems(volume, statistics)
        degraded = self._state == "ready" and any(problem.degrades for problem in problems)
        detached = self._state == "ready" and not session.is_serving()
        state = "counting" if self._state == "ready" and volume.gate.is_counting else self._state
        return {
            "volume_id": volume.identity.volume_id,
            "uuid": volume.identity.uuid,
            "mount_point": None if session.mount_point is None else _printable(str(session.mount_point)),
            "pid": os.getpid(),
            "backend_type": quota.backend_type,
            "source": _printable(self._settings.source.text),
            "state": "degraded" if degraded else "draining" if detached else state,
            "problems": [attrs.asdict(problem) for problem in problems],
            "used_bytes": quota.used_bytes,
            "quota_bytes": quota.quota_bytes,
            "file_count": quota.file_count,
            "quota_inodes": quota.quota_inodes,
            "read_only": volume.read_only,
            "usage_found": volume.counted,
            "under_way": self._activity.names,
            "until_idle_s": self._settings.until_idle_s,
            "statistics": _described(statistics),
            "storage": operating.describe(volume.backend),
            "snapshots": snapshots.describe_allowance(volume),
        }


def _place_of(session: Session) -> dict[str, Any]:
    """Return the facts of a log line about a session."""
    return {} if session.mount_point is None else {"mount_point": session.mount_point}


def _described(statistics: SessionStatistics) -> dict[str, Any]:
    """Return statistics for JSON: of each operation how many, how long altogether, and the counts by duration."""
    described = attrs.asdict(statistics)
    described["requests"] = {name: latency.count for name, latency in statistics.requests.items()}
    described["latencies"] = {
        name: {"total_s": latency.total_s, "counts": latency.counts} for name, latency in statistics.requests.items()
    }
    return described


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


def _ready_line(volume: Volume, session: Session) -> str:
    quota = volume.gate.info()
    line = f"{session.words.begun} {quota.volume_id} {session.words.place}: "
    if volume.gate.is_counting:
        line += f"being counted, limit {format_size(quota.quota_bytes)}"
    else:
        line += f"{format_size(quota.used_bytes)} of {format_size(quota.quota_bytes)} used"
    if quota.quota_inodes is not None and not volume.gate.is_counting:
        line += f", {quota.file_count} of {quota.quota_inodes} inodes"
    if volume.read_only:
        line += ", read-only"
    if quota.is_above_limit:
        line += "; that is more than the limit: only growth is refused"
    return line


def run(
    settings: MountSettings,
    *,
    on_ready: Callable[[str], None],
    on_progress: Callable[[Usage], None] | None,
    on_reload: Callable[[], None],
) -> int:
    """Run an owner in this process until it is unmounted, or ends headless; returns the exit status.

    Raises:
        VolumeInUse: another process owns the volume.
        StorageException: nothing was mounted; one line that says why.
    """
    _raise_descriptor_limit()
    if settings.mount_point is not None:
        if checks.detach_dead_mount(settings.mount_point):
            log.warning("detached a dead mount", extra={"mount_point": settings.mount_point})
        checks.check_mount_point(settings.mount_point, Path(settings.source.text), nonempty=settings.nonempty)

    def serve(mounter: split.RemoteMounter | None) -> int:
        ready = on_ready if mounter is None else mounter.announce
        daemon = MountDaemon(settings, on_ready=ready, on_progress=on_progress, on_reload=on_reload, mounter=mounter)
        try:
            return trio.run(daemon.run)
        except BaseExceptionGroup as group:
            raise _first(group) from group

    if settings.worker_user is None:
        return serve(None)
    return split.run(settings.worker_user, settings.mount_point, serve, on_ready)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        storage = [inner for inner in found.exceptions if isinstance(inner, StorageException)]
        found = storage[0] if storage else found.exceptions[0]
    return found
