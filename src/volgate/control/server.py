"""HTTP/1.1 of the mount daemon: a handful of routes, by h11. Only root and its own user get in at its unix socket.

Requests are bounded: 64 KiB, 10 seconds, 16 connections at once beside 100 that wait long. A bad one ends its own
connection, nothing else. The answer of a patient route may take as long as it takes, while its client is there; it is
sent also when the server ends. Content of files passes in streams, of any length, as long as it gets on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import attrs
import h11
import trio

from volgate.control.problems import problem, to_problem
from volgate.errors import Busy, StorageException, Unavailable
from volgate.errors.errno_map import from_oserror_at

log = logging.getLogger(__name__)

_MAX_BODY_BYTES: Final = 64 * 1024
_REQUEST_S: Final = 10.0
_MAX_CONNECTIONS: Final = 16
_MAX_PATIENT: Final = 100
_SEND_S: Final = 2.0

_DRAINED_BYTES: Final = 64 << 20
_DRAIN_S: Final = 5.0
_STALL_S: Final = 30.0
"""How long the other side of a stream may let it stand still."""

T = TypeVar("T")
Reply = tuple[int, str, bytes]
Route = Callable[[bytes], Awaitable[Reply]]


@attrs.frozen
class Stream:
    """An answer in pieces. Where they end by an exception, the connection ends before the answer does.

    Attributes:
        content_type: of it. length: in bytes, None = not known before. pieces: of it.
    """

    content_type: str
    length: int | None
    pieces: AsyncGenerator[bytes, None]


@attrs.frozen
class Upload:
    """A request's body, in pieces. Attributes: length: as was announced, None = it was not. pieces: of it."""

    length: int | None
    pieces: AsyncGenerator[bytes, None]


StreamRoute = Callable[[Mapping[str, str], Upload], Awaitable[Stream | Reply]]
"""Answers to the parameters of a target, behind its question mark, and a body; may raise StorageExceptions."""


def json_reply(value: Any) -> Reply:
    """Return a 200 with a JSON body."""
    return 200, "application/json", json.dumps(value).encode()


