"""The application: all routes, their description (OpenAPI), and what becomes of what goes wrong in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from volgate.control.dto.fields import IN_WORDS
from volgate.control.dto.response import ProblemResponse
from volgate.control.problems import Problem, Refusal, describe
from volgate.control.routes import copies, events, files, me, monitoring, page, quota, snapshots, volumes
from volgate.control.routes.shared import PROBLEMS, Services, refuse_other_sites, refuse_unreadable
from volgate.errors import StorageException

_BEFORE: Final = frozenset({"forbidden", "invalid_request", "malformed_request", "unknown_route", "method_not_allowed"})
"""Codes that say that nothing was begun."""
_CODES: Final = {400: "malformed_request", 404: "unknown_route", 405: "method_not_allowed"}
_SHOWN: Final = 20
_REASON: Final = 300
_DESCRIPTION: Final = """\
Changes take an `Idempotency-Key`; lists come in pages (`limit`, `cursor`, `next_cursor`); what goes wrong is
`application/problem+json` with a stable `code`."""


def make_app(services: Services) -> FastAPI:
    """Return the ASGI application; the door stands before it."""
    app = FastAPI(
        title="volgate control API",
        version=version("volgate"),
        description=_DESCRIPTION,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=PROBLEMS,
        dependencies=[Depends(refuse_other_sites), Depends(refuse_unreadable)],
    )
    app.state.services = services
    for module in (volumes, quota, snapshots, copies, files, events, me, monitoring):
        app.include_router(module.router, prefix="/v1")
    app.include_router(monitoring.metrics_router)
    app.include_router(page.router)
    app.add_exception_handler(StorageException, _on_storage_exception)
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unforeseen)
    _complete_description(app)
    return app


def _complete_description(app: FastAPI) -> None:
    """Add to the description what FastAPI cannot know: the problem's model, and the key of changes."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = make()
            _, models = models_json_schema(
                [(ProblemResponse, "serialization")], ref_template="#/components/schemas/{model}"
            )
            described["components"]["schemas"].update(models["$defs"])
            described["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            described["security"] = [{}, {"bearer": []}]  # none at the unix socket: the kernel says who asks
            for operations in described["paths"].values():
                for method, operation in operations.items():
                    if method != "get":
                        operation.setdefault("parameters", []).append(_KEY_PARAMETER)
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


_KEY_PARAMETER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Chosen by the caller: the same request with the same key is done once within 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


def _respond(request: Request, problem: Problem) -> Response:
    request.state.refused = problem.code in _BEFORE
    return Response(problem.to_json(), problem.status, dict(problem.all_headers()))


async def _on_storage_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, StorageException)
    return _respond(request, describe(error))


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _respond(request, error.problem)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    places = [(".".join(map(str, one["loc"])), _reason_of(one)) for one in error.errors()]
    found = list(dict.fromkeys(places))  # a route's dependency may look at the same parameter
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    detail = f"{found[0][0]}: {found[0][1]}{more}" if found else "the request is not as described"
    return _respond(request, Problem(422, "invalid_request", detail, invalid=tuple(found[:_SHOWN])))


def _reason_of(error: Mapping[str, Any]) -> str:
    if error["loc"] == ("body",) and isinstance(error["input"], bytes):  # it was not even parsed
        return "send JSON with the header 'Content-Type: application/json'"
    pattern = error.get("ctx", {}).get("pattern")
    return IN_WORDS[pattern] if pattern in IN_WORDS else str(error["msg"]).removeprefix("Value error, ")[:_REASON]


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "internal")
    allowed = (("allow", _allowed(request)),) if error.status_code == 405 else ()
    detail = f"no {request.method} {request.url.path} here" if error.status_code in (404, 405) else str(error.detail)
    return _respond(request, Problem(error.status_code, code, detail, headers=allowed))


async def _on_unforeseen(request: Request, _error: Exception) -> Response:
    """Answer; the door logs it."""
    return _respond(request, Refusal("internal", "internal error; see the daemon's log").problem)


def _allowed(request: Request) -> str:
    """Return the methods of a path (RFC 9110, 15.5.6); the router names those of one of its routes alone."""
    methods = {
        method.upper()
        for template, operations in request.app.openapi()["paths"].items()
        if re.fullmatch(_PARAMETER.sub("[^/]+", template), request.url.path)
        for method in operations
    }
    return ", ".join(sorted(methods)) or "GET"  # what is not described is the page


_PARAMETER: Final = re.compile(r"\{[a-z_]+\}")
