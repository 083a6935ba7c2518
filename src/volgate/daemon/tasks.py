"""What people do with a volume's copies: the routes of copy, sync and task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio

from volgate.control.client import ask
from volgate.control.server import Reply, Route, json_reply
from volgate.copies.request import to_request
from volgate.copies.tasks import Tasks
from volgate.daemon.bodies import to_object
from volgate.drivers.registry import Source
from volgate.errors import InvalidArgument, NotFound

PATIENT: Final = frozenset(
    {("POST", f"/v1/{verb}") for verb in ("copies", "copies/plan", "tasks/wait", "tasks/cancel")}
)
"""Routes whose answer may take long."""
BROKEN_OFF: Final = frozenset({("POST", "/v1/copies/plan"), ("POST", "/v1/tasks/wait"), ("POST", "/v1/tasks/cancel")})
"""Those that may be broken off where the daemon has to end."""


async def flush_owner(runtime_directory: Path, volume_id: str) -> None:
    """Have the owner of a volume on this host store what was written; nothing happens where there is none."""
    socket = runtime_directory / f"{volume_id}.sock"

    def flush() -> None:
        try:
            ask(socket, "POST", "/v1/flush", timeout_s=None)
        except NotFound:
            return

    await trio.to_thread.run_sync(flush, abandon_on_cancel=True)


def routes(tasks: Tasks, source: Source) -> dict[tuple[str, str], Route]:
    """Return (method, path) to what answers."""

    async def describe_source(_body: bytes) -> Reply:
        """Answer where the volume's data lies, for another owner that shall read it."""
        return json_reply({"type": source.backend_type, "text": source.text, "options": dict(source.options)})

    async def submit(body: bytes) -> Reply:
        return json_reply(await tasks.submit(to_request(to_object(body))))

    async def plan(body: bytes) -> Reply:
        return json_reply(await tasks.plan(to_request(to_object(body))))

    async def list_(_body: bytes) -> Reply:
        return json_reply(tasks.list_all())

    def on_one(call: Callable[[str], Awaitable[dict[str, Any]]]) -> Route:
        async def route(body: bytes) -> Reply:
            found = to_object(body).get("operation_id")
            if not isinstance(found, str):
                raise InvalidArgument("the body is an object with 'operation_id'")
            return json_reply(await call(found))

        return route

    return {
        ("GET", "/v1/source"): describe_source,
        ("POST", "/v1/copies"): submit,
        ("POST", "/v1/copies/plan"): plan,
        ("GET", "/v1/tasks"): list_,
        ("POST", "/v1/tasks/wait"): on_one(tasks.wait),
        ("POST", "/v1/tasks/pause"): on_one(tasks.pause),
        ("POST", "/v1/tasks/resume"): on_one(tasks.resume),
        ("POST", "/v1/tasks/cancel"): on_one(tasks.cancel),
    }
