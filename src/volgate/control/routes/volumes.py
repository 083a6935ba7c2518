"""Volumes: made, adopted, described, changed, deleted, mounted, unmounted."""

from __future__ import annotations

import contextlib
from typing import Annotated, Final

import trio
from fastapi import APIRouter, Query

from volgate.control import convert
from volgate.control.aside import CHANGE_S, LOOK_S
from volgate.control.dto.request import AdoptVolumeRequest, CreateVolumeRequest, UnmountRequest, UpdateVolumeRequest
from volgate.control.dto.response import ReadyResponse, StatusResponse, VolumePage, VolumeResponse
from volgate.control.paging import DEFAULT_LIMIT, After, Limit, cut_page
from volgate.control.problems import Refusal
from volgate.control.roles import Role
from volgate.control.routes.quota import read_stored_quota
from volgate.control.routes.shared import Asking, InVolume, Services, Using, find_entry, may, may_all
from volgate.control.volumes import NOT_MOUNTED, VolumeDescription
from volgate.errors import Busy, InvalidArgument, NotMounted, StorageException
from volgate.volume.catalog import CatalogEntry

router = APIRouter(tags=["volumes"])
_SERVING = ("ready", "counting")
_TOLD_S: Final = 3.0
"""How long the answer to a change, which is done, waits for what storage has stored."""
_REGISTRATION = "/"
"""Whose turn it is to make or adopt a volume; no volume has this name."""


async def _describe(services: Services, entry: CatalogEntry) -> VolumeDescription:
    (found,) = await services.aside.call(lambda: services.volumes.describe([entry]))
    return found


async def _tell(services: Services, entry: CatalogEntry, within_s: float = _TOLD_S) -> VolumeResponse:
    """Return one volume; where it is not mounted with limits and usage as last stored, if that can be read in time."""
    found = convert.to_volume_response(await _describe(services, entry))
    if found.state == NOT_MOUNTED:
        with contextlib.suppress(StorageException), trio.move_on_after(within_s):
            return found.model_copy(update={"quota": await read_stored_quota(services, entry.volume_id)})
    return found


@router.get("/volumes")
async def list_volumes(
    services: Using, principal: Asking, limit: Limit = DEFAULT_LIMIT, cursor: After = None
) -> VolumePage:
    """List the volumes of this host that the caller may see, mounted or not, by name."""
    entries = await services.aside.call(services.volumes.list_entries)
    seen = [entry for entry in entries if principal.may(Role.READER, entry.volume_id)]
    page, next_cursor = cut_page(seen, lambda entry: (entry.volume_id,), limit, cursor)
    found = await services.aside.call(lambda: services.volumes.describe(page))
    return VolumePage(items=[convert.to_volume_response(one) for one in found], next_cursor=next_cursor)


@router.post("/volumes", status_code=201, dependencies=[may_all(Role.ADMIN)])
async def create_volume(services: Using, principal: Asking, request: CreateVolumeRequest) -> VolumeResponse:
    """Make a directory, bucket or share a volume. What is in it belongs to it; nothing is mounted yet."""
    volumes = services.volumes
    backend_type = await services.aside.call(lambda: volumes.check_source(request.source, request.options))
    context = convert.to_operation_context(request, backend_type, principal.name)

    async def create() -> CatalogEntry:
        return await volumes.create(
            context, request.source, mount_point=request.mount_point or "", options=request.options
        )

    async with services.turns.of(_REGISTRATION):
        entry = await services.aside.run(create, CHANGE_S)
    return await _tell(services, entry)


@router.post("/adoptions", status_code=201, dependencies=[may_all(Role.ADMIN)])
async def adopt_volume(services: Using, request: AdoptVolumeRequest) -> VolumeResponse:
    """Enter a volume that exists into the catalog, under the name it has."""

    async def adopt() -> CatalogEntry:
        return await services.volumes.adopt(
            request.source, mount_point=request.mount_point or "", options=request.options
        )

    async with services.turns.of(_REGISTRATION):
        entry = await services.aside.run(adopt, CHANGE_S)
    return await _tell(services, entry)


@router.get("/volumes/{volume_id}", dependencies=[may(Role.READER)])
async def describe_volume(services: Using, volume_id: InVolume) -> VolumeResponse:
    """Say what is known of a volume; of one that is not mounted its limits and usage as last stored."""
    return await _tell(services, await find_entry(services, volume_id), LOOK_S)