class _HttpServer:
    """Answers requests by a table of routes.

    Args:
        routes: (method, path) to what answers; may raise StorageExceptions.
        patient: those of them that may take longer than a request's time.
        streams: (method, path) to what answers in a stream.
    """

    def __init__(
        self,
        routes: Mapping[tuple[str, str], Route],
        patient: Collection[tuple[str, str]] = (),
        streams: Mapping[tuple[str, str], StreamRoute] | None = None,
    ) -> None:
        self._routes = routes
        self._patient = frozenset(patient)
        self._streams = streams or {}
        self._answering = 0
        self._answered = trio.Event()
        self._limiter = trio.CapacityLimiter(_MAX_CONNECTIONS)

    def _is_welcome(self, stream: trio.SocketStream) -> bool:
        return True

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection; whatever happens in it ends it and nothing else."""
        try:
            async with stream, self._limiter:
                with trio.fail_after(_REQUEST_S) as limit:
                    if self._is_welcome(stream):
                        await self._answer(stream, limit)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            log.debug("a connection broke")
        except Exception:  # this door's last resort: one connection must not end the daemon
            log.exception("a connection failed in a way nobody foresaw")

    async def settle(self) -> None:
        """Return when the patient requests that are under way were answered, or soon without that."""
        with trio.move_on_after(_SEND_S):
            while self._answering:
                await self._answered.wait()

    async def _answer(self, stream: trio.SocketStream, limit: trio.CancelScope) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_BODY_BYTES)
        try:
            request = await _receive_head(connection, stream)
            path, _, query = request.target.decode("ascii", "replace").partition("?")
            by_stream = self._streams.get((request.method.decode(), path))
            if by_stream is not None:
                await self._answer_by_stream(connection, stream, limit, request, by_stream, query)
                return
            body = await _receive_body(connection, stream)
            if (request.method.decode(), request.target.decode("ascii", "replace")) in self._patient:
                await self._answer_patiently(connection, stream, limit, request, body)
                return
            status, content_type, reply = await self._dispatch(request, body)
        except h11.RemoteProtocolError as error:
            status, content_type, reply = 400, "application/problem+json", problem(400, str(error))
        await self._send(connection, stream, (status, content_type, reply))

    async def _answer_patiently(
        self,
        connection: h11.Connection,
        stream: trio.SocketStream,
        limit: trio.CancelScope,
        request: h11.Request,
        body: bytes,
    ) -> None:
        """Answer without a time limit, until the client goes away."""
        with self._taking_long(limit):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_wait_for_end, stream, nursery.cancel_scope)
                reply = await self._dispatch(request, body)
                with trio.CancelScope(shield=True), trio.move_on_after(_SEND_S):
                    await self._send(connection, stream, reply)
                nursery.cancel_scope.cancel()

    @contextlib.contextmanager
    def _taking_long(self, limit: trio.CancelScope) -> Iterator[None]:
        """Let what is inside take as long as it takes."""
        limit.deadline = float("inf")
        self._answering += 1
        more = int(self._answering <= _MAX_PATIENT)  # who waits long takes nobody's place
        self._limiter.total_tokens += more
        try:
            yield
        finally:
            self._limiter.total_tokens -= more
            self._answering -= 1
            self._answered.set()
            self._answered = trio.Event()

    async def _answer_by_stream(
        self,
        connection: h11.Connection,
        stream: trio.SocketStream,
        limit: trio.CancelScope,
        request: h11.Request,
        route: StreamRoute,
        query: str,
    ) -> None:
        announced = next((value for name, value in request.headers if name == b"content-length"), None)
        length = None if announced is None else int(announced)
        parameters = dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))
        with self._taking_long(limit):
            async with contextlib.aclosing(_pieces_of(connection, stream)) as pieces:
                answer = await _answer_of(route(parameters, Upload(length, pieces)), request)
                if not isinstance(answer, Stream):
                    await self._send(connection, stream, answer)
                    await _drain(stream)
                    return
            async with contextlib.aclosing(answer.pieces) as pieces:
                await self._send_stream(connection, stream, answer, pieces)

    async def _send_stream(
        self,
        connection: h11.Connection,
        stream: trio.SocketStream,
        answer: Stream,
        pieces: AsyncGenerator[bytes, None],
    ) -> None:
        headers = [("content-type", answer.content_type), ("connection", "close")]
        if answer.length is not None:
            headers.append(("content-length", str(answer.length)))
        try:
            await _send_in_time(stream, connection.send(h11.Response(status_code=200, headers=headers)))
            async for piece in pieces:
                if piece:
                    await _send_in_time(stream, connection.send(h11.Data(data=piece)))
            await _send_in_time(stream, connection.send(h11.EndOfMessage()))
        except (StorageException, h11.LocalProtocolError) as error:  # it was begun: only its end can tell
            log.warning("an answer ends before it is whole", extra={"error": str(error)})

    async def _send(self, connection: h11.Connection, stream: trio.SocketStream, answer: Reply) -> None:
        """Send an answer; whoever asked may be gone."""
        status, content_type, reply = answer
        headers = [("content-type", content_type), ("content-length", str(len(reply))), ("connection", "close")]
        with contextlib.suppress(h11.LocalProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(connection.send(h11.Response(status_code=status, headers=headers)) or b"")
            await stream.send_all(connection.send(h11.Data(data=reply)) or b"")
            connection.send(h11.EndOfMessage())

    async def _dispatch(self, request: h11.Request, body: bytes) -> Reply:
        method, path = request.method.decode(), request.target.decode("ascii", "replace")
        route = self._routes.get((method, path))
        if route is None:
            known = any(path == other for _, other in self._routes)
            status = 405 if known else 404
            return status, "application/problem+json", problem(status, f"no {method} {path} here")
        return await _answer_of(route(body), request)


class ControlServer(_HttpServer):
    """The daemon's socket.

    Args:
        path: of the socket, mode 0600; a stale one is replaced, one that answers is not.
        routes: (method, path) to what answers; may raise StorageExceptions.
        patient: those of them that may take longer than a request's time.
    """

    def __init__(
        self,
        path: Path,
        routes: Mapping[tuple[str, str], Route],
        patient: Collection[tuple[str, str]] = (),
        streams: Mapping[tuple[str, str], StreamRoute] | None = None,
    ) -> None:
        super().__init__(routes, patient, streams)
        self._path = path

    def _is_welcome(self, stream: trio.SocketStream) -> bool:
        return _peer_uid(stream) in (0, os.geteuid())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; removes the socket at the end.

        Raises:
            Busy: another process answers there. StorageException: there can be no socket; the message names it.
        """
        try:
            listener = self._listen()
        except OSError as error:
            raise from_oserror_at(error) from error
        task_status.started()
        try:
            await trio.serve_listeners(self._serve, [trio.SocketListener(listener)])
        finally:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _listen(self) -> trio.socket.SocketType:
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if self._path.exists():
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                try:
                    probe.connect(str(self._path))
                except OSError:
                    self._path.unlink()
                else:
                    raise Busy(
                        f"a process serves volume {self._path.stem} already, from other data: one of the two is a copy "
                        f"of the other ('volgate status {self._path.stem}' names what is served); unmount the copy and "
                        "remove its '.volgate' folder, which makes it a volume of its own"
                    )
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        self._path.chmod(0o600)
        listener.listen(_MAX_CONNECTIONS + _MAX_PATIENT)
        return trio.socket.from_stdlib_socket(listener)


