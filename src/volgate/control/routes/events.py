"""What happened on this host: asked for, or followed as server-sent events (WHATWG HTML, 9.2)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Final

import trio
from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from volgate.control import convert
from volgate.control.dto.fields import EventCursor, VolumeId
from volgate.control.dto.response import EventPage
from volgate.control.paging import DEFAULT_LIMIT, Limit
from volgate.control.problems import Refusal
from volgate.control.roles import Principal, Role
from volgate.control.routes.shared import Asking, Services, Using
from volgate.control.routes.streaming import Streamed
from volgate.events import Event

router = APIRouter(tags=["events"])
_OLDEST: Final = "0-0"
_READ: Final = 1000
"""Events looked at in one go."""
_LOOK_S: Final = 0.5
_SIGN_OF_LIFE_S: Final = 15.0
FOLLOWERS: Final = 32
"""Clients that may follow at once."""
After = Annotated[EventCursor | None, Query(description="The cursor of the last one known; else the oldest kept.")]
Of = Annotated[VolumeId | None, Query(description="Only this volume's.")]


async def _read(
    services: Services, principal: Principal, volume_id: str | None, after: str | None, limit: int
) -> tuple[list[Event], str]:
    """Return events that somebody may see, and the cursor behind all that was looked at."""
    cursor, seen = after or _OLDEST, list[Event]()
    while True:
        found = await services.aside.call(partial(services.events.read, cursor, _READ))
        for event in found:
            cursor = event.cursor
            if _is_visible(event, principal, volume_id):
                seen.append(event)
                if len(seen) == limit:
                    return seen, cursor
        if len(found) < _READ:
            return seen, cursor


def _is_visible(event: Event, principal: Principal, volume_id: str | None) -> bool:
    of = event.facts.get("volume_id")
    return (volume_id is None or of == volume_id) and principal.may(Role.READER, of if isinstance(of, str) else None)


@router.get("/events")
async def list_events(
    services: Using, principal: Asking, volume_id: Of = None, after: After = None, limit: Limit = DEFAULT_LIMIT
) -> EventPage:
    """List what happened, the oldest first. ``next_after`` is where those begin that come later; it is never null."""
    found, next_after = await _read(services, principal, volume_id, after, limit)
    return EventPage(items=[convert.to_event_field(event) for event in found], next_after=next_after)


@router.get("/events/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def follow_events(
    services: Using,
    principal: Asking,
    volume_id: Of = None,
    after: After = None,
    last_event_id: Annotated[EventCursor | None, Header()] = None,
) -> StreamingResponse:
    """Follow what happens, from now on or from a cursor; a browser that connects again goes on where it was."""
    begin = last_event_id or after or await services.aside.call(services.events.end)
    try:
        services.followers.acquire_on_behalf_of_nowait(follower := object())
    except trio.WouldBlock as error:
        raise Refusal("overloaded", f"{FOLLOWERS} clients follow already", retry_after_s=30) from error

    async def follow() -> AsyncGenerator[bytes, None]:
        cursor, silent_s = begin, 0.0
        yield f": volgate\nid: {begin}\n\n".encode()  # so that who saw no event yet misses none either
        while not services.stopping.is_set():
            found, cursor = await _read(services, principal, volume_id, cursor, DEFAULT_LIMIT)
            for event in found:
                field = convert.to_event_field(event)
                text = json.dumps(field.model_dump())
                yield f"id: {field.cursor}\nevent: {field.kind}\ndata: {text}\n\n".encode()
            silent_s = 0.0 if found else silent_s + _LOOK_S
            if silent_s >= _SIGN_OF_LIFE_S:
                silent_s = 0.0
                yield b": nothing new\n\n"
            if not found:
                with trio.move_on_after(_LOOK_S):
                    await services.stopping.wait()

    held = contextlib.AsyncExitStack()
    held.callback(services.followers.release_on_behalf_of, follower)
    return Streamed(follow(), held, 200, {"cache-control": "no-store"}, "text/event-stream")
