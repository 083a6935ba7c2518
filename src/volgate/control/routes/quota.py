"""Limits and usage of volumes."""

from __future__ import annotations

from fastapi import APIRouter

from volgate import paths
from volgate.control import convert
from volgate.control.dto.request import SetQuotaRequest
from volgate.control.dto.response import QuotaResponse
from volgate.control.roles import Role
from volgate.control.routes.shared import InVolume, Services, Using, ask_owner, find_entry, may
from volgate.errors import InvalidArgument, NotMounted
from volgate.volume.unmounted import StoredState, read_stored

router = APIRouter(tags=["quota"])


async def read_stored_quota(services: Services, volume_id: str) -> QuotaResponse:
    """Return limits, and usage as the last owner stored it. Raises what its storage does."""

    async def look() -> StoredState:
        return await read_stored(services.locator.locate(volume_id), paths.state_directory())

    return convert.to_stored_quota_response(await services.aside.run(look))


@router.get("/volumes/{volume_id}/quota", dependencies=[may(Role.READER)])
async def show_quota(services: Using, volume_id: InVolume) -> QuotaResponse:
    """Say how full a volume is: as its owner counts; where it is not mounted, as its last owner stored."""
    await find_entry(services, volume_id)
    try:
        answer = await services.owners.ask(volume_id, "GET", "/v1/status")
    except NotMounted:
        return await read_stored_quota(services, volume_id)
    return convert.to_quota_response(convert.quota_from_owner(answer))


@router.patch("/volumes/{volume_id}/quota", dependencies=[may(Role.ADMIN)])
async def set_quota(services: Using, volume_id: InVolume, request: SetQuotaRequest) -> QuotaResponse:
    """Change limits, at once. One below what is in use is allowed: then only growth is refused."""
    if not request.model_fields_set:
        raise InvalidArgument("nothing is to be changed: give quota_bytes, quota_inodes, or both")
    answer = await ask_owner(services, volume_id, "PUT", "/v1/quota", request.model_dump(exclude_unset=True))
    return convert.to_quota_response(convert.quota_from_owner(answer))
