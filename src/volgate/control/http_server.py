"""HTTP for an ASGI application, on listening sockets: the one module that knows hypercorn, so that it can be replaced.

Hypercorn's own accept loop gives the application no way to learn who connected, and bounds neither connections nor the
time of headers and answers. So the loop is here: it bounds connections before they are accepted, reads SO_PEERCRED,
does TLS's handshake, and gives each connection to hypercorn's trio protocol over a stream whose writes are timed. It
speaks HTTP/1.1 alone: by HTTP/2 one connection could ask many times over, and take no answer. What the application
finds in its scope: ``volgate.peer``, a ``Peer`` of a unix socket or None of TCP.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from functools import partial
from typing import Any, Final

import attrs
import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from volgate.control.problems import Problem

log = logging.getLogger(__name__)

PEER: Final = "volgate.peer"
_ACCEPT_PAUSE_S: Final = 0.1
_CLOSE_S: Final = 2.0
_LOOK_S: Final = 0.5
_DRAINED_BYTES: Final = 64 << 20
_DRAIN_S: Final = 5.0

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


@attrs.frozen
class Peer:
    """The process at the other end of a unix socket, when it connected (unix(7), SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


@attrs.frozen
class Bounds:
    """What one server bears.

    Attributes:
        connections: at once. Before there are more, the one that has been idle for longest is closed; where none is
            idle, further ones wait in the kernel.
        idle_s: how long a connection may be without a whole head of a request, its TLS handshake included, seconds.
        send_s: how long one write of an answer may take. stop_s: how long a stop waits for answers.
    """

    connections: int = 100
    idle_s: float = 15.0
    send_s: float = 30.0
    stop_s: float = 30.0


class HttpServer:
    """Serves an application.

    Args:
        app: ASGI 3.
    """

    def __init__(self, app: App, bounds: Bounds = Bounds()) -> None:
        self._app = app
        self._bounds = bounds
        self._places = trio.Semaphore(bounds.connections)
        self._stopping = trio.Event()
        self._conversations: set[_Conversation] = set()
        self._context = WorkerContext(None)
        self._config = Config()
        self._config.errorlog = logging.getLogger(f"{__name__}.hypercorn")
        self._config.include_server_header = False
        self._config.keep_alive_timeout = bounds.idle_s
        self._config.h11_max_incomplete_size = 32 << 10

    @property
    def connections(self) -> int:
        """How many there are."""
        return self._bounds.connections - self._places.value

    async def serve(
        self,
        listeners: list[tuple[trio.SocketListener, ssl.SSLContext | None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until ``stop``; then nothing more is accepted, and answers under way get ``stop_s`` to end."""
        async with trio.open_nursery() as conversations:
            async with trio.open_nursery() as accepting:
                for listener, tls in listeners:
                    accepting.start_soon(self._accept, listener, tls, conversations)
                task_status.started()
                await self._stopping.wait()
                accepting.cancel_scope.cancel()
            conversations.cancel_scope.deadline = trio.current_time() + self._bounds.stop_s
            await self._context.terminated.set()

    def stop(self) -> None:
        """End ``serve``."""
        self._stopping.set()

    async def _accept(
        self, listener: trio.SocketListener, tls: ssl.SSLContext | None, conversations: trio.Nursery
    ) -> None:
        while True:
            if self._places.value <= 1:
                self._close_longest_idle()
            await self._places.acquire()
            try:
                stream = await listener.accept()
            except OSError as error:  # descriptors have run out, or the connection is gone already
                self._places.release()
                log.warning("a connection could not be accepted", extra={"error": error})
                await trio.sleep(_ACCEPT_PAUSE_S)
            except BaseException:
                self._places.release()
                raise
            else:
                conversations.start_soon(self._converse, stream, tls)

    async def _converse(self, stream: trio.SocketStream, tls: ssl.SSLContext | None) -> None:
        """Serve one connection; whatever happens in it ends it and nothing else."""
        conversation = _Conversation(self._bounds.idle_s)
        self._conversations.add(conversation)
        try:
            with conversation.scope:
                peer = _peer_of(stream.socket)
                secured: trio.SSLStream[trio.SocketStream] | None = None
                if tls is not None:
                    secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
                    await secured.do_handshake()
                timed: Any = _TimedStream(secured or stream, stream.socket, self._bounds.send_s)
                state: Any = {}
                server = _Connection(
                    partial(self._answer, conversation, peer), self._config, self._context, state, timed
                )
                await server.run()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError) as error:
            log.debug("a connection broke", extra={"error": error})
        except Exception:  # hypercorn's door: one connection must not end the daemon
            log.exception("a connection failed in a way nobody foresaw")
        finally:
            self._conversations.remove(conversation)
            self._places.release()
            await trio.aclose_forcefully(stream)

    def _close_longest_idle(self) -> None:
        idle = [conversation for conversation in self._conversations if conversation.is_idle]
        if idle:
            min(idle, key=lambda conversation: conversation.scope.deadline).scope.cancel()

    async def _answer(
        self, conversation: _Conversation, peer: Peer | None, scope: MutableMapping[str, Any], receive: Any, send: Any
    ) -> None:
        scope[PEER] = peer
        rest = _Rest(receive, send)
        with conversation.answering():
            await self._app(scope, rest.receive, rest.send)
        await rest.drain()  # from here on the connection counts as idle


class _Conversation:
    """The time limit of a connection: it holds while no request is being answered."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._answering = 0
        self.scope = trio.CancelScope(deadline=trio.current_time() + idle_s)

    @property
    def is_idle(self) -> bool:
        return not self._answering and not self.scope.cancel_called

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        self._answering += 1
        self.scope.deadline = math.inf
        try:
            yield
        finally:
            self._answering -= 1
            if not self._answering:
                self.scope.deadline = trio.current_time() + self._idle_s


class _Rest:
    """What a client still sends when its answer is whole: read within bounds, and only then is the answer ended.

    An end closes the connection, and who still sends would see a broken one, and no answer.
    """

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive = receive
        self._send = send
        self._is_over = False
        self._owes_end = False

    async def receive(self) -> Any:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_over = True
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        self._owes_end = is_last and not self._is_over
        await self._send({**message, "more_body": True} if self._owes_end else message)

    async def drain(self) -> None:
        if not self._owes_end:
            return
        left = _DRAINED_BYTES
        with trio.move_on_after(_DRAIN_S):
            while left > 0 and not self._is_over:
                left -= len((await self.receive()).get("body", b""))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class _Connection(TCPServer):
    """Hypercorn's server of one connection, which asks for a body when the application does, and knows who still reads.

    By itself it asks as soon as a client waits for it (``Expect: 100-continue``), whatever the answer will be, and
    calls one gone that has only ended its questions, in the middle of an answer too.
    """

    def __init__(self, app: App, config: Config, context: WorkerContext, state: Any, stream: Any) -> None:
        super().__init__(ASGIWrapper(partial(self._run_app, app)), config, context, state, stream)

    async def _run_app(self, app: App, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        is_asked = False

        async def ask_and_receive() -> Any:
            nonlocal is_asked
            await self._ask_for_body()
            message = await receive()
            if message["type"] == "http.request":
                is_asked = not message.get("more_body", False)
            elif is_asked and message["type"] == "http.disconnect":
                await self.stream.wait_unread()
            return message

        await app(scope, ask_and_receive, send)

    async def _read_data(self) -> None:
        self.protocol.protocol = _Http1(self.protocol)
        await super()._read_data()

    async def _ask_for_body(self) -> None:
        connection = getattr(self.protocol.protocol, "connection", None)
        if isinstance(connection, _H11Connection) and connection.waits_for_continue:
            asking = connection.send(h11.InformationalResponse(status_code=100, headers=[]))
            await self.protocol_send(RawData(asking or b""))


class _Http1(H11Protocol):
    """Hypercorn's HTTP/1.1, which by itself becomes HTTP/2 where a client begins with it, or asks for it."""

    def __init__(self, of: ProtocolWrapper) -> None:
        super().__init__(of.app, of.config, of.context, of.task_group, of.state, of.ssl, of.client, of.server, of.send)
        self.connection = _H11Connection(h11.SERVER, max_incomplete_event_size=of.config.h11_max_incomplete_size)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Change to nothing else: whoever asks for that is answered as before (RFC 9110, 7.8)."""

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version.startswith(b"1."):
            await super()._create_stream(request)
        else:
            await self.send(Closed())

    async def _send_error_response(self, status_code: int) -> None:
        """Answer what the parser refuses."""
        problem = Problem(status_code, "malformed_request", "this is no request of HTTP/1.1, or is too large for one")
        content = problem.to_json()
        known = [*problem.all_headers(), ("content-length", str(len(content))), ("connection", "close")]
        headers = [(name.encode(), value.encode()) for name, value in known] + self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(headers=headers, status_code=status_code))
        await self._send_h11_event(h11.Data(data=content))
        await self._send_h11_event(h11.EndOfMessage())


class _H11Connection(h11.Connection):
    """Does not tell hypercorn that a client waits."""

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        return False

    @property
    def waits_for_continue(self) -> bool:
        return super().they_are_waiting_for_100_continue


class _TimedStream:
    """What hypercorn needs of a stream, with a limit on each write: its own are shielded from cancellation."""

    def __init__(self, stream: trio.abc.Stream, socket_: trio.socket.SocketType, send_s: float) -> None:
        self._stream = stream
        self._send_s = send_s
        self.socket = socket_

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes) -> None:
        """Send. Raises trio.BrokenResourceError: it takes too long, or the other end is gone."""
        with trio.move_on_after(self._send_s) as limit:
            try:
                await self._stream.send_all(data)
            except trio.BusyResourceError as error:  # hypercorn's writes take turns, but not with its close
                raise trio.BrokenResourceError("the connection is being closed") from error
        if limit.cancelled_caught:
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("the client does not take its answer")

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.SocketStream):
            await self._stream.send_eof()

    async def wait_unread(self) -> None:
        """Return, once no more comes, when nobody reads either. Over TCP the one cannot be told from the other."""
        while self.socket.family == socket.AF_UNIX and not _has_hung_up(self.socket):  # noqa: ASYNC110 - nobody tells
            await trio.sleep(_LOOK_S)

    async def aclose(self) -> None:
        with trio.move_on_after(_CLOSE_S):
            await self._stream.aclose()


def _has_hung_up(socket_: trio.socket.SocketType) -> bool:
    if socket_.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(socket_.fileno(), 0)  # which leaves POLLHUP: closed, or shut both ways (poll(2))
    return bool(poll.poll(0))


def _peer_of(socket_: trio.socket.SocketType) -> Peer | None:
    if socket_.family != socket.AF_UNIX:
        return None
    credentials = socket_.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", credentials))
