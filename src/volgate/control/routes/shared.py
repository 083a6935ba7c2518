"""What all routes have in common: the services behind them, who may ask, and what may go wrong."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import unquote_to_bytes

import attrs
import trio
from fastapi import Depends, Path, Request

from volgate.control import origin
from volgate.control.aside import Aside
from volgate.control.dto.fields import SnapshotId, VolumeId
from volgate.control.http_server import PEER
from volgate.control.owners import Owners
from volgate.control.problems import CONTENT_TYPE, Refusal
from volgate.control.roles import Principal, Role
from volgate.control.scraping import Scraper
from volgate.control.starting import Starter
from volgate.control.turns import Turns
from volgate.control.volumes import Volumes
from volgate.errors import NotFound, NotMounted, ShuttingDown, TryAgain
from volgate.events import EventLog
from volgate.volume.catalog import CatalogEntry
from volgate.volume.sources import Locator


@attrs.frozen
class Services:
    """What routes use; see each class. ``stopping``: the daemon ends, and with it answers that never would."""

    volumes: Volumes
    locator: Locator
    owners: Owners
    starter: Starter
    turns: Turns
    aside: Aside
    scraper: Scraper
    events: EventLog
    followers: trio.CapacityLimiter
    stopping: trio.Event


def get_services(request: Request) -> Services:
    """Return the services of this application."""
    services: Services = request.app.state.services
    return services


def get_principal(request: Request) -> Principal:
    """Return who asks; the door has found out."""
    principal: Principal = request.state.principal
    return principal


Using = Annotated[Services, Depends(get_services)]
Asking = Annotated[Principal, Depends(get_principal)]
InVolume = Annotated[VolumeId, Path(description="The volume's id.")]
_RIVAL_S: Final = 5.0
"""How long to look for an owner that somebody else started, or that ends, at the same moment."""
_LOOK_S: Final = 0.2
OfSnapshot = Annotated[SnapshotId, Path(description="The snapshot's id.")]


async def refuse_other_sites(request: Request) -> None:
    """Refuse what another web site asks for in somebody's browser; see ``control.origin``."""
    origin.check(request.method, request.headers, is_local=request.scope.get(PEER) is not None)


async def refuse_unreadable(request: Request) -> None:
    """Refuse a query that is no UTF-8 once it is decoded: it would mean another name than was sent."""
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError as error:
        raise Refusal("malformed_request", "the query is no UTF-8 once it is percent-decoded") from error


async def find_entry(services: Services, volume_id: str) -> CatalogEntry:
    """Return what the catalog has of a volume. Raises NotFound; says what makes one."""
    try:
        return await services.aside.call(lambda: services.volumes.find_entry(volume_id))
    except NotFound as error:
        known = "POST /v1/volumes makes one, POST /v1/adoptions enters one that exists"
        raise NotFound(f"no volume '{volume_id}' is known here; {known}") from error


async def hold_owner(services: Services, volume_id: str) -> None:
    """Have a volume of the catalog owned for the next seconds: where nobody serves it, start an owner without a mount.

    Raises:
        NotFound: no such volume. Refusal, TimedOut: its owner does not start, or does not answer; says why.
    """
    await find_entry(services, volume_id)
    if await _is_held(services, volume_id):
        return
    async with services.turns.of(volume_id):
        deadline = trio.current_time() + _RIVAL_S
        while not await _is_held(services, volume_id):
            try:
                await services.starter.serve(volume_id)
            except TryAgain as error:
                if trio.current_time() > deadline and not await _is_held(services, volume_id):
                    raise Refusal("serve_failed", str(error)) from error
                await trio.sleep(_LOOK_S)


async def _is_held(services: Services, volume_id: str) -> bool:
    try:
        await services.owners.ask(volume_id, "POST", "/v1/hold")
    except (NotMounted, ShuttingDown):
        return False
    return True


async def ask_owner(services: Services, volume_id: str, method: str, target: str, body: Any = None) -> Any:
    """Ask the owner of a volume of the catalog, as long as it takes. Raises as ``hold_owner`` and ``Owners.ask``."""
    await hold_owner(services, volume_id)
    return await services.owners.ask(volume_id, method, target, body, timeout_s=None)


def may(role: Role) -> Any:
    """Return what lets in only those with a role for the route's volume."""

    async def check(principal: Asking, volume_id: InVolume) -> None:
        _check(principal, role, volume_id)

    return Depends(check)


def may_all(role: Role) -> Any:
    """Likewise for all volumes."""

    async def check(principal: Asking) -> None:
        _check(principal, role, None)

    return Depends(check)


def _check(principal: Principal, role: Role, volume_id: str | None) -> None:
    if not principal.may(role, volume_id):
        what = "all volumes" if volume_id is None else f"volume {volume_id}"
        raise Refusal("forbidden", f"{principal.name} has not the role '{role.name.lower()}' for {what}")


_WHAT: Final = {
    400: "The request makes no sense.",
    401: "Nobody who is known asks.",
    403: "Who asks has not the role, or the storage refuses.",
    404: "There is no such volume, snapshot or route.",
    405: "There is no such method here.",
    408: "The body did not come in time.",
    409: "It is in the way of what is: not mounted, in use, there already, or under way.",
    411: "The body has no Content-Length.",
    416: "The file has no such range.",
    413: "The body is too large.",
    422: "The request, or its Idempotency-Key, cannot be used.",
    500: "A bug.",
    502: "The storage failed.",
    503: "Not now.",
    507: "The limit is reached, or the storage is full.",
}
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": text,
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemResponse"}}},
    }
    for status, text in _WHAT.items()
}
"""For the description of the API: any route may answer so."""