class TcpServer(_HttpServer):
    """The same over TCP, for routes that anybody may ask for.

    Args:
        host: name or address to listen at. port: 1..65535.
        routes: see ``ControlServer``.
    """

    def __init__(self, host: str, port: int, routes: dict[tuple[str, str], Route]) -> None:
        super().__init__(routes)
        self._host = host
        self._port = port

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled.

        Raises:
            Busy: the address is taken or not this host's.
        """
        try:
            listeners = await trio.open_tcp_listeners(self._port, host=self._host)
        except OSError as error:
            raise Busy(f"cannot listen at {self._host}:{self._port}: {error.strerror or error}") from error
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)


async def _answer_of(route: Awaitable[T], request: h11.Request) -> T | Reply:
    """Return what a route answers, or a problem in its place; what nobody foresaw is logged."""
    try:
        return await route
    except StorageException as error:
        status, content = to_problem(error)
        return status, "application/problem+json", content
    except Exception:
        path = request.target.decode("ascii", "replace").partition("?")[0]
        log.exception("a control request failed in a way nobody foresaw", extra={"path": path})
        return 500, "application/problem+json", problem(500, "internal error; see the daemon's log")


async def _wait_for_end(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Cancel the answer once nobody waits for it any more."""
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(_MAX_BODY_BYTES):
            pass
    scope.cancel()


async def _receive(connection: h11.Connection, stream: trio.SocketStream) -> h11.Event:
    """Return what comes next. Raises RemoteProtocolError: nothing does."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_MAX_BODY_BYTES))
        elif isinstance(event, h11.Request | h11.Data | h11.EndOfMessage):
            return event
        else:
            raise h11.RemoteProtocolError("the connection ended early")


async def _receive_head(connection: h11.Connection, stream: trio.SocketStream) -> h11.Request:
    event = await _receive(connection, stream)
    assert isinstance(event, h11.Request)  # h11 lets nothing else come first
    return event


async def _receive_body(connection: h11.Connection, stream: trio.SocketStream) -> bytes:
    body = b""
    while isinstance(event := await _receive(connection, stream), h11.Data):
        body += event.data
        if len(body) > _MAX_BODY_BYTES:
            raise h11.RemoteProtocolError("the body is too large")
    return body


async def _pieces_of(connection: h11.Connection, stream: trio.SocketStream) -> AsyncGenerator[bytes, None]:
    """Yield a body as it comes. Raises Unavailable: it does not come any more."""
    while True:
        event = None
        with trio.move_on_after(_STALL_S):
            try:
                if connection.they_are_waiting_for_100_continue:
                    asking = connection.send(h11.InformationalResponse(status_code=100, headers=[]))
                    await stream.send_all(asking or b"")
                event = await _receive(connection, stream)
            except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
                raise Unavailable("the content ended early") from error
        if event is None:
            raise Unavailable(f"the content stood still for {_STALL_S:g} s")
        if not isinstance(event, h11.Data):
            return
        yield bytes(event.data)


async def _drain(stream: trio.SocketStream) -> None:
    """Read what a refused client still sends, within bounds: else it would see a broken connection, and no answer."""
    left = _DRAINED_BYTES
    with trio.move_on_after(_DRAIN_S), contextlib.suppress(trio.BrokenResourceError):
        await stream.send_eof()
        while left > 0 and (data := await stream.receive_some(_MAX_BODY_BYTES)):
            left -= len(data)


async def _send_in_time(stream: trio.SocketStream, data: bytes | None) -> None:
    """Send, unless the other side takes nothing. Raises trio.TooSlowError."""
    with trio.fail_after(_STALL_S):
        await stream.send_all(data or b"")


def _peer_uid(stream: trio.SocketStream) -> int:
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
