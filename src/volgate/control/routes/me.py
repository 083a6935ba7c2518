"""Who asks, and what that one may do: so that a program, or the page, offers nothing that would be refused."""

from __future__ import annotations

from fastapi import APIRouter

from volgate.control import convert
from volgate.control.dto.response import PrincipalResponse
from volgate.control.routes.shared import Asking

router = APIRouter(tags=["monitoring"])


@router.get("/me")
async def show_me(principal: Asking) -> PrincipalResponse:
    """Say who asks, as the daemon knows it, and which roles that one has."""
    return convert.to_principal_response(principal)
