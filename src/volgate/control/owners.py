"""Asking the owners of volumes over their sockets: asynchronous, cancellable, bounded in number and bytes.

``client`` is the same for verbs, which block. An owner that hangs costs whoever asks it, and nobody else.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import h11
import trio

from volgate.control.problems import from_problem
from volgate.errors import InputOutput, NotMounted, NotPermitted, StorageException, TimedOut, Unavailable

TIMEOUT_S: Final = 10.0
_AT_ONCE: Final = 128
_PATIENT_AT_ONCE: Final = 32
STREAMS: Final = 32
"""Contents that may pass at once; they are as slow as their clients."""
_MAX_ANSWER_BYTES: Final = 256 << 20
_CHUNK_BYTES: Final = 1 << 16


class Owners:
    """The owners on this host.

    Args:
        runtime_directory: where their sockets lie.
    """

    def __init__(self, runtime_directory: Path) -> None:
        self._runtime_directory = runtime_directory
        self._places = trio.CapacityLimiter(_AT_ONCE)
        self._patient_places = trio.CapacityLimiter(_PATIENT_AT_ONCE)
        self._stream_places = trio.CapacityLimiter(STREAMS)

    async def ask(
        self, volume_id: str, method: str, target: str, body: Any = None, *, timeout_s: float | None = TIMEOUT_S
    ) -> Any:
        """Return the JSON answer of a volume's owner; ``timeout_s``: None waits as long as the owner lives.

        Raises:
            NotMounted: nobody owns the volume here. TimedOut, Unavailable: no answer. Else what the owner refused with.
        """
        socket = self._runtime_directory / f"{volume_id}.sock"
        content = await self.fetch(socket, method, target, body, timeout_s=timeout_s, of=volume_id)
        try:
            return json.loads(content)
        except ValueError as error:
            raise InputOutput(f"the owner of volume {volume_id} answered what is no JSON") from error

    async def fetch(
        self,
        socket: Path,
        method: str,
        target: str,
        body: Any = None,
        *,
        timeout_s: float | None = TIMEOUT_S,
        max_bytes: int = _MAX_ANSWER_BYTES,
        of: str | None = None,
    ) -> bytes:
        """Return the content of an answer; raises as ``ask``. ``of``: the volume, for messages."""
        volume_id = of or socket.stem
        limit_s = math.inf if timeout_s is None else timeout_s
        try:
            with self._told(volume_id):
                async with self._patient_places if timeout_s is None else self._places:
                    with trio.fail_after(limit_s):
                        status, content = await _converse(socket, method, target, body, max_bytes)
        except trio.TooSlowError as error:
            raise TimedOut(f"the owner of volume {volume_id} did not answer within {limit_s:g} s") from error
        if status >= 400:
            raise from_problem(status, content)
        return content

    async def fetch_all(
        self, sockets: Sequence[Path], target: str, *, timeout_s: float, max_bytes: int
    ) -> list[tuple[Path, bytes | StorageException]]:
        """Return what each answers to a GET, or why it does not; all are asked at once."""
        answers: list[tuple[Path, bytes | StorageException]] = []

        async def fetch_one(socket: Path) -> None:
            answer: bytes | StorageException
            try:
                answer = await self.fetch(socket, "GET", target, timeout_s=timeout_s, max_bytes=max_bytes)
            except StorageException as error:
                answer = error
            answers.append((socket, answer))

        async with trio.open_nursery() as nursery:
            for socket in sockets:
                nursery.start_soon(fetch_one, socket)
        return sorted(answers, key=lambda answer: answer[0])

    @contextlib.asynccontextmanager
    async def reading(self, volume_id: str, target: str) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Give what an owner answers to a GET in a stream, piece by piece. Raises as ``ask``, also in the middle.

        May be left by another task than entered it.
        """
        with self._told(volume_id):
            async with self._stream_place(), await self._connect(volume_id) as stream:
                connection = h11.Connection(h11.CLIENT)
                await _send(stream, connection, h11.Request(method="GET", target=target, headers=list(_HEADERS)))
                await _send(stream, connection, h11.EndOfMessage())
                response = await _next(stream, connection)
                assert isinstance(response, h11.Response)
                if response.status_code >= HTTPStatus.BAD_REQUEST:
                    raise from_problem(response.status_code, await _rest(stream, connection))
                yield self._pieces(volume_id, stream, connection)

    async def _pieces(
        self, volume_id: str, stream: trio.SocketStream, connection: h11.Connection
    ) -> AsyncGenerator[bytes, None]:
        with self._told(volume_id, "broke its answer off"):
            while isinstance(event := await _next(stream, connection), h11.Data):
                yield bytes(event.data)

    async def store(self, volume_id: str, target: str, content: AsyncIterable[bytes], length: int) -> Any:
        """Send content by a PUT, piece by piece, and return the JSON answer; of what is refused nothing is read.

        Raises as ``ask``.
        """
        with self._told(volume_id):
            async with self._stream_place(), await self._connect(volume_id) as stream:
                connection = h11.Connection(h11.CLIENT)
                headers = [*_HEADERS, ("content-length", str(length)), ("expect", "100-continue")]
                await _send(stream, connection, h11.Request(method="PUT", target=target, headers=headers))
                response = await _next(stream, connection)
                if isinstance(response, h11.InformationalResponse):
                    with contextlib.suppress(trio.BrokenResourceError):  # it has refused: its answer says why
                        async for piece in content:
                            await _send(stream, connection, h11.Data(data=piece))
                        await _send(stream, connection, h11.EndOfMessage())
                    response = await _next(stream, connection)
                assert isinstance(response, h11.Response)
                answer = await _rest(stream, connection)
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            raise from_problem(response.status_code, answer)
        return json.loads(answer)

    async def _connect(self, volume_id: str) -> trio.SocketStream:
        return await trio.open_unix_socket(str(self._runtime_directory / f"{volume_id}.sock"))

    @contextlib.asynccontextmanager
    async def _stream_place(self) -> AsyncIterator[None]:
        """Hold a place that is no task's. Raises Unavailable: none gets free."""
        borrower = object()
        with trio.move_on_after(TIMEOUT_S) as limit:
            await self._stream_places.acquire_on_behalf_of(borrower)
        if limit.cancelled_caught:
            raise Unavailable(f"{STREAMS} files or archives are being read and stored already: ask again later")
        try:
            yield
        finally:
            self._stream_places.release_on_behalf_of(borrower)

    @contextlib.contextmanager
    def _told(self, volume_id: str, broken: str = "ended before it answered") -> Iterator[None]:
        """Raise what becomes of a conversation as what it means; ``broken``: what its end would."""
        try:
            yield
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotMounted(
                f"volume {volume_id} is not mounted here for writing, and only its owner can do this: mount it first"
            ) from error
        except PermissionError as error:
            raise NotPermitted(f"the owner of volume {volume_id} answers its own user alone") from error
        except (OSError, trio.BrokenResourceError, h11.ProtocolError) as error:
            raise Unavailable(f"the owner of volume {volume_id} {broken}") from error


