"""Copies and syncs into volumes, as tasks of the volumes' owners."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Path

from volgate.control import convert
from volgate.control.dto.fields import TaskId
from volgate.control.dto.request import CopySourceField, CreateCopyRequest
from volgate.control.dto.response import ChangePage, TaskPage, TaskResponse
from volgate.control.paging import DEFAULT_LIMIT, After, Limit, cut_page
from volgate.control.problems import Refusal
from volgate.control.roles import Principal, Role
from volgate.control.routes.shared import Asking, InVolume, Services, Using, ask_owner, find_entry, may
from volgate.drivers.registry import Source
from volgate.errors import InvalidArgument, NotFound, NotMounted
from volgate.volume.sources import Locator

router = APIRouter(tags=["copies"])
OfTask = Annotated[TaskId, Path(description="The task's 'operation_id'.")]


async def _find_source(
    services: Services, principal: Principal, volume_id: str, source: CopySourceField
) -> tuple[Source | None, str]:
    """Return where a copy's source lies, None = in the volume itself, and the id of its volume, "" = it is none.

    Raises:
        Refusal: who asks may not read it. InvalidArgument: it names no one place. NotMounted: its snapshot is not seen.
        NotFound: there is no such volume or directory.
    """
    if source.volume_id is not None and source.source is not None:
        raise InvalidArgument("a source is a volume or a directory, not both")
    if source.source is not None:
        if not principal.may(Role.ADMIN, None):
            raise Refusal("forbidden", f"{principal.name} may not read any directory of the host: name a volume")
        if source.snapshot_id is not None:
            raise InvalidArgument("a snapshot is a volume's: name that")
        text = source.source
        return await services.aside.call(lambda: _locate_other(services.locator, text, source.path)), ""
    other = source.volume_id or volume_id
    if other == volume_id:
        return None, ""
    if not principal.may(Role.READER, other):
        raise Refusal("forbidden", f"{principal.name} has not the role 'reader' for volume {other}")
    await find_entry(services, other)
    if source.snapshot_id is not None:
        try:
            mount_point = (await services.owners.ask(other, "GET", "/v1/status"))["mount_point"]
        except NotMounted:
            mount_point = None
        if mount_point is None:
            raise NotMounted(f"the snapshots of volume {other} are seen while it is mounted: mount it first")
        return Source("posix", f"{mount_point}/.snapshots/{source.snapshot_id}"), ""
    try:
        lies = await services.owners.ask(other, "GET", "/v1/source")
    except NotMounted:
        return await services.aside.call(lambda: services.locator.locate(other)), other
    return Source(lies["type"], lies["text"], lies["options"]), other


def _locate_other(locator: Locator, text: str, path: str) -> Source:
    """Return where data lies that is no volume's. Raises NotFound: no file is there; of a bucket the copy finds out."""
    found = locator.locate(text)
    if found.backend_type == "posix" and not os.path.lexists(place := PurePosixPath(found.text, path)):
        raise NotFound(f"there is no {place}")
    return found


async def _to_body(
    services: Services, principal: Principal, volume_id: str, request: CreateCopyRequest
) -> dict[str, Any]:
    source, source_volume = await _find_source(services, principal, volume_id, request.source)
    return convert.to_copy_body(request, source, source_volume)


@router.post("/volumes/{volume_id}/copies", status_code=201, dependencies=[may(Role.OWNER)])
async def create_copy(
    services: Using, principal: Asking, volume_id: InVolume, request: CreateCopyRequest
) -> TaskResponse:
    """Copy a file or tree into a volume, or make a directory of it like another one. It goes on by itself."""
    body = await _to_body(services, principal, volume_id, request)
    return convert.task_from_owner(await ask_owner(services, volume_id, "POST", "/v1/copies", body))


@router.post("/volumes/{volume_id}/copies/plan", dependencies=[may(Role.OWNER)])
async def plan_copy(
    services: Using,
    principal: Asking,
    volume_id: InVolume,
    request: CreateCopyRequest,
    limit: Limit = DEFAULT_LIMIT,
    cursor: After = None,
) -> ChangePage:
    """Say what a sync would change, and do nothing. Each page compares anew."""
    body = await _to_body(services, principal, volume_id, request)
    found = convert.changes_from_owner(await ask_owner(services, volume_id, "POST", "/v1/copies/plan", body))
    page, next_cursor = cut_page(found, lambda change: (change.path, change.change), limit, cursor)
    return ChangePage(items=page, next_cursor=next_cursor)


@router.get("/volumes/{volume_id}/tasks", dependencies=[may(Role.READER)])
async def list_tasks(
    services: Using, volume_id: InVolume, limit: Limit = DEFAULT_LIMIT, cursor: After = None
) -> TaskPage:
    """List the tasks of a volume, the oldest first; of those that have ended, the last hundred."""
    found = [convert.task_from_owner(task) for task in await ask_owner(services, volume_id, "GET", "/v1/tasks")]
    page, next_cursor = cut_page(found, lambda task: (task.created_at, task.operation_id), limit, cursor)
    return TaskPage(items=page, next_cursor=next_cursor)


@router.get("/volumes/{volume_id}/tasks/{task_id}", dependencies=[may(Role.READER)])
async def show_task(services: Using, volume_id: InVolume, task_id: OfTask) -> TaskResponse:
    """Say how a task stands."""
    for task in await ask_owner(services, volume_id, "GET", "/v1/tasks"):
        if task["operation_id"] == task_id:
            return convert.task_from_owner(task)
    raise NotFound(f"volume {volume_id} has no task {task_id}")


async def _steer(services: Services, volume_id: str, task_id: str, verb: str) -> TaskResponse:
    body = {"operation_id": task_id}
    return convert.task_from_owner(await ask_owner(services, volume_id, "POST", f"/v1/tasks/{verb}", body))


@router.post("/volumes/{volume_id}/tasks/{task_id}/pause", dependencies=[may(Role.OWNER)])
async def pause_task(services: Using, volume_id: InVolume, task_id: OfTask) -> TaskResponse:
    """Hold a task until it is resumed, also over restarts."""
    return await _steer(services, volume_id, task_id, "pause")


@router.post("/volumes/{volume_id}/tasks/{task_id}/resume", dependencies=[may(Role.OWNER)])
async def resume_task(services: Using, volume_id: InVolume, task_id: OfTask) -> TaskResponse:
    """Let a task go on that was paused."""
    return await _steer(services, volume_id, task_id, "resume")


@router.post("/volumes/{volume_id}/tasks/{task_id}/cancel", dependencies=[may(Role.OWNER)])
async def cancel_task(services: Using, volume_id: InVolume, task_id: OfTask) -> TaskResponse:
    """End a task: nothing is left of a copy, and a sync leaves what it did."""
    return await _steer(services, volume_id, task_id, "cancel")
