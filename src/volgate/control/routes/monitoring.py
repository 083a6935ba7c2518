"""Whether the daemon lives, which version it is, and the figures of the host."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Response

from volgate.control.dto.response import HealthResponse, VersionResponse
from volgate.control.roles import Role
from volgate.control.routes.shared import Using, may_all

router = APIRouter(tags=["monitoring"])
metrics_router = APIRouter(tags=["monitoring"])
_VERSION: Final = version("volgate")
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/health")
async def show_health() -> HealthResponse:
    """Say that the control daemon answers. Says nothing of volumes: see ``ready`` of each."""
    return HealthResponse()


@router.get("/version")
async def show_version() -> VersionResponse:
    """Say which version answers."""
    return VersionResponse(version=_VERSION)


@metrics_router.get(
    "/metrics",
    dependencies=[may_all(Role.READER)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' format."}},
)
async def show_metrics(services: Using) -> Response:
    """Give the figures of the control daemon and of all mounts of the host, in Prometheus' text format."""
    return Response(await services.scraper.scrape(), media_type=_TEXT)