_HEADERS: Final = (("host", "localhost"), ("connection", "close"))


async def _send(stream: trio.SocketStream, connection: h11.Connection, event: h11.Event) -> None:
    await stream.send_all(connection.send(event) or b"")


async def _next(stream: trio.SocketStream, connection: h11.Connection) -> h11.Event:
    """Return what comes next. Raises RemoteProtocolError: it ended early."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_CHUNK_BYTES))
        elif isinstance(event, h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage):
            return event
        else:
            raise h11.RemoteProtocolError("it ended early")


async def _rest(stream: trio.SocketStream, connection: h11.Connection, max_bytes: int = _MAX_ANSWER_BYTES) -> bytes:
    content = bytearray()
    while isinstance(event := await _next(stream, connection), h11.Data):
        content += event.data
        if len(content) > max_bytes:
            raise h11.RemoteProtocolError("the answer is too large")
    return bytes(content)


async def _converse(socket: Path, method: str, target: str, body: Any, max_bytes: int) -> tuple[int, bytes]:
    content = b"" if body is None else json.dumps(body).encode()
    connection = h11.Connection(h11.CLIENT)
    headers = [*_HEADERS, ("content-length", str(len(content)))]
    async with await trio.open_unix_socket(str(socket)) as stream:
        request = h11.Request(method=method, target=target, headers=headers)
        sent = b"".join(
            part or b"" for part in map(connection.send, (request, h11.Data(data=content), h11.EndOfMessage()))
        )
        await stream.send_all(sent)
        response = await _next(stream, connection)
        assert isinstance(response, h11.Response)
        return response.status_code, await _rest(stream, connection, max_bytes)
