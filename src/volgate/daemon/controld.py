"""The control daemon: the API of this host. It owns no volume; it asks those who do.

Stop, on SIGTERM or SIGINT: accept nothing more, let answers under way end for a while, exit 0.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import pwd
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

from volgate.control.app import make_app
from volgate.control.aside import Aside
from volgate.control.door import Door
from volgate.control.http_server import HttpServer
from volgate.control.idempotency import KeptAnswers
from volgate.control.listening import server_tls, take_inherited, tcp_listeners, unix_listener
from volgate.control.owners import Owners
from volgate.control.roles import Grant, parse_user_grants
from volgate.control.routes.events import FOLLOWERS
from volgate.control.routes.shared import Services
from volgate.control.scraping import Scraper
from volgate.control.signed_tokens import SignedTokens
from volgate.control.starting import Starter
from volgate.control.tokens import TokenFile
from volgate.control.trust import Doorkeeper
from volgate.control.turns import Turns
from volgate.control.volumes import Volumes
from volgate.daemon import checks, service_manager
from volgate.daemon.signals import received_signals
from volgate.errors import BadConfiguration, StorageException
from volgate.events import EventLog
from volgate.volume.catalog import Catalog
from volgate.volume.sources import Locator

log = logging.getLogger(__name__)

_ANSWERS: Final = "control-answers.db"
_LOOK_S: Final = 3.0
"""How long a mount has to say how it is; one that takes longer is shown as degraded."""


@attrs.frozen
class ControlSettings:
    """What the control daemon is told.

    Attributes:
        socket: where it listens, unless the service manager gives it sockets. group: who may connect to it; None = the
            daemon's own.
        roles: what users may, ``USER=GRANT[,GRANT]`` each.
        address: (host, port) that serves over TLS as well; None = none. tls_certificate, tls_key: for that.
        tokens: the file of opaque tokens. jwt_key: of signed ones, None = none are believed; jwt_algorithm,
            jwt_audience, jwt_issuer: see ``SignedTokens``.
        catalog, state_directory, runtime_directory, cache_directory: see ``paths``.
        storage: of the configuration, as ``Locator`` takes it.
    """

    socket: Path
    group: str | None
    roles: tuple[str, ...]
    address: tuple[str, int] | None
    tls_certificate: Path | None
    tls_key: Path | None
    tokens: Path
    jwt_key: Path | None
    jwt_algorithm: str
    jwt_audience: str | None
    jwt_issuer: str | None
    catalog: Path
    state_directory: Path
    runtime_directory: Path
    cache_directory: Path
    storage: Mapping[str, str | None]


class ControlDaemon:
    """Builds all that answers, serves, stops.

    Args:
        settings: what to serve.
        on_ready: called once it answers, with one line for people.
    """

    def __init__(self, settings: ControlSettings, *, on_ready: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._aside = Aside()
        self._stopping = trio.Event()
        self._answers = KeptAnswers(settings.state_directory / _ANSWERS)
        signed = None
        if settings.jwt_key is not None:
            signed = SignedTokens(settings.jwt_key, settings.jwt_algorithm, settings.jwt_audience, settings.jwt_issuer)
        self._doorkeeper = Doorkeeper(_by_uid(settings.roles), TokenFile(settings.tokens), signed, self._aside)

    async def run(self) -> int:
        """Serve until a signal; returns the exit status.

        Raises:
            StorageException: it cannot serve; one line that says why.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._answers.close)
            listeners = take_inherited()
            if not any(listener.family == socket.AF_UNIX for listener in listeners):
                settings = self._settings
                listeners.append(stack.enter_context(unix_listener(settings.socket, _gid_of(settings.group))))
            if self._settings.address is not None:
                listeners += tcp_listeners(*self._settings.address)
            await self._serve([(listener, self._tls_for(listener)) for listener in listeners])
        log.info("the control daemon ended")
        return 0

    def _tls_for(self, listener: socket.socket) -> ssl.SSLContext | None:
        """Return how TCP is secured; a unix socket needs nothing. Raises BadConfiguration."""
        if listener.family == socket.AF_UNIX:
            return None
        if self._settings.tls_certificate is None or self._settings.tls_key is None:
            raise BadConfiguration(
                "[control] tls_certificate and tls_key are needed: the API is not served without TLS"
            )
        return server_tls(self._settings.tls_certificate, self._settings.tls_key)

    async def _serve(self, listeners: list[tuple[socket.socket, ssl.SSLContext | None]]) -> None:
        server = HttpServer(self._make_door())
        with received_signals() as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_feed_watchdog)
                async with trio.open_nursery() as serving:
                    await serving.start(server.serve, [(_to_trio(listener), tls) for listener, tls in listeners])
                    where = ", ".join(_name_of(listener) for listener, _ in listeners)
                    log.info("the control daemon serves", extra={"at": where})
                    service_manager.notify(READY=1, STATUS=f"serving {where}")
                    self._on_ready(f"serving the control API at {where}")
                    async for _ in signals:
                        break
                    service_manager.notify(STOPPING=1, STATUS="waiting for answers under way")
                    self._stopping.set()
                    server.stop()
                nursery.cancel_scope.cancel()

    def _make_door(self) -> Door:
        settings = self._settings
        catalog = Catalog(settings.catalog)
        locator = Locator(catalog, settings.storage, settings.cache_directory)
        owners = Owners(settings.runtime_directory)
        door = Door(self._doorkeeper.identify, self._answers, self._aside)
        door.app = make_app(
            Services(
                volumes=Volumes(catalog, locator, checks.list_ours, settings.state_directory, timeout_s=_LOOK_S),
                locator=locator,
                owners=owners,
                starter=Starter(_own_command()),
                turns=Turns(),
                aside=self._aside,
                scraper=Scraper(owners, self._aside, door.statistics),
                events=EventLog(settings.state_directory / "events"),
                followers=trio.CapacityLimiter(FOLLOWERS),
                stopping=self._stopping,
            )
        )
        return door