@router.patch("/volumes/{volume_id}", dependencies=[may_all(Role.ADMIN)])
async def update_volume(services: Using, volume_id: InVolume, request: UpdateVolumeRequest) -> VolumeResponse:
    """Change where a volume is mounted, and with which options, from its next mount on."""
    given = request.model_fields_set
    if not given:
        raise InvalidArgument("nothing is to be changed: give mount_point, options, or both")
    mount_point = request.mount_point or "" if "mount_point" in given else None
    options = request.options or "" if "options" in given else None
    async with services.turns.of(volume_id):
        await find_entry(services, volume_id)
        entry = await services.aside.call(
            lambda: services.volumes.change(volume_id, mount_point=mount_point, options=options)
        )
    return await _tell(services, entry)


@router.delete("/volumes/{volume_id}", status_code=204, dependencies=[may_all(Role.ADMIN)])
async def delete_volume(
    services: Using,
    volume_id: InVolume,
    with_share: Annotated[bool, Query(description="Remove its share too, with ALL DATA in it.")] = False,
) -> None:
    """Take a volume out of the catalog. Its data stays where it is, unless its share is to be removed."""

    async def delete() -> CatalogEntry:
        return await services.volumes.delete(volume_id, with_share=with_share)

    async with services.turns.of(volume_id):
        await find_entry(services, volume_id)
        await services.aside.call(lambda: services.volumes.end_brief(volume_id))
        await services.aside.run(delete, CHANGE_S)


@router.post("/volumes/{volume_id}/mount", dependencies=[may(Role.OWNER)])
async def mount_volume(services: Using, volume_id: InVolume) -> VolumeResponse:
    """Mount a volume where the catalog says; answers when the mount does. One that serves already stays as it is."""
    async with services.turns.of(volume_id):
        entry = await find_entry(services, volume_id)
        if not entry.mount_point:
            raise InvalidArgument(f"it is not known where to mount volume {volume_id}; change its mount_point first")
        found = await _describe(services, entry)
        if found.state not in _SERVING:
            await services.starter.mount(volume_id)
            found = await _describe(services, entry)
    return convert.to_volume_response(found)


@router.post("/volumes/{volume_id}/unmount", dependencies=[may(Role.OWNER)])
async def unmount_volume(services: Using, volume_id: InVolume, request: UnmountRequest | None = None) -> VolumeResponse:
    """Unmount a volume; answers when all is settled. Refused while files are open, unless ``lazy``."""
    async with services.turns.of(volume_id):
        entry = await find_entry(services, volume_id)
        found = await _describe(services, entry)
        if found.state == NOT_MOUNTED and not await services.starter.has_unit(volume_id):
            raise NotMounted(f"volume {volume_id} is not mounted")
        lazy = request is not None and request.lazy
        if not lazy and found.state in _SERVING and not found.read_only:
            await _refuse_while_open(services, volume_id)
        await services.starter.unmount(volume_id, lazy=lazy)
        return await _tell(services, entry)


async def _refuse_while_open(services: Services, volume_id: str) -> None:
    """Raise Busy where files are open: a unit that is stopped would wait for them, and then detach them."""
    status = await services.owners.ask(volume_id, "GET", "/v1/status")
    open_files = status["statistics"]["open_files"]
    if open_files:
        raise Busy(f"volume {volume_id} has {open_files} open files; close them, or unmount it with 'lazy'")


@router.get("/volumes/{volume_id}/status", dependencies=[may(Role.READER)])
async def show_status(services: Using, volume_id: InVolume) -> StatusResponse:
    """Say what a mounted volume does, and what is wrong with it, in words."""
    await find_entry(services, volume_id)
    return convert.status_from_owner(await services.owners.ask(volume_id, "GET", "/v1/status"))


@router.get("/volumes/{volume_id}/ready", dependencies=[may(Role.READER)])
async def show_readiness(services: Using, volume_id: InVolume) -> ReadyResponse:
    """Say whether a volume serves as it should: else 503, code ``not_ready``."""
    found = await _describe(services, await find_entry(services, volume_id))
    if found.state not in _SERVING:
        raise Refusal("not_ready", f"volume {volume_id} is {found.state}")
    return ReadyResponse(volume_id=volume_id, state=found.state)
