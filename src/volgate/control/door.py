"""The door of the control daemon: what every request passes, whatever HTTP server brought it. One ASGI application.

In this order: who asks, the body (bounded in bytes and time), a key that was used before, the application; and what
goes wrong anywhere becomes a problem, never a traceback. A change that was begun is brought to its end though its
client went away; a look is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any, Final, Protocol

import attrs
import trio

from volgate.control.aside import Aside
from volgate.control.idempotency import Answer, KeptAnswers
from volgate.control.problems import Problem, Refusal, describe
from volgate.control.roles import Principal
from volgate.errors import StorageException

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES: Final = 1 << 20
_BODY_S: Final = 20.0
_AT_ONCE: Final = 64
HEALTH: Final = "/v1/health"
"""Is answered also where much is under way, and over TCP to whoever asks: a load balancer has no token."""
_LOOKS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = _LOOKS | {"POST", "PUT", "PATCH", "DELETE"}
_UPLOAD: Final = re.compile(r"/v1/volumes/[^/]+/files/content")
"""Where a body is a file's content."""
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


class Identify(Protocol):
    """Says who asks."""

    async def __call__(self, scope: Scope, headers: Mapping[str, str]) -> Principal:
        """Return who it is. Raises Refusal: nobody who may ask anything."""
        ...