async def _feed_watchdog() -> None:
    """Tell systemd that the event loop runs, where it wants to know."""
    interval_s = service_manager.watchdog_interval_s()
    while interval_s is not None:
        service_manager.notify(WATCHDOG=1)
        await trio.sleep(interval_s)


def _own_command() -> tuple[str, ...]:
    """Return the words that run this version's command line."""
    program = os.path.abspath(sys.argv[0])
    if os.path.basename(program) == "__main__.py" or not os.access(program, os.X_OK):
        return sys.executable, "-m", "volgate"
    return (program,)


def _by_uid(lines: Iterable[str]) -> dict[int, tuple[Grant, ...]]:
    try:
        named = parse_user_grants(lines)
    except ValueError as error:
        raise BadConfiguration(f"[control] roles: {error}") from error
    found: dict[int, tuple[Grant, ...]] = {}
    for user, grants in named.items():
        try:
            uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        except KeyError as error:
            raise BadConfiguration(f"[control] roles: there is no user '{user}'") from error
        found[uid] = (*found.get(uid, ()), *grants)
    return found


def _gid_of(group: str | None) -> int | None:
    if group is None:
        return None
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise BadConfiguration(f"[control] group: there is no group '{group}'") from error


def _to_trio(listener: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))


def _name_of(listener: socket.socket) -> str:
    name = listener.getsockname()
    return str(name) if listener.family == socket.AF_UNIX else f"{name[0]}:{name[1]}"


def run(settings: ControlSettings, *, on_ready: Callable[[str], None]) -> int:
    """Run a control daemon in this process until it is stopped; returns the exit status.

    Raises:
        StorageException: it cannot serve; one line that says why.
    """
    try:
        return trio.run(ControlDaemon(settings, on_ready=on_ready).run)
    except BaseExceptionGroup as group:
        storage = group.subgroup(StorageException)
        if storage is None:
            raise
        found: BaseException = storage
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from group