@attrs.define
class DoorStatistics:
    """What passed. Attributes: answered: requests by (method, route, status), and in total_s how long they took."""

    answered: Counter[tuple[str, str, int]] = attrs.field(factory=Counter)
    total_s: dict[tuple[str, str], float] = attrs.field(factory=dict)
    in_flight: int = 0

    def count(self, scope: Scope, status: int, took_s: float) -> None:
        """Note an answer. What clients choose freely makes no new series."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "-")
        if scope["path"].startswith("/v1/") and route not in ("-", scope["path"]):
            route = f"/v1{route}"
        self.answered[method, route, status] += 1
        self.total_s[method, route] = self.total_s.get((method, route), 0.0) + took_s


class Door:
    """See the module.

    Args:
        identify: who asks. answers: what was answered before. aside: threads for that.
        body_s: how long a body may take, seconds.

    Attributes:
        app: what is behind it; finds the principal in ``scope["state"]["principal"]``. Set before it serves.
    """

    app: App

    def __init__(self, identify: Identify, answers: KeptAnswers, aside: Aside, *, body_s: float = _BODY_S) -> None:
        self._identify = identify
        self._answers = answers
        self._aside = aside
        self._body_s = body_s
        self.statistics = DoorStatistics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Never raises, but for a cancellation."""
        if scope["type"] != "http":
            await send({"type": f"{scope['type']}.close", "code": 1008})
            return
        scope.setdefault("state", {})
        reply = _Reply(send)
        began, statistics = time.monotonic(), self.statistics
        statistics.in_flight += 1
        try:
            try:
                with _as_problems():
                    await self._admit(scope, receive, reply)
            except Refusal as refusal:
                await reply.refuse(refusal.problem)
        finally:
            statistics.in_flight -= 1
            took_s = time.monotonic() - began
            statistics.count(scope, reply.status, took_s)
        _log(scope, reply.status, took_s)

    async def _admit(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self.statistics.in_flight > _AT_ONCE and scope["path"] != HEALTH:
            raise Refusal("overloaded", f"{_AT_ONCE} requests are under way", retry_after_s=1)
        scope["state"]["principal"] = await self._identify(scope, headers)
        if scope["method"] == "PUT" and _UPLOAD.fullmatch(scope["path"]) is not None:
            if "idempotency-key" in headers:
                raise Refusal(
                    "malformed_request", "content takes no Idempotency-Key: it is stored whole, or not at all"
                )
            await self._upload(scope, receive, reply)
            return
        body = await self._read(receive, headers)
        if scope["method"] in _LOOKS:
            await self._look(scope, body, receive, reply)
        else:
            await self._change(scope, headers, body, reply)

    async def _read(self, receive: Receive, headers: Mapping[str, str]) -> bytes:
        """Return the body. Raises Refusal: it is too large, or takes too long."""
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
            raise Refusal("body_too_large", f"a body may have {MAX_BODY_BYTES} bytes")
        body = bytearray()
        with trio.move_on_after(self._body_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal("malformed_request", "the body ended early")
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise Refusal("body_too_large", f"a body may have {MAX_BODY_BYTES} bytes")
                if not message.get("more_body", False):
                    return bytes(body)
        raise Refusal("request_timeout", f"the body did not come within {self._body_s:g} s")

    async def _upload(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        """Let the application have a body of any length as it comes, as long as it gets on."""

        async def receive_in_time() -> MutableMapping[str, Any]:
            with trio.move_on_after(self._body_s):
                return await receive()
            raise Refusal("request_timeout", f"the content stood still for {self._body_s:g} s")

        with _as_problems():
            await self.app(scope, receive_in_time, reply)

    async def _look(self, scope: Scope, body: bytes, receive: Receive, reply: _Reply) -> None:
        """Answer while somebody waits for it."""

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if not reply.is_whole:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await self._run(scope, body, reply)
            nursery.cancel_scope.cancel()

    async def _change(self, scope: Scope, headers: Mapping[str, str], body: bytes, reply: _Reply) -> None:
        key = headers.get("idempotency-key")
        if key is None:
            await self._run(scope, body, reply)
            return
        if not _KEY.fullmatch(key):
            raise Refusal("malformed_request", "an Idempotency-Key is 1 to 255 visible ASCII characters")
        name, answers = scope["state"]["principal"].name, self._answers
        fingerprint = _fingerprint(scope, body)
        known = await self._aside.call(lambda: answers.begin(name, key, fingerprint))
        if known is not None:
            await reply.repeat(known)
            return
        kept = _Reply(None)
        await self._run(scope, body, kept)
        answer = kept.to_answer()
        refused = scope["state"].get("refused")  # before anything was done
        with trio.CancelScope(shield=True):
            try:
                await self._aside.call(
                    lambda: answers.forget(name, key) if refused else answers.finish(name, key, answer)
                )
            except StorageException as error:  # it is done, whatever becomes of the key
                log.error("an answer could not be kept", extra={"error": str(error)})  # noqa: TRY400
        await reply.give(answer)

    async def _run(self, scope: Scope, body: bytes, reply: _Reply) -> None:
        """Run the application; what it raises becomes a problem."""
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> MutableMapping[str, Any]:
            if messages:
                return messages.pop()
            await trio.sleep_forever()
            raise AssertionError

        try:
            with _as_problems():
                await self.app(scope, receive, reply)
        except Refusal as refusal:
            await reply.refuse(refusal.problem)


class _Reply:
    """What an application sends: passed on, or kept. Knows whether anything was (``status``), and whether all was."""

    def __init__(self, send: Send | None) -> None:
        self._send = send
        self.status = 0
        self.is_whole = False
        self._headers: tuple[tuple[str, str], ...] = ()
        self._body = bytearray()

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Take a message of the application."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._headers = tuple(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]
            )
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_whole = True
        if self._send is not None:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem, unless an answer was begun."""
        if not self.status:
            content = problem.to_json()
            headers = (*problem.all_headers(), ("content-length", str(len(content))))
            await self.give(Answer(problem.status, headers, content))

    async def repeat(self, answer: Answer) -> None:
        """Answer as before, and say so."""
        await self.give(attrs.evolve(answer, headers=(*answer.headers, ("idempotency-replayed", "true"))))

    async def give(self, answer: Answer) -> None:
        """Send a whole answer."""
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        await self({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self({"type": "http.response.body", "body": answer.body, "more_body": False})

    def to_answer(self) -> Answer:
        """Return what was kept."""
        return Answer(self.status, self._headers, bytes(self._body))


@contextlib.contextmanager
def _as_problems() -> Iterator[None]:
    """Turn whatever is raised inside into a Refusal; what nobody foresaw is logged."""
    try:
        yield
    except Refusal:
        raise
    except StorageException as error:
        raise _refusal(describe(error)) from error
    except Exception as error:  # the door's last resort
        known = _storage_exception_in(error)
        if known is not None:
            raise _refusal(describe(known)) from error
        log.exception("a control request failed in a way nobody foresaw")
        raise Refusal("internal", "internal error; see the daemon's log") from error


def _storage_exception_in(error: BaseException) -> StorageException | None:
    """Return what a nursery wrapped, however deep."""
    if isinstance(error, StorageException):
        return error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((found for found in map(_storage_exception_in, inner) if found is not None), None)


def _refusal(problem: Problem) -> Refusal:
    refusal = Refusal("internal", problem.detail)
    refusal.problem = problem
    return refusal


def _fingerprint(scope: Scope, body: bytes) -> str:
    """Return what tells requests apart."""
    digest = hashlib.sha256()
    for part in (scope["method"].encode(), scope["path"].encode(), scope["query_string"], body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _log(scope: Scope, status: int, took_s: float) -> None:
    """Leave a line of every change, with who made it."""
    level = logging.DEBUG if scope["method"] in _LOOKS else logging.INFO
    if log.isEnabledFor(level):
        principal = scope["state"].get("principal")
        facts = {
            "by": "nobody" if principal is None else principal.name,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "took_s": round(took_s, 3),
        }
        log.log(level, "a request was answered", extra=facts)
